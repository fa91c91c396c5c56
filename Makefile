# Everything runs in .venv, which the first call makes; later calls redo only what a change asks for.
PYTHON ?= python3
TORCH ?= -r requirements-torch.txt
WHAT ?= all
OUT ?= build/gpu
BIN := .venv/bin
# Modules are compiled when they are imported: to compile all of them takes pip half a minute.
INSTALL = $(BIN)/python -m pip install -q --no-compile
SOURCES := $(shell find csrc -type f)
FORMATTED := $(filter %.h %.cpp %.cu %.cuh,$(SOURCES))

.PHONY: build demo test test-all docs papers bench gpu lint format clean

build: .venv/installed

demo: build
	@echo "Running the demo; its diagrams go to build/demo ..."
	$(BIN)/fastkan demo --folder build/demo

test: tested = -m "not long"
test test-all: build .venv/requirements .venv/testing
	$(BIN)/python -m pytest tests -q -rs -n auto --dist loadgroup $(tested)

docs: .venv/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q --strict
	@echo "The documentation is in build/site/index.html."

papers: build .venv/requirements
	$(BIN)/python -m examples.papers

bench: build .venv/requirements
	$(BIN)/python -m bench $(WHAT)

# On a machine with a GPU, by its own Python and torch; nothing is installed or fetched. PARTS="build risky": see gpu.sh.
gpu:
	@PYTHON=$(PYTHON) PARTS="$(PARTS)" bench/gpu.sh $(OUT)

lint: .venv/requirements
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(if $(FORMATTED),$(BIN)/clang-format --dry-run -Werror $(FORMATTED))

format: .venv/requirements
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(if $(FORMATTED),$(BIN)/clang-format -i $(FORMATTED))

clean:
	rm -rf .venv build dist *.egg-info fastkan/lib tests/*.so .pytest_cache .ruff_cache .hypothesis .benchmarks

$(BIN)/python:
	@echo "Creating .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv

.venv/torch: requirements-torch.txt | $(BIN)/python
	@echo "Installing PyTorch ..."
	@$(INSTALL) $(TORCH)
	@touch $@

.venv/demo: requirements-demo.txt .venv/torch
	@echo "Installing what the demo needs: requirements-demo.txt ..."
	@$(INSTALL) $(TORCH) -r requirements-demo.txt
	@touch $@

.venv/docs: requirements-docs.txt | $(BIN)/python
	@echo "Installing what the documentation's site needs: requirements-docs.txt ..."
	@$(INSTALL) -r requirements-docs.txt
	@touch $@

.venv/requirements: requirements-dev.txt .venv/demo
	@echo "Installing what tests, formatters and benchmarks need: requirements-dev.txt ..."
	@$(INSTALL) $(TORCH) -r requirements-dev.txt
	@touch $@

# pip shows a build's output only if it fails, hence the question after it.
.venv/installed: .venv/demo setup.py pyproject.toml CMakeLists.txt $(SOURCES)
	@echo "Compiling the kernels (CMake) and installing fastkan in .venv ..."
	@$(INSTALL) --no-build-isolation --no-deps -e .
	@$(BIN)/python -c "import fastkan; [print(f'{name}: {state}') for name, state in fastkan.backends().items()]"
	@touch $@

.venv/testing: .venv/requirements CMakeLists.txt $(SOURCES)
	@echo "Compiling what only tests use (the emulated GPU, a device without float64) ..."
	@$(BIN)/cmake -S . -B build/testing -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DFASTKAN_TESTING=ON \
		-DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) \
		-DTORCH_ROOT=$$($(BIN)/python -c "import torch; print(torch.__path__[0])")
	@$(BIN)/cmake --build build/testing --target fastkan_testing fastkan_emulated fastkan_single
	@touch $@

"""The README and docs/ as a reader meets them: every code block runs, every link and picture is there.

A page runs from top to bottom in a fresh namespace and an empty folder. The blocks' languages say how:

python  runs; with title="train.py" it is written to that file instead. A comment `# -> value` after an expression or a
        print is what it gives: numbers up to half a unit of the last digit, up to a factor of 2 after "about"; "..."
        stands for anything.
sh      fastkan and python commands run; of make, pip and what takes minutes only the names are checked.
text    right below one of these, with nothing between: what the block prints, numbers within 10 %. With a title, which
        says on what machine, it is not compared.
"""

import ast
import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tokenize
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md"]
SOURCE = "https://github.com/fastkan/fastkan/blob/main/"
RAW = "https://raw.githubusercontent.com/fastkan/fastkan/main/"
FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```[ \t]*$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![A-Za-z_\d.])[-+]?\d+\.?\d*(?:e[-+]?\d+)?")
LONG = {"accelerate", "command-line", "distributed", "export", "formulas", "hypothesis", "index", "table-to-formula"}
MINUTES = ("demo", "bench", "prove")  # subcommands of fastkan that are not run


class Block(NamedTuple):
    line: int
    language: str
    title: str | None
    text: str
    below: bool  # nothing but empty lines between it and the block before


def blocks(page: Path) -> list[Block]:
    text, found, end = page.read_text(), [], 0
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match[3])
        below = bool(found) and not text[end : match.start()].strip()
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(line, match[2], title and title[1], textwrap.dedent(match[4]), below))
        end = match.end()
    return found


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=[pytest.mark.long] * (p.stem in LONG), id=name(p)) for p in PAGES if blocks(p)],
)
def test_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in [m for m in sys.modules if m.split(".")[0] == "kan"]:  # pykan, of another test in this process
        monkeypatch.delitem(sys.modules, module)
    names, printed = {"__name__": "__main__"}, ""
    try:
        with torch.random.fork_rng():
            for block in blocks(page):
                where = f"{name(page)}:{block.line}"
                if block.language == "python" and block.title:
                    (tmp_path / block.title).write_text(block.text)
                elif block.language == "python":
                    printed = run_python(block, page, names, where)
                elif block.language == "sh":
                    printed = "".join(run_command(line, where) for line in commands(block.text))
                elif block.language == "text":
                    if block.below and not block.title:
                        assert alike(printed, block.text, relative=0.1), f"{where}: printed is\n{printed}"
                else:
                    raise AssertionError(f"{where}: the language {block.language!r} is not python, sh or text")
    except ImportError as error:
        packages = ("accelerate", "huggingface_hub", "matplotlib", "numpy", "safetensors", "sympy", "sklearn")
        extras = [module for module in packages if not installed(module)]
        if not extras:
            raise
        pytest.skip(f"{', '.join(extras)} not installed: {error}")
    finally:
        torch.set_default_dtype(torch.float32)
        if "fastkan.compat.pykan" in sys.modules:
            sys.modules["fastkan.compat.pykan"].uninstall()


def run_python(block: Block, page: Path, names: dict, where: str) -> str:
    """Run a block, compare what it says that it gives, return what it prints."""
    source = "\n" * (block.line - 1) + block.text
    said = {
        token.start[0]: token.string.removeprefix("# -> ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.string.startswith("# -> ")
    }
    everything = io.StringIO()
    for statement in ast.parse(source).body:
        expected, printed, value = said.pop(statement.end_lineno, None), io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            if isinstance(statement, ast.Expr):
                value = eval(compile(ast.Expression(statement.value), str(page), "eval"), names)
            else:
                exec(compile(ast.Module([statement], []), str(page), "exec"), names)
        everything.write(printed.getvalue())
        if expected is not None:
            actual = printed.getvalue() or repr(value)
            assert alike(actual, expected), f"{where.split(':')[0]}:{statement.end_lineno}: gives {actual}"
    assert not said, f"{where}: no statement ends on the lines of {said}"
    return everything.getvalue()


def alike(actual: str, expected: str, relative: float = 0.0) -> bool:
    """Whether a text is as expected: see the module's docstring."""
    about = expected.startswith("about ")
    expected = expected.removeprefix("about ")
    parts = [r"\s*".join(re.escape(word) for word in part.split()) for part in NUMBER.sub("\0", expected).split("\0")]
    pattern = rf"\s*({NUMBER.pattern})\s*".join(parts).replace(r"\.\.\.", ".*?")
    match = re.fullmatch(rf"\s*{pattern}\s*", actual, re.DOTALL)
    return match is not None and all(
        close(float(given), shown, about, relative)
        for given, shown in zip(match.groups(), NUMBER.findall(expected), strict=True)
    )


def close(given: float, shown: str, about: bool, relative: float) -> bool:
    value = float(shown)
    if about:
        return value / 2 <= given <= 2 * value
    digits, _, power = shown.partition("e")
    unit = 10.0 ** (int(power or 0) - len(digits.partition(".")[2])) if "." in digits or power else 0.0
    return math.isclose(given, value, rel_tol=relative, abs_tol=0.51 * unit)


def commands(text: str) -> list[list[str]]:
    """The words of every command; comments are not among them."""
    return [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], where: str) -> str:
    """Run a command, or check its names; returns what it prints."""
    while re.fullmatch(r"\w+=.*", words[0]):  # variables of the environment
        assert words[0].split("=")[0] in variables(), f"{where}: nothing reads {words[0]}"
        words = words[1:]
    command, *arguments = words
    if command == "make":
        for target in (a for a in arguments if "=" not in a):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{where}: make {target}"
    elif command == "pip":
        for extra in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            known = (ROOT / "pyproject.toml").read_text()
            assert all(re.search(rf"^{e} = \[", known, re.MULTILINE) for e in extra.split(",")), f"{where}: [{extra}]"
    elif command in ("git", "cd", "source", "export"):
        pass
    elif command == "fastkan" and arguments[0] in MINUTES:
        run([sys.executable, "-m", "fastkan", arguments[0], "--help"], where)
    elif command == "fastkan":
        return run([sys.executable, "-m", "fastkan", *arguments], where)
    elif any(a.startswith("examples/") for a in arguments) and command in ("python", "python3", "torchrun"):
        named = next(a for a in arguments if a.startswith("examples/"))
        assert (ROOT / named).is_file(), f"{where}: {named}"  # they have tests of their own
    elif command == "torchrun":
        return run([sys.executable, "-m", "torch.distributed.run", *arguments], where)
    elif command in ("python", "python3") and arguments[0] == "-m" and arguments[1].split(".")[0] == "bench":
        module = ROOT.joinpath(*arguments[1].split("."))
        assert module.is_dir() or module.with_suffix(".py").is_file(), f"{where}: {arguments[1]}"
        for measured in (a for a in arguments[2:3] if arguments[1] == "bench" and not a.startswith("-")):
            assert (ROOT / "bench" / f"{measured}.py").is_file(), f"{where}: bench {measured}"
    elif command in ("python", "python3"):
        return run([sys.executable, *arguments], where)
    else:
        raise AssertionError(f"{where}: no rule for the command {command}")
    return ""


def run(command: list[str], where: str) -> str:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, f"{where}: {' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@cache
def variables() -> set[str]:
    """Variables of the environment that the code or the build reads, and torch's and Triton's."""
    files = [*ROOT.glob("fastkan/**/*.py"), *ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.cpp"), ROOT / "setup.py"]
    return {v for file in files for v in re.findall(r"FASTKAN_[A-Z_]+", file.read_text())} | {"TRITON_INTERPRET"}


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))


@cache
def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and mkdocs both make them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    slugs = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head.lower())).strip("-") for head in heads}
    return slugs | set(re.findall(r"\{ ?#([\w.-]+)", page.read_text()))


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", prose(page)):
        link = target[0] or target[1]
        for prefix in (SOURCE, RAW):
            if link.startswith(prefix):
                file, folder = link.removeprefix(prefix), ROOT
                break
        else:
            if re.match(r"[a-z]+:", link):
                continue
            assert page.name != "README.md" or page.parent != ROOT, f"{link}: PyPI shows the README without its files"
            file, folder = link, page.parent
        path, _, anchor = file.partition("#")
        path = folder / path if path else page
        assert path.exists(), f"{name(page)}: {link}"
        assert not anchor or anchor in anchors(path), f"{name(page)}: {link}, of {sorted(anchors(path))}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_stand_in_blocks_that_run(page):
    """An indented block would not."""
    assert not re.findall(r"\n\n(?: {4}|\t)(?:\$|make|pip|fastkan|python|import|from) .*", page.read_text())


def test_every_method_of_KAN_is_in_the_reference():
    """Methods are functions of other files, which mkdocstrings does not see in the class."""
    from fastkan import KAN

    page = (ROOT / "docs" / "api" / "kan.md").read_text()
    public = {n for n in dir(KAN) if not n.startswith("_") and not hasattr(torch.nn.Module, n)}
    named = set(re.findall(r"[A-Za-z_0-9]+", page))
    assert public <= named, f"missing: {sorted(public - named)}"


def test_the_site_builds(tmp_path, monkeypatch):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    monkeypatch.chdir(ROOT)
    run([sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path)], "make docs")
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize(
    "actual, expected, same",
    [
        ("0.4137", "0.41", True), ("0.4137", "0.42", False), ("[2, 5]\n", "[2, 5]", True), ("[2, 6]", "[2, 5]", False),
        ("tensor(True)", "tensor(True)", True), ("tensor(False)", "tensor(True)", False), ("3e-4", "about 2e-4", True),
        ("5e-4", "about 2e-4", False), ("exp(x_2**2)", "exp(x_2**3)", False), ("a\nb\nc 1.04", "a ... c 1.0", True),
    ],
)  # fmt: skip
def test_outputs_are_compared(actual, expected, same):
    assert alike(actual, expected) is same

#!/usr/bin/env bash
# make gpu: tests, sanitizers and measurements on a GPU, each with its own limit of time; fails if one of them fails.
# Everything is written under $1. PARTS chooses among them; the limits add up to less than ten minutes, and TEST_SECONDS
# and BENCH_SECONDS move them. FASTKAN_COMMIT names the commit where the tree has no history.
set -uo pipefail
out=${1:?a folder to write to}
python=${PYTHON:-python3}
parts=" ${PARTS:-tests sanitizers bench} "
export PYTHONPATH=. PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
mkdir -p "$out"
log=$out/gpu.log
summary=()
failed=0

part() { # part NAME SECONDS COMMAND...
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    echo "== $name: $*" | tee -a "$log"
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee -a "$log"
    status=${PIPESTATUS[0]}
    case $status in
        0) summary+=("passed  $name, $((SECONDS - start)) s") ;;
        124 | 137) summary+=("TIMEOUT $name, after $limit s") ;;
        *) summary+=("FAILED  $name, status $status, $((SECONDS - start)) s") ;;
    esac
    [ "$status" -eq 0 ] || failed=1
}

: >"$log"
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "make gpu: torch sees no GPU here ($python)" | tee -a "$log"
    exit 1
fi

# The CUDA kernels, into the tree and for the GPUs of this machine alone, if there is a compiler.
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    gpus='import torch; print(*{"%d%d" % torch.cuda.get_device_capability(k) for k in range(torch.cuda.device_count())}, sep=";")'
    archs=$("$python" -c "$gpus")
    FASTKAN_CUDA=1 FASTKAN_CUDA_ARCHS=${archs//90/90a} part build 150 "$python" setup.py -q build_native --inplace
else
    summary+=("SKIPPED the CUDA kernels: no nvcc here")
fi
part info 15 "$python" -m fastkan info

if [[ $parts == *" tests "* ]]; then
    workers=()
    "$python" -c 'import xdist' 2>/dev/null && workers=(-n "$(nproc)" --dist worksteal)
    part tests "${TEST_SECONDS:-250}" "$python" -m pytest tests/test_gpu_*.py -m gpu -q -rs -p no:cacheprovider \
        --junitxml="$out/junit.xml" --durations=10 "${workers[@]}"
fi

if [[ $parts != *" sanitizers "* ]]; then
    :
elif command -v compute-sanitizer >/dev/null; then
    timeout 20 "$python" -m bench.sanitize >/dev/null 2>&1 # compiles, so that only the kernels are watched
    for tool in memcheck racecheck initcheck synccheck; do
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 part "$tool" 30 compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "$python" -m bench.sanitize
    done
else
    summary+=("SKIPPED the sanitizers: no compute-sanitizer here")
fi

if [[ $parts == *" bench "* ]]; then
    seconds=${BENCH_SECONDS:-140}
    part bench $((seconds + 40)) "$python" -m bench.gpu --out "$out" --seconds "$seconds"
fi

printf '%s\n' "== summary" "${summary[@]}" | tee -a "$log"
exit "$failed"

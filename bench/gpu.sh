#!/usr/bin/env bash
# make gpu: builds, tests, sanitizes, proves and measures on a GPU, part by part, each with its own limit of time.
#   bench/gpu.sh DIR   everything goes under DIR; DIR/gpu.log grows from call to call
#   PARTS="build risky tests alone sanitize prove bench"
#                      which parts, all unless given; they run in the order of `order`, whatever their order here.
#                      risky: each kind of kernel in a part of its own; sanitize: each tool of compute-sanitizer
#   PLAN=1             only says what would run, and for how long at most
#   PYTHON=python3     with torch; nothing is installed or fetched
# Fails if a part fails, is cut off, lacks a tool, or if kernels that this GPU should have were not there to be tested.
set -uo pipefail
out=${1:?a folder to write to}
python=${PYTHON:-python3}
kernels="features gather fused matrix stack wgmma"
tools="sanitize-memcheck sanitize-racecheck sanitize-initcheck sanitize-synccheck"
order="build info $kernels tests again alone $tools prove bench"
kill=10 # seconds from the interrupt to the end
declare -A limit=([build]=240 [info]=20 [tests]=280 [again]=90 [alone]=90 [prove]=320 [bench]=200)
for name in $kernels; do limit[$name]=20; done
for name in $tools; do limit[$name]=120; done

wanted=" "
for name in ${PARTS:-build risky tests alone sanitize prove bench}; do
    case $name in
        risky) wanted+="info $kernels " ;;
        sanitize) wanted+="$tools " ;;
        tests) wanted+="tests again " ;;
        build | alone | prove | bench | info) wanted+="$name " ;;
        *)
            [[ " $kernels $tools " == *" $name "* ]] || {
                echo "make gpu: no part $name; expected among: build info risky ($kernels) tests alone sanitize ($tools) prove bench" >&2
                exit 2
            }
            wanted+="$name "
            ;;
    esac
done
wants() { [[ $wanted == *" $1 "* ]]; }

if [ -n "${PLAN:-}" ]; then
    sum=0
    for name in $order; do
        wants "$name" && echo "$name ${limit[$name]}" && sum=$((sum + limit[$name] + kill))
    done
    echo "at most $sum s"
    exit 0
fi

export PYTHONPATH=.:tests PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export PATH="$PATH:/usr/local/cuda/bin"
found=$(command -v "$python") && PATH="$(dirname "$found"):$PATH"
mkdir -p "$out"
log=$out/gpu.log
summary=()
failed=0
hung=""

say() { echo "$*" | tee -a "$log"; }
bad() { # bad LINE...: for the summary
    summary+=("$*")
    failed=1
}

# part NAME COMMAND...: runs it, and says in the summary how it ended. Interrupted at its limit, so that tests report.
part() {
    local name=$1 start=$SECONDS status
    shift
    say "== $name: $*"
    timeout --signal=INT --kill-after=$kill "${limit[$name]}" "$@" 2>&1 | tee -a "$log"
    status=${PIPESTATUS[0]}
    case $status in
        0) summary+=("passed  $name, $((SECONDS - start)) s") ;;
        77) summary+=("ABSENT  $name: $(tail -n 1 "$log")") ;;
        124 | 137) bad "TIMEOUT $name, after ${limit[$name]} s" ;;
        *) bad "FAILED  $name, status $status, $((SECONDS - start)) s" ;;
    esac
    return "$status"
}

# lacks NAME PROGRAM... [-- MODULE...]: whether the part cannot run for want of one, which the summary then says.
lacks() {
    local name=$1 program missing=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        program=$1
        shift
        command -v "$program" >/dev/null || missing+=("$program")
    done
    shift || true
    if [ $# -gt 0 ]; then
        # shellcheck disable=SC2207 # names of modules
        missing+=($("$python" -c 'import importlib.util as u, sys; print(*[m for m in sys.argv[1:] if not u.find_spec(m)])' "$@"))
    fi
    [ ${#missing[@]} -eq 0 ] && return 1
    bad "LACKING $name: needs ${missing[*]} ($python)"
}

# A part that would run what has just hung.
held() {
    [ -n "$hung" ] || return 1
    bad "NOT RUN $1:$hung hung; run it by PARTS=$1"
}

say "== make gpu, parts:$wanted$(date -u +%FT%TZ) ${FASTKAN_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null)}"
about='import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0
print("hip" if n and torch.version.hip else ";".join(sorted({"%d%d" % torch.cuda.get_device_capability(k) for k in range(n)})))'
archs=$("$python" -c "$about" 2>>"$log")
if [ -z "$archs" ]; then
    say "make gpu: torch sees no GPU here ($python)"
    exit 1
fi

# Into the tree, for the GPUs of this machine alone; what an earlier call built is kept.
if wants build; then
    if [ "$archs" = hip ]; then
        lacks build cmake ninja -- setuptools || part build "$python" setup.py -q build_native --inplace
    else
        lacks build nvcc cmake ninja -- setuptools ||
            FASTKAN_CUDA=1 FASTKAN_CUDA_ARCHS=${archs//90/90a} part build "$python" setup.py -q build_native --inplace
    fi
fi
wants info && part info "$python" -m fastkan info

# Among the kernels the riskiest last, all of them before anything else.
for name in $kernels; do
    wants "$name" || continue
    part "$name" "$python" -m bench.kernels "$name"
    case $? in 124 | 137) hung+=" $name" ;; esac
done

pytest=("$python" -m pytest -p support.gpu_guard -o cache_dir=build/gpu-tests -q -rs)
if wants tests && ! lacks tests -- pytest xdist hypothesis numpy scipy && ! held tests; then
    part tests "${pytest[@]}" tests/test_gpu_*.py -m "gpu and not alone" --junitxml="$out/junit.xml" --durations=10 \
        -n "$(nproc)" --dist worksteal --max-worker-restart=16
    status=$?
    # 5: nothing to run; what failed, again, one after the other and each kernel waited for
    [ $status -eq 0 ] || [ $status -eq 5 ] ||
        CUDA_LAUNCH_BLOCKING=1 part again "${pytest[@]}" tests/test_gpu_*.py -m gpu --lf --lfnf=none -n 1 --max-worker-restart=16
fi
if wants alone && ! lacks alone -- pytest hypothesis numpy scipy && ! held alone; then
    part alone "${pytest[@]}" tests/test_gpu_*.py -m "gpu and alone"
fi

for name in $tools; do
    wants "$name" || continue
    [ "$archs" = hip ] && summary+=("ABSENT  $name: for NVIDIA's GPUs") && continue
    lacks "$name" compute-sanitizer || held "$name" ||
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 part "$name" compute-sanitizer --tool "${name#sanitize-}" --error-exitcode 9 \
            --kernel-regex kns=fastkan "$python" -m bench.kernels --all gather matrix stack wgmma
done

# Hanging kernels are no reason to leave it out: it runs each in a process of its own. What it found is kept.
if wants prove; then
    part prove "$python" -m fastkan prove --device cuda:0
    cp -r "${FASTKAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fastkan}/proven/." "$out/proven" 2>/dev/null ||
        bad "MISSING the verdicts of prove"
fi
if wants bench && ! held bench; then
    part bench "$python" -m bench.gpu --out "$out" --seconds $((limit[bench] - 40))
fi

absent='import torch; from fastkan import select
print(select.missing("native", "cuda", (torch.float32,)) or "")'
if [ "$archs" != hip ] && why=$("$python" -c "$absent" 2>>"$log") && [ -n "$why" ]; then
    bad "ABSENT  the CUDA kernels, so nothing above is about them: $why"
fi
printf '%s\n' "== summary" "${summary[@]}" | tee -a "$log"
exit "$failed"

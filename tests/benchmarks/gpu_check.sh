#!/usr/bin/env bash
# Everything that needs a GPU, in about 9 minutes, plus 6 for the evidence, in stages: one that fails or times out does not affect the others.
#   tests/benchmarks/gpu_check.sh OUT [SHARDS]        PYTHON=python3 STAGES="tests bench train start paper precision evidence" by default
# OUT gets one log per stage, the table of the bench and a summary. SHARDS is a packed dataset of images of at least 256 px; by default
# a small one is drawn. The stage `evidence` trains at 128 px: SHARDS may then be `data_shards pack IMAGES SHARDS --size 144`. It continues
# the runs in the folder EVIDENCE_STATE, starts none that would end after EVIDENCE_MINUTES (6), and puts all of them into OUT/evidence.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "$1") python=${PYTHON:-python3} stages=${STAGES:-tests bench train start paper precision evidence}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
work=$(mktemp -d) && mkdir -p "$out" && : >"$out/summary.txt"
trap 'rm -rf "$work"' EXIT

note() { echo "$*" | tee -a "$out/summary.txt"; }

stage() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 began=$SECONDS status
    shift 2
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    note "$name: exit $status after $((SECONDS - began)) s"
    tail -n 3 "$out/$name.log" | cut -c1-200 | sed 's/^/    /' | tee -a "$out/summary.txt"
}

if [ -n "${2:-}" ]; then
    shards=$(realpath "$2")
else
    $python -m data_shards synth "$work/images" --size 256 --train 64 --test 8 >"$out/data.log" 2>&1
    $python -m data_shards pack "$work/images" "$work/shards" >>"$out/data.log" 2>&1
    shards=$work/shards
fi
train=(-m cluster train --data.uri "$shards" --storage "$work/runs" --validation.images 16 ${TRAIN_OPTIONS:-})

stamp() { while IFS= read -r line; do printf '%(%T)T %s\n' -1 "$line"; done; }

real_run() {
    # Killed after its first checkpoint, then the same command again: it resumes.
    local run=("${train[@]}" --config cluster/configs/fast.yaml --name real --schedule.images 4800 --checkpoint.every 1600
        --validation.every 2400 --observe.every 320 --observe.previews 4800) driver
    date +%s.%N >"$work/began"
    setsid $python "${run[@]}" > >(stamp) 2>&1 &
    driver=$!
    for _ in $(seq 90); do
        compgen -G "$work/runs/real/checkpoint_*/*" >/dev/null && break
        kill -0 "$driver" 2>/dev/null || break
        sleep 1
    done
    sleep 2
    kill -KILL -- "-$driver"
    wait "$driver"
    cp "$work/runs/real/metrics.jsonl" "$work/killed.jsonl" || echo "killed before its first record"
    ls -d "$work"/runs/real/checkpoint_*
    date +%s.%N >"$work/resumed"
    $python "${run[@]}" > >(stamp) 2>&1 && $python -m cluster status "$work/runs/real" &&
        $python -m nla_cyclegan translate --weights "$work/runs/real" --direction B2A --out "$work/painted" --grid "$out/translated.png" \
            "${IMAGES:-$work/images/testB}"
}

paper_run() {
    # 2,000 steps of one pair, in bf16.
    $python "${train[@]}" --config cluster/configs/paper.yaml --name paper --step.precision bf16 --schedule.images 2000 --observe.every 100 \
        --checkpoint.every 2000 --observe.previews none
}

evidence_runs() {
    local state=$out/evidence minutes=${EVIDENCE_MINUTES:-6} size=${EVIDENCE_SIZE:-gpu} known
    mkdir -p "$state"
    for known in about.json runs.jsonl painted.safetensors; do
        [ -e "${EVIDENCE_STATE:-$state}/$known" ] && [ ! -e "$state/$known" ] && cp "$EVIDENCE_STATE/$known" "$state/"
    done
    # A run that the time cuts off is lost alone: each is kept when it ends.
    timeout -k 5 "$((60 * minutes + 90))" $python tests/benchmarks/evidence.py "$state" --size "$size" --data "$shards" --minutes "$minutes" \
        ${EVIDENCE_OPTIONS:-} || $python tests/benchmarks/evidence.py "$state" --size "$size" --data "$shards" --report
}

rates() { # RUN: pairs a second of each record, and what was waited for
    $python - "$work/runs/$1/metrics.jsonl" "$work" <<'PY'
import json, pathlib, statistics, sys
records = [json.loads(line) for line in open(sys.argv[1])]
steps = [record for record in records if "images_per_s" in record]
for began, found in (("began", "killed.jsonl"), ("resumed", None)):
    clock, part = (pathlib.Path(sys.argv[2], name) if name else None for name in (began, found))
    if clock.exists() and (part is None or part.exists()):
        since = float(clock.read_text())
        kept = map(json.loads, part.read_text().splitlines()) if part else records
        first = next(record for record in kept if record["time"] > since)
        print(f"{began}: the first record, at {first['images']:.0f} pairs, {first['time'] - since:.1f} s after the command")
print("pairs/s of each record:", " ".join(f"{record['images_per_s']:.0f}" for record in steps))
print(f"median {statistics.median(record['images_per_s'] for record in steps):.1f}; waits for data",
      " ".join(f"{record['data_wait']:.0%}" for record in steps), f"; memory {steps[-1]['memory_gb']:.1f} GB")
PY
}

for name in $stages; do
    case $name in
    tests)
        # Most of their time compiles kernels: in several processes where pytest-xdist is installed.
        $python -c "import xdist" 2>/dev/null && shared=(-n 8 --dist worksteal) || shared=()
        stage tests 200 "$python" -m pytest tests/gpu -m gpu -q --maxfail 20 --durations 10 -o addopts= "${shared[@]}"
        ;;
    bench) stage bench 240 "$python" tests/benchmarks/step_gpu.py --out "$out" --commit "${COMMIT:-unknown}" ${BENCH_OPTIONS:-} ;;
    train) (real_run) >"$out/train.log" 2>&1 && note "train: done" || note "train: failed"; rates real 2>&1 | tee -a "$out/summary.txt" ;;
    start) stage start 150 "$python" tests/benchmarks/start_gpu.py; cat "$out/start.log" ;;
    precision) stage precision 240 "$python" tests/benchmarks/precision.py "$shards" --out "$out" ;;
    evidence) (evidence_runs) >"$out/evidence.log" 2>&1 && note "evidence: done" || note "evidence: failed"; tail -n 60 "$out/evidence.log" ;;
    paper) (paper_run) >"$out/paper.log" 2>&1 && note "paper: done" || note "paper: failed"; rates paper 2>&1 | tee -a "$out/summary.txt" ;;
    esac
done
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | tee -a "$out/summary.txt"
cat "$out/summary.txt"

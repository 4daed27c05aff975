#!/usr/bin/env bash
# Sets up the environment if need be, trains an experiment, scores it on its test split, leaves a report.
#   bash train.sh                                       the embedded default
#   CONFIG=configs/experiment/aerial_mini_long.yaml NGPU=4 bash train.sh train.seed=1
#   HOSTFILE=hosts NGPU=8 bash train.sh                 many nodes, by DeepSpeed's launcher
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/tools/environment.sh"
CONFIG=${CONFIG:-configs/experiment/aerial_mini.yaml}
NGPU=${NGPU:-1}
python -c 'import torch, sys; sys.exit(torch.cuda.is_available())' && export DS_ACCELERATOR=cpu
if [ "$NGPU" -gt 1 ] || [ -n "${HOSTFILE:-}" ]; then
  deepspeed ${HOSTFILE:+--hostfile "$HOSTFILE"} --num_gpus "$NGPU" tools/train.py "$CONFIG" "$@"
else
  python tools/train.py "$CONFIG" "$@"
fi
CONFIG=$CONFIG NGPU=$NGPU bash eval.sh "$@"

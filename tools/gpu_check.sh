#!/usr/bin/env bash
# Tests and measures everything that needs a GPU, in nine minutes: bash tools/gpu_check.sh [FOLDER for tables and logs]
# SEGEARTH_GPU_CHECK_DEVICE=cpu tries the script itself, with the smallest model. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" tools/gpu_check.py "$@"

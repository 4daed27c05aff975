#!/usr/bin/env bash
# Sets up the environment if need be and runs the tests: bash tests/run.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tools/environment.sh"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
ruff check .
mypy
python -m pytest -n 2 -m "not slow" "$@"

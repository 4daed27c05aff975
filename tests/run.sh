#!/usr/bin/env bash
# Sets up the environment if need be and runs the tests: bash tests/run.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tools/environment.sh"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
ruff check .
# Types are checked beside the tests: mypy uses one core, and a core is free whenever a worker of pytest waits or is done.
types=$(mktemp)
mypy >"$types" 2>&1 &
checker=$!
trap 'kill "$checker" 2>/dev/null || true; rm -f "$types"' EXIT
tested=0 checked=0
python -m pytest -n 2 -m "not slow" "$@" || tested=$?
wait "$checker" || checked=$?
echo "mypy: $(cat "$types")"
exit $((tested ? tested : checked))

# Sourced by train.sh, eval.sh and tests/run.sh: leaves a Python environment with segearth active.
# The active environment is used if this checkout is installed in it; else .venv is made, once.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

installed_here() { # is this checkout what `python` imports, with what training and tests need?
  command -v python >/dev/null && (cd / && python - "$OLDPWD" <<'PY'
import importlib.util, pathlib, sys
needed = ["segearth", "torch", "transformers", "deepspeed", "rasterio", "gradio", "trl", "ray", "pytest"]
specs = [importlib.util.find_spec(name) for name in needed]
here = all(specs) and pathlib.Path(specs[0].origin).resolve().is_relative_to(pathlib.Path(sys.argv[1]).resolve())
sys.exit(not here)
PY
  )
}

find_python() {
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10 to 3.13 found; install one or set PYTHON=/path/to/python" >&2
  return 1
}

if ! installed_here; then
  ready=".venv/ready-$(cat setup.py constraints.txt tools/environment.sh | sha256sum | cut -c1-16)"
  if [ ! -f "$ready" ]; then
    interpreter=$(find_python) || exit 1
    echo "making .venv with $interpreter (some minutes, some gigabytes) …" >&2
    "$interpreter" -m venv .venv
    # torch first and alone: later packages then keep the build that was chosen for this machine.
    install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt)
    "${install[@]}" "$(grep '^torch==' constraints.txt)"
    "${install[@]}" -e '.[train,onnx,geo,web,rl,archive,dev]'
    # pip would compile on one core, which takes a minute. Packages' own tests are never imported, and a few files are
    # templates or of a later Python: they cannot be compiled, which pip passes over too.
    .venv/bin/python -m compileall -qq -j 0 -x '/tests/' .venv/lib || true
    rm -f .venv/ready-*
    touch "$ready"
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi
export TOKENIZERS_PARALLELISM=false

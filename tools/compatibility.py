"""Runs the tests in fresh environments: other Pythons, and the oldest packages that setup.py allows.

    python tools/compatibility.py                         3.10, 3.11, 3.12, 3.13, oldest and oldest-extras in turn
    python tools/compatibility.py oldest 3.13 -- tests/text -k words      some of them; after -- pytest's arguments

Each environment takes some minutes and some gigabytes; it is removed when its tests are done, unless `--keep` is given.
`FOLDER/results.md` gets a row for each, `FOLDER/NAME.log` what pip and pytest said.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, OLDEST_EXTRAS = "oldest", "oldest-extras"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("train", "onnx")  # and dev, whose versions are those of constraints.txt: users do not install it
# As old as they may be, beside a torch of today and what else pip chooses: an old gradio allows no new Pillow.
MORE_EXTRAS = ("geo", "web", "rl", "archive")
SHOWN = ("torch", "transformers", "timm", "deepspeed", "numpy")


def declared() -> tuple[list[str], dict[str, list[str]]]:
    """Returns what setup.py requires, and its extras, without running it."""
    assignments = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assignments[node.targets[0].id] = node.value
    return ast.literal_eval(assignments["REQUIRES"]), ast.literal_eval(assignments["EXTRAS"])


def oldest_pins(name: str = OLDEST) -> str:
    """Returns constraints that pin packages to the lower bounds of setup.py, as lines.

    Args:
        name: ``"oldest"``: all that is required, and the extras for training and export; ``"oldest-extras"``: others.
    """
    requires, extras = declared()
    chosen, kept = ([], ["torch", "torchvision"]) if name == OLDEST_EXTRAS else (requires, [])
    for extra in MORE_EXTRAS if name == OLDEST_EXTRAS else EXTRAS:
        chosen = [*chosen, *extras[extra]]
    bounds = [re.match(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", line) for line in chosen]
    lowest = {bound[1]: bound[2] for bound in bounds if bound}
    kept += [re.split("[>=<]", line)[0] for line in extras["dev"]]
    lines = [f"{package}=={version}" for package, version in lowest.items()]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if re.split("[>=<]", line)[0] in kept:
            lines.append(line)
    return "\n".join(lines) + "\n"


def find_python(version: str) -> str | None:
    """Returns an interpreter of that version: on the path, or one that pyenv or uv has installed."""
    home = Path.home()
    candidates = [f"python{version}", "python3", sys.executable]
    for folder in (home / ".pyenv/versions", home / ".local/share/uv/python"):
        candidates += [str(path) for path in sorted(folder.glob(f"*{version}*/bin/python"))]
    for candidate in candidates:
        found = shutil.which(candidate)
        check = "import sys; print('%d.%d' % sys.version_info[:2])"
        # A shim of pyenv is there for every version, and fails for those that are not switched on.
        done = subprocess.run([found, "-c", check], capture_output=True, text=True) if found else None
        if done and done.returncode == 0 and done.stdout.strip() == version:
            return found
    return None


def make_environment(name: str, folder: Path, log: Path) -> Path | None:
    """Makes an environment once; returns its Python, or ``None`` if something cannot be installed."""
    version = {OLDEST: PYTHONS[0], OLDEST_EXTRAS: "3.11"}.get(name, name)
    python = folder / name / "bin/python"
    if (folder / name / "ready").exists():
        return python
    interpreter = find_python(version)
    if interpreter is None:
        log.write_text(f"no Python {version} found\n")
        return None
    requires, extras = declared()  # installed by name: the tests take segearth itself from the checkout
    pins = folder / f"{name}.pins"
    oldest = name in (OLDEST, OLDEST_EXTRAS)
    pins.write_text(oldest_pins(name) if oldest else (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    torch = next(line for line in pins.read_text().splitlines() if line.startswith("torch=="))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", pins]
    wanted = [*EXTRAS, *(MORE_EXTRAS if name == OLDEST_EXTRAS else ()), "dev"]
    with log.open("w") as output:
        for command in (
            [interpreter, "-m", "venv", "--clear", folder / name],
            [*pip, torch],  # first and alone, as in tools/environment.sh
            [*pip, *requires, *(line for extra in wanted for line in extras[extra])],
        ):
            done = subprocess.run([str(word) for word in command], stdout=output, stderr=subprocess.STDOUT)
            if done.returncode:
                return None
    (folder / name / "ready").touch()
    return python


def run_tests(python: Path, log: Path, arguments: list[str]) -> tuple[str, bool]:
    """Runs pytest and returns its last line, and whether all passed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    # Without -q, since pyproject.toml has one already: with two, pytest does not print the summary line read below.
    command = [python, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider", *arguments]
    before = log.stat().st_size
    with log.open("a") as output:
        done = subprocess.run(
            [str(word) for word in command], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    said = log.read_bytes()[before:].decode(errors="replace")  # a kept environment's log has older lines
    ending = r"^.*\b(?:passed|failed|skipped|deselected|errors?|no tests ran)\b.* in [\d.]+s.*$"
    endings = re.findall(ending, said, re.M)
    line = endings[-1].strip("= ") if endings else f"ended without a result: see {log.name}"
    return line, done.returncode == 0


def versions(python: Path) -> list[str]:
    """Returns the Python's version and those of the packages shown in the table."""
    code = f"""import platform; from segearth.utils.versions import installed_versions
print(platform.python_version(), *installed_versions({SHOWN}).values())"""
    return subprocess.check_output([str(python), "-c", code], text=True, cwd=ROOT).split()


def main() -> int:
    """Runs what was asked for; the exit code is 1 if a test failed or an environment could not be made."""
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    own, arguments = words[:split], words[split + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/compatibility")
    parser.add_argument("--keep", action="store_true", help="leave the environments for the next time")
    options = parser.parse_args(own)
    every = [*PYTHONS, OLDEST, OLDEST_EXTRAS]
    if unknown := set(options.names) - {*every}:
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(every)}")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"| environment | Python | {' | '.join(SHOWN)} | tests |", "|---" * (len(SHOWN) + 3) + "|"]
    failed = False
    for name in options.names or every:
        log = folder / f"{name}.log"
        python = make_environment(name, folder, log)
        if python is None:
            rows.append(f"| {name} | {'| ' * (len(SHOWN) + 1)}| cannot be installed: see {log.name} |")
        else:
            result, passed = run_tests(python, log, arguments)
            rows.append(f"| {name} | {' | '.join(versions(python))} | {result} |")
        failed |= python is None or not passed
        print(rows[-1], flush=True)
        (folder / "results.md").write_text("\n".join(rows) + "\n")
        if not options.keep:
            shutil.rmtree(folder / name, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What ``tools/gpu_check.sh`` does: parts one after the other, each within its share of nine minutes.

It imports nothing but the standard library, so that a machine where packages are missing is told which.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
SECONDS = 520.0  # of all parts together: the last of nine minutes is for starting and writing
LEAST = 1 / 3  # of its share: a part that has less left to it is not started

# Modules and what to install for them. The first are needed by every part.
NEEDED = {
    "torch": "torch", "transformers": "transformers", "timm": "timm", "einops": "einops", "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub", "filelock": "filelock", "numpy": "numpy", "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pycocotools": "pycocotools", "omegaconf": "omegaconf", "typer": "typer", "tqdm": "tqdm",
}  # fmt: skip
OF_SOME = {
    "pytest": ("pytest", "all tests"),
    "triton": ("triton", "the kernel: the definition is used in its place"),
    "deepspeed": ("deepspeed", "training by DeepSpeed"),
    "peft": ("peft", "nothing here"),
    "fvcore": ("fvcore", "nothing here: multiply-adds depend on no device and are not counted"),
}


@dataclass(frozen=True)
class Part:
    """One piece of work in a process of its own.

    Attributes:
        name: Of its log.
        seconds: Its share of the time.
        command: Arguments to Python.
        needs: Modules without which it is left out.
        table: A file that it writes and that is shown.
    """

    name: str
    seconds: float
    command: list[str]
    needs: tuple[str, ...] = ()
    table: Path | None = None


@dataclass
class Outcome:
    """What became of a part: ``"passed"``, ``"failed"``, ``"cut short"`` or ``"left out"``, and why."""

    part: Part
    state: str
    why: str = ""
    seconds: float = 0.0
    tests: dict[str, str] = field(default_factory=dict)


def find_missing(modules: Iterable[str], find: Callable[[str], object] = importlib.util.find_spec) -> list[str]:
    """Returns those that cannot be imported, without importing any."""
    return [module for module in modules if find(module) is None]


def plan(out: Path, device: str) -> list[Part]:
    """The parts in order of importance; on a CPU the smallest model stands for the published one."""
    files = [f"tests/gpu/test_{name}.py" for name in ("kernel", "recorded", "model", "one_process")]
    # No conftest.py above that folder: it imports packages that may be missing. -rP shows how near the results were.
    tests = ["-m", "pytest", *files, "--confcutdir=tests/gpu", "-p", "no:cacheprovider", "-vv", "-rP"]
    tests += ["--show-capture=stdout", "-m"]
    small = device == "cpu"
    model = ["segearth_debug", "--size", "64"] if small else ["segearth_swinb_phi1_5", "--size", "1024"]
    options = ["--shape-only", "--template", "segearth_r1", "--no-multiply-adds", "--device", device, "--repeats", "3"]
    options += ["--questions", "1,3" if small else "1,8,32", "--batches", "1,2" if small else "1,2,4,8"]
    parts = [Part("tests", 150, [*tests, "gpu and not compiles"], ("pytest",))]
    for precision in ("bf16", "fp32"):
        folder = out / f"bench_{precision}"
        command = ["-m", "segearth.cli", "bench", *model, *options, "--precision", precision, "--out", str(folder)]
        parts.append(Part(f"bench_{precision}", 140, command, table=folder / "benchmark.md"))
    parts.append(Part("compiled", 90, [*tests, "gpu and compiles"], ("pytest",)))
    return parts


def run_parts(parts: list[Part], out: Path, seconds: float, missing: list[str]) -> list[Outcome]:
    """Runs parts one after the other; what no time is left for is named."""
    end, outcomes = time.monotonic() + seconds, []
    for part in parts:
        absent = [OF_SOME[module][0] for module in part.needs if module in missing]
        limit = min(part.seconds, end - time.monotonic())
        if absent:
            outcomes.append(Outcome(part, "left out", f"{', '.join(absent)} is not installed"))
        elif limit < LEAST * part.seconds:
            outcomes.append(Outcome(part, "left out", f"{max(limit, 0):.0f} s were left"))
        else:
            outcomes.append(_run(part, out / f"{part.name}.log", limit))
        print(_line(outcomes[-1]), flush=True)
    return outcomes


def _run(part: Part, log: Path, limit: float) -> Outcome:
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        # In a session of its own, so that what it started ends with it.
        process = subprocess.Popen(
            [sys.executable, *part.command], cwd=REPO, env=_environment(), stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            state = "failed" if process.wait(limit) else "passed"
        except subprocess.TimeoutExpired:
            state = "cut short"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    why = {"passed": "", "cut short": f"after {limit:.0f} s", "failed": _last_line(text)}[state]
    return Outcome(part, state, why, time.monotonic() - start, read_tests(text))


def _environment() -> dict[str, str]:
    values = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    path = os.pathsep.join(part for part in (str(REPO), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, **values, "PYTHONPATH": path}


def _last_line(text: str) -> str:
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def read_tests(log: str) -> dict[str, str]:
    """Returns what became of each test that a log of pytest names, whether or not it came to the end."""
    found = re.findall(r"^(tests/\S+::.+?) (PASSED|FAILED|SKIPPED|ERROR)\b", log, re.M)
    return {name: state.lower() for name, state in found}


def _line(outcome: Outcome) -> str:
    count = {state: list(outcome.tests.values()).count(state) for state in ("passed", "failed", "skipped", "error")}
    told = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    why = "; ".join(text for text in (told, outcome.why) if text)
    return f"{outcome.part.name:12} {outcome.state:9} {outcome.seconds:5.0f} s  {why}"


def as_markdown(facts: dict[str, str], outcomes: list[Outcome], missing: list[str]) -> str:
    """Returns the summary, with the tables that the parts wrote."""
    lines = ["# GPU check", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    lines += [f"Not installed: {OF_SOME[module][0]}, for {OF_SOME[module][1]}." for module in missing] + [""]
    lines += ["| part | | seconds | tests | |", "|---|---|---:|---:|---|"]
    for outcome in outcomes:
        passed = f"{list(outcome.tests.values()).count('passed')} of {len(outcome.tests)}" if outcome.tests else ""
        why = outcome.why.replace("|", " ")
        lines.append(f"| {outcome.part.name} | {outcome.state} | {outcome.seconds:.0f} | {passed} | {why} |")
    others = [(name, state) for o in outcomes for name, state in o.tests.items() if state != "passed"]
    if others:
        lines += ["", "| test | |", "|---|---|", *(f"| `{name}` | {state} |" for name, state in others)]
    for outcome in outcomes:
        table = outcome.part.table
        if table is not None and table.is_file():
            lines += ["", f"## {outcome.part.name}", "", table.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, str]:
    """Versions, and the card with what it can do."""
    import torch

    names = [*NEEDED.values(), *(package for package, _ in OF_SOME.values())]
    versions = []
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    facts = {"Python": platform.python_version(), "packages": ", ".join(versions), "CUDA": str(torch.version.cuda)}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts["card"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}"
        facts["bf16"] = str(torch.cuda.is_bf16_supported())
    return facts


def main() -> int:
    """Returns 0 where no part failed, 1 where one did, 2 where nothing could be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default=os.environ.get("OUT") or "runs/gpu_check", help="tables and logs")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time for all parts together")
    parser.add_argument("--only", default="", help="parts to run, such as tests,bench_bf16")
    arguments = parser.parse_args()
    device = os.environ.get("SEGEARTH_GPU_CHECK_DEVICE", "cuda")
    needed, missing = find_missing(NEEDED), find_missing(OF_SOME)
    for module in missing:
        print(f"not installed: {OF_SOME[module][0]}, needed for {OF_SOME[module][1]}", flush=True)
    if needed:
        packages = " ".join(NEEDED[module] for module in needed)
        print(f"nothing can run without: {packages}. Install them (pip install {packages}), then run this again")
        return 2
    facts = {"device": device} | machine()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    if device == "cuda" and "card" not in facts:
        print("PyTorch finds no GPU; SEGEARTH_GPU_CHECK_DEVICE=cpu tries this script without one")
        return 2
    out = Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = plan(out, device)
    chosen = [part for part in parts if not arguments.only or part.name in arguments.only.split(",")]
    outcomes = run_parts(chosen, out, arguments.seconds, missing)
    (out / "summary.md").write_text(as_markdown(facts, outcomes, missing), encoding="utf-8")
    results = [
        {"part": o.part.name, "state": o.state, "why": o.why, "seconds": o.seconds, "tests": o.tests} for o in outcomes
    ]
    (out / "summary.json").write_text(json.dumps({"machine": facts, "parts": results}, indent=2), encoding="utf-8")
    print(f"written: {out / 'summary.md'}")
    return 1 if any(outcome.state in ("failed", "cut short") for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

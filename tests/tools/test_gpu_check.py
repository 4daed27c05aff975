"""The script that a machine with a GPU runs, tried without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tool_files import load_tool

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check() -> Any:
    return load_tool("gpu_check")


def part(check: Any, name: str, code: str, seconds: float = 60, **options: Any) -> Any:
    return check.Part(name, seconds, ["-c", code], **options)


def test_every_requirement_is_looked_for(check: Any) -> None:
    text = (REPO / "setup.py").read_text(encoding="utf-8")
    required = re.findall(r'"([A-Za-z0-9_-]+)[^"]*"', re.search(r"^REQUIRES = \[(.*?)\]", text, re.S | re.M)[1])
    known = {*check.NEEDED.values(), *(package for package, _ in check.OF_SOME.values())}
    assert "torch" in required
    assert set(required) <= known
    assert check.find_missing([*check.NEEDED, "no_such_module"]) == ["no_such_module"]


def test_every_file_of_the_tests_runs_and_is_there(check: Any, tmp_path: Path) -> None:
    words = [word for part in check.plan(tmp_path, "cpu") for word in part.command]
    named = {word for word in words if word.startswith("tests/gpu/test_")}
    assert named == {f"tests/gpu/{path.name}" for path in (REPO / "tests" / "gpu").glob("test_*.py")}


def test_what_is_missing_is_said_at_once(
    check: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check", str(tmp_path / "out")])
    monkeypatch.setattr(
        check, "find_missing", lambda modules: [name for name in modules if name in ("timm", "cv2", "deepspeed")]
    )
    assert check.main() == 2
    told = capsys.readouterr().out
    assert "not installed: deepspeed, needed for training by DeepSpeed" in told
    assert "pip install timm opencv-python-headless" in told
    assert not (tmp_path / "out").exists()


def test_parts_keep_to_their_time(check: Any, tmp_path: Path) -> None:
    """One that hangs, with a child of its own, is ended; what comes too late or lacks a package is named."""
    hangs = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    parts = [
        part(check, "quick", "print('tests/gpu/test_a.py::test_b[x y] PASSED [ 50%]')", seconds=20),
        part(check, "broken", "raise ValueError('no such thing')", seconds=20),
        part(check, "lacking", "print()", needs=("pytest",)),
        part(check, "hanging", hangs, seconds=2),
        part(check, "late", "print()", seconds=60),
    ]
    start = time.monotonic()
    outcomes = check.run_parts(parts, tmp_path, 12, ["pytest"])
    assert time.monotonic() - start < 12
    assert [o.state for o in outcomes] == ["passed", "failed", "left out", "cut short", "left out"]
    assert outcomes[0].tests == {"tests/gpu/test_a.py::test_b[x y]": "passed"}
    assert outcomes[1].why == "ValueError: no such thing"
    assert outcomes[2].why == "pytest is not installed"
    assert re.fullmatch(r"\d+ s were left", outcomes[4].why)
    assert (tmp_path / "hanging.log").read_text() == "begun\n"


def test_a_log_that_was_cut_off_still_tells(check: Any) -> None:
    log = (
        "collected 4 items\n\ntests/gpu/test_kernel.py::test_x[published-dtype0] PASSED  [ 25%]\n"
        "tests/gpu/test_kernel.py::test_x[published-dtype1] FAILED  [ 50%]\n"
        "tests/gpu/test_model.py::test_y SKIPPED (needs deepspeed)   [ 75%]\ntests/gpu/test_model.py::test_z "
    )
    assert check.read_tests(log) == {
        "tests/gpu/test_kernel.py::test_x[published-dtype0]": "passed",
        "tests/gpu/test_kernel.py::test_x[published-dtype1]": "failed",
        "tests/gpu/test_model.py::test_y": "skipped",
    }


def test_the_summary(check: Any, tmp_path: Path) -> None:
    table = tmp_path / "benchmark.md"
    table.write_text("| a | table |\n")
    bench = part(check, "bench", "", table=table)
    outcomes = [
        check.Outcome(part(check, "tests", ""), "failed", "a | b", 3.0, {"t::a": "passed", "t::b": "failed"}),
        check.Outcome(bench, "passed", "", 60.0),
    ]
    text = check.as_markdown({"device": "cuda"}, outcomes, ["triton"])
    assert "| tests | failed | 3 | 1 of 2 | a   b |" in text
    assert "| `t::b` | failed |" in text
    assert "## bench\n\n| a | table |" in text
    assert "Not installed: triton, for the kernel" in text


def test_the_parts_fit_into_nine_minutes(check: Any, tmp_path: Path) -> None:
    parts = check.plan(tmp_path, "cuda")
    assert sum(p.seconds for p in parts) <= check.SECONDS <= 9 * 60 - 15
    assert {"bf16", "fp32"} <= {word for p in parts for word in p.command}


@pytest.mark.slow
def test_the_whole_script_on_a_cpu(tmp_path: Path) -> None:
    environment = {**os.environ, "SEGEARTH_GPU_CHECK_DEVICE": "cpu", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(REPO / "tools" / "gpu_check.sh"), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert [part["state"] for part in parts] == ["passed"] * 4
    states = {state for part in parts for state in part["tests"].values()}
    assert "passed" in states and not states & {"failed", "error"}
    summary = (tmp_path / "summary.md").read_text()
    assert "| questions on one image |" in summary
    assert "## bench_bf16" in summary and "## bench_fp32" in summary

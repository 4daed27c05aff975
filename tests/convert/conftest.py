"""Recorded behaviour of the public SegEarth-R1, and a table of how near this library comes to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import Golden, Parity

COMMITTED = Path(__file__).parent / "golden"
EVERYTHING = Path(os.environ.get("SEGEARTH_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
PROPERTY = "parity"


@pytest.fixture(scope="session")
def golden() -> Golden:
    """Finds a recording; the test is skipped where it is not at hand."""

    def find(name: str) -> Path:
        for folder in (EVERYTHING, COMMITTED):
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"{name} is too large to be committed; set SEGEARTH_GOLDEN to the folder of all recordings")

    return find


@pytest.fixture
def parity(record_property: Callable[[str, Any], None]) -> Parity:
    """Asserts that an error is within its bound, and puts it into the table printed at the end."""

    def check(module: str, compared: str, error: float, bound: float) -> None:
        record_property(PROPERTY, [module, compared, error, bound])
        assert error <= bound, f"{module}: {compared} differs by {error:.2g}, more than {bound:.0e}"

    return check


def pytest_terminal_summary(terminalreporter: Any) -> None:
    rows: dict[tuple[str, str], tuple[float, float]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == PROPERTY and report.when == "call":
                module, compared, error, bound = value
                before = rows.get((module, compared), (0.0, bound))[0]
                rows[module, compared] = max(before, error), bound
    if not rows:
        return
    terminalreporter.section("parity with the public SegEarth-R1, largest relative errors")
    terminalreporter.write_line("| module | compared | largest error | bound |\n|---|---|---|---|")
    for (module, compared), (error, bound) in sorted(rows.items()):
        shown = "identical" if error == 0 else f"{error:.1e}"
        limit = "identical" if bound == 0 else f"{bound:.0e}"
        terminalreporter.write_line(f"| {module} | {compared} | {shown} | {limit} |")

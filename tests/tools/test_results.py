"""The page of results, of an untrained model and few images."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from tool_files import load_tool

from segearth.config import load_experiment
from segearth.models.segearth import SegEarth


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("results")


def test_a_page_with_its_pictures(
    tool: ModuleType, debug_model: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debug_model.save_pretrained(tmp_path / "model")

    out = tmp_path / "docs"
    monkeypatch.setattr(tool, "load_experiment", lambda path, o: load_experiment(path, [*o, "eval.limit=8"]))
    model = str(tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["results", model, "--out", str(out), "--beside", model])
    tool.main()
    page = (out / "results.md").read_text()
    for name in tool.SETS:
        assert f"| {name}: " in page
    assert "best control" in page and "pairs that differ in one word" in page and "not stated" in page
    assert "The interval holds zero" in page  # beside itself
    with Image.open(out / "images" / "gallery.jpg") as picture:
        assert picture.width > 1000
    before = page, (out / "reports").stat().st_mtime
    tool.main()  # the reports are there: nothing is scored anew
    assert ((out / "results.md").read_text(), (out / "reports").stat().st_mtime) == before

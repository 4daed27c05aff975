"""Notebooks and printed answers in the docs: executed, up to date, and of nobody's own machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segearth.cli import app

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
TINY = ("--model", "segearth_tiny")  # a run in the current folder would answer else
NUMBER = r"\d[\d,]*(?:\.\d+)?"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_executed_from_top_to_bottom(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [each for each in outputs if each["output_type"] == "error" or each.get("name") == "stderr"]
    assert len(text) < 600_000 and not any(place in text for place in ("/home/", "/root/", "/tmp/", "site-packages"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_its_cells_still_print_what_is_recorded(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("rasterio", "geopandas", "matplotlib"):
        pytest.importorskip(package)
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(path.parent)
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            printed = [line for output in cell["outputs"] for line in output.get("text", [])]
            assert same_text(capsys.readouterr().out, "".join(printed))


def test_the_page_on_maps_shows_what_the_command_prints(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    page = (ROOT / "docs" / "geo.md").read_text(encoding="utf-8")
    shown = page.split("```\n")[2]
    assert shown.startswith("the buildings: ")
    said = []
    for question, name in (("the buildings", "buildings"), ("the largest building", "largest")):
        vector = ["--vector", str(tmp_path / f"{name}.gpkg")] if f"{name}.gpkg" in shown else []
        scene = str(ROOT / "docs/notebooks/village.tif")
        result = CliRunner().invoke(app, ["scene", scene, question, str(tmp_path / f"{name}.tif"), *vector, *TINY])
        assert result.exit_code == 0, result.output
        said.append(result.stdout.replace(f"{tmp_path}{os.sep}", ""))
    assert same_text("".join(said), shown)


def same_text(one: str, other: str) -> bool:
    """Whether words agree, and numbers to a twentieth: other processors round masks in other ways."""
    numbers = [[float(n.replace(",", "")) for n in re.findall(NUMBER, text)] for text in (one, other)]
    words = [re.sub(NUMBER, "#", text) for text in (one, other)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.02)

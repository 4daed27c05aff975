"""Notebooks in the docs: executed, small, and of nobody's own machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_executed_from_top_to_bottom(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [each for each in outputs if each["output_type"] == "error" or each.get("name") == "stderr"]
    assert len(text) < 600_000 and not any(place in text for place in ("/home/", "/root/", "/tmp/", "site-packages"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_its_cells_still_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("rasterio", "geopandas", "matplotlib"):
        pytest.importorskip(package)
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(path.parent)
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)

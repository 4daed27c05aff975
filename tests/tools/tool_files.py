"""Opens a file of `tools/`, which is no package, as a module."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[2] / "tools"


def write_samples(folder: Path, intersections: list[int]) -> float:
    """Writes the answers of a report, one to each of several images, targets and unions of ten pixels; returns gIoU."""
    folder.mkdir(parents=True)
    lines = [
        {"id": f"q{i}", "image_id": f"i{i}", "question": "roofs", "task": "referring", "kind": "", "source": "",
         "intersection": n, "union": 10, "target_area": 10, "predicted_area": n}
        for i, n in enumerate(intersections)
    ]  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return sum(intersections) / 10 / len(intersections)


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module

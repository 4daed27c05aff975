"""What holds where detectron2 is not installed. This folder's name must not be ``detectron2``: it would be imported."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

import segearth
from segearth.errors import SegEarthError

PACKAGE = Path(segearth.__file__).parent


@pytest.mark.parametrize("found", [None, ModuleType("detectron2")], ids=["nothing", "a mere folder"])
def test_error_says_how_to_get_it(monkeypatch, found):
    monkeypatch.setitem(sys.modules, "detectron2", found)  # None is what Python keeps for a package that is not there
    monkeypatch.delitem(sys.modules, "segearth.integrations.detectron2", raising=False)
    with pytest.raises(SegEarthError, match=r"^detectron2 is not installed; run: pip install .*--no-build") as caught:
        importlib.import_module("segearth.integrations.detectron2")
    assert isinstance(caught.value, ImportError)
    assert "detectron2.readthedocs.io" in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_else_imports_it():
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "integrations" / "detectron2" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.startswith(("detectron2", "segearth.integrations.detectron2"))], path

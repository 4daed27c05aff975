from __future__ import annotations

from importlib.metadata import version

import pytest
import torch

from segearth.utils.versions import installed_versions


def test_each_package_that_is_there_is_listed_in_order():
    found = installed_versions(["pillow", "no-such-package", "numpy"])
    assert list(found.items()) == [("pillow", version("pillow")), ("numpy", version("numpy"))]


def test_the_build_of_torch_is_named(monkeypatch: pytest.MonkeyPatch):
    """Wheels of the package index say 2.13.0 in their metadata, and 2.13.0+cu130 in torch itself."""
    monkeypatch.setattr(torch, "__version__", "2.99.0+other")
    assert installed_versions(["torch"]) == {"torch": "2.99.0+other"}

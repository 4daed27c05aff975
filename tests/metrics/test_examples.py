"""The examples in the docstrings are worked by hand, and must come out."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["boxes", "choices", "matching", "text"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"segearth.metrics.{name}"))
    assert found.attempted
    assert found.failed == 0

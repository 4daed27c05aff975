"""Versions of the packages in use, for reports and exported files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the version of each package that is installed, by name, in the order asked for.

    torch's comes with its build (``2.13.0+cu130``), which decides about numbers and speed: the metadata of the wheel
    on the package index leaves it out.
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as another build of OpenCV
            continue
    if "torch" in found:
        import torch

        found["torch"] = str(torch.__version__)
    return found

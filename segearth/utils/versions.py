"""Versions of the packages in use, for reports and exported files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the version of each package that is installed, by name, in the order asked for.

    The version of torch includes its build (``2.13.0+cu130``), which matters for numbers and speed. It is read from
    torch itself, because the metadata of wheels from the package index leave the build out.
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as OpenCV, which comes under several package names
            continue
    if "torch" in found:
        import torch

        found["torch"] = str(torch.__version__)
    return found

"""The optional packages for maps, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from segearth.errors import MissingExtraError


def geo_package(name: str) -> Any:
    """Imports a package of the extra ``geo``, such as ``"shapely"``.

    Raises:
        MissingExtraError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, "geo") from error

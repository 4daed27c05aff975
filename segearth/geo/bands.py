"""Which of a raster's bands are shown to a model as red, green and blue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from segearth.errors import ConfigError, ImageError
from segearth.geo.packages import geo_package

logger = logging.getLogger(__name__)

COLOURS = ("red", "green", "blue")
NAMES = (COLOURS, ("b04", "b03", "b02"))  # of bands, in files that state no colours: plain words, and Sentinel-2's


def choose_bands(dataset: Any, bands: int | Sequence[int] | None) -> tuple[int, int, int]:
    """Returns the numbers of three bands, counted from 1.

    Args:
        dataset: An open ``rasterio`` data set.
        bands: Three numbers from 1, or one for a grey picture. ``None``: those that the file calls red, green and blue,
            by their colours or names; else the first three that are not alpha; a single band is grey.

    Raises:
        ConfigError: Another number of bands was given, or one that the file has not.
        ImageError: The file has two bands, none of which is called a colour, or none but alpha.
    """
    if bands is not None:
        return _checked(dataset, [bands] if isinstance(bands, int) else list(bands))
    colours = [interpretation.name for interpretation in dataset.colorinterp]
    names = [(text or "").lower() for text in dataset.descriptions]
    for known, wanted in [(colours, COLOURS), *((names, each) for each in NAMES)]:
        if all(name in known for name in wanted):
            red, green, blue = (known.index(name) + 1 for name in wanted)
            return red, green, blue
    seen = [number for number, colour in enumerate(colours, 1) if colour != "alpha"]
    if len(seen) == 1:
        return seen[0], seen[0], seen[0]
    if len(seen) < 3:
        raise ImageError(
            f"{dataset.name} has {len(seen)} bands that are not alpha ({_listed(dataset)}), and no colours; "
            "say which to show: one for grey, or three, where a band may be named twice (bands=[1, 2, 2])"
        )
    if len(seen) > 4:  # red, green, blue and infrared is what four mostly are
        logger.warning("%s: none of %d bands says its colour; bands 1, 2, 3 are shown", dataset.name, len(seen))
    return seen[0], seen[1], seen[2]


def _checked(dataset: Any, bands: list[int]) -> tuple[int, int, int]:
    if len(bands) not in (1, 3) or not all(isinstance(band, int) and 1 <= band <= dataset.count for band in bands):
        raise ConfigError(f"bands are {bands}; give one or three numbers from 1 to {dataset.count}: {_listed(dataset)}")
    red, green, blue = bands if len(bands) == 3 else bands * 3
    return red, green, blue


def _listed(dataset: Any) -> str:
    colours = (interpretation.name for interpretation in dataset.colorinterp)
    described = zip(dataset.descriptions, colours, strict=True)
    named = [f"{number} {text or colour}" for number, (text, colour) in enumerate(described, 1)]
    return ", ".join(named[:12]) + (", …" if len(named) > 12 else "")


def alpha_of(dataset: Any) -> int | None:
    """Returns the number of the band that holds a data set's alpha, from 1; ``None`` where there is none."""
    return next((number for number, colour in enumerate(dataset.colorinterp, 1) if colour.name == "alpha"), None)


def palette_of(dataset: Any, band: int) -> np.ndarray | None:
    """Returns a band's colours where its values are numbers of colours: ``uint8`` ``(4, N)``, RGB and alpha."""
    if dataset.colorinterp[band - 1] != geo_package("rasterio.enums").ColorInterp.palette:
        return None
    colours = dataset.colormap(band)
    return np.array([colours.get(index, (0, 0, 0, 0)) for index in range(max(colours) + 1)], np.uint8).T

"""Packaged pictures to try the web page with. All are of aerial_mini's test split, which no weights here have seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segearth.data.readers.aerial import PACKAGED


@dataclass(frozen=True, slots=True)
class Example:
    """One picture with questions to begin with.

    Attributes:
        file: Below the data set's ``images``.
        title: What is to be seen.
        questions: That it can be asked. The last one asks for what is not there.
        credit: Whose picture it is, and its licence; more in the data set's ``LICENSES.md``.
    """

    file: str
    title: str
    questions: tuple[str, ...]
    credit: str

    @property
    def path(self) -> Path:
        """Where the packaged picture is."""
        return PACKAGED / "images" / self.file


_OAM = "OpenAerialMap contributors, through HOTOSM, CC BY 4.0"
_GSI = "Edited by this project from data of the Geospatial Information Authority of Japan, Public Data License 1.0"
_HARVEY = "J. Alchimowicz, Semantic Segmentation Satellite Imagery, figshare, CC BY 4.0"
_AMAZON = "Bragagnolo et al. (2021), Zenodo 4498086, CC BY 4.0; contains modified Copernicus Sentinel data"
_SHIPS = "sen2ships, Copyright (c) 2023 ShipDetectionExperts, MIT; contains modified Copernicus Sentinel data"

EXAMPLES = (
    Example(
        "hot_oam_buildings/zanzibar_319293_270960_z19.jpg", "Zanzibar",
        ("the buildings", "Which parts of the scene were built with walls to have rooms inside?", "the ships"), _OAM,
    ),
    Example(
        "gsi_solar/gsi_solar_0625.jpg", "Solar park",
        ("all solar panels", "What turns daylight into power?", "the ships"), _GSI,
    ),
    Example(
        "harvey_uav/harvey_6435_q10.jpg", "Houston",
        ("the house roof", "Mark all the grass.", "the airplanes"), _HARVEY,
    ),
    Example(
        "amazon_forest/amazon_10488.jpg", "Amazon",
        ("the forest", "the woodland in the lower right quarter of the image", "the ships"), _AMAZON,
    ),
    Example(
        "sen2ships/gdynia_13.jpg", "Harbour",
        ("the ships", "What would a harbour pilot board?", "the solar panels"), _SHIPS,
    ),
    Example(
        "gsi_road/gsi_road_0979.jpg", "Road",
        ("the road", "Where would traffic flow?", "the ships"), _GSI,
    ),
)  # fmt: skip

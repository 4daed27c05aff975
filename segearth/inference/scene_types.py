"""What a user says of a scene and gets back of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """How a scene is read, asked and written; see :func:`segment_scene`."""

    mode: str = "auto"
    bands: int | Sequence[int] | None = None
    resolution: float | str | None = "auto"
    aoi: str | Path | None = None
    tile_size: int | None = None
    overlap: int | None = None
    batch_size: int | None = None
    stretch: tuple[float, float] = (2.0, 98.0)
    min_area: float = 0.0
    simplify: float = 0.0
    right_angles: bool = False
    cog: bool = False
    restart: bool = False
    progress: bool = True


@dataclass(frozen=True, slots=True)
class SceneAnswer:
    """What was found of one question in a scene.

    Attributes:
        question: As asked.
        mode: ``"tile"``, ``"settle"`` or ``"whole"``.
        reason: Why it was gone about so.
        present: Whether anything was found.
        presence: In [0, 1]; of a question that is settled, of its candidates.
        score: IoU to expect of the mask, in [0, 1].
        pixels: Of the mask, in the scene's own pixels.
        regions: How many connected regions it has.
        area: Of all regions, in ``area_unit``.
        area_unit: ``"m2"`` or ``"pixels"``.
        unknown_words: Words that the segmenter does not know and has left out, in lower case.
        answer: In words: of a question "how many …" the number of regions, of others ``None``.
    """

    question: str
    mode: str
    reason: str
    present: bool
    presence: float
    score: float
    pixels: int
    regions: int
    area: float
    area_unit: str
    unknown_words: tuple[str, ...] = ()
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class SceneResult:
    """What a run left.

    Attributes:
        answers: One for each question, in their order.
        output: The mask raster.
        vector: The polygons, where asked for.
        tiles: How many were asked in this run; those of a run that was interrupted are not asked again.
        resolution: Metres a working pixel measures along rows, where the scene has a map.
    """

    answers: tuple[SceneAnswer, ...]
    output: Path
    vector: Path | None
    tiles: int
    resolution: float | None

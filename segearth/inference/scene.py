"""Answers questions about a georeferenced raster of any size: masks on its own grid, polygons in its own CRS.

The scene is read by windows and asked tile by tile; what tiles say is blended into evidence of the whole scene, which
waits in files beside the output. Then each question is decided once, and mask and polygons are written strip by strip.
So memory does not grow with the scene's height, and a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from segearth.errors import ConfigError, QuestionError
from segearth.geo.areas import AreaOfInterest
from segearth.geo.packages import geo_package
from segearth.geo.raster import SceneRaster, open_scene
from segearth.geo.scene_questions import SceneQuestion, understand
from segearth.geo.settling import Ground, settle
from segearth.geo.stretch import SceneStretch
from segearth.geo.tiling import blended, plan_tiles, rows_of_tiles
from segearth.geo.tracing import Traced, trace
from segearth.geo.vector_files import check_vector_path, write_vectors
from segearth.geo.vectors import table_of
from segearth.geo.windows import Window
from segearth.geo.writing import MaskWriter, StripStore
from segearth.inference.scene_scores import (
    Evidence,
    MeanProbability,
    SceneDecision,
    SmallEvidence,
    probabilities_of,
    strips_of,
)
from segearth.inference.tiled import OVERLAP, TILE_SIZE
from segearth.inference.tiles import Picture, TilePass
from segearth.segmenter import Segmenter, facts_of, one_each, usual_batch_size
from segearth.structures import Task
from segearth.utils.files import check_apart, check_output_file

if TYPE_CHECKING:
    from shapely import Geometry

logger = logging.getLogger(__name__)

MODES = ("auto", "tile", "whole")
WHOLE_SIDE = 4  # a scene that is asked as a whole is read at so many times the side at which the segmenter sees it


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


def segment_scene(
    segmenter: Segmenter,
    source: str | Path,
    questions: str | Sequence[str],
    output: str | Path,
    *,
    vector: str | Path | None = None,
    task: Task | Sequence[Task] = "referring",
    model: str = "",
    options: SceneOptions | None = None,
) -> SceneResult:
    """Asks a scene of any size; several questions are answered in one pass.

    Args:
        segmenter: Any; :func:`segearth.load` opens one.
        source: A file, an address or a ``/vsi…`` path that GDAL reads. Without a CRS it is a plain picture.
        questions: One, or several: each gets a band of the output.
        output: GeoTIFF of the source's size, CRS and transform: 1 in the mask, 0 outside, 255 where the source has no
            data or the area of interest ends.
        vector: Also write polygons, to ``.geojson``, ``.gpkg`` or ``.fgb``.
        task: ``"referring"`` or ``"reasoning"``, for all or for each.
        model: Name of the weights, for the files' tags.
        options: How:

            * ``mode``: ``"auto"`` decides for each question whether tiles or only the whole scene can answer it, see
              :mod:`segearth.geo.scene_questions`; ``"tile"`` and ``"whole"`` are for all.
            * ``bands``: see :func:`segearth.geo.raster.open_scene`.
            * ``resolution``: metres a pixel at which the model is shown the scene. ``"auto"``: as it is, unless it is
              finer or coarser than all that the weights know, then at their nearest. ``None``: as it is.
            * ``aoi``: area of interest, a vector file or WKT in the scene's CRS.
            * ``tile_size``, ``overlap``: in working pixels; the side at which the model sees images and a quarter of it.
            * ``batch_size``: tiles at a time.
            * ``stretch``: percentages of the scene's values that become black and white, where it has not 8 bits.
            * ``min_area``, ``simplify``, ``right_angles``: of polygons, see :func:`segearth.geo.vectors.vectorise`.
            * ``cog``: write a cloud-optimised GeoTIFF.
            * ``restart``: forget what an interrupted run with other settings left.
            * ``progress``: show a bar.

    Returns:
        What was found.

    Raises:
        MissingExtraError: The packages for maps are not installed.
        ImageError: The source is damaged, or no raster on a regular grid.
        QuestionError: There is no question, one is empty, or it cannot be settled, such as metres without a map.
        ConfigError: An option does not fit, or an interrupted run had other settings.
        OutputError: A file cannot be written. Nothing is left under its name then.
    """
    options = options or SceneOptions()
    texts = _checked([questions] if isinstance(questions, str) else list(questions), options)
    tasks: list[Task] = one_each(task, len(texts), "tasks")
    check_output_file(output)
    if vector is not None:
        check_vector_path(vector)
    if Path(source).exists():
        check_apart(source, output, *([vector] if vector is not None else []))
    asked = [understand(text, options.mode) for text in texts]
    for question in asked:
        logger.info("%s: %s", question.text, question.reason)
    with _opened(source, segmenter, options) as scene:
        run = _SceneRun(scene, segmenter, asked, tasks, Path(output), model, options)
        return run.to_files(None if vector is None else Path(vector))


def _checked(questions: list[str], options: SceneOptions) -> list[str]:
    if not questions:
        raise QuestionError("no question is asked; give at least one, such as 'the buildings'")
    if empty := [number for number, text in enumerate(questions, 1) if not isinstance(text, str) or not text.strip()]:
        raise QuestionError(f"question {empty[0]} of {len(questions)} is empty; leave it out")
    if options.mode not in MODES:
        raise ConfigError(f"mode is {options.mode!r}; give one of {', '.join(MODES)}")
    return questions


def _opened(source: str | Path, segmenter: Segmenter, options: SceneOptions) -> SceneRaster:
    """Opens the scene at its own resolution, or at the nearest that the weights know."""
    wanted = options.resolution
    if wanted != "auto":
        if isinstance(wanted, str):
            raise ConfigError(f"resolution is {wanted!r}; give metres a pixel, 'auto' or None")
        return open_scene(source, options.bands, wanted)
    scene = open_scene(source, options.bands)
    known = facts_of(segmenter).resolutions
    if known is None or scene.metres_per_pixel is None:
        return scene
    own = float(np.sqrt(np.prod(scene.metres_per_pixel)))
    nearest = min(max(own, known[0]), known[1])
    if np.isclose(own, nearest, rtol=0.05):
        return scene
    scene.close()
    logger.info("%s has %.3g m a pixel; it is shown to the model at %.3g m, which it knows", source, own, nearest)
    return open_scene(source, options.bands, nearest)


@dataclass(slots=True)
class _TiledEvidence:
    """Evidence of one question in the strips that the pass over the tiles left."""

    store: StripStore
    number: int
    scene: SceneRaster
    presence: float
    highest: float

    def read(self, window: Window) -> np.ndarray:
        grid = self.scene.grid
        logits = self.store.read(grid.working_window(window), self.number)
        return grid.to_scene(logits[None], window)[0]


@dataclass
class _SceneRun:
    """One run over one scene."""

    scene: SceneRaster
    segmenter: Segmenter
    asked: list[SceneQuestion]
    tasks: list[Task]
    output: Path
    model: str
    options: SceneOptions
    tiles_asked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        facts, options = facts_of(self.segmenter), self.options
        self.deciding = facts.deciding
        self.tile_size = options.tile_size or facts.side or TILE_SIZE
        self.overlap = int(self.tile_size * OVERLAP) if options.overlap is None else options.overlap
        self.batch_size = options.batch_size or usual_batch_size(facts.device, self.tile_size)
        self.area = None if options.aoi is None else AreaOfInterest.of(options.aoi, self.scene)
        self.stretch = SceneStretch.of(self.scene, *options.stretch)
        of_tiles = [(text, task) for each, task in zip(self.asked, self.tasks, strict=True) for text in each.asked_of_tiles]
        self.local = list(dict.fromkeys(of_tiles))

    def to_files(self, vector: Path | None) -> SceneResult:
        """Asks, decides and writes."""
        with ExitStack() as stack:
            evidence: dict[tuple[str, Task], Evidence] = {}
            if self.local:
                store = stack.enter_context(self._store())
                evidence.update(self._over_tiles(store))
            shapes = self._settled(evidence)
            answers, tables = self._write(evidence, shapes)
            if vector is not None:
                write_vectors(vector, tables)
            if self.local:
                store.remove()
        metres = self.scene.metres_per_pixel
        resolution = None if metres is None else metres[0] * self.scene.grid.columns.scale
        return SceneResult(tuple(answers), self.output, vector, self.tiles_asked, resolution)

    def _over_tiles(self, store: StripStore) -> dict[tuple[str, Task], Evidence]:
        """Asks all tiles that are not asked yet, and returns what is known of each local question."""
        grid, count = self.scene.grid, len(self.local)
        tile_pass = TilePass(self.segmenter, [text for text, _ in self.local], [task for _, task in self.local], self.batch_size)
        anchor = (grid.rows.anchor, grid.columns.anchor) if self.scene.crs is not None else (0, 0)
        tiles = plan_tiles(grid.height, grid.width, self.tile_size, self.overlap, anchor)
        rest = Window(store.next_row, 0, grid.height - store.next_row, grid.width)
        if rest.height:
            rows = rows_of_tiles(tile for tile in tiles if tile.bottom > rest.top and self._is_wanted(tile))
            total = sum(map(len, rows))
            with tqdm(total=total, unit="tile", disable=not self.options.progress, desc=self.output.name) as bar:
                answered = self._counted(tile_pass.over(map(self._pictures, rows)), bar)
                for strip in blended(answered, rest, (grid.height, grid.width), self.overlap, count):
                    store.add(strip, {"presence": tile_pass.presence.tolist()})
        known = store.notes()
        presence = np.max([[0.0] * count, *(note["presence"] for note in known)], axis=0)
        return {
            key: _TiledEvidence(store, number, self.scene, float(presence[number]), store.highest(number))
            for number, key in enumerate(self.local)
        }

    def _is_wanted(self, tile: Window) -> bool:
        return self.area is None or self.area.touches(self.scene.grid.scene_window(tile))

    def _pictures(self, row: Sequence[Window]) -> Iterator[Picture]:
        """Reads a row of tiles; those without any data are not asked about."""
        for tile in row:
            values, valid = self.scene.read(tile)
            if valid.any():
                yield tile, self.stretch.apply(values, valid)

    def _counted(self, answered: Iterator[Any], bar: Any) -> Iterator[Any]:
        for tile, evidence in answered:
            self.tiles_asked += 1
            bar.update()
            yield tile, evidence

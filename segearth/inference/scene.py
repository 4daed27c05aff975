"""Answers questions about a georeferenced raster of any size: masks on its own grid, polygons in its own CRS.

The scene is read by windows and asked tile by tile; what tiles say is blended into evidence of the whole scene, which
waits in files beside the output. Then each question is decided once, and mask and polygons are written strip by strip.
So memory does not grow with the scene's height, and a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segearth.errors import ConfigError, QuestionError
from segearth.geo.grids import MOST_FINER, SAME_SCALE
from segearth.geo.raster import SceneRaster, open_scene
from segearth.geo.scene_questions import understand
from segearth.geo.vector_files import check_vector_path
from segearth.geo.writing import check_raster_path
from segearth.inference.scene_run import SceneRun
from segearth.inference.scene_types import SceneOptions, SceneResult
from segearth.segmenter import Segmenter, facts_of, one_each
from segearth.structures import Task
from segearth.utils.files import check_apart, exists

logger = logging.getLogger(__name__)

MOST_STRETCHED = 1.25  # of a pixel's sides; what is stretched less is asked as it is, since resampling blurs
MODES = ("auto", "tile", "whole")


def segment_scene(
    segmenter: Segmenter,
    source: str | Path,
    questions: str | Sequence[str],
    output: str | Path,
    *,
    vector: str | Path | None = None,
    task: Task | Sequence[Task] = "referring",
    model: str = "",
    weights: Mapping[str, Any] | None = None,
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
        weights: State of the model's files, see :func:`segearth.zoo.opening.model_state`: an interrupted run is gone on
            with by the same weights only.
        options: How:

            * ``mode``: ``"auto"`` decides for each question whether tiles or only the whole scene can answer it, see
              :mod:`segearth.geo.scene_questions`; ``"tile"`` and ``"whole"`` are for all.
            * ``bands``: see :func:`segearth.geo.raster.open_scene`.
            * ``resolution``: metres a pixel at which the model is shown the scene. ``"auto"``: as it is, unless it is
              finer or coarser than all that the weights know, then at their nearest; or unless one side of its pixels
              is over a quarter longer than the other, as in degrees, then at the mean. ``None``: as it is.
            * ``aoi``: area of interest, a vector file, or WKT with its CRS: ``"SRID=4326;POLYGON((…))"``.
            * ``tile_size``, ``overlap``: in working pixels; the side at which the model sees images, a quarter of that.
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
    texts = [questions] if isinstance(questions, str) else list(questions)
    check_request(texts, options, vector)
    tasks: list[Task] = one_each(task, len(texts), "tasks")
    check_raster_path(output)
    written = [output] if vector is None else [output, vector]
    for path in (source, options.aoi):  # each by itself: an area may be read from the source's own file
        if path is not None and exists(path):
            check_apart(path, *written)
    asked = [understand(text, options.mode) for text in texts]
    for question in asked:
        logger.info("%s: %s", question.text, question.reason)
    with _opened(source, segmenter, options) as scene:
        for file in scene.files:  # the name alone does not tell: it may be a VRT's, or GTIFF_DIR:1:in.tif
            check_apart(file, *written)
        run = SceneRun(scene, segmenter, asked, tasks, Path(output), model, options, dict(weights or {}))
        return run.to_files(None if vector is None else Path(vector))


def read_questions(path: str | Path) -> list[str]:
    """Reads a list of questions, one a line.

    Raises:
        QuestionError: The file is missing or no text, or a line is empty: it would be a band without a question.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # Notepad puts a mark first
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"no list of questions {path} ({error}); write one question a line, as UTF-8") from error
    if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
        raise QuestionError(f"{path}: line {empty[0]} is empty; delete it")
    return [line.strip() for line in lines]


def check_request(questions: Sequence[str], options: SceneOptions, vector: str | Path | None = None) -> None:
    """Checks what can be checked without a scene; call it before many are worked on.

    Args:
        questions: As for :func:`segment_scene`, as is what follows.
        options: See there.
        vector: See there.

    Raises:
        QuestionError: There is no question, or one is empty.
        ConfigError: An option is none of those that there are.
        OutputError: Polygons cannot be written to a file of that name.
    """
    if not questions:
        raise QuestionError("no question is asked; give at least one, such as 'the buildings'")
    if empty := [number for number, text in enumerate(questions, 1) if not isinstance(text, str) or not text.strip()]:
        raise QuestionError(f"question {empty[0]} of {len(questions)} is empty; leave it out")
    if options.mode not in MODES:
        raise ConfigError(f"mode is {options.mode!r}; give one of {', '.join(MODES)}")
    if isinstance(options.resolution, str) and options.resolution != "auto":
        raise ConfigError(f"resolution is {options.resolution!r}; give metres a pixel, 'auto' or None")
    if vector is not None:
        check_vector_path(vector)


def _opened(source: str | Path, segmenter: Segmenter, options: SceneOptions) -> SceneRaster:
    """Opens the scene at its own resolution, or at the nearest square one that the weights know."""
    if not isinstance(options.resolution, str):
        return open_scene(source, options.bands, options.resolution)
    scene = open_scene(source, options.bands)
    if scene.metres_per_pixel is None:
        return scene
    known = facts_of(segmenter).resolutions or (0.0, math.inf)
    across, down = scene.metres_per_pixel
    own = math.sqrt(across * down)
    nearest = min(max(own, known[0]), known[1])
    # A pixel in degrees far from the equator is higher than wide: unchanged, a house would be seen stretched.
    if math.isclose(own, nearest, rel_tol=SAME_SCALE) and max(across, down) <= MOST_STRETCHED * min(across, down):
        return scene
    nearest = max(nearest, max(across, down) / MOST_FINER)  # finer still would be refused, and show nothing new
    scene.close()
    seen = "%s has %.3g x %.3g m a pixel; it is shown to the model in square ones of %.3g m (--resolution, auto)"
    logger.info(seen, source, across, down, nearest)
    return open_scene(source, options.bands, nearest)

"""One run over one scene: asks, decides, writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from segearth.errors import ImageError
from segearth.geo.areas import area_of_interest
from segearth.geo.packages import geo_package
from segearth.geo.raster import SceneRaster, size_of_whole
from segearth.geo.scene_questions import SceneQuestion
from segearth.geo.settling import Ground, check_settleable, settle
from segearth.geo.stretch import SceneStretch
from segearth.geo.strips import StripStore, parts_folder
from segearth.geo.tiling import blended, plan_tiles, rows_of_tiles
from segearth.geo.tracing import Collected, Traced, collect_corners, outlines_of, trace
from segearth.geo.vector_files import write_vectors
from segearth.geo.vectors import PIXELS_AT_A_TIME, Areas, table_of
from segearth.geo.windows import Window
from segearth.geo.writing import SceneWriter, read_mask_back, scene_writer
from segearth.inference.deciding import score_of, threshold_of_tiles
from segearth.inference.scene_scores import (
    ROWS_AT_ONCE,
    Evidence,
    MeanProbability,
    SceneDecision,
    SmallEvidence,
    probabilities_of,
    strips_of,
)
from segearth.inference.scene_types import SceneAnswer, SceneOptions, SceneResult
from segearth.inference.tiled import OVERLAP, TILE_SIZE
from segearth.inference.tiles import Picture, TilePass, evidence_of
from segearth.preprocessing.images import MIN_SIDE
from segearth.segmenter import DecidingSettings, Segmenter, facts_of, usual_batch_size
from segearth.structures import Task
from segearth.utils.threads import MOST_THREADS, side_by_side

if TYPE_CHECKING:
    from shapely import Geometry

WHOLE_SIDE = 4  # a scene that is asked as a whole is read at so many times the side at which the segmenter sees it
Local = tuple[str, Task]  # what is asked of tiles


@dataclass(frozen=True, slots=True)
class TiledEvidence:
    """Evidence of one question in the strips that the pass over the tiles left.

    Attributes:
        store: The strips, in the rows of the working grid.
        number: Of the question in them.
        scene: Whose grid they are brought back to.
        presence: The highest of all tiles, in [0, 1].
        highest: The highest evidence of all pixels.
        unknown_words: Of the question.
    """

    store: StripStore
    number: int
    scene: SceneRaster
    presence: float
    highest: float
    unknown_words: tuple[str, ...]

    def threshold(self, settings: DecidingSettings) -> float:
        """As of tiles, see :func:`segearth.inference.deciding.threshold_of_tiles`."""
        return float(threshold_of_tiles(torch.tensor(self.highest), settings))

    def read(self, window: Window) -> np.ndarray:
        """See :class:`segearth.inference.scene_scores.Evidence`; the window is as wide as the scene."""
        grid = self.scene.grid
        source = grid.working_window(window)
        rows = self.store.rows(source.top, source.bottom, self.number)[..., source.left : source.right]
        return grid.to_scene(rows.astype(np.float32), window)[0]


@dataclass
class SceneRun:
    """One run over one scene.

    Attributes:
        scene: Open for reading.
        segmenter: Asked.
        asked: The questions, and how each is gone about.
        tasks: One for each question.
        output: The mask raster to write.
        model: Name of the weights.
        options: See :func:`segearth.inference.scene.segment_scene`, as for the next.
        weights: State of the model's files.
        tiles_asked: How many so far.
    """

    scene: SceneRaster
    segmenter: Segmenter
    asked: list[SceneQuestion]
    tasks: list[Task]
    output: Path
    model: str
    options: SceneOptions
    weights: dict[str, Any] = field(default_factory=dict)
    tiles_asked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        facts, options, scene = facts_of(self.segmenter), self.options, self.scene
        if min(scene.grid.height, scene.grid.width) < MIN_SIDE:
            raise ImageError(
                f"{scene.name} would be seen as {scene.grid.width} x {scene.grid.height} px, and at least {MIN_SIDE} "
                "a side are needed; take a finer resolution, or a larger piece of the scene"
            )
        areas = Areas(None if scene.crs is None else scene.transform, scene.crs, (scene.height, scene.width))
        self.ground = Ground(scene.height, scene.width, scene.metres_per_pixel, scene.compass, areas)
        for question in self.asked:
            check_settleable(question.conditions, self.ground)
        self.deciding = facts.deciding
        self.side = facts.side or TILE_SIZE
        self.tile_size = options.tile_size or self.side
        self.overlap = int(self.tile_size * OVERLAP) if options.overlap is None else options.overlap
        self.batch_size = options.batch_size or usual_batch_size(facts.device, self.tile_size)
        # In working pixels for reading tiles, in the scene's own for writing.
        self.tile_area = None if options.aoi is None else area_of_interest(options.aoi, scene)
        self.area = None if options.aoi is None else area_of_interest(options.aoi, scene, working=False)
        self.whole = scene.own_window if self.area is None else self.area.window
        if any(question.mode == "whole" for question in self.asked):
            self._check_whole()
        self.stretch = SceneStretch.of(scene, *options.stretch)
        pairs = zip(self.asked, self.tasks, strict=True)
        of_tiles = [(text, task) for each, task in pairs for text in each.asked_of_tiles]
        self.local: list[Local] = list(dict.fromkeys(of_tiles))
        self._wholes: dict[Local, Evidence] = {}

    def _check_whole(self) -> None:
        """Checks that what is asked as a whole is seen large enough, before tiles are asked for other questions."""
        height, width = size_of_whole(WHOLE_SIDE * self.side, self.whole)
        if min(height, width) < MIN_SIDE:
            what = self.scene.name if self.area is None else f"the area of interest on {self.scene.name}"
            raise ImageError(
                f"{what}, {self.whole.width} x {self.whole.height} px, would be seen as {width} x {height} px when "
                f"asked as a whole, and at least {MIN_SIDE} a side are needed; take a larger or less narrow piece, or "
                "mode tile"
            )

    def to_files(self, vector: Path | None) -> SceneResult:
        """Asks, decides and writes; what tiles said is deleted when everything is written."""
        if not self.local:
            answers = self._decide_and_write({}, vector)
        else:
            with StripStore(parts_folder(self.output), self._settings(), self.options.restart) as store:
                answers = self._decide_and_write(self._ask_tiles(store), vector)
                store.remove()
        metres = self.scene.metres_per_pixel
        resolution = None if metres is None else metres[0] * self.scene.grid.columns.scale
        return SceneResult(tuple(answers), self.output, vector, self.tiles_asked, resolution)

    def _settings(self) -> dict[str, Any]:
        """Returns all that the evidence depends on, to tell whether an interrupted run can be gone on with."""
        return {
            **self.scene.facts(), **self.stretch.facts(), "questions": self.local, "model": self.model,
            "weights": self.weights, "deciding": asdict(self.deciding), "tile_size": self.tile_size,
            "overlap": self.overlap, "batch_size": self.batch_size,
            "aoi": None if self.tile_area is None else self.tile_area.outline.wkt,
        }  # fmt: skip

    def _ask_tiles(self, store: StripStore) -> dict[Local, Evidence]:
        """Asks all tiles that have not been asked yet, and returns what is known of each local question."""
        grid, count = self.scene.grid, len(self.local)
        questions, tasks = [text for text, _ in self.local], [task for _, task in self.local]
        tile_pass = TilePass(self.segmenter, questions, tasks, self.batch_size)
        # Without a map nobody knows where the picture lies, so tiles begin at its corner.
        anchor = (grid.rows.anchor, grid.columns.anchor) if self.scene.crs is not None else (0, 0)
        tiles = plan_tiles(grid.height, grid.width, self.tile_size, self.overlap, anchor)
        top = store.finished_rows
        if top < grid.height:
            rows = rows_of_tiles(tile for tile in tiles if tile.bottom > top and self._is_wanted(tile))
            rest = Window(top, 0, grid.height - top, grid.width)
            total, hidden = sum(map(len, rows)), not self.options.progress
            with tqdm(total=total, unit="tile", disable=hidden, desc=Path(self.scene.name).name) as bar:
                answered = self._counted(tile_pass.over(map(self._pictures, rows)), bar)
                for strip in blended(answered, rest, (grid.height, grid.width), self.overlap, count):
                    # Half precision tells logits apart to a thousandth, which decides nothing, and halves the files.
                    evidence = strip.logits.astype(np.float16)
                    highest = evidence.max((1, 2)).tolist()
                    told = {"presence": tile_pass.presence.tolist(), "unknown_words": tile_pass.unknown_words}
                    store.put(evidence, {**told, "highest": highest})
        facts = [strip.facts for strip in store.strips]
        presence, highest = (np.max([fact[name] for fact in facts], axis=0) for name in ("presence", "highest"))
        # A run that went on after an interruption may have asked no tile: what the strips of the first one tell counts.
        unknown = max((fact["unknown_words"] for fact in facts), key=lambda of_all: sum(map(len, of_all)))
        return {
            local: TiledEvidence(
                store, number, self.scene, float(presence[number]), float(highest[number]), tuple(unknown[number])
            )
            for number, local in enumerate(self.local)
        }

    def _is_wanted(self, tile: Window) -> bool:
        return self.tile_area is None or self.tile_area.touches(tile)

    def _pictures(self, row: Sequence[Window]) -> Iterator[Picture]:
        """Reads a row of tiles; those without any data are left out."""
        for tile in row:
            values, valid = self.scene.read(tile)
            if valid.any():
                yield tile, self.stretch.apply(values, valid)

    def _counted(self, answered: Iterator[tuple[Window, np.ndarray]], bar: Any) -> Iterator[tuple[Window, np.ndarray]]:
        for tile, evidence in answered:
            self.tiles_asked += 1
            bar.update()
            yield tile, evidence

    def _decide_and_write(self, of_tiles: dict[Local, Evidence], vector: Path | None) -> list[SceneAnswer]:
        known = [
            self._of_whole(question.text, task) if question.mode == "whole" else of_tiles[question.local, task]
            for question, task in zip(self.asked, self.tasks, strict=True)
        ]
        drawn = {number: Outlines(shapes) for number, shapes in self._settled(of_tiles).items()}
        with scene_writer(self.output, self.scene, [each.text for each in self.asked], cog=self.options.cog) as writer:
            means = self._write_masks(writer, known, drawn)
            scores = [mean.score(self.deciding) for mean in means]
            writer.tag({"source": self.scene.public_name, "model": self.model, "tile_size": self.tile_size})
            unknown = [self._unknown(question, task, of_tiles, evidence)
                       for question, task, evidence in zip(self.asked, self.tasks, known, strict=True)]  # fmt: skip
            for number, (question, evidence, score) in enumerate(zip(self.asked, known, scores, strict=True)):
                facts = {"question": question.text, "mode": question.mode, "presence": round(evidence.presence, 4)}
                if unknown[number]:
                    facts["unknown_words"] = ", ".join(unknown[number])
                writer.tag({**facts, "score": round(score, 4)}, number)
        corners = side_by_side(lambda number: self._corners(number, known[number]), range(len(known)))
        tables = []
        for number in range(len(known)):  # one after the other, since each takes much memory
            tables.append(self._table(number, corners.pop(0)))
        if vector is not None:
            write_vectors(vector, tables)
        return [
            SceneAnswer(
                question.text, question.mode, question.reason, mean.pixels > 0, evidence.presence, score, mean.pixels,
                len(table), float(table["area"].sum()), "pixels" if self.scene.metres_per_pixel is None else "m2",
                words, _in_words(question, len(table)),
            )
            for question, evidence, mean, score, table, words in zip(
                self.asked, known, means, scores, tables, unknown, strict=True
            )
        ]  # fmt: skip

    @staticmethod
    def _unknown(
        question: SceneQuestion, task: Task, of_tiles: dict[Local, Evidence], own: Evidence
    ) -> tuple[str, ...]:
        """Returns the unknown words of all that was asked for a question, as of the thing that another is near."""
        others = [each.other for each in question.conditions if each.other] if question.mode == "settle" else []
        asked = [own, *(of_tiles[text, task] for text in others)]
        return tuple(dict.fromkeys(word for evidence in asked for word in evidence.unknown_words))

    def _of_whole(self, text: str, task: Task) -> Evidence:
        if (text, task) not in self._wholes:
            values, valid = self.scene.read_whole(WHOLE_SIDE * self.side, self.whole)
            self.segmenter.set_image(self.stretch.apply(values, valid))
            (answer,) = evidence_of(self.segmenter, [text], [task], [0])
            self._wholes[text, task] = SmallEvidence(answer.logits, self.whole, answer.presence, answer.unknown_words)
        return self._wholes[text, task]

    def _settled(self, of_tiles: dict[Local, Evidence]) -> dict[int, list[Geometry]]:
        """Chooses among the candidates of each question that is settled; outlines are in the scene's pixels."""
        outlines: dict[Local, list[Geometry]] = {}

        def shapes_of(local: Local) -> list[Geometry]:
            if local not in outlines:
                outlines[local] = list(self._traced(of_tiles[local]).polygons)
            return outlines[local]

        chosen = {}
        for number, (question, task) in enumerate(zip(self.asked, self.tasks, strict=True)):
            if question.mode == "settle":
                others = {each.other: shapes_of((each.other, task)) for each in question.conditions if each.other}
                chosen[number] = settle(question.conditions, shapes_of((question.local, task)), others, self.ground)
        return chosen

    def _traced(self, evidence: Evidence) -> Traced:
        decision = SceneDecision.of(evidence, self.deciding)

        def strips() -> Iterator[tuple[np.ndarray, None]]:
            for window in strips_of(self.scene.height, self.scene.width):
                yield (evidence.read(window) > decision.threshold) & self._valid(window), None

        return trace(strips() if decision.present else [], self.scene.width)

    def _valid(self, window: Window) -> np.ndarray:
        """Returns which of the scene's own pixels are asked about: those with data, in the area of interest."""
        _, valid = self.scene.read_own(window)
        return valid if self.area is None else valid & self.area.mask(window)

    def _write_masks(
        self, writer: SceneWriter, known: list[Evidence], drawn: dict[int, Outlines]
    ) -> list[MeanProbability]:
        decisions = [SceneDecision.of(evidence, self.deciding) for evidence in known]
        means = [MeanProbability() for _ in known]
        for window in strips_of(self.scene.height, self.scene.width):
            valid = self._valid(window)

            def mask_of(number: int, window: Window = window, valid: np.ndarray = valid) -> np.ndarray:
                logits = known[number].read(window)
                mask = drawn[number].rows(window) if number in drawn else logits > decisions[number].threshold
                mask &= valid
                means[number].add(probabilities_of(logits), mask)
                return mask

            writer.write(window, np.stack(side_by_side(mask_of, range(len(known)))), valid)
        return means

    def _corners(self, number: int, evidence: Evidence) -> Collected:
        """Returns the corners of a question's regions, found in the mask that was written."""
        scene = self.scene
        # Tracing takes some seventy bytes a pixel, and several questions are traced at a time.
        rows = min(max(PIXELS_AT_A_TIME // (MOST_THREADS * scene.width), 1), ROWS_AT_ONCE)
        windows = list(strips_of(scene.height, scene.width, rows))
        probabilities = (probabilities_of(evidence.read(window)) for window in windows)
        # Closed here, also after an error: rasterio cannot close a file in another thread than the one that opened it.
        with contextlib.closing(read_mask_back(self.output, number, windows)) as masks:
            return collect_corners(zip(masks, probabilities, strict=True), scene.width)

    def _table(self, number: int, corners: Collected) -> Any:
        """Returns the polygons of a question."""
        scene, options, question = self.scene, self.options, self.asked[number]
        traced = outlines_of(corners)
        # By the same curve as the whole mask's: a polygon's score, too, is the IoU to expect.
        scores = [score_of(raw, *self.deciding.score_curve) for raw in traced.scores.tolist()]
        table = table_of(
            replace(traced, scores=np.array(scores, np.float64)), (scene.height, scene.width),
            transform=None if scene.crs is None else scene.transform, crs=scene.crs,
            min_area=options.min_area, simplify=options.simplify, right_angles=options.right_angles,
            facts={"question": question.text, "answer": None, "source": scene.public_name, "model": self.model},
        )  # fmt: skip
        return table.drop(columns="value").assign(answer=_in_words(question, len(table)))


def _in_words(question: SceneQuestion, regions: int) -> str | None:
    """Returns the answer in words, which only counting has: of tiles each could say but what it sees itself."""
    return str(regions) if question.is_count else None


class Outlines:
    """Shapes in a scene's pixels, drawn strip by strip."""

    def __init__(self, shapes: list[Geometry]) -> None:
        self.shapes = np.asarray(shapes, dtype=object)
        self.tree = geo_package("shapely").STRtree(self.shapes)

    def rows(self, window: Window) -> np.ndarray:
        """Returns which pixels of a window have their centre in a shape: boolean ``(h, w)``."""
        box = geo_package("shapely").box(window.left, window.top, window.right, window.bottom)
        near = self.shapes[self.tree.query(box)]
        mask = np.zeros((window.height, window.width), np.uint8)
        if len(near):
            place = geo_package("rasterio").Affine.translation(window.left, window.top)
            geo_package("rasterio.features").rasterize(near, out=mask, transform=place)
        return mask.astype(bool)

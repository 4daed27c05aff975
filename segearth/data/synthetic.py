"""Endless synthetic overhead scenes: drawn fields, roads, houses, water and ships, with exact annotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.expressions.builder import BuilderSettings, ExpressionBuilder
from segearth.data.expressions.table import load_table
from segearth.data.scene import Scene, SceneObject
from segearth.errors import UnknownNameError
from segearth.structures import Sample

VOCABULARY = ("building", "field", "road", "ship", "swimming pool", "tree", "vehicle", "water body")
STUFF = ("field", "road", "water body")
ROOFS = {"tin": (70, 110, 170), "clay_tiles": (176, 86, 58), "concrete": (176, 172, 166)}
GROUND = ((122, 132, 84), (150, 136, 104), (108, 122, 76))


class SyntheticDataset(SegmentationDataset):
    """Scenes drawn from a seed; the same index always gives the same image and questions."""

    name = "synthetic"
    licence = "Apache-2.0 (drawn by this library)"
    tree: ClassVar[str] = "(no files: scenes are drawn)"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        length: int = 64,
        size: int = 256,
        seed: int = 0,
        max_questions: int = 8,
        table: str | Path | Sequence[str | Path] = (),
    ) -> None:
        """Prepares scenes; no file is read.

        Args:
            root: Ignored; there so that every data set is opened alike.
            split: ``"train"``, ``"val"`` or ``"test"``; the scenes of two splits differ.
            length: Number of scenes.
            size: Side of the square images in pixels, at least 64.
            seed: Another seed gives other scenes.
            max_questions: Most questions of a scene.
            table: Files with words and needs of your own, added to the built-in ones; see ``docs/expressions.md``.

        Raises:
            UnknownNameError: The split does not exist.
            ConfigError: A table is missing or not as described.
        """
        if split not in self.splits:
            raise UnknownNameError(f"{self.name} split", split, self.splits)
        self.root, self.split, self.strict = Path(root or "."), split, True
        self.problems = []
        self.length, self.size, self.seed = length, size, seed
        self.table = load_table(table)
        self._builder = ExpressionBuilder(self.table, BuilderSettings(max_questions=max_questions))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        image, scene = draw_scene(self._rng(index, 0), self.size)
        questions = self._builder.build(scene, self._rng(index, 1))
        for number, question in enumerate(questions):
            question.id = f"{index}-{number}"
        return Sample(str(index), image, questions, meta={"source": self.name})

    def image_size(self, index: int) -> tuple[int, int]:
        """``(size, size)``."""
        del index
        return self.size, self.size

    def image(self, index: int) -> np.ndarray:
        """Image ``index`` as ``uint8`` RGB of shape ``(size, size, 3)``."""
        return draw_scene(self._rng(index, 0), self.size)[0]

    def scene(self, index: int) -> Scene:
        """The annotation of image ``index``."""
        return draw_scene(self._rng(index, 0), self.size)[1]

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} scenes")
        return np.random.default_rng([self.seed, self.splits.index(self.split), index, stream])


def draw_scene(rng: np.random.Generator, size: int = 256) -> tuple[np.ndarray, Scene]:
    """Draws one scene.

    Args:
        rng: Source of every choice.
        size: Side of the square image in pixels, at least 64.

    Returns:
        The image, ``uint8`` RGB of shape ``(size, size, 3)``, and its annotation.
    """
    canvas = _Canvas(rng, size)
    if rng.random() < 0.6:
        canvas.fields()
    if rng.random() < 0.5:
        canvas.water()
    if rng.random() < 0.8:
        canvas.roads()
    canvas.houses(int(rng.integers(0, 9)))
    canvas.trees(int(rng.integers(0, 12)))
    return canvas.finished()


class _Canvas:
    """A picture and, pixel for pixel, the object on top."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        self.image = np.empty((size, size, 3), np.float32)
        self.image[:] = GROUND[int(rng.integers(len(GROUND)))]
        self.owner = np.zeros((size, size), np.int32)
        self.kinds: list[tuple[str, dict[str, str]]] = []

    def fields(self) -> None:
        """Striped rectangles."""
        for _ in range(int(self.rng.integers(1, 4))):
            points = self._rectangle(self._point(), self._span(0.2, 0.45), self._span(0.2, 0.45), self._angle())
            mask = self._add("field", points, self._varied((136, 150, 60)))
            ys, xs = np.nonzero(mask)
            angle, period = self._angle(), self.size * 0.03
            wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / period)
            self.image[ys, xs] += 9 * wave[:, None]

    def water(self) -> None:
        """A body of water along one side, with ships."""
        reach = self._span(0.25, 0.5)
        xs = np.linspace(0, self.size, 9)
        shore = reach + self.rng.normal(0, self.size * 0.02, 9)
        outline = np.concatenate([np.stack([xs, shore], 1), [[self.size, 0], [0, 0]]])
        turns = int(self.rng.integers(4))
        for _ in range(turns):
            outline = np.stack([outline[:, 1], self.size - outline[:, 0]], 1)
        water = self._add("water body", outline, self._varied((46, 84, 104)))
        for _ in range(int(self.rng.integers(0, 6))):
            length = self._span(0.07, 0.16)
            points = self._ship(self._point(), length, length * 0.28, self._angle())
            if self._free(points, water):
                self._add("ship", points, self._varied((206, 204, 200)))

    def roads(self) -> None:
        """One or two straight roads with vehicles."""
        width = self._span(0.045, 0.07)
        for _ in range(int(self.rng.integers(1, 3))):
            centre, angle = self._point(), self._angle()
            points = self._rectangle(centre, 3 * self.size, width, angle)
            dry = ~self._mask_of("water body")
            road = self._add("road", points, self._varied((116, 114, 112)), dry)
            for _ in range(int(self.rng.integers(0, 5))):
                along = self.rng.uniform(-0.5, 0.5) * self.size
                place = centre + along * np.array([np.cos(angle), np.sin(angle)])
                car = self._rectangle(place, self.size * 0.045, self.size * 0.022, angle)
                if self._free(car, road):
                    self._add("vehicle", car, self.rng.integers(20, 235, 3).astype(float))

    def houses(self, number: int) -> None:
        """Houses with roofs of three materials, some with a pool beside."""
        angle = self._angle()
        for _ in range(number):
            points = self._rectangle(self._point(), self._span(0.07, 0.18), self._span(0.06, 0.12), angle)
            if not self._free(points, self._ground()):
                continue
            material = list(ROOFS)[int(self.rng.integers(len(ROOFS)))]
            mask = self._add("building", points, self._varied(ROOFS[material]), attributes={"roof:material": material})
            ridge = np.rint((points[[0, 1]] + points[[3, 2]]) / 2).astype(np.int32)
            shade = np.zeros_like(self.owner, np.uint8)
            cv2.fillPoly(shade, [np.concatenate([np.rint(points[:2]).astype(np.int32), ridge[::-1]])], 1)
            self.image[mask & shade.astype(bool)] *= 0.8
            if self.rng.random() < 0.35:
                pool = self._ellipse(points.mean(axis=0) + self.rng.normal(0, 0.12, 2) * self.size, 0.03, 0.045)
                if self._free(pool, self._ground()):
                    self._add("swimming pool", pool, self._varied((88, 196, 214)))

    def trees(self, number: int) -> None:
        """Single round crowns."""
        for _ in range(number):
            points = self._ellipse(self._point(), 0.02, 0.04)
            if self._free(points, self._ground()):
                mask = self._add("tree", points, self._varied((48, 92, 44)))
                self.image[mask] += self.rng.normal(0, 14, (int(mask.sum()), 1))

    def finished(self) -> tuple[np.ndarray, Scene]:
        """Adds noise and reads the objects off the owner map."""
        grain = cv2.resize(self.rng.normal(0, 9, (self.size // 8, self.size // 8)), (self.size, self.size))
        noise = grain[..., None] + self.rng.normal(0, 4, self.image.shape)
        image = np.clip(cv2.GaussianBlur(self.image, (0, 0), 0.6) + noise, 0, 255).astype(np.uint8)
        objects = []
        for number, (kind, attributes) in enumerate(self.kinds, 1):
            mask = self.owner == number
            if mask.any():
                ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                x0, y0, x1, y1 = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
                bitmap = np.ascontiguousarray(mask[y0:y1, x0:x1])
                objects.append(SceneObject(number, kind, bitmap, (x0, y0, x1, y1), kind not in STUFF, attributes))
        absent = frozenset(("airplane", "solar panel", "stadium"))
        return image, Scene(self.size, self.size, objects, frozenset(VOCABULARY), absent, source="synthetic")

    def _add(
        self,
        kind: str,
        points: np.ndarray,
        colour: np.ndarray,
        where: np.ndarray | None = None,
        attributes: dict[str, str] | None = None,
    ) -> np.ndarray:
        mask = self._filled(points)
        if where is not None:
            mask &= where
        self.kinds.append((kind, attributes or {}))
        self.owner[mask] = len(self.kinds)
        self.image[mask] = colour
        return mask

    def _filled(self, points: np.ndarray) -> np.ndarray:
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
        return mask.astype(bool)

    def _free(self, points: np.ndarray, ground: np.ndarray) -> bool:
        """Whether a shape and a gap around it lie on ``ground`` alone, inside the picture."""
        centre = points.mean(axis=0)
        wide = self._filled(centre + (points - centre) * 1.25)
        inside = points.min() >= 1 and points.max() < self.size - 1
        top = int(self.owner[ground][0]) if ground.any() else 0
        return bool(inside and wide.any() and (ground[wide] & (self.owner[wide] == top)).all())

    def _ground(self) -> np.ndarray:
        return self.owner == 0

    def _mask_of(self, kind: str) -> np.ndarray:
        numbers = [number for number, (name, _) in enumerate(self.kinds, 1) if name == kind]
        return np.isin(self.owner, numbers)

    def _rectangle(self, centre: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [length / 2, width / 2]
        return centre + corners @ _rotation(angle)

    def _ship(self, centre: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
        hull = np.array([[-1, -1], [0.5, -1], [1, 0], [0.5, 1], [-1, 1]]) * [length / 2, width / 2]
        return centre + hull @ _rotation(angle)

    def _ellipse(self, centre: np.ndarray, least: float, most: float) -> np.ndarray:
        angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        axes = [self._span(least, most), self._span(least, most)]
        return centre + np.stack([np.cos(angles), np.sin(angles)], 1) * axes

    def _point(self) -> np.ndarray:
        return self.rng.uniform(0, self.size, 2)

    def _span(self, least: float, most: float) -> float:
        return float(self.rng.uniform(least, most)) * self.size

    def _angle(self) -> float:
        return float(self.rng.uniform(0, np.pi))

    def _varied(self, colour: tuple[int, int, int]) -> np.ndarray:
        return np.clip(np.array(colour) + self.rng.normal(0, 9, 3), 0, 255)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

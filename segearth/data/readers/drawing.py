"""Draws synthetic overhead images with exact annotations: for each pixel it is known which object is on top."""

from __future__ import annotations

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.readers.textures import GROUND, TextureBank

VOCABULARY = (
    "building", "field", "forest", "road", "ship", "solar panel", "storage tank", "swimming pool", "tennis court",
    "tree", "vehicle", "water body",
)  # fmt: skip
STUFF = ("field", "forest", "road", "water body")
UNSEEN = ("airplane", "stadium")  # never drawn, and in no patch of real ground either: known to be absent
ROOFS = {"tin": (70, 110, 170), "clay_tiles": (176, 86, 58), "concrete": (176, 172, 166)}
GROUNDS = ((122, 132, 84), (150, 136, 104), (108, 122, 76))
COLOURS = {
    "building": (176, 172, 166), "field": (136, 150, 60), "forest": (52, 84, 46), "road": (116, 114, 112),
    "ship": (206, 204, 200), "solar panel": (44, 56, 88), "storage tank": (222, 222, 216),
    "swimming pool": (88, 196, 214), "tennis court": (72, 120, 96), "tree": (48, 92, 44), "water body": (46, 84, 104),
}  # fmt: skip
TEXTURED = ("building", "field", "forest", "road", "tree", "water body")  # large enough for their texture to be seen
# Share of surfaces that are drawn in one colour even if there are patches of real ones, so that a model must also learn
# to recognise objects by their shape.
PLAIN_SHARE = 0.25


def draw_image(
    rng: np.random.Generator, size: int = 256, textures: TextureBank | None = None
) -> tuple[np.ndarray, AnnotatedImage]:
    """Draws one image.

    Args:
        rng: Decides every random choice.
        size: Side of the square image in pixels, at least 64.
        textures: Patches of real surfaces to fill objects with; ``None`` fills each object with one colour.

    Returns:
        The image, ``uint8`` RGB of shape ``(size, size, 3)``, and its annotation.
    """
    canvas = Canvas(rng, size, textures)
    if rng.random() < 0.45:
        canvas.water()
    if rng.random() < 0.35:
        canvas.forest()
    if rng.random() < 0.5:
        canvas.fields()
    if rng.random() < 0.75:
        canvas.roads()
    dense = rng.random() < 0.3  # a settlement of many small houses
    canvas.houses(int(rng.integers(12, 28) if dense else rng.integers(0, 9)), 0.6 if dense else 1.0)
    if rng.random() < 0.35:
        canvas.facilities()
    canvas.trees(int(rng.integers(0, 14)))
    return canvas.finished()


class Canvas:
    """A picture that is being drawn, and a map of the same size with the number of the topmost object at each pixel."""

    def __init__(self, rng: np.random.Generator, size: int, textures: TextureBank | None = None) -> None:
        """Starts with bare ground; see :func:`draw_image`."""
        self.rng, self.size, self.textures = rng, size, textures
        self.image = self._surface(GROUND, GROUNDS[int(rng.integers(len(GROUNDS)))], size, size)
        self.owner = np.zeros((size, size), np.int32)
        self.kinds: list[tuple[str, dict[str, str]]] = []
        # The shadow's direction; its length is given for an object of height 1.
        direction = self._angle() * 2
        self.shadow = np.array([np.cos(direction), np.sin(direction)]) * rng.uniform(0.15, 0.5)

    def fields(self) -> None:
        """Adds fields: rectangles, some of them striped."""
        for _ in range(int(self.rng.integers(1, 4))):
            points = self._rectangle(self._point(), self._span(0.2, 0.45), self._span(0.2, 0.45), self._angle())
            mask = self._add("field", points, where=~self._mask_of("water body"))
            if mask.any() and self.rng.random() < 0.6:
                ys, xs = np.nonzero(mask)
                angle, period = self._angle(), self.size * self.rng.uniform(0.02, 0.05)
                wave = np.sin((xs * np.cos(angle) + ys * np.sin(angle)) * 2 * np.pi / period)
                self.image[ys, xs] += 9 * wave[:, None]

    def forest(self) -> None:
        """Adds one or two large patches of forest with a ragged edge."""
        for _ in range(int(self.rng.integers(1, 3))):
            outline = self._blob(self._point(), self._span(0.15, 0.38), 24, 0.25)
            self._add("forest", outline, where=~self._mask_of("water body"))

    def water(self) -> None:
        """Adds a pond or a body of water along one side of the image, with ships."""
        if self.rng.random() < 0.3:
            outline = self._blob(self._point(), self._span(0.14, 0.28), 18, 0.15)
        else:
            reach = self._span(0.25, 0.5)
            xs = np.linspace(0, self.size, 9)
            shore = reach + self.rng.normal(0, self.size * 0.02, 9)
            outline = np.concatenate([np.stack([xs, shore], 1), [[self.size, 0], [0, 0]]])
            for _ in range(int(self.rng.integers(4))):
                outline = np.stack([outline[:, 1], self.size - outline[:, 0]], 1)
        water = self._add("water body", outline)
        spots = np.argwhere(water)[:, ::-1]
        for _ in range(int(self.rng.integers(0, 9)) if len(spots) else 0):
            length = self._span(0.04, 0.16)
            width = length * self.rng.uniform(0.22, 0.35)
            points = self._ship(spots[int(self.rng.integers(len(spots)))], length, width, self._angle())
            if self._free(points, water):
                self._add("ship", points)

    def roads(self) -> None:
        """Adds one to three roads, straight or bent, with vehicles."""
        for _ in range(int(self.rng.integers(1, 4))):
            width, centre, angle = self._span(0.025, 0.07), self._point(), self._angle()
            bend = self.rng.normal(0, 0.35) if self.rng.random() < 0.5 else 0.0
            reach = np.linspace(-1.5, 1.5, 25) * self.size
            turn = angle + bend * reach / self.size
            way = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * reach[:, None]
            mask = np.zeros_like(self.owner, np.uint8)
            cv2.polylines(mask, [np.rint(way).astype(np.int32)], False, 1, max(2, round(width)))
            road = self._add_mask("road", mask.astype(bool) & ~self._mask_of("water body"))
            for _ in range(int(self.rng.integers(0, 7))):
                spot = int(self.rng.integers(len(way)))
                place = way[spot] + self.rng.normal(0, width / 5, 2)
                car = self._rectangle(place, width * 0.75, width * 0.38, turn[spot])
                if self._free(car, road):
                    self._add("vehicle", car, self.rng.integers(20, 235, 3).astype(float))

    def houses(self, number: int, scale: float = 1.0) -> None:
        """Adds houses with roofs of three materials, some with a swimming pool nearby.

        Args:
            number: The most houses; one for which there is no room is left out.
            scale: Factor of the houses' sides.
        """
        angle = self._angle()
        for _ in range(number):
            sides = self._span(0.07, 0.2) * scale, self._span(0.06, 0.13) * scale
            turn = angle + (self._angle() if self.rng.random() < 0.2 else 0)
            points = self._rectangle(self._point(), *sides, turn)
            if not self._free(points, self._ground()):
                continue
            self._shade(points, sides[1] * 0.9)
            material = list(ROOFS)[int(self.rng.integers(len(ROOFS)))]
            textured = self.textures is not None and self.rng.random() < 0.5
            facts = {} if textured else {"roof:material": material}  # the material of a real patch is not known
            mask = self._add("building", points, None if textured else self._varied(ROOFS[material]), attributes=facts)
            self._ridge(points, mask)
            if self.rng.random() < 0.3:
                place = points.mean(axis=0) + self.rng.normal(0, 0.12, 2) * self.size
                pool = self._blob(place, self._span(0.02, 0.04), 16)
                if self._free(pool, self._ground()):
                    self._add("swimming pool", pool)

    def facilities(self) -> None:
        """Adds a group of objects of one kind: solar panels, storage tanks or tennis courts."""
        kind = ("solar panel", "storage tank", "tennis court")[int(self.rng.integers(3))]
        centre, angle = self._point(), self._angle()
        size = self._span(0.05, 0.11)
        for _ in range(int(self.rng.integers(1, 7))):
            place = centre + self.rng.normal(0, 0.2, 2) * self.size
            grown = size * self.rng.uniform(0.6, 1.5)
            if kind == "storage tank":
                points = self._blob(place, grown / 2, 24)
            else:
                points = self._rectangle(place, grown * (2 if kind == "solar panel" else 1.6), grown, angle)
            if not self._free(points, self._ground()):
                continue
            if kind == "storage tank":
                self._shade(points, grown * 0.4)
            mask = self._add(kind, points)
            if kind != "storage tank":
                lines = self._grid(points, 6 if kind == "solar panel" else 2)
                self.image[mask & lines] = self._varied((196, 200, 204))

    def trees(self, number: int) -> None:
        """Adds at most ``number`` single trees with round crowns."""
        for _ in range(number):
            points = self._blob(self._point(), self._span(0.02, 0.045), 14, 0.1)
            if self._free(points, self._ground()):
                self._shade(points, self.size * 0.04)
                mask = self._add("tree", points)
                self.image[mask] += self.rng.normal(0, 14, (int(mask.sum()), 1))

    def finished(self) -> tuple[np.ndarray, AnnotatedImage]:
        """Returns the picture with noise added, and the annotation, with the visible part of each object."""
        grain = cv2.resize(self.rng.normal(0, 9, (self.size // 8, self.size // 8)), (self.size, self.size))
        noise = grain[..., None] * self.rng.uniform(0, 1) + self.rng.normal(0, 4, self.image.shape)
        image = np.clip(cv2.GaussianBlur(self.image, (0, 0), 0.6) + noise, 0, 255).astype(np.uint8)
        objects = []
        for number, (kind, attributes) in enumerate(self.kinds, 1):
            mask = self.owner == number
            if mask.any():
                ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                x0, y0, x1, y1 = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
                bitmap = np.ascontiguousarray(mask[y0:y1, x0:x1])
                objects.append(AnnotatedObject(number, kind, bitmap, (x0, y0, x1, y1), kind not in STUFF, attributes))
        # A patch of real ground may show trees or cars, so neither their number nor their absence is known.
        incomplete = frozenset(("tree", "vehicle") if self.textures is not None else ())
        vocabulary, absent = frozenset(VOCABULARY), frozenset(UNSEEN)
        return image, AnnotatedImage(self.size, self.size, objects, vocabulary, absent, incomplete, source="synthetic")

    def _add(
        self,
        kind: str,
        points: np.ndarray,
        colour: np.ndarray | None = None,
        where: np.ndarray | None = None,
        attributes: dict[str, str] | None = None,
    ) -> np.ndarray:
        mask = self._filled(points)
        return self._add_mask(kind, mask if where is None else mask & where, colour, attributes)

    def _add_mask(
        self, kind: str, mask: np.ndarray, colour: np.ndarray | None = None, attributes: dict[str, str] | None = None
    ) -> np.ndarray:
        self.kinds.append((kind, attributes or {}))
        self.owner[mask] = len(self.kinds)
        if not mask.any():
            return mask
        if colour is not None:
            self.image[mask] = colour
            return mask
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        rows, columns = slice(int(ys[0]), int(ys[-1]) + 1), slice(int(xs[0]), int(xs[-1]) + 1)
        inside = mask[rows, columns]
        self.image[rows, columns][inside] = self._surface(kind, COLOURS[kind], *inside.shape)[inside]
        return mask

    def _surface(self, kind: str, colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
        textured = self.textures is not None and (kind == GROUND or kind in TEXTURED)
        if textured and self.rng.random() >= PLAIN_SHARE:
            assert self.textures is not None
            filled = self.textures.fill(kind, height, width, self.rng)
            if filled is not None:
                return filled
        return np.broadcast_to(self._varied(colour).astype(np.float32), (height, width, 3)).copy()

    def _shade(self, points: np.ndarray, height: float) -> None:
        """Darkens the ground beside an object, on the side away from the sun."""
        cast = np.concatenate([points, points + self.shadow * height])
        hull = cv2.convexHull(np.float32(cast))[:, 0]
        self.image[self._filled(hull) & ~self._filled(points) & ~self._covered()] *= 0.55

    def _ridge(self, points: np.ndarray, mask: np.ndarray) -> None:
        """Darkens one side of a roof."""
        middle = points.mean(axis=0)
        along = points[1] - points[0]
        ys, xs = np.nonzero(mask)
        beyond = (xs - middle[0]) * -along[1] + (ys - middle[1]) * along[0] > 0
        self.image[ys[beyond], xs[beyond]] *= 0.82

    def _grid(self, points: np.ndarray, number: int) -> np.ndarray:
        lines = np.zeros_like(self.owner, np.uint8)
        for share in np.linspace(0, 1, number + 1):
            a, b = points[0] + (points[1] - points[0]) * share, points[3] + (points[2] - points[3]) * share
            cv2.line(lines, tuple(np.rint(a).astype(int).tolist()), tuple(np.rint(b).astype(int).tolist()), 1)
        return lines.astype(bool)

    def _filled(self, points: np.ndarray) -> np.ndarray:
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
        return mask.astype(bool)

    def _free(self, points: np.ndarray, ground: np.ndarray) -> bool:
        """Whether a shape, with a gap around it, lies inside the picture and only on one object of ``ground``."""
        centre = points.mean(axis=0)
        wide = self._filled(centre + (points - centre) * 1.25)
        inside = points.min() >= 1 and points.max() < self.size - 1
        top = int(self.owner[ground][0]) if ground.any() else 0
        return bool(inside and wide.any() and (ground[wide] & (self.owner[wide] == top)).all())

    def _ground(self) -> np.ndarray:
        return self.owner == 0

    def _covered(self) -> np.ndarray:
        return self.owner > 0

    def _mask_of(self, kind: str) -> np.ndarray:
        numbers = [number for number, (name, _) in enumerate(self.kinds, 1) if name == kind]
        return np.isin(self.owner, numbers)

    def _rectangle(self, centre: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [length / 2, width / 2]
        return centre + corners @ _rotation(angle)

    def _ship(self, centre: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
        hull = np.array([[-1, -1], [0.5, -1], [1, 0], [0.5, 1], [-1, 1]]) * [length / 2, width / 2]
        return centre + hull @ _rotation(angle)

    def _blob(self, centre: np.ndarray, radius: float, corners: int, ragged: float = 0.0) -> np.ndarray:
        """Returns the corners of an ellipse.

        Args:
            centre: Its centre (x, y).
            radius: Its approximate radius.
            corners: The number of corners.
            ragged: Standard deviation of the corners' distance from the centre, as a share of the radius.
        """
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        reach = radius * np.clip(1 + self.rng.normal(0, ragged, corners), 0.5, 1.6)
        stretch = np.array([self.rng.uniform(0.75, 1.3), 1.0])
        around = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] * stretch
        return centre + around @ _rotation(self._angle())

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

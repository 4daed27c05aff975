"""Patches of real surfaces, cut out of annotated images, with which drawn images are filled.

What is learned of flat colours does not carry over to photographs: with real surfaces a drawn image looks like one, and
what it teaches about place, size and number can be used there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedDataset, AnnotatedImage
from segearth.utils.seeds import rng_for

GROUND = "ground"  # what lies outside every annotated object
LEAST_SIDE = 8  # pixels of a patch
MOST_SIDE = 96
KEPT = 40  # patches of a class: more would hardly differ

# Whose surface a drawn class may wear, beside its own.
ALIKE: dict[str, tuple[str, ...]] = {
    "building": ("property roof", "secondary structure"),
    "field": ("grass",),
    "forest": ("trees and shrubs", "dense vegetation"),
    "road": ("driveway", "parking area"),
    "tree": ("trees and shrubs", "dense vegetation", "forest"),
    "water body": ("flooded area",),
}


class TextureBank:
    """Square patches by class."""

    def __init__(self, patches: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Takes ``uint8`` RGB patches ``(s, s, 3)`` by class; a class may be missing."""
        self.patches = {name: list(found) for name, found in patches.items() if found}

    @classmethod
    def cut(
        cls, dataset: AnnotatedDataset, seed: int = 0, ground_classes: Sequence[str] = ("building",)
    ) -> TextureBank:
        """Cuts patches out of every image of a data set.

        Args:
            dataset: Images with annotation, such as the training split.
            seed: Decides which patches are kept.
            ground_classes: Ground is taken only from images whose source annotates one of these or what looks alike:
                elsewhere what is not annotated could be an object.
        """
        wanted = {other for name in ground_classes for other in (name, *ALIKE.get(name, ()))}
        found: dict[str, list[np.ndarray]] = defaultdict(list)
        for index in range(len(dataset)):
            image, annotated = dataset.image(index), dataset.annotated(index)
            rng = rng_for(seed, index)
            for name, mask in _surfaces(annotated, bool(wanted & annotated.vocabulary)):
                patch = _patch_inside(image, mask, rng)
                if patch is not None:
                    found[name].append(patch)
        rng = rng_for(seed)
        return cls({name: [some[i] for i in rng.permutation(len(some))[:KEPT]] for name, some in sorted(found.items())})

    def fill(self, name: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray | None:
        """Returns a surface of a class, a patch repeated by mirroring; ``None`` if the bank has none of it.

        Args:
            name: The class.
            height: Pixels down.
            width: Pixels across.
            rng: Decides patch, scale and orientation.

        Returns:
            ``(height, width, 3)`` float32 in [0, 255].
        """
        choices = [patch for other in (name, *ALIKE.get(name, ())) for patch in self.patches.get(other, ())]
        if not choices:
            return None
        patch = choices[int(rng.integers(len(choices)))]
        grown = min(3.0, max(height, width) / (2 * len(patch)))  # many small repeats would look like a pattern
        side = max(4, round(len(patch) * max(rng.uniform(0.7, 1.4), grown)))
        patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_LINEAR)
        patch = np.rot90(patch, int(rng.integers(4)))
        down, across = (np.arange(length) + int(rng.integers(side)) for length in (height, width))
        rows, columns = (np.abs((places % (2 * side)) - side + 0.5).astype(int) for places in (down, across))
        return patch[rows[:, None], columns].astype(np.float32)


def _surfaces(annotated: AnnotatedImage, with_ground: bool) -> list[tuple[str, np.ndarray]]:
    surfaces, free = [], np.ones((annotated.height, annotated.width), bool)
    for name, items in annotated.by_category.items():
        mask = annotated.union_mask(item.id for item in items)
        surfaces.append((name, mask))
        free &= ~mask
    return [*surfaces, (GROUND, free)] if with_ground else surfaces


def _patch_inside(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Cuts the largest square that fits into a mask around a drawn point far from its edge."""
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]  # steps to the edge, diagonal ones included
    least = LEAST_SIDE / 2
    if depth.max() < least:
        return None
    ys, xs = np.nonzero(depth >= max(least, depth.max() / 2))
    chosen = int(rng.integers(len(ys)))
    y, x = int(ys[chosen]), int(xs[chosen])
    reach = min(int(depth[y, x]), MOST_SIDE // 2)
    return image[y - reach + 1 : y + reach, x - reach + 1 : x + reach].copy()

"""Patches of real surfaces, cut out of annotated photographs, with which drawn objects are filled.

A model that learns from flat colours cannot use on photographs what it has learned. With real surfaces a drawn image
looks like a photograph, so what the model learns about place, size and number carries over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from segearth.data.questions.annotation import AnnotatedDataset, AnnotatedImage
from segearth.utils.seeds import rng_for

GROUND = "ground"  # the name of what lies outside of every annotated object
LEAST_SIDE = 8  # shortest and longest side of a patch in pixels
MOST_SIDE = 96
KEPT = 40  # the most patches of a class; more would add little variety

# From a drawn class to the annotated classes whose surfaces it may be filled with, beside its own.
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
            ground_classes: Patches of ground are taken only from images whose source annotates one of these classes, or
                a class like them in :data:`ALIKE`. In other images a patch without annotation could show an object.
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
        """Returns a surface of a class: a random patch, repeated by mirroring.

        Args:
            name: The class.
            height: Pixels down.
            width: Pixels across.
            rng: Decides patch, scale and orientation.

        Returns:
            ``(height, width, 3)`` float32 in [0, 255], or ``None`` if there is no patch of the class.
        """
        choices = [patch for other in (name, *ALIKE.get(name, ())) for patch in self.patches.get(other, ())]
        if not choices:
            return None
        patch = choices[int(rng.integers(len(choices)))]
        # A small patch is enlarged, up to three times, since a surface of many repeats would look like a pattern.
        enlarged = min(3.0, max(height, width) / (2 * len(patch)))
        side = max(4, round(len(patch) * max(rng.uniform(0.7, 1.4), enlarged)))
        patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_LINEAR)
        patch = np.rot90(patch, int(rng.integers(4)))
        down, across = (np.arange(length) + int(rng.integers(side)) for length in (height, width))
        rows, columns = (np.abs((index % (2 * side)) - side + 0.5).astype(int) for index in (down, across))
        return patch[rows[:, None], columns].astype(np.float32)


def _surfaces(annotated: AnnotatedImage, with_ground: bool) -> list[tuple[str, np.ndarray]]:
    surfaces, free = [], np.ones((annotated.height, annotated.width), bool)
    for name, items in annotated.by_category.items():
        mask = annotated.union_mask(item.id for item in items)
        surfaces.append((name, mask))
        free &= ~mask
    return [*surfaces, (GROUND, free)] if with_ground else surfaces


def _patch_inside(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Cuts out the largest square inside the mask around a random point that is far from the mask's edge."""
    padded = np.pad(mask.astype(np.uint8), 1)
    # Steps to the mask's edge, where a diagonal step counts as one: half the side of the largest square at each pixel.
    depth = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    least = LEAST_SIDE / 2
    if depth.max() < least:
        return None
    ys, xs = np.nonzero(depth >= max(least, depth.max() / 2))
    chosen = int(rng.integers(len(ys)))
    y, x = int(ys[chosen]), int(xs[chosen])
    reach = min(int(depth[y, x]), MOST_SIDE // 2)
    return image[y - reach + 1 : y + reach, x - reach + 1 : x + reach].copy()

"""Images for the tests of expressions: one by hand, and random ones with every kind of doubt in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.claims import Claim, verify_claim
from segearth.data.questions.table import load_table

TABLE = load_table()
BUILDING = Claim(("building",))
TIN = replace(BUILDING, attribute=("roof:material", "tin"))
POOL = Claim(("swimming pool",), one=True)
CLASSES = ("building", "swimming pool", "vehicle", "tree", "ship")
STUFF = ("road", "grass", "water body")
MATERIALS = ("tin", "concrete", "clay_tiles", "thatch")  # the last one is in no table
SHAPES = ("flat", "gabled", "mixed")


def block(number: int, category: str, x0: int, y0: int, x1: int, y1: int, **facts) -> AnnotatedObject:
    return AnnotatedObject(number, category, np.ones((y1 - y0, x1 - x0), bool), (x0, y0, x1, y1), **facts)


def village(**facts) -> AnnotatedImage:
    """100 x 100: a large, a middle and a small building, a pool beside the middle one, a road along the bottom."""
    objects = [
        block(1, "building", 5, 5, 35, 25, attributes={"roof:material": "tin"}),  # 600 px, upper left
        block(2, "building", 70, 10, 90, 30, attributes={"roof:material": "concrete"}),  # 400 px, upper right
        block(3, "building", 10, 65, 20, 75, attributes={"roof:material": "tin"}),  # 100 px, lower left
        block(4, "swimming pool", 75, 35, 85, 41),
        block(5, "road", 0, 90, 100, 96, is_thing=False),
    ]
    vocabulary = frozenset(("building", "swimming pool", "road", "vehicle", "driveway"))
    return AnnotatedImage(100, 100, objects, vocabulary, frozenset(("ship",)), **facts)


def frame_of(*objects: AnnotatedObject, size: int = 100, **facts) -> AnnotatedImage:
    """A square frame with these objects; its vocabulary is their classes."""
    return AnnotatedImage(size, size, objects, frozenset(item.category for item in objects), **facts)


def answer(claim: Claim, annotated: AnnotatedImage | None = None) -> tuple[int, ...] | None:
    """The ids a claim is true of, or ``None`` if it cannot be asked."""
    found = verify_claim(annotated or village(), claim, TABLE)
    return None if found is None else found.ids


def verdict(claim: Claim, *objects: AnnotatedObject, size: int = 100, **facts) -> tuple[int, ...] | None:
    """The ids a claim is true of in a square frame of these objects, or ``None``."""
    return answer(claim, frame_of(*objects, size=size, **facts))


def far(number: int = 9, category: str = "building") -> AnnotatedObject:
    """An object in the lower right corner, away from everything else in these tests."""
    return block(number, category, 80, 80, 96, 96)


def random_image(rng: np.random.Generator) -> AnnotatedImage:
    """Ragged shapes of a few classes at random places, often partly out of the frame's edge or too alike to be told."""
    height, width = (int(v) for v in rng.choice((120, 160, 200), 2))
    names = [str(name) for name in rng.permutation((*CLASSES, *STUFF))[: int(rng.integers(2, 6))]]
    objects = []
    for number in range(1, int(rng.integers(2, 14))):
        category = names[int(rng.integers(len(names)))]
        thing = category not in STUFF
        h, w = (int(v) for v in rng.integers(3, 40 if thing else 90, 2))
        x0, y0 = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        mask = rng.random((h, w)) < rng.choice((0.6, 1.0))
        mask[0, 0] = mask[-1, -1] = mask[0, -1] = mask[-1, 0] = True  # the box is the mask's own
        facts = {}
        if category == "building" and rng.random() < 0.9:
            facts["roof:material"] = str(rng.choice(MATERIALS))
        if category == "building" and rng.random() < 0.5:
            facts["roof:shape"] = str(rng.choice(SHAPES))
        truncated = thing and rng.random() < 0.05
        objects.append(AnnotatedObject(number, category, mask, (x0, y0, x0 + w, y0 + h), thing, facts, truncated))

    def some(options: tuple[str, ...], share: float) -> frozenset[str]:
        return frozenset(name for name in options if rng.random() < share)

    everything = (*CLASSES, *STUFF)
    return AnnotatedImage(
        width,
        height,
        objects,
        vocabulary=frozenset(names) | some(everything, 0.5),
        known_absent=some(("airplane", "stadium", "solar panel", "window"), 0.5),
        incomplete=some(everything, 0.1),
        possible=some(("under construction", "flooded area"), 0.1),
        unresolved=some(everything, 0.05),
    )

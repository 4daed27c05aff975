from __future__ import annotations

import numpy as np
import pytest

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.readers.drawing import draw_image
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.data.readers.textures import GROUND, TextureBank
from segearth.errors import DatasetError


class OneImage:
    """A grey picture with a red house of 30 x 20 pixels and a blue ship too small for a patch."""

    def __init__(self, vocabulary=("building", "ship")):
        self.vocabulary = frozenset(vocabulary)

    def __len__(self):
        return 1

    def image(self, index):
        image = np.full((60, 60, 3), 100, np.uint8)
        image[10:30, 10:40] = (200, 0, 0)
        image[50:54, 50:54] = (0, 0, 200)
        return image

    def annotated(self, index):
        house = AnnotatedObject(1, "building", np.ones((20, 30), bool), (10, 10, 40, 30))
        ship = AnnotatedObject(2, "ship", np.ones((4, 4), bool), (50, 50, 54, 54))
        return AnnotatedImage(60, 60, [house, ship], self.vocabulary)


def test_patches_hold_one_surface_each():
    bank = TextureBank.cut(OneImage())
    assert bank.patches.keys() == {"building", GROUND}
    roof, ground = bank.patches["building"][0], bank.patches[GROUND][0]
    assert (roof == (200, 0, 0)).all() and roof.shape[0] == roof.shape[1] >= 8
    assert (ground == 100).all()


def test_ground_comes_only_from_sources_that_would_have_marked_a_building():
    assert GROUND not in TextureBank.cut(OneImage(("ship",))).patches
    assert GROUND in TextureBank.cut(OneImage(("property roof",))).patches  # which looks like one


def test_filling_repeats_a_patch_and_borrows_from_what_looks_alike():
    patch = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    bank = TextureBank({"grass": [patch]})
    filled = bank.fill("field", 30, 50, np.random.default_rng(0))
    assert filled.shape == (30, 50, 3) and filled.dtype == np.float32
    assert filled.min() >= 0 and filled.max() <= 191 and filled.std() > 10
    assert bank.fill("road", 5, 5, np.random.default_rng(0)) is None


def test_drawn_images_wear_real_surfaces():
    loud = np.zeros((32, 32, 3), np.uint8)
    loud[..., 0] = 255  # no drawn surface is pure red
    bank = TextureBank({GROUND: [loud]})

    def red_share(seed, textures):
        image = draw_image(np.random.default_rng(seed), 96, textures)[0].astype(int)
        return (image @ [1, -1, -1] > 150).mean()

    assert np.mean([red_share(seed, bank) > 0.2 for seed in range(12)]) > 0.5
    assert max(red_share(seed, None) for seed in range(12)) < 0.05


def test_what_real_ground_may_hold_is_not_counted():
    bank = TextureBank({GROUND: [np.zeros((16, 16, 3), np.uint8)]})
    assert draw_image(np.random.default_rng(0), 64, bank)[1].incomplete == {"tree", "vehicle"}
    assert not draw_image(np.random.default_rng(0), 64)[1].incomplete


def test_a_set_without_annotations_has_no_surfaces(monkeypatch):
    monkeypatch.setattr("segearth.data.registry.build_dataset", lambda *_: object())
    with pytest.raises(DatasetError, match="cut from jsonl, which has no annotated objects"):
        SyntheticDataset(textures="jsonl")

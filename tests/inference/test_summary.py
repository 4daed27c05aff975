from __future__ import annotations

from pathlib import Path

import numpy as np

from segearth.inference.scene_types import SceneAnswer, SceneResult
from segearth.inference.summary import summary_of, summary_of_scene
from segearth.structures import Segmentation


def test_count_area_and_place_of_regions() -> None:
    mask = np.zeros((50, 100), bool)
    mask[10:40, 20:60] = mask[2, 90] = True
    assert summary_of(Segmentation("roofs", mask, 0.5, True, 0.75)).splitlines() == [
        "2 regions, 1,201 pixels, 24.0 % of the picture (present 0.75, score 0.50)",
        "  1,200 pixels in columns 20 to 59, rows 10 to 39",
        "  1 pixel in columns 90 to 90, rows 2 to 2",
    ]


def test_of_many_regions_the_largest_are_named() -> None:
    mask = np.zeros((9, 9), bool)
    mask[::3, ::3] = True
    mask[6:8, 6:8] = True
    lines = summary_of(Segmentation("roofs", mask, 0.5, True, 0.75)).splitlines()
    assert lines[0].startswith("9 regions, 12 pixels, ")
    assert lines[1] == "  4 pixels in columns 6 to 7, rows 6 to 7"
    assert lines[5:] == ["  1 pixel in columns 0 to 0, rows 3 to 3", "  and 4 more"]


def test_nothing_of_the_kind() -> None:
    absent = Segmentation("roofs", np.zeros((9, 9), bool), 0.0, False, 0.1)
    assert summary_of(absent) == "nothing of the kind (present 0.10, score 0.00)"


def test_words_that_were_passed_over_come_last() -> None:
    mask = np.ones((2, 2), bool)
    here = summary_of(Segmentation("blue roofs", mask, 0.5, True, 0.75, unknown_words=("blue",))).splitlines()
    absent = summary_of(Segmentation("x", ~mask, 0.0, False, 0.1, unknown_words=("blue", "teal"))).splitlines()
    assert len(here) == 3 and here[-1] == "  words that it does not know: blue"
    assert absent[1:] == ["  words that it does not know: blue, teal"]


def test_of_a_scene_they_come_after_the_reason(tmp_path: Path) -> None:
    answer = SceneAnswer("the teal roofs", "tile", "by tiles", True, 0.75, 0.5, 1200, 2, 300.0, "m2", ("teal",))
    result = SceneResult((answer,), tmp_path / "out.tif", None, 4, 0.5)
    assert summary_of_scene(result).splitlines() == [
        "the teal roofs: 2 regions, 300 m2 (present 0.75, score 0.50)",
        "  by tiles",
        "  words that it does not know: teal",
        f"written: {tmp_path / 'out.tif'}",
    ]

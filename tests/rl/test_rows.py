from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segearth.data.registry import build_dataset
from segearth.errors import DatasetError, ImageError
from segearth.prompting.answers import parse_answer
from segearth.prompting.frames import Frame
from segearth.prompting.templates import answer_template
from segearth.rl.completions import RowFacts, row_of_completion
from segearth.rl.rows import QuestionRows

BRIEF = replace(answer_template("brief@1"), frame=Frame.resized(32, 32))


def roofs(**options: Any) -> Any:
    return build_dataset("roofs", None, "train", **{"length": 4, "size": 64, **options})


def test_a_row_is_always_the_same_question() -> None:
    rows = QuestionRows([roofs()], BRIEF, per_image=2)
    texts = [row["prompt"][0]["content"][1]["text"] for row in rows]
    assert len(texts) == len(rows) == 8 and texts == [row["prompt"][0]["content"][1]["text"] for row in rows]
    several = [len(sample.questions) > 1 for sample in roofs()]
    differing = [one != other for one, other in zip(texts[::2], texts[1::2], strict=True)]
    assert differing == several and any(several)  # no question twice where there are two
    other = [row["prompt"][0]["content"][1]["text"] for row in QuestionRows([roofs()], BRIEF, 2, seed=1)]
    assert other != texts


def test_what_a_row_says_is_what_its_traces_answer_is_scored_by() -> None:
    asked, taught = (QuestionRows([roofs()], BRIEF, 1, thought=thought) for thought in (None, "cells"))
    for one, other in zip(asked, taught, strict=True):
        assert one["images"][0].size == (32, 32)  # as large as the frame that answers count
        facts = RowFacts.read(one["extra_info"])
        assert (facts.height, facts.frame_height) == (64, 32)
        assert asked.image_of(facts.image_key).shape == (64, 64, 3)
        row = row_of_completion(other["completion"], one["ground_truth"], facts)
        assert row.answer.instances and row.target is not None and not row.problem
        box = row.answer.instances[0].box
        mask = row.target.mask  # type: ignore[union-attr]
        ys, xs = np.nonzero(mask)
        true = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(np.array(box) - true).max() <= 1.0  # a step of the coarse frame is two pixels


def test_trl_gets_rows_as_a_data_set_that_reads_them_when_asked() -> None:
    pytest.importorskip("datasets")
    rows = QuestionRows([roofs(), roofs(seed=1)], BRIEF)
    dataset = rows.as_dataset()
    assert len(dataset) == 8
    batch = dataset[[5, 5, 0]]
    assert batch["ground_truth"][0] == batch["ground_truth"][1] != batch["ground_truth"][2]
    assert json.loads(batch["ground_truth"][0])["kind"] == "regions" and batch["extra_info"][0]["image_key"] == "1/1"


class Broken:
    """A data set of which some images do not open."""

    def __init__(self, bad: set[int]) -> None:
        self.inner, self.bad = roofs(), bad

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise ImageError(f"image {index} cannot be read")
        return self.inner[index]


def test_another_image_stands_in_for_one_that_does_not_open(caplog: pytest.LogCaptureFixture) -> None:
    rows = QuestionRows([Broken({1, 2})], BRIEF)  # type: ignore[list-item]
    keys = [row["extra_info"]["image_key"] for row in rows]
    assert keys == ["0/0", "0/3", "0/3", "0/3"] and list(rows.left_out) == [(0, 1), (0, 2)]  # each once
    assert rows.left_out[0, 2] == "image 2 cannot be read"
    assert sum("cannot be read" in record.message for record in caplog.records) == 1
    with pytest.raises(DatasetError, match="no image has a question"):
        QuestionRows([Broken({0, 1, 2, 3})], BRIEF)[0]  # type: ignore[list-item]
    with pytest.raises(DatasetError, match="no image to learn from"):
        QuestionRows([], BRIEF)
    with pytest.raises(DatasetError, match="2 images"):
        QuestionRows([roofs()], answer_template("geovlm_temporal@1"))
    with pytest.raises(IndexError):
        rows[4]


def test_regions_of_the_embedded_images_are_rows_too() -> None:
    dataset = build_dataset("aerial_mini", None, "train")
    rows = QuestionRows([dataset], answer_template("think2seg@1"), thought="full")
    first = rows[0]
    reply = first["completion"][0]["content"][0]["text"]
    assert parse_answer(reply, rows.template).problems == () and first["images"][0].size == (840, 840)

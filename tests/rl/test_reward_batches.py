"""Presets, and rows scored in batches."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segearth.errors import ConfigError, UnknownNameError
from segearth.rl.rewards.presets import PRESETS, reward_preset
from segearth.rl.rewards.scoring import count_failures, floor_score, score_batch
from segearth.rl.rewards.settings import ConsistencySettings, RewardSettings
from segearth.rl.rewards.terms import RewardPreset, RewardRow, RewardTerm
from segearth.structures import Boxes, Choices, Regions, Text

TARGET = np.zeros((20, 20), bool)
TARGET[0:10, 0:10] = True
NOTHING = np.zeros((20, 20), bool)
PRESENT = Regions(TARGET)
BOX = (0, 0, 10, 10)
THINK2SEG = reward_preset("think2seg_rs")


def filled(image_key, instances):
    """A segmenter that fills boxes."""
    mask = np.zeros((20, 20), bool)
    for instance in instances:
        x0, y0, x1, y1 = map(int, instance.box)
        mask[y0:y1, x0:x1] = True
    return mask


def embed(texts):
    return np.ones((len(texts), 2))


def row(answer, target=PRESENT, **more):
    return RewardRow(answer, target, (20, 20), "image", **more)


def total(answer, target=TARGET, masks_of=filled):
    return score_batch(THINK2SEG, [row(answer, Regions(target))], masks_of=masks_of)[0].total


# The presets


def test_think2seg_of_the_worked_examples(pointing):
    part = np.zeros((20, 20), bool)
    part.flat[:37] = True  # 37 pixels of a target of 100
    hundred = np.zeros((20, 20), bool)
    hundred.flat[:100] = True
    assert total(pointing([BOX])) == 4
    assert total(pointing([BOX]), hundred, lambda key, things: part) == pytest.approx(2.74)
    assert total(pointing([BOX], json=False)) == 1  # perfect boxes without the fence
    assert total(pointing([]), NOTHING) == 4
    assert total(pointing([BOX]), NOTHING) == 2
    assert total(pointing([])) == 2
    assert total(pointing(None, tags=False, json=False)) == 0  # prose


def test_rsground_adds_position_boxes_and_form(pointing):
    preset = reward_preset("rsground_r1", RewardSettings(positional_sigma=0.5))
    [score] = score_batch(preset, [row(pointing([(10, 0, 20, 10)]), Boxes((BOX,)))])
    assert score.terms == {"positional": pytest.approx(np.exp(-1)), "detection": 0, "form": 1}
    assert score.total == pytest.approx(1 + np.exp(-1))
    assert preset.consistency == ConsistencySettings()
    changed = reward_preset("rsground_r1", consistency=ConsistencySettings(scale=0.1))
    assert changed.consistency == ConsistencySettings(scale=0.1)
    assert THINK2SEG.consistency is None


@pytest.mark.parametrize(
    ("task", "words", "target", "expected"),
    [
        ("classification", "river", Choices(("river", "road"), ("river",)), 2),
        ("temporal_classification", "river", Choices(("river", "road"), ("road",)), 1),
        ("multi_label", "river", Choices(("river", "road"), ("river", "road")), 1 + 2 / 3),
        ("image_caption", "kitten", Text(("sitting",)), 1 + 8 / 13),
        ("short_answer", "Yes.", Text(("yes",)), 2),
        ("region_caption", "roofs", Text(("a river",)), 1.5),
        ("change_caption", "roofs", Text(("a river",)), 1.5),
    ],
)
def test_geovlm_adds_form_to_what_is_said(saying, task, words, target, expected):
    preset = reward_preset(f"geovlm_r1/{task}")
    scores = score_batch(preset, [row(saying(words), target), row(saying(words, tags=False), target)], embed=embed)
    assert [score.total for score in scores] == pytest.approx([expected, expected - 1])


@pytest.mark.parametrize("task", ["detection", "referred_detection", "disaster_detection"])
def test_geovlm_adds_form_to_what_is_detected(pointing, task):
    target = Boxes((BOX, (15, 15, 18, 18)))
    rows = [row(pointing([BOX]), target), row(pointing([BOX], json=False), target)]
    assert [score.total for score in score_batch(reward_preset(f"geovlm_r1/{task}"), rows)] == [1.5, 0.5]


def test_geovlm_scores_a_description_with_its_boxes(pointing):
    answer = replace(pointing([BOX]), answer="a b c")
    described, bare = row(answer, Boxes((BOX,)), wording="x y z"), row(answer, Boxes((BOX,)))
    scores = score_batch(reward_preset("geovlm_r1/grounding_description"), [described, bare])
    assert [score.total for score in scores] == [1.5, 1]
    assert scores[1].terms == {"grounding_description": None, "form": 1}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_where_it_comes_from_and_can_be_sent_to_another_process(name):
    preset = reward_preset(name)
    assert preset.range == ((0, 4) if name == "think2seg_rs" else (0, 3) if name == "rsground_r1" else (0, 2))
    for term in preset.terms:
        assert term.provenance in ("code", "paper", "reconstruction")
        assert term.note
    again = pickle.loads(pickle.dumps(preset))
    assert [term.name for term in again.terms] == [term.name for term in preset.terms]


def test_a_published_mode_is_told_from_a_choice_of_ours():
    published = RewardSettings(multi_label_score="recall", detection_score="ap")
    for name in ("geovlm_r1/multi_label", "geovlm_r1/detection"):
        assert reward_preset(name, published).terms[0].provenance == "paper"
        assert reward_preset(name).terms[0].provenance == "reconstruction"


def test_weights_can_be_changed(pointing):
    silent = reward_preset("rsground_r1").with_weights({"positional": 0, "form": -2})
    [score] = score_batch(silent, [row(pointing([BOX]), Boxes((BOX,)))])
    assert score.terms["positional"] == 1
    assert score.total == -1
    assert silent.range == (-2, 1)
    assert [term.weight for term in THINK2SEG.with_weights({"json_form": 3}).terms] == [2, 3, 1]
    with pytest.raises(UnknownNameError, match="positional"):
        silent.with_weights({"positonal": 1})
    with pytest.raises(ConfigError, match="weight nan"):
        silent.with_weights({"form": float("nan")})


def test_names_and_tools_are_checked_before_the_first_row(pointing):
    with pytest.raises(UnknownNameError, match="think2seg_rs"):
        reward_preset("think2seg")
    with pytest.raises(ConfigError, match=r"needs masks_of; pass masks_of=a function"):
        score_batch(THINK2SEG, [])
    with pytest.raises(ConfigError, match=r"needs embed; .*SentenceTransformer"):
        score_batch(reward_preset("geovlm_r1/region_caption"), [])
    with pytest.raises(ConfigError, match="each name once"):
        RewardPreset("twice", THINK2SEG.terms[:1] * 2)
    with pytest.raises(ConfigError, match="at least one"):
        RewardPreset("empty", ())
    with pytest.raises(UnknownNameError, match="reconstruction"):
        RewardTerm("term", lambda row, tools: 1.0, 1, "invented", "")


# Batches


def test_a_failing_row_gets_its_floor_and_touches_no_neighbour(pointing, caplog):
    def breaks_on_two(image_key, instances):
        if len(instances) == 2:
            raise RuntimeError("out of memory\nand more")
        return filled(image_key, instances)

    good, bad = row(pointing([BOX])), row(pointing([BOX, BOX]))
    flood = row(pointing([BOX] * 501))
    lost = row(pointing([BOX]), problem="the image does not open")
    mended = row(replace(pointing([BOX]), problems=("a comma was missing",)))
    scores = score_batch(THINK2SEG, [good, bad, flood, lost, mended, good], masks_of=breaks_on_two)
    assert [score.total for score in scores] == [4, 2, 2, 0, 4, 4]
    assert scores[1].terms == {"mask_iou": 0, "json_form": 1, "tags_form": 1}
    assert scores[1].errors == {"mask_iou": "out of memory"}
    assert scores[3].errors == {"row": "the image does not open"}
    assert scores[0].errors == scores[5].errors == {}
    assert count_failures(scores) == {"mask_iou": 2, "row": 1, "answer": 1}
    assert "3 of 6 answers were not scored whole, the first one: out of memory" in caplog.text


def test_a_mask_of_another_size_is_that_rows_error(pointing):
    [score] = score_batch(THINK2SEG, [row(pointing([BOX]))], masks_of=lambda key, things: np.ones((3, 3), bool))
    assert score.total == 2
    assert "shape" in score.errors["mask_iou"]


def test_what_does_not_apply_is_left_out_of_the_sum(pointing):
    preset = reward_preset("rsground_r1")
    absent, unknown = score_batch(preset, [row(pointing([]), Boxes(())), row(pointing([]), None)])
    assert absent.terms == {"positional": None, "detection": 1, "form": 1}
    assert absent.total == 2
    assert unknown.terms == {"positional": None, "detection": None, "form": 1}
    inapplicable = RewardPreset("one", preset.terms[:1])
    [score] = score_batch(inapplicable, [row(pointing([]), Boxes(()))])
    assert score.total is None  # which is not 0


def test_the_segmenter_gets_the_image_and_the_things(pointing):
    calls = []

    def note(image_key, instances):
        calls.append((image_key, [instance.box for instance in instances]))
        return TARGET

    rows = [row(pointing([BOX])), row(pointing([])), row(pointing([BOX]), Regions(NOTHING))]
    score_batch(THINK2SEG, rows, masks_of=note)
    assert calls == [("image", [BOX])]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -0.1])
def test_a_term_outside_of_its_range_counts_as_failed(pointing, value):
    term = RewardTerm("own", lambda row, tools: value, 1, "paper", "", range=(-0.05, 1))
    [score] = score_batch(RewardPreset("own", (term,)), [row(pointing([]))])
    assert score.total == -0.05
    assert "outside of [-0.05, 1]" in score.errors["own"]


@pytest.mark.parametrize(("value", "kept"), [(1 + 1e-12, 1), (-1e-12, 0)])
def test_rounding_is_no_failure(pointing, value, kept):
    term = RewardTerm("own", lambda row, tools: value, 1, "paper", "")
    [score] = score_batch(RewardPreset("own", (term,)), [row(pointing([]))])
    assert (score.total, score.errors) == (kept, {})


def test_the_floor_is_the_least_value_of_every_term():
    terms = (RewardTerm("a", abs, 2, "paper", "", range=(-1, 1)), RewardTerm("b", abs, 1, "paper", "", range=(0.5, 1)))
    score = floor_score(RewardPreset("own", terms), "why")
    assert (score.total, score.terms, score.errors) == (-1.5, {"a": -1, "b": 0.5}, {"row": "why"})


answers = st.one_of(st.none(), st.lists(st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(10, 20)] * 2), max_size=3))


@given(st.lists(st.tuples(answers, st.booleans(), st.booleans(), st.booleans()), max_size=6), st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_is_worth_the_same_alone_and_in_any_company(pointing, drawn, random):
    rows = [
        row(pointing(boxes, tags, json), Regions(TARGET if there else NOTHING)) for boxes, tags, json, there in drawn
    ]
    together = score_batch(THINK2SEG, rows, masks_of=filled)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = score_batch(THINK2SEG, [rows[i] for i in order], masks_of=filled)
    assert shuffled == [together[i] for i in order]
    assert together == [score for each in rows for score in score_batch(THINK2SEG, [each], masks_of=filled)]
    assert all(0 <= score.total <= 4 for score in together)

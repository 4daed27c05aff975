"""verl's data set and scoring function, and that trl's reward functions give the same scores."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segearth.errors import ConfigError, DatasetError, MissingExtraError, RewardError, UnknownNameError
from segearth.prompting.frames import Frame
from segearth.prompting.templates import answer_template
from segearth.rl import verl
from segearth.rl.completions import RowFacts, reward_functions, row_of_completion, text_of
from segearth.rl.ground_truth import ground_truth_text, read_ground_truth
from segearth.rl.rewards.presets import PRESETS, TERM_NAMES, reward_preset
from segearth.rl.rewards.settings import RewardSettings
from segearth.rl.verl import VerlExample, VerlScorer, compute_score, examples_of, export_parquet
from segearth.structures import Boxes, Choices, Question, Regions, Sample, Text

THINK2SEG, RSGROUND = answer_template("think2seg@1"), answer_template("rsground@1")
HEIGHT, WIDTH = 420, 210  # think2seg's frame of 840 x 840 is twice as high and four times as wide
TARGET = np.zeros((HEIGHT, WIDTH), bool)
TARGET[100:200, 50:100] = True
PERFECT = [{"bbox_2d": [200, 200, 400, 400], "positive_points": [[300, 300], [310, 310]]}]  # in the frame


def filled(image_key, instances):
    """A segmenter that fills boxes, which are in pixels of the image."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for instance in instances:
        x0, y0, x1, y1 = (round(value) for value in instance.box)
        mask[y0:y1, x0:x1] = True
    return mask


def written(things, fence="```json\n%s\n```"):
    return f"<think>why</think><answer>{fence % json.dumps(things)}</answer>"


def info(preset="think2seg_rs", template=THINK2SEG):
    return {"preset": preset, "index": 0, "split": "train", **RowFacts.of(template, HEIGHT, WIDTH, "7").as_dict()}


SCORER = VerlScorer(masks_of=filled)
THERE, NOT_THERE = ground_truth_text(Regions(TARGET)), ground_truth_text(Regions(np.zeros_like(TARGET)))


# Ground truth


@pytest.mark.parametrize(
    "target",
    [
        Regions(TARGET), Regions.of_masks([TARGET, TARGET[::-1], TARGET[:, ::-1]]), Regions(np.zeros((3, 4), bool)),
        Regions(np.zeros((3, 4), bool), ()), Boxes(((1.5, 2, 3, 4), (5, 6, 7, 8, 30))), Boxes(()),
        Text(("a „roof“", "b")), Choices(("a", "b"), ("b",)), Choices(("a",), ()), None,
    ],
)  # fmt: skip
@pytest.mark.parametrize("wording", [None, "two roofs"])
def test_a_target_comes_back_from_its_text(target, wording):
    again, words = read_ground_truth(ground_truth_text(target, wording))
    assert words == wording
    if not isinstance(target, Regions):
        assert again == target
        return
    np.testing.assert_array_equal(again.mask, target.mask)
    assert (again.regions is None) == (target.regions is None)
    for one, other in zip(again.regions or (), target.regions or (), strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.mask, other.mask)


def test_the_boxes_of_regions_come_back():
    regions = Regions.of_masks([TARGET])
    again, _ = read_ground_truth(ground_truth_text(Regions(TARGET, regions.regions, ((50, 100, 100, 200),))))
    assert again.boxes == ((50, 100, 100, 200),)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "null", "{}", '{"kind": "mask"}', '{"kind": "boxes", "boxes": [[1, 2]]}',
        '{"kind": "boxes", "boxes": [[NaN, 0, 1, 1]]}', '{"kind": "boxes", "boxes": 3}', '{"kind": "text"}',
        '{"kind": "regions", "mask": {"size": [2, 2], "counts": "~~~~"}}', '{"kind": "regions", "mask": null}',
    ],
)  # fmt: skip
def test_a_text_that_is_no_ground_truth_is_an_error_and_costs_its_row_alone(text):
    with pytest.raises(RewardError, match="ground_truth_text"):
        read_ground_truth(text)
    score = SCORER("set", written(PERFECT), text, info())
    assert (score["score"], score["failed"]) == (0, 1)


# The scoring function


def test_think2seg_of_the_worked_examples():
    def score(completion, truth=THERE):
        return SCORER("set", completion, truth, info())["score"]

    assert score(written(PERFECT)) == 4
    assert score(written(PERFECT, "%s")) == 1  # perfect boxes without the fence
    assert score(written([]), NOT_THERE) == 4
    assert score(written(PERFECT), NOT_THERE) == 2
    assert score(written([])) == 2
    assert score("The target lies in the middle of the image.") == 0


def test_coordinates_are_brought_to_the_pixels_of_the_image():
    row = row_of_completion(written(PERFECT), THERE, RowFacts.of(THINK2SEG, HEIGHT, WIDTH, "7"))
    assert row.answer.instances[0].box == (50, 100, 100, 200)
    assert (row.size, row.image_key) == ((HEIGHT, WIDTH), "7")
    other = RowFacts("think2seg@1", HEIGHT, WIDTH, 420, 420)  # trained on smaller images than the template's
    assert row_of_completion(written(PERFECT), THERE, other).answer.instances[0].box == (100, 200, 200, 400)


def test_a_score_has_the_same_keys_whatever_the_preset():
    think2seg = SCORER("set", written(PERFECT), THERE, info())
    rsground = compute_score("set", written([{"bbox_2d": [0, 0, 9, 9]}]), THERE, info("rsground_r1", RSGROUND))
    assert list(think2seg) == list(rsground) == ["score", "failed", *TERM_NAMES]
    assert think2seg["mask_iou"] == think2seg["json_form"] == 1
    assert math.isnan(think2seg["positional"])
    assert math.isnan(rsground["mask_iou"])
    assert 0 < rsground["positional"] < 1
    assert {term.name for name in PRESETS for term in reward_preset(name).terms} == set(TERM_NAMES)


def test_what_does_not_apply_is_nan_and_the_rest_is_the_score():
    nothing = ground_truth_text(Boxes(()))
    score = compute_score("set", written([]), nothing, info("rsground_r1", RSGROUND))
    assert math.isnan(score["positional"])
    assert score["score"] == 2


def test_a_row_to_which_nothing_applies_is_a_number_for_verl(monkeypatch):
    monkeypatch.setitem(PRESETS, "position", PRESETS["rsground_r1"][:1])
    score = compute_score("set", written([]), ground_truth_text(Boxes(())), info("position", RSGROUND))
    assert (score["score"], score["failed"]) == (0, 0)


def test_an_image_without_a_key_is_scored():
    facts = {name: value for name, value in info().items() if name != "image_key"}
    assert SCORER("set", written(PERFECT), THERE, facts)["score"] == 4


def test_constants_come_from_verls_configuration():
    target = ground_truth_text(Boxes(((0, 0, 10, 10),)))
    completion, facts = written([{"bbox_2d": [21, 0, 31, 10]}]), info("rsground_r1", RSGROUND)
    facts.update(frame_height=HEIGHT, frame_width=WIDTH)
    assert compute_score("set", completion, target, facts)["positional"] == pytest.approx(math.exp(-0.1 / 0.25))
    wide = compute_score("set", completion, target, facts, positional_sigma=1)
    assert wide["positional"] == pytest.approx(math.exp(-0.1))
    weighted = VerlScorer(settings=RewardSettings(positional_sigma=1), weights={"positional": 3})
    assert weighted("set", completion, target, facts)["score"] == pytest.approx(3 * math.exp(-0.1) + 1)
    with pytest.raises(UnknownNameError, match="positional_sigma"):
        compute_score("set", completion, target, facts, sigma=1)


def test_the_function_is_found_in_a_module_that_is_loaded_by_its_path():
    """As verl loads it: the module is in no table of modules."""
    spec = importlib.util.spec_from_file_location("not_in_the_table", verl.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "not_in_the_table" not in sys.modules
    row = written([{"bbox_2d": [0, 0, 9, 9]}]), NOT_THERE, info("rsground_r1", RSGROUND)
    assert module.compute_score("set", *row)["score"] == compute_score("set", *row)["score"]


def test_a_segmenter_that_fails_costs_its_term_alone():
    def broken(image_key, instances):
        raise RuntimeError("out of memory")

    score = VerlScorer(masks_of=broken)("set", written(PERFECT), THERE, info())
    assert (score["score"], score["mask_iou"], score["failed"]) == (2, 0, 1)


def test_what_would_hit_every_row_is_an_error():
    with pytest.raises(ConfigError, match="masks_of"):
        compute_score("set", written(PERFECT), THERE, info())
    with pytest.raises(RewardError, match="no preset"):
        SCORER("set", written(PERFECT), THERE, None)
    with pytest.raises(RewardError, match="no height, width"):
        SCORER("set", written(PERFECT), THERE, {k: v for k, v in info().items() if k not in ("height", "width")})
    with pytest.raises(UnknownNameError, match="think2seg_rs"):
        SCORER("set", written(PERFECT), THERE, info("think2seg"))
    with pytest.raises(UnknownNameError, match="think2seg@1"):
        SCORER("set", written(PERFECT), THERE, {**info(), "template": "think2seg"})


def test_the_scorer_can_be_sent_to_another_process():
    again = pickle.loads(pickle.dumps(SCORER))
    assert again("set", written(PERFECT), THERE, info())["score"] == 4


# The same rows, the same scores

completions = st.one_of(
    st.text(max_size=80),
    st.lists(st.tuples(*[st.integers(-50, 900)] * 4), max_size=3).map(
        lambda boxes: written([{"bbox_2d": box, "positive_points": [box[:2], box[2:]]} for box in boxes])
    ),
)
truths = st.sampled_from([THERE, NOT_THERE, ground_truth_text(None), "{"])


@given(st.lists(st.tuples(completions, truths), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
def test_trl_and_verl_score_the_same(rows):
    preset = reward_preset("think2seg_rs")
    functions = reward_functions(preset, masks_of=filled)
    columns = {
        "completions": [[{"role": "assistant", "content": completion}] for completion, _ in rows],
        "ground_truth": [truth for _, truth in rows],
        "extra_info": [info()] * len(rows),
    }
    by_term = [function(**columns, prompts=None, trainer_state=None) for function in functions]
    assert [function.__name__ for function in functions] == [term.name for term in preset.terms]
    for index, (completion, truth) in enumerate(rows):
        of_verl = SCORER("set", completion, truth, info())
        values = [values[index] for values in by_term]
        assert [of_verl[term.name] for term in preset.terms] == pytest.approx(
            [math.nan if value is None else value for value in values], nan_ok=True
        )
        # trl leaves out what is None and sums the rest.
        total = sum(t.weight * value for t, value in zip(preset.terms, values, strict=True) if value is not None)
        assert of_verl["score"] == pytest.approx(total)


def test_a_function_of_trl_computes_its_own_term_alone():
    functions = reward_functions(reward_preset("think2seg_rs"))
    columns = {"completions": [written(PERFECT)], "ground_truth": [THERE], "extra_info": [info()]}
    assert functions[1](**columns) == functions[2](**columns) == [1]
    with pytest.raises(ConfigError, match="masks_of"):
        functions[0](**columns)


def test_the_text_of_a_completion_in_every_form():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert text_of("ab") == text_of([{"role": "assistant", "content": "ab"}]) == text_of([{"content": parts}]) == "ab"
    assert text_of(None) == text_of([None]) == text_of([{"role": "assistant"}]) == ""


# The data set


def sample(*questions):
    image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint32).reshape(HEIGHT, WIDTH, 3).astype(np.uint8)
    return Sample("7", image, list(questions))


def test_an_exported_row_is_scored_as_it_is(tmp_path):
    pytest.importorskip("datasets")
    from datasets import Dataset
    from PIL import Image

    questions = [Question("the <image> roof", TARGET), Question("what?"), Question("ships", np.zeros_like(TARGET))]
    path = tmp_path / "train.parquet"
    count = export_parquet(examples_of([sample(*questions)], THINK2SEG, "think2seg_rs", "aerial"), path)
    assert count == 2
    assert [each.name for each in tmp_path.iterdir()] == ["train.parquet"]
    rows = list(Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache")))
    first = rows[0]
    assert set(first) == {"data_source", "prompt", "images", "ability", "reward_model", "extra_info"}
    assert (first["data_source"], first["ability"], first["reward_model"]["style"]) == ("aerial", "referring", "rule")
    assert [message["role"] for message in first["prompt"]] == ["user"]
    assert first["prompt"][0]["content"] == "<image>" + THINK2SEG.ask("the <image> roof")
    assert first["prompt"][0]["content"].count("<image>") == len(first["images"]) == 1
    assert isinstance(first["images"][0], Image.Image)
    assert first["images"][0].size == (840, 840)
    assert first["extra_info"] == info()
    assert rows[1]["extra_info"]["index"] == 1
    scores = [
        SCORER(row["data_source"], written(PERFECT), row["reward_model"]["ground_truth"], row["extra_info"])["score"]
        for row in rows
    ]
    assert scores == [4, 2]


def test_what_a_frame_without_pixels_is_shown_is_not_resized():
    template = answer_template("qwen3_vl@1")
    [example] = examples_of([sample(Question("roof", TARGET, task="grounding"))], template, "rsground_r1", "aerial")
    assert example.images[0].shape == (HEIGHT, WIDTH, 3)
    assert (example.facts.frame_height, example.facts.frame_width, example.ability) == (1000, 1000, "grounding")


def test_the_image_of_a_frame_of_ones_own_has_its_size():
    small = replace(THINK2SEG, frame=Frame.resized(56, 28))
    [example] = examples_of([sample(Question("roof", TARGET, "one roof"))], small, "rsground_r1", "set", "pointing")
    assert example.images[0].shape == (56, 28, 3)
    assert (example.facts.frame_height, example.facts.frame_width) == (56, 28)
    assert (example.ability, example.wording) == ("pointing", "one roof")
    with pytest.raises(UnknownNameError, match="own@1"):
        next(examples_of([sample(Question("roof", TARGET))], replace(small, name="own"), "rsground_r1", "set"))


def test_two_images_and_a_system_message_can_be_exported(tmp_path):
    pytest.importorskip("datasets")
    from pyarrow import parquet

    template = answer_template("geovlm_change_caption@1")
    images = tuple(np.full((4, 4, 3), value, np.uint8) for value in (0, 200))
    example = VerlExample(
        template.ask("What changed?"), images, Text(("a road",)), RowFacts.of(template, 4, 4),
        "geovlm_r1/change_caption", "levir", system="Be brief.",
    )  # fmt: skip
    path = tmp_path / "out" / "val.parquet"
    assert export_parquet([example] * 70, path, "val") == 70  # more than are held at a time
    rows = parquet.read_table(path).to_pylist()
    assert [row["extra_info"]["index"] for row in rows] == list(range(70))
    assert {row["extra_info"]["split"] for row in rows} == {"val"}
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user"]
    assert rows[0]["prompt"][1]["content"].startswith("<image><image>Two images")
    from PIL import Image

    shown = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows[0]["images"]]
    assert [image.max() for image in shown] == [0, 200]
    with pytest.raises(DatasetError, match="2 images"):
        next(examples_of([sample(Question("x", TARGET))], template, "geovlm_r1/change_caption", "levir"))


def test_both_images_of_a_pair_and_the_region_that_is_asked_about_are_exported() -> None:
    image = np.full((10, 20, 3), 200, np.uint8)
    asked = Question("What is here?", task="region_caption", target=Text(("a road",)), box=(5, 0, 10, 10))
    pair = Sample("p", image, [asked], before=image // 2)
    (example,) = examples_of([pair], answer_template("geovlm_change_caption@1"), "geovlm_r1/change_caption", "levir")
    assert [shown.max() for shown in example.images] == [100, 200]
    assert {shown.shape for shown in example.images} == {(448, 448, 3)}
    (example,) = examples_of([pair], answer_template("geovlm_region_caption@1"), "geovlm_r1/region_caption", "set")
    assert len(example.images) == 1 and example.prompt.startswith("What is here? [112, 0, 224, 448]\n")


@pytest.mark.parametrize(
    ("change", "error"), [({"preset": "think2seg"}, UnknownNameError), ({"prompt": "an <image> here"}, DatasetError)]
)
def test_an_export_that_fails_leaves_no_file(tmp_path, change, error):
    pytest.importorskip("datasets")
    facts = RowFacts.of(THINK2SEG, HEIGHT, WIDTH)
    values = {"prompt": "roof", "images": (), "target": None, "facts": facts, "preset": "think2seg_rs"}
    with pytest.raises(error):
        export_parquet([VerlExample(**{**values, **change}, data_source="set")], tmp_path / "train.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"segearth\[rl\]"):
        export_parquet([], tmp_path / "train.parquet")

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import (
    Patches,
    PerfectBatches,
    PerfectPredictor,
    Reading,
    ShiftedBatches,
    ShiftedPredictor,
    counted,
    worked_result,
)
from ranks import run_on_ranks

from segearth.config import load_experiment
from segearth.data.registry import build_dataset
from segearth.errors import ConfigError, DatasetError, UnknownNameError
from segearth.evaluation.controls import ConstantMask
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.examples import EXAMPLE_SIZE, Extremes
from segearth.evaluation.records import merge_records
from segearth.evaluation.run import evaluate_experiment
from segearth.inference.predictor import Predictor
from segearth.metrics.bootstrap import bootstrap_interval
from segearth.segmenter import AnswerCounts, SegmenterFacts
from segearth.structures import Question, Sample, Segmentation


def run(predictor, dataset, **options):
    return evaluate(predictor, dataset, progress=False, **{"controls": False, **options})


def test_perfect_predictor_scores_one_and_beats_every_control():
    result = evaluate(PerfectPredictor(), Patches(), train_dataset=Patches(4, "train", seed=9), progress=False)
    assert result.metrics.giou == result.metrics.ciou == 1
    assert set(result.controls) == {"everything", "nothing", "mean_mask", "shuffled_questions"}
    assert result.control_metrics["shuffled_questions"].giou < 1
    assert result.margin == pytest.approx(1 - max(m.giou for m in result.control_metrics.values()))
    assert result.margin_interval[0] <= result.margin <= result.margin_interval[1]
    # 2 of 6 images lack the third colour: "nothing" is right on 2 of 18 samples
    assert result.control_metrics["nothing"].giou == pytest.approx(2 / 18)


def test_every_image_is_set_once_and_asked_all_its_questions_in_one_list():
    predictor = PerfectPredictor()
    dataset = Patches(3)
    run(predictor, dataset)
    assert predictor.encoded == 3
    assert predictor.asked == [[q.text for q in sample.questions] for sample in dataset]


def test_images_of_one_frame_go_through_together_and_are_encoded_once():
    """Six landscapes and six portraits, four at a time: 4 + 2 of each. The control with shuffled questions asks of the
    same features; were images encoded again for it, there would be 24."""
    predictor = PerfectBatches()
    result = run(predictor, Patches(12), controls=True, batch_size=4)
    assert sorted(predictor.batches) == [2, 2, 4, 4]
    assert predictor.encoded == 12
    assert len(predictor.asked) == 24
    assert result.metrics.giou == 1
    anyhow = PerfectPredictor()  # one that says nothing of frames: landscapes and portraits go through together
    one_by_one = run(anyhow, Patches(12), controls=True, batch_size=4)
    assert anyhow.batches == [4, 4, 4]
    assert one_by_one.records == result.records
    assert one_by_one.controls == result.controls


def test_the_real_predictor_answers_several_images_as_it_does_one(debug_model, monkeypatch):
    """Through the device five at a time and one at a time: same order, same facts, same numbers but for rounding."""
    monkeypatch.setattr(debug_model.config, "presence_threshold", 0.0)  # random weights: never call a thing absent
    dataset = build_dataset("aerial_mini", None, "val")
    options = dict(limit=7, controls=True)
    one = run(Predictor(debug_model), dataset, batch_size=1, **options)
    predictor = Predictor(debug_model)
    counts, set_images = [], predictor.set_images
    monkeypatch.setattr(predictor, "set_images", lambda images: (counts.append(len(images)), set_images(images)))
    several = run(predictor, dataset, batch_size=5, **options)
    assert max(counts) > 1
    assert sum(counts) == 7
    for name in [None, *one.controls]:
        pairs = [(r.controls[name] if name else r.records) for r in (one, several)]
        for a, b in zip(*pairs, strict=True):
            assert (a.id, a.image_id, a.question, a.target_area) == (b.id, b.image_id, b.question, b.target_area)
            assert a.iou == pytest.approx(b.iou, abs=1e-4)
            assert name or a.presence == pytest.approx(b.presence, abs=1e-4)
            assert name or a.score == pytest.approx(b.score, abs=1e-4)


def test_a_batch_holds_at_least_one_image():
    with pytest.raises(ConfigError, match=r"eval\.batch_size is 0"):
        run(PerfectPredictor(), Patches(1), batch_size=0)


def test_questions_without_a_mask_change_nothing_for_others_of_the_batch():
    dataset, predictor = Patches(6), PerfectBatches()
    dataset[2].questions = []
    dataset[4].questions[0].mask = None
    result = run(predictor, dataset, batch_size=3)
    assert (predictor.encoded, len(result.records), result.without_target) == (5, 14, 1)
    assert result.metrics.giou == 1


def test_task_of_each_question_is_passed_on():
    dataset = Patches(1)
    dataset[0].questions[1].task = "reasoning"
    predictor = PerfectPredictor()
    run(predictor, dataset)
    assert predictor.tasks == ["referring", "reasoning", "referring"]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_any_number_of_processes_and_images_at_a_time_gives_the_same_records(world_size, batch_size):
    whole = evaluate(ShiftedPredictor(), Patches(), progress=False)
    parts = [
        evaluate(ShiftedBatches(), Patches(), rank=r, world_size=world_size, batch_size=batch_size, progress=False)
        for r in range(world_size)
    ]
    assert merge_records(part.records for part in parts) == whole.records
    for name, records in whole.controls.items():
        assert merge_records(part.controls[name] for part in parts) == records


def test_extremes_do_not_depend_on_the_number_of_processes():
    whole = run(ShiftedPredictor(), Patches(9), examples=3).extremes
    options = dict(examples=3, world_size=2, batch_size=3)
    parts = [run(ShiftedBatches(), Patches(9), rank=r, **options).extremes for r in range(2)]
    parts[0].merge(parts[1])
    for kind in ("best", "worst"):
        assert [e.record for e in getattr(parts[0], kind)] == [e.record for e in getattr(whole, kind)]
    assert len(whole.best) == 3
    assert whole.best[0].record.iou >= whole.best[-1].record.iou > whole.worst[0].record.iou
    assert all(example.record.union for example in whole.best)


def test_records_are_ordered_and_carry_the_facts():
    result = run(PerfectPredictor(), Patches(2))
    assert [r.id for r in result.records] == sorted(r.id for r in result.records)
    first = result.records[0]
    assert (first.image_id, first.source, first.presence, first.score) == ("image0", "odd", 0.75, 0.9)


class Drawn(PerfectPredictor):
    """Answers each wording with a mask given beforehand, whatever the image."""

    def __init__(self, **masks):
        super().__init__()
        self.masks = masks

    def _answer(self, question, image):
        return Segmentation(question, self.masks[question], 0.5, True, 0.5)


def rows(start, stop):
    mask = np.zeros((10, 4), bool)
    mask[start:stop] = True
    return mask


def striped(**targets):
    """One image of ten rows of four pixels, with a question for each target."""
    dataset = Patches(0)
    questions = [Question(text, target, id=text, kind=text) for text, target in targets.items()]
    dataset.samples = [Sample("image", np.zeros((10, 4, 3), np.uint8), questions)]
    return dataset


def test_every_mask_is_scored_and_shown_beside_its_own_target():
    dataset = striped(roofs=rows(0, 4), roads=rows(5, 7), ships=rows(0, 0))
    result = run(Drawn(roofs=rows(0, 3), roads=rows(6, 10), ships=rows(9, 10)), dataset)
    counts = {r.id: (r.intersection, r.union, r.target_area, r.predicted_area) for r in result.records}
    assert counts == {"roofs": (12, 16, 16, 12), "roads": (4, 20, 8, 16), "ships": (0, 4, 0, 4)}
    assert all(r.id == r.question == r.kind for r in result.records)
    (best,), (worst,) = result.extremes.best, result.extremes.worst
    assert (best.record.id, worst.record.id) == ("roofs", "ships")
    assert np.array_equal(best.target, rows(0, 4)) and np.array_equal(best.prediction, rows(0, 3))
    assert np.array_equal(worst.target, rows(0, 0)) and np.array_equal(worst.prediction, rows(9, 10))


def test_controls_are_scored_against_the_same_targets():
    dataset = striped(roofs=rows(0, 4), ships=rows(0, 0))
    result = run(Drawn(roofs=rows(0, 4), ships=rows(0, 0)), dataset, controls=True)
    counts = {name: {r.id: (r.intersection, r.union) for r in records} for name, records in result.controls.items()}
    assert counts == {
        "everything": {"roofs": (16, 40), "ships": (0, 40)},
        "nothing": {"roofs": (0, 16), "ships": (0, 0)},
    }
    control, own = result.controls["nothing"][0], result.records[0]
    assert (control.presence, control.score) == (None, None)  # no model was asked
    assert replace(control, predicted_area=16, intersection=16, presence=0.5, score=0.5, swapped_iou=0.0) == own


def test_controls_are_scored_in_the_protocols_frame():
    """10 x 4 pixels become 1024 x 409 of 1024 x 1024: a control's padding is no more predicted than a model's."""
    dataset = striped(roofs=rows(0, 10))
    result = run(Drawn(roofs=rows(0, 10)), dataset, controls=True, protocol="segearth_r1")
    (record,) = result.controls["everything"]
    assert (record.intersection, record.union) == (1024 * 409, 1024 * 409)


def test_an_answers_own_frame_is_what_the_published_protocol_compares():
    """Padding that the model calls target counts against it; an absence has an empty frame and is right."""
    frame = np.zeros((1024, 1024), bool)
    frame[:, : 1024 - 307] = True  # the picture's 409 columns and the 308 to the left of them

    class Letterboxed(Drawn):
        def _answer(self, question, image):
            answer = super()._answer(question, image)
            answer.frame_mask = frame if answer.mask.any() else np.zeros_like(frame)
            return answer

    target = striped(roofs=rows(0, 10))
    (record,) = run(Letterboxed(roofs=rows(0, 10)), target, protocol="segearth_r1").records
    assert (record.intersection, record.union) == (1024 * 409, 1024 * (1024 - 307))
    (record,) = run(Letterboxed(roofs=rows(0, 0)), striped(roofs=rows(0, 0)), protocol="segearth_r1").records
    assert record.iou == 1.0


def test_intervals_are_those_of_images_at_95_percent():
    result = worked_result()
    images = ["image0", "image0", "image1", "image2"]
    assert result.interval == bootstrap_interval([0.8, 0.5, 1, 0], images, level=0.95, seed=5)
    gains = [0.8 - 0, 0.5 - 0, 1 - 1, 0 - 1]  # beside "nothing", the best control
    assert result.margin_interval == bootstrap_interval(gains, images, level=0.95, seed=5)
    assert (result.best_control, result.margin) == ("nothing", pytest.approx(0.575 - 0.5))
    alone = worked_result(controls=False)
    assert (alone.best_control, alone.margin, alone.margin_interval) == (None, None, None)


def test_speed_counts_images_and_questions():
    result = worked_result()
    assert (result.images_per_second, result.questions_per_second) == (3 / 1.5, 4 / 1.5)
    result.seconds = 0.0
    assert result.images_per_second == result.questions_per_second == float("inf")


def test_time_counts_the_predictor_alone(monkeypatch):
    clock = iter(range(0, 10_000, 10))

    class Slow(PerfectPredictor):
        def predict(self, questions, **options):
            for _ in range(7 if self.encoded == 1 else 0):  # the first image takes 70 s longer
                next(clock)
            return super().predict(questions, **options)

    monkeypatch.setattr("segearth.evaluation.evaluator.time.perf_counter", lambda: next(clock))
    result = run(Slow(), Patches(3), controls=True)
    assert result.seconds == 80 + 10 + 10


def test_what_another_process_did_is_joined(monkeypatch):
    """Its records and passed-over questions are added; the time is that of the slower of the two."""

    def gather(part, world_size):
        assert world_size == 2
        others = [counted("~last", 1, 2, 1, 2)]
        own = {"segmentation": replace(part.scored["segmentation"], records=others, controls={"nothing": others})}
        other = replace(part, scored=own, seconds=500.0, without_target=3, unreadable=["b.png: damaged"])
        return [replace(part, unreadable=["a.png: damaged"]), replace(other, counts=AnswerCounts(2, 5))]

    def built(*_, **__):
        return {"segmentation": [ConstantMask(False)]}

    monkeypatch.setattr("segearth.evaluation.evaluator.gather_objects", gather)
    monkeypatch.setattr("segearth.evaluation.evaluator.build_controls", built)
    result = run(PerfectPredictor(), Patches(1), world_size=2, controls=True)
    assert [r.id for r in result.records] == ["0-green field", "0-grey road", "0-red roof", "~last"]
    assert [r.id for r in result.controls["nothing"]] == ["0-green field", "0-grey road", "0-red roof", "~last"]
    assert result.control_rules == {"nothing": "no pixel is predicted"}
    assert (result.seconds, result.without_target, result.counts) == (500.0, 3, (2, 5))
    assert result.unreadable_images == ("a.png: damaged", "b.png: damaged")


def offered(size, *numbers):
    """Offers one image for each list of (I, U); returns the ids kept as best and as worst."""
    kept = Extremes(size)
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    for i, counts in enumerate(numbers):
        records = [counted(f"{i}{chr(97 + j)}", *pair, 1, 1, image_id=str(i)) for j, pair in enumerate(counts)]
        kept.offer(Sample(str(i), image), [(record, mask, mask) for record in records])
    return [e.record.id for e in kept.best], [e.record.id for e in kept.worst]


def test_best_and_worst_are_one_an_image_and_in_order():
    best, worst = offered(2, [(1, 4), (3, 4)], [(4, 4), (2, 4)], [(0, 4)], [(7, 8), (6, 8)])
    assert best == ["1a", "3a"]  # 1 and 7/8; 3/4 of image 0 is third
    assert worst == ["2a", "0a"]  # 0 and 1/4


def test_of_equal_answers_the_larger_is_shown_then_the_first_by_id():
    best, worst = offered(2, [(2, 4)], [(4, 8)], [(2, 4)])
    assert best == worst == ["1a", "0a"]


def test_a_rightly_empty_answer_is_not_shown():
    assert offered(3, [(0, 0)], [(0, 0), (1, 4)]) == (["1b"], ["1b"])
    assert offered(0, [(1, 4)]) == ([], [])


def test_pictures_keep_their_aspect_and_thin_objects():
    image, line = np.zeros((96, 1536, 3), np.uint8), np.zeros((96, 1536), bool)
    image[..., 1], line[40] = 200, True  # one pixel of four a cell is a quarter
    kept = Extremes(1)
    kept.offer(Sample("wide", image), [(counted("a", 1, 2, 1, 1), line, ~line)])
    (example,) = kept.best
    assert example.image.shape == (24, EXAMPLE_SIZE, 3)
    assert (example.image == [0, 200, 0]).all()
    assert example.prediction[10].all() and example.prediction.sum() == EXAMPLE_SIZE
    assert example.target.all()
    small = Extremes(1)
    small.offer(Sample("small", image[:8, :6]), [(counted("a", 1, 2, 1, 1), line[:8, :6], ~line[:8, :6])])
    assert small.best[0].image.shape == (8, 6, 3)  # never enlarged


def test_limit_counts_images():
    assert run(PerfectPredictor(), Patches(5), limit=2).metrics.images == 2
    assert run(PerfectPredictor(), Patches(5), limit=9).metrics.images == 5


def test_the_limit_and_the_seed_reach_the_controls():
    dataset = Reading(8)
    limited = run(PerfectPredictor(), dataset, controls=True, limit=3, seed=4)
    assert set(dataset.read) == {0, 1, 2}
    assert {len(records) for records in limited.controls.values()} == {9}
    assert limited.seed == 4
    deals = [run(PerfectPredictor(), Patches(8), controls=True, seed=seed).controls for seed in (0, 0, 1)]
    assert deals[0] == deals[1]
    assert deals[0]["shuffled_questions"] != deals[2]["shuffled_questions"]


def test_images_of_which_nothing_is_asked_are_not_encoded():
    dataset, predictor = Patches(3), PerfectPredictor()
    dataset[1].questions = []
    assert {r.image_id for r in run(predictor, dataset).records} == {"image0", "image2"}
    assert predictor.encoded == 2


def test_questions_without_a_mask_are_passed_over(caplog):
    dataset = Patches(2)
    dataset[0].questions[0].mask = None
    result = run(PerfectPredictor(), dataset)
    assert (len(result.records), result.without_target) == (5, 1)
    assert "1 questions without a target were passed over" in caplog.text


def test_only_questions_that_the_protocol_asks_count_as_passed_over(caplog):
    dataset = Patches(3)
    dataset[0].questions[0].mask = None
    dataset[1].questions[1].mask = None  # only first questions are asked
    result = run(PerfectPredictor(), dataset, protocol="segearth_r1")
    assert (len(result.records), result.without_target) == (2, 1)
    assert "1 questions without a target were passed over" in caplog.text


def test_questions_without_an_id_get_one():
    dataset = Patches(1)
    for question in dataset[0].questions:
        question.id = ""
    assert [r.id for r in run(PerfectPredictor(), dataset).records] == ["image0#0", "image0#1", "image0#2"]


def test_published_protocol_asks_the_first_question_in_a_square_frame():
    dataset = Patches(3)
    result = run(PerfectPredictor(), dataset, protocol="segearth_r1")
    assert [r.id for r in result.records] == [sample.questions[0].id for sample in dataset]
    assert result.metrics.giou == 1
    # 32 x 48 pixels become 682 x 1024: an area 21.3**2 times as large
    native = dataset[0].questions[0].mask.sum()
    assert result.records[0].target_area == pytest.approx(native * (1024 / 48) ** 2, rel=0.02)


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'native'"):
        run(PerfectPredictor(), Patches(1), protocol="natve")


def test_prediction_of_another_size_is_an_error_naming_the_sample():
    class Wrong(PerfectPredictor):
        def _answer(self, question, image):
            answer = super()._answer(question, image)
            answer.mask = answer.mask[1:]
            return answer

    with pytest.raises(DatasetError, match=r"0-red roof.*\(47, 32\)"):
        run(Wrong(), Patches(1))


def test_nothing_to_score_is_an_error():
    dataset = Patches(0)
    with pytest.raises(DatasetError, match="no samples"):
        _ = run(PerfectPredictor(), dataset).metrics


def test_pictures_of_large_images_are_kept_small():
    image = np.zeros((1200, 600, 3), np.uint8)
    image[100:900, 100:300] = 200
    dataset = Patches(1)
    dataset.samples = [Sample("large", image, [Question("red roof", image[..., 0] == 200, id="q")])]
    example = run(PerfectPredictor(), dataset).extremes.best[0]
    assert example.image.shape == (EXAMPLE_SIZE, EXAMPLE_SIZE // 2, 3)
    assert example.target.mean() == pytest.approx((image[..., 0] == 200).mean(), abs=0.02)


def test_parts_are_not_gathered_from_a_group_of_another_size(monkeypatch):
    """A process group of one, started for something else, holds no other part; each rank then keeps its own."""
    import torch.distributed as distributed

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 1)
    result = run(PerfectPredictor(), Patches(4), rank=1, world_size=2)
    assert {r.image_id for r in result.records} == {"image1", "image3"}


def score_a_share():
    """Scores with another rank; returns what both know then, and which images this one read."""
    import torch.distributed as distributed

    distributed.init_process_group("gloo")
    rank, test, train = distributed.get_rank(), Reading(5), Reading(3, "train", seed=9)
    result = evaluate(ShiftedPredictor(), test, train_dataset=train, rank=rank, world_size=2, progress=False)
    controls = {name: [[r.id, r.iou] for r in records] for name, records in result.controls.items()}
    return [[r.id, r.iou] for r in result.records], controls, result.control_rules, test.read, train.read


def test_two_processes_share_the_work_and_gather_every_sample_once():
    """Of the split they score and of the one that the mean mask is fitted on, each reads its images alone."""
    alone = run(ShiftedPredictor(), Patches(5), controls=True, train_dataset=Patches(3, "train", seed=9))
    expected = [[r.id, r.iou] for r in alone.records]
    controls = {name: [[r.id, r.iou] for r in records] for name, records in alone.controls.items()}
    assert set(controls) == {"everything", "nothing", "mean_mask", "shuffled_questions"}
    for rank, (scored, masks, rules, read, read_for_mean) in enumerate(run_on_ranks(score_a_share)):
        assert (scored, masks, rules) == (expected, controls, alone.control_rules)
        assert set(read) == set(range(rank, 5, 2)) and read_for_mean == list(range(rank, 3, 2))


@pytest.mark.parametrize(("asked", "used"), [("auto", "segearth_r1"), ("native", "native")])
def test_a_model_brings_its_protocol(debug_model, monkeypatch, tmp_path, asked, used):
    experiment = load_experiment("configs/experiment/aerial_mini.yaml", [f"eval.protocol={asked}"])
    monkeypatch.setattr(debug_model.config, "protocol", "segearth_r1")
    seen = {}

    def stand_in(*args, **options):
        seen.update(options)
        return run(PerfectPredictor(), Patches(1))

    monkeypatch.setattr("segearth.evaluation.run.run_evaluation", stand_in)
    evaluate_experiment(experiment, Predictor(debug_model), "debug", "val", tmp_path)
    assert seen["protocol"] == used


def test_what_is_known_of_the_training_is_not_looked_for_again(monkeypatch, tmp_path):
    """The caller's word holds, also against what lies beside the weights: which was read to know it."""
    experiment = load_experiment("configs/experiment/aerial_mini.yaml")
    (tmp_path / "training.json").write_text(json.dumps({"step": 1, "trained_on": ["aerial_mini val"]}))
    notes = {}

    def stand_in(*args, **options):
        notes.update(options["notes"])
        return run(PerfectPredictor(), Patches(1))

    monkeypatch.setattr("segearth.evaluation.run.run_evaluation", stand_in)
    evaluate_experiment(experiment, PerfectPredictor(), str(tmp_path), "val", tmp_path)
    assert notes["weights"] == f"{tmp_path}, after 1 steps" and "trained on" in notes.pop("warning")
    told = {"step": 7, "trained_on": ["earthreason train"]}
    evaluate_experiment(experiment, PerfectPredictor(), str(tmp_path), "val", tmp_path, training=told)
    assert notes["weights"] == f"{tmp_path}, after 7 steps" and "warning" not in notes
    evaluate_experiment(experiment, PerfectPredictor(), str(tmp_path), "train", tmp_path, training={})
    assert notes["weights"] == str(tmp_path) and "trained on" in notes["warning"]  # by the experiment, it is taken


@pytest.mark.parametrize(
    ("device", "side", "asked", "used"),
    [
        ("cpu", 128, "null", 4), ("cpu", 512, "null", 4), ("cpu", 640, "null", 2), ("cpu", 1024, "null", 1),
        ("cpu", 2048, "null", 1), ("cuda", 2048, "null", 4), ("cpu", None, "null", 1),
        ("cpu", 1024, "6", 6), ("cuda", 128, "1", 1),
    ],
)  # fmt: skip
def test_images_at_a_time_follow_device_and_frame_unless_asked_for(monkeypatch, tmp_path, device, side, asked, used):
    experiment = load_experiment("configs/experiment/aerial_mini.yaml", [f"eval.batch_size={asked}", "eval.limit=2"])
    seen = {}

    def stand_in(*args, **options):
        seen.update(options)
        return run(PerfectPredictor(), Patches(1))

    monkeypatch.setattr("segearth.evaluation.run.run_evaluation", stand_in)
    segmenter = PerfectPredictor()
    segmenter.facts = SegmenterFacts(side=side, device=device)
    evaluate_experiment(experiment, segmenter, "debug", "val", tmp_path)
    assert (seen["batch_size"], seen["limit"]) == (used, 2)

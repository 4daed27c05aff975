from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from evaluation_fakes import COLOURS, Patches, PerfectPredictor, Reading

from segearth.errors import DatasetError
from segearth.evaluation import controls as module
from segearth.evaluation.controls import (
    ConstantMask,
    MeanMask,
    ShuffledQuestions,
    SplitReading,
    build_controls,
    read_questions,
)
from segearth.evaluation.protocols import PROTOCOLS, scored_questions
from segearth.evaluation.scorers import SCORERS, scorer_of
from segearth.metrics.masks import mask_iou
from segearth.segmenter import SegmenterFacts
from segearth.structures import Question, Sample, Segmentation

NATIVE = PROTOCOLS["native"]


def masks_of(control, sample, predictor=None):
    """A control's masks of one image."""
    if predictor is not None:
        predictor.set_image(sample.image)
    (answers,) = control.answers(predictor, [sample], [scored_questions(sample, NATIVE)])
    return [answer.mask for answer in answers]


def controls_for(dataset, train, *, seed=0, progress=True, **options):
    """The controls of questions that are answered with masks."""
    reading = SplitReading(dataset, NATIVE, progress=progress, **options)
    return build_controls(SCORERS, scorer_of, reading, train, seed=seed)["segmentation"]


def shuffled_on(dataset, protocol=NATIVE, **options):
    """The questions of a split, dealt out anew."""
    return ShuffledQuestions.deal([asked for _, asked in read_questions(SplitReading(dataset, protocol))], **options)


def fitted_on(dataset, protocol=NATIVE):
    """The mean mask of a split."""
    return MeanMask.fit(SplitReading(dataset, protocol))


def dataset_of(masks):
    dataset = Patches(0, "train")
    dataset.samples = [
        Sample(f"i{i}", np.zeros((*m.shape, 3), np.uint8), [Question(f"q{i}", m, id=f"q{i}")])
        for i, m in enumerate(masks)
    ]
    return dataset


def half(height, width, share=0.5):
    mask = np.zeros((height, width), bool)
    mask[: int(height * share)] = True
    return mask


def test_shuffled_questions_ask_the_model_but_not_the_true_question():
    dataset, predictor = Patches(6), PerfectPredictor()
    control = shuffled_on(dataset)
    for sample in dataset:
        questions = scored_questions(sample, NATIVE)
        masks = masks_of(control, sample, predictor)
        assert [m.shape for m in masks] == [sample.image.shape[:2]] * 3
        assert all(asked != q.text for asked, q in zip(predictor.asked[-1], questions.values(), strict=True))
    asked = [question.text for question in control.asked.values()]
    assert sorted(asked) == sorted(q.text for sample in dataset for q in sample.questions)


def test_a_dealt_question_keeps_its_task_and_leaves_its_target_behind():
    dataset, predictor = Patches(4), PerfectPredictor()
    for sample in dataset:
        for question in sample.questions:
            question.task = "reasoning" if question.text == "red roof" else "referring"
    control = shuffled_on(dataset)
    assert all(q.mask is None for q in control.asked.values())
    for sample in dataset:
        masks_of(control, sample, predictor)
    asked = [text for texts in predictor.asked for text in texts]
    assert predictor.tasks == ["reasoning" if text == "red roof" else "referring" for text in asked]
    assert set(predictor.tasks) == {"reasoning", "referring"}


def test_each_question_of_the_split_is_answered_by_what_was_dealt_to_it():
    """Masks come back in the order of the questions they stand for, not in the order of those that were asked."""
    sample, predictor = Patches(2)[1], PerfectPredictor()
    questions = scored_questions(sample, NATIVE)
    dealt = ["grey road", "green field", "red roof"]
    control = ShuffledQuestions({i: Question(text) for i, text in zip(questions, dealt, strict=True)})
    masks = masks_of(control, sample, predictor)
    for mask, text in zip(masks, dealt, strict=True):
        assert np.array_equal(mask, sample.image[..., 0] == COLOURS[text])


def test_the_seed_decides_who_is_asked_what():
    deals = [shuffled_on(Patches(8), seed=seed).asked for seed in (0, 0, 1)]
    texts = [{i: q.text for i, q in deal.items()} for deal in deals]
    assert shuffled_on(Patches(8)).asked == deals[0]
    assert texts[0] == texts[1] != texts[2]
    built = controls_for(Patches(8), None, seed=1, progress=False)[-1]
    assert {i: q.text for i, q in built.asked.items()} == texts[2]
    by_default = controls_for(Patches(8), None, progress=False)[-1]
    assert {i: q.text for i, q in by_default.asked.items()} == texts[0]


def test_only_questions_that_count_are_dealt():
    dataset = Patches(4)
    dataset[0].questions[1].mask = None
    assert "0-grey road" not in shuffled_on(dataset).asked
    firsts = shuffled_on(dataset, PROTOCOLS["segearth_r1"]).asked
    assert sorted(firsts) == [f"{i}-red roof" for i in range(4)]


@pytest.mark.parametrize(("limit", "images"), [(None, 6), (2, 2), (4, 4), (99, 6)])
def test_controls_read_only_the_images_that_are_evaluated(limit, images):
    """Questions of an image beyond the limit must not be dealt to one before it, nor may it be read for them."""
    dataset = Reading(6)
    controls = controls_for(dataset, None, limit=limit, progress=False)
    asked = controls[-1].asked
    assert {i.split("-")[0] for i in asked} == {str(i) for i in range(images)}
    assert dataset.read == list(range(images))


def test_processes_read_a_share_each_and_build_the_same_controls(monkeypatch):
    """Two processes, played by threads that wait for one another where their shares are gathered."""
    here, shares, meet = threading.local(), {}, threading.Barrier(2, timeout=20)

    def gather(own, world_size):
        shares[here.rank] = own
        meet.wait()
        parts = [shares[rank] for rank in range(world_size)]
        meet.wait()
        return parts

    def build(rank):
        here.rank, test, train = rank, Reading(5), Reading(7, "train")
        try:
            controls = controls_for(test, train, limit=4, progress=False, rank=rank, world_size=2)
        except BaseException:
            meet.abort()  # the other one must not wait
            raise
        return test.read, train.read, controls

    alone = controls_for(Patches(5), Patches(7, "train"), limit=4, progress=False)
    monkeypatch.setattr(module, "is_joined", lambda world_size: world_size == 2)
    monkeypatch.setattr(module, "gather_objects", gather)
    with ThreadPoolExecutor(2) as pool:
        (test, train, own), (others_test, others_train, other) = pool.map(build, range(2))
    assert (test, train, others_test, others_train) == ([0, 2], [0, 2, 4, 6], [1, 3], [1, 3, 5])
    for built in (own, other):
        assert np.array_equal(built[2].mask, alone[2].mask)
        assert list(built[3].asked) == list(alone[3].asked)
        assert built[3].asked == alone[3].asked


def test_of_a_large_training_split_a_part_from_all_over_it_is_read_and_the_report_says_so(monkeypatch):
    monkeypatch.setattr(module, "MOST_FITTED", 5)
    whole, large = Reading(5, "train"), Reading(40, "train")
    assert "fitted on" not in controls_for(Patches(2), whole, progress=False)[2].rule
    assert whole.read == list(range(5))
    # The limit is that of the split to evaluate, and its seed decides the shuffle alone.
    rules = [controls_for(Patches(2), large, progress=False, limit=2, seed=seed)[2].rule for seed in (0, 1)]
    assert rules[0] == rules[1] and rules[0].endswith("(fitted on 5 of the 40 training images)")
    assert large.read[:5] == large.read[5:] == sorted(set(large.read)) and max(large.read) > 20
    part = SplitReading(large, NATIVE, limit=8, drawn=5).images()
    assert len(part) == 5 and max(part) < 8


def test_controls_come_in_a_fixed_order_and_say_what_they_do():
    controls = controls_for(Patches(3), Patches(3, "train"), progress=False)
    assert [c.name for c in controls] == ["everything", "nothing", "mean_mask", "shuffled_questions"]
    assert controls[0].rule == "every pixel is predicted"
    assert controls[1].rule == "no pixel is predicted"
    assert [control.value for control in controls[:2]] == [True, False]
    assert "128x128 frame" in controls[2].rule
    assert "questions of other images" in controls[3].rule


def test_mean_mask_of_equal_targets_is_that_target():
    control = fitted_on(dataset_of([half(64, 64), half(100, 50), half(33, 70, 16 / 33)]))
    sample = dataset_of([half(48, 80)])[0]
    (mask,) = masks_of(control, sample)
    assert mask_iou(mask, sample.questions[0].mask) == 1


def test_mean_mask_takes_the_cut_with_the_best_giou():
    # Upper half, upper half, upper quarter: cut at 2/3 or below keeps the half (1 + 1 + 1/2) / 3, above it the quarter
    # (1/2 + 1/2 + 1) / 3.
    targets = [half(128, 128), half(128, 128), half(128, 128, 0.25)]
    control = fitted_on(dataset_of(targets))
    assert control.mask.mean() == 0.5
    assert control.threshold <= 2 / 3
    assert f"{control.threshold:.2f}" in control.rule


def test_mean_mask_of_mostly_absent_things_is_empty():
    """One upper half, three absences: the half, cut at 1/4 or below, is right once in four; nothing is right thrice."""
    targets = [half(128, 128)] + [half(128, 128, 0)] * 3
    control = fitted_on(dataset_of(targets))
    assert not control.mask.any()
    assert control.threshold == pytest.approx(0.3)


def test_mean_mask_takes_a_cell_whose_mean_is_the_threshold_itself():
    """Half of the targets cover the cells: a cut at 0.5 keeps them, the next one does not; the lowest cut wins ties."""
    fitted = [fitted_on(dataset_of([half(128, 128), half(128, 128, share)])) for share in (0, 1)]
    assert fitted[0].mask.mean() == 0.5  # (1 + 0) / 2 as for nothing at all, (0 + 1) / 2: the lower cut is taken
    assert fitted[0].threshold == 0.05
    assert fitted[1].mask.mean() == 1.0  # everything: (1/2 + 1) / 2; the half: (1 + 1/2) / 2
    assert fitted[1].threshold == 0.05


def test_mean_mask_weighs_every_target_however_many_there_are():
    """Targets are compared in blocks of 256. Of 300 lower halves, then 260 upper ones, the lower half is best; the last
    block alone would choose the upper one. Both together score 1/2 on each."""
    upper, lower = half(16, 16), ~half(16, 16)
    control = fitted_on(dataset_of([lower] * 300 + [upper] * 260))
    assert np.array_equal(control.mask, ~half(128, 128))
    assert control.threshold == pytest.approx(0.5)  # 260 of 560 are 0.464


@pytest.mark.parametrize("last", [0, 1])
def test_mean_mask_counts_the_first_target_of_a_block_once(last):
    """129 lower halves beat everything by half a target, 129 to 257/2. Leave a lower one out, or count an upper one
    twice, and the two are equal."""
    halves = [half(16, 16), ~half(16, 16)]
    targets = [halves[0]] * (127 + last) + [halves[1]] * (129 - last) + [halves[last]]
    control = fitted_on(dataset_of(targets))
    assert np.array_equal(control.mask, ~half(128, 128))


def test_mean_mask_finds_what_is_smaller_than_a_cell():
    """Two targets, each a quarter of two cells: both cells score 1/4; leaving them out scores 0, not 1."""
    dots = np.zeros((256, 256), bool)
    dots[[10, 20], [10, 20]] = True
    control = fitted_on(dataset_of([dots] * 2))
    assert np.argwhere(control.mask).tolist() == [[5, 5], [10, 10]]


def test_mean_mask_scores_the_covered_share_of_a_cell():
    """A target that covers a third of each cell in the upper half: the best mask is that half, with 1/3 of it right."""
    mask = np.zeros((384, 384), bool)
    mask[:192:3] = True
    control = fitted_on(dataset_of([mask]))
    assert np.array_equal(control.mask, half(128, 128))
    assert control.threshold == 0.05


def test_mean_mask_is_laid_over_each_image_upright():
    corner = np.zeros((128, 128), bool)
    corner[:32, :64] = True  # a quarter of the rows, half of the columns
    sample = dataset_of([half(40, 100)])[0]
    (mask,) = masks_of(MeanMask(corner, 0.5), sample)
    expected = np.zeros((40, 100), bool)
    expected[:10, :50] = True
    assert np.array_equal(mask, expected)


def test_mean_mask_learns_from_the_questions_that_count():
    dataset = dataset_of([half(64, 64), half(64, 64, 0.25)])
    for sample in dataset:
        sample.questions.append(Question("second", ~sample.questions[0].mask, id=f"{sample.image_id} second"))
    dataset[1].questions[0].mask = None
    published = fitted_on(dataset, PROTOCOLS["segearth_r1"])
    assert np.array_equal(published.mask, half(128, 128))  # of image 1 the first question has no mask: none is taken


def test_mean_mask_counts_small_targets_of_large_images():
    dot = np.zeros((1280, 1280), bool)
    dot[640:645, 640:645] = True  # a quarter of one cell of 10 x 10 pixels
    control = fitted_on(dataset_of([dot]))
    assert control.mask.sum() == 1


def test_mean_mask_needs_a_mask():
    with pytest.raises(DatasetError, match="no question has a mask"):
        fitted_on(Patches(0, "train"))


@pytest.mark.parametrize("value", [True, False])
def test_constant_masks(value):
    sample = Patches(1)[0]
    masks = masks_of(ConstantMask(value), sample)
    assert len(masks) == 3
    assert all(mask.dtype == bool and mask.shape == (48, 32) and (mask == value).all() for mask in masks)


def test_controls_that_cannot_be_made_are_left_out_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        controls = controls_for(Patches(1), None, progress=False)
    assert [control.name for control in controls] == ["everything", "nothing"]
    assert caplog.messages == [
        "control mean_mask left out: it needs the training split",
        "control shuffled_questions left out: questions of at least two images are needed to exchange them",
    ]


def test_bars_are_shown_unless_they_are_not_wanted(capsys):
    controls_for(Patches(2), Patches(2, "train"), progress=False)
    assert capsys.readouterr().err == ""
    controls_for(Patches(2), Patches(2, "train"))
    shown = capsys.readouterr().err
    assert "mean mask: 100%" in shown
    assert "questions: 100%" in shown
    assert "2/2" in shown


@pytest.mark.parametrize("control", [ConstantMask(True), MeanMask(np.ones((128, 128), bool), 0.5)])
def test_questions_for_another_number_of_images_are_an_error(control):
    with pytest.raises(ValueError, match="zip"):
        control.answers(None, Patches(2).samples, [{}])


def test_shuffled_answers_are_compared_as_finished_masks():
    """As all controls are; the frame of a letterboxing model would be taken in place of the mask."""

    class Letterboxing(PerfectPredictor):
        def _answer(self, *asked):
            answer = super()._answer(*asked)
            answer.frame_mask = np.ones((1024, 1024), bool)
            return answer

    dataset, predictor = Patches(2), Letterboxing()
    control = shuffled_on(dataset)
    predictor.set_image(dataset[0].image)
    (answers,) = control.answers(predictor, [dataset[0]], [scored_questions(dataset[0], NATIVE)])
    assert len(answers) == 3
    assert [answer.frame_mask for answer in answers] == [None] * 3


def test_a_region_is_dealt_in_shares_of_the_sides():
    class Noting(PerfectPredictor):
        facts = SegmenterFacts(takes_boxes=True)

        def predict(self, questions, *, task, about, boxes):
            self.boxes = boxes
            return [Segmentation(text, np.zeros((1, 1), bool), 0, False, 0) for text in questions]

    def about(name, height, width, box):
        asked = Question(f"what is in {name}?", np.zeros((height, width), bool), id=name, box=box)
        return Sample(name, np.zeros((height, width, 3), np.uint8), [asked])

    dataset = Patches(0)
    boxes = {"a": (10, 20, (5, 5, 10, 10)), "b": (100, 40, (10, 0, 20, 25)), "c": (10, 10, None)}
    dataset.samples = [about(name, *facts) for name, facts in boxes.items()]
    dealt, model = shuffled_on(dataset), Noting()
    asked = [scored_questions(sample, NATIVE) for sample in dataset.samples]
    dealt.answers(model, dataset.samples, asked)
    shares = {"a": (0.25, 0.5, 0.5, 1), "b": (0.25, 0, 0.5, 0.25), "c": None}
    for sample, box in zip(dataset.samples, model.boxes, strict=True):
        wanted = shares[dealt.asked[sample.image_id].text.split()[-1][0]]
        height, width = sample.image.shape[:2]
        scaled = None if wanted is None else tuple(np.multiply(wanted, (width, height, width, height)))
        assert box == (scaled if scaled is None else pytest.approx(scaled))

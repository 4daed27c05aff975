"""Validation: on which images, of which weights, and what counts as the best."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from segearth.config import DatasetConfig, ExperimentConfig, from_dict
from segearth.data.readers.aerial import AerialMini
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.data.registry import build_dataset, split_configs
from segearth.errors import ConfigError, DatasetError
from segearth.evaluation.evaluator import evaluate
from segearth.inference.predictor import Predictor
from segearth.models.build import build_model
from segearth.structures import Boxes, Question, Sample, Segmentation
from segearth.training import validation as room
from segearth.training.validation import Score, Subset, Validation, draw_in_proportion, weights_of
from segearth.utils.processes import Process, join_processes
from segearth.zoo.lookup import model_config

ALONE = Process(0, 1, torch.device("cpu"))
SMALL = {"length": 6, "size": 64, "max_questions": 2}


def experiment(data: dict[str, Any] | None = None, **train: Any) -> ExperimentConfig:
    chosen = data or {"train": [{"name": "synthetic", "options": SMALL}]}
    return from_dict(ExperimentConfig, {"data": chosen, "train": {"max_steps": 10, "val_every": 2, **train}})


def jsonl(folder: Path, *splits: str) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "a.png")
    for split in splits:
        (folder / f"{split}.jsonl").write_text(json.dumps({"image": "a.png", "question": "the roof", "mask": None}))
    return {"name": "jsonl", "root": str(folder)}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build_model(model_config({"name": "segearth_debug", "image_transform": {"size": 64}}))


# On which images


@pytest.mark.parametrize("count", [0, 1, 7, 16, 31])
def test_every_source_keeps_its_share_to_within_one(count: int) -> None:
    dataset = AerialMini(split="val")
    sources = [dataset.source_of(i) for i in range(len(dataset))]
    assert sources[-1] == dataset[len(dataset) - 1].meta["source"] and len(set(sources)) == 7
    chosen = draw_in_proportion(sources, count)
    assert len(chosen) == len(set(chosen)) == count and chosen == sorted(chosen)
    taken = Counter(sources[i] for i in chosen)
    for source, size in Counter(sources).items():
        assert abs(taken[source] - count * size / len(sources)) < 1


def test_the_draw_is_a_draw_and_always_the_same() -> None:
    sources = ["a"] * 40 + ["b"] * 40
    chosen = draw_in_proportion(sources, 8)
    assert chosen == draw_in_proportion(sources, 8)
    assert chosen != [0, 1, 2, 3, 40, 41, 42, 43]  # files often lie in an order
    assert [i for i in chosen if i < 40] != [i - 40 for i in chosen if i >= 40]


@pytest.mark.parametrize("count", [None, 3, 4])
def test_asked_for_more_than_there_is_all_are_taken(count: int | None) -> None:
    assert draw_in_proportion(["a", "b", "a"], count) == [0, 1, 2]


def test_data_sets_with_the_same_ids_are_told_apart() -> None:
    sets = [SyntheticDataset(split="val", seed=seed, **SMALL) for seed in (0, 1)]
    subset = Subset(sets, 6)
    samples = list(subset)
    assert len({sample.image_id for sample in samples}) == 6
    ids = [question.id for sample in samples for question in sample.questions]
    assert len(set(ids)) == len(ids)
    drawn = Counter(name[0] for name in subset.names)
    assert drawn == {"0": 3, "1": 3}
    assert len(set(subset.names)) == 6


def test_one_data_set_keeps_its_ids() -> None:
    dataset = SyntheticDataset(split="val", **SMALL)
    assert [sample.image_id for sample in Subset([dataset], None)] == [sample.image_id for sample in dataset]


def test_left_out_the_val_splits_of_what_is_trained_on_are_taken(tmp_path: Path) -> None:
    with_val, without = jsonl(tmp_path / "a", "train", "val"), jsonl(tmp_path / "b", "train")
    config = experiment({"train": [with_val, without, with_val, {"name": "synthetic", "options": SMALL}]})
    assert split_configs(config.data, "val") == [
        DatasetConfig("jsonl", with_val["root"], "val"), DatasetConfig("synthetic", None, "val", dict(SMALL))
    ]  # fmt: skip
    assert split_configs(config.data, "train") == config.data.train
    config.data.val = []
    assert split_configs(config.data, "val") == []
    config.data.val = [DatasetConfig("aerial_mini", None, "test")]
    assert split_configs(config.data, "val") == config.data.val


def test_no_val_split_no_validation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segearth")
    validation = Validation(experiment({"train": [jsonl(tmp_path, "train")]}), ALONE)
    assert not validation.is_due(2) and not validation.is_due(10)
    assert "no validation: data.val names no data set" in caplog.messages
    assert not Validation(experiment(val_every=0), ALONE).is_due(10)


def test_a_val_split_that_is_not_there_says_what_to_set(tmp_path: Path) -> None:
    config = experiment({"train": [{"name": "refsegrs", "root": str(tmp_path)}]})
    with pytest.raises(DatasetError, match=r"(?s)data\.val is not set, so .*\nset data\.val, or data\.val=\[\]"):
        Validation(config, ALONE)
    config.data.val = split_configs(config.data, "val")
    with pytest.raises(DatasetError, match=r"^refsegrs: "):  # set by hand: the remedy is the data set's
        Validation(config, ALONE)


class Drawn(SyntheticDataset):
    """The images of the synthetic data set, with one question each: in ``asked``, what the next image is asked."""

    asked: ClassVar[list[Question]]

    def __getitem__(self, index: int) -> Sample:
        return replace(super().__getitem__(index), questions=[replace(self.asked[index], id=f"{index}")])


@pytest.mark.parametrize("target", [Boxes(((1, 2, 9, 9),)), None])
def test_a_val_split_without_masks_is_told_before_the_training(
    monkeypatch: pytest.MonkeyPatch, target: Boxes | None
) -> None:
    monkeypatch.setattr(room, "build_dataset", lambda name, root, split, **options: Drawn(split=split, **options))
    boxes = Question("the ships", target=target, task="detection")
    Drawn.asked = [boxes] * 6
    message = r"no question of 6 of 6 images of synthetic has one .* tasks referring, reasoning .*set data\.val=\[\]"
    with pytest.raises(DatasetError, match=message):
        Validation(experiment(), ALONE)
    Drawn.asked = [boxes] * 5 + [Question("the roofs", np.ones((64, 64), bool))]
    assert Validation(experiment(), ALONE).is_on


def test_a_target_that_its_task_does_not_take_is_told_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "build_dataset", lambda name, root, split, **options: Drawn(split=split, **options))
    Drawn.asked = [Question("the ships", np.ones((64, 64), bool), task="detection")] * 6
    with pytest.raises(DatasetError, match="task 'detection' takes a target of Boxes, not Regions"):
        Validation(experiment(), ALONE)


class Everywhere:
    """Answers every question, of any task, with the whole image."""

    def set_images(self, images: Sequence[np.ndarray]) -> None:
        self.sizes = [image.shape[:2] for image in images]

    def predict(self, questions: Sequence[str], *, about: Sequence[int], **_: Any) -> list[Segmentation]:
        asked = zip(questions, about, strict=True)
        return [Segmentation(text, np.ones(self.sizes[number], bool), 1.0, True, 1.0) for text, number in asked]


def test_masks_are_scored_beside_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kind of answer comes first, the score is that of masks."""
    monkeypatch.setattr(room, "build_dataset", lambda name, root, split, **options: Drawn(split=split, **options))
    boxes = Question("the ships", target=Boxes(((1, 2, 9, 9),)), task="detection")
    Drawn.asked = [boxes, Question("the roofs", np.ones((64, 64), bool))] + [boxes] * 4
    segmenter: Any = Everywhere()
    score, _ = Validation(experiment(), ALONE).run(segmenter, 2)
    assert (score.giou, score.images, score.questions) == (1.0, 1, 1)


def test_a_val_set_forgotten_in_a_base_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    val = {"name": "synthetic", "split": "val", "options": SMALL}
    Validation(experiment({"train": [jsonl(tmp_path, "train")], "val": [val]}), ALONE)
    assert "data.val scores on synthetic, which data.train does not train on (jsonl); is that meant?" in caplog.messages


def test_patience_needs_scores() -> None:
    with pytest.raises(ConfigError, match="early_stop_patience needs scores"):
        Validation(experiment(val_every=0, early_stop_patience=2), ALONE)


def test_when_it_is_due() -> None:
    validation = Validation(experiment(max_steps=7, val_every=3), ALONE)
    assert [done for done in range(1, 8) if validation.is_due(done)] == [3, 6, 7]


# Of which weights


def test_the_score_is_what_the_evaluator_says_of_the_averaged_weights(model: Any) -> None:
    validation = Validation(experiment(val_images=4), ALONE)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    average = {name: 0.5 * value for name, value in before.items() if "mask_decoder" in name}
    score, is_best = validation.run(Predictor(model), 2, weights_of(model, average))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with torch.no_grad():
        for name, value in average.items():
            dict(model.named_parameters())[name].copy_(value)
    dataset = build_dataset("synthetic", None, "val", **SMALL)
    metrics = evaluate(Predictor(model), Subset([dataset], 4), controls=False, progress=False).metrics
    with torch.no_grad():
        for name, value in before.items():
            dict(model.named_parameters())[name].copy_(value)
    own = Validation(experiment(val_images=4), ALONE).run(Predictor(model), 2)[0]
    expected = (metrics.giou, metrics.ciou, metrics.n_acc, metrics.t_acc)
    assert (score.giou, score.ciou, score.n_acc, score.t_acc) == pytest.approx(expected, abs=1e-3)  # several at a time
    assert (score.step, score.images, score.questions) == (2, 4, metrics.samples) and is_best
    assert own.ciou != score.ciou  # the model's own weights say something else


def test_training_goes_on_after_a_validation(model: Any) -> None:
    """The predictor works in inference mode, whose tensors must not stay behind in the model."""
    Validation(experiment(val_images=1), ALONE).run(Predictor(model), 2)
    model.train()
    model.zero_grad()
    features = model.encode_image(torch.randn(1, 3, 64, 64))
    features.decoder.mask_features.sum().backward()
    assert any(p.grad is not None for p in model.parameters())
    assert not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])


def test_weights_come_back_also_from_an_error() -> None:
    linear = torch.nn.Linear(2, 2)
    before = {name: p.detach().clone() for name, p in linear.named_parameters()}
    with pytest.raises(KeyboardInterrupt), weights_of(linear, {"weight": torch.zeros(2, 2)}):
        assert not linear.weight.any() and torch.equal(linear.bias, before["bias"])
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[name]) for name, p in linear.named_parameters())


# What counts as the best


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """gIoUs that the evaluator will find, in turn."""
    coming: list[float] = []

    def scored(*args: object, **kwargs: object) -> Any:
        metrics = dict(giou=coming.pop(0), ciou=0.5, n_acc=None, t_acc=1.0, images=2, samples=3)
        found = SimpleNamespace(metrics=SimpleNamespace(**metrics))
        return SimpleNamespace(by_scorer={"segmentation": found})

    monkeypatch.setattr(room, "evaluate", scored)
    return coming


def test_the_first_of_equals_stays_the_best(scripted: list[float], model: Any) -> None:
    validation = Validation(experiment(), ALONE)
    scripted += [0.2, 0.4, 0.4, 0.3, 0.41]
    assert [validation.run(Predictor(model), done)[1] for done in (2, 4, 6, 8, 10)] == [True, True, False, False, True]
    assert validation.best == Score(10, 0.41, 0.5, None, 1.0, 2, 3)


def test_patience_counts_validations_in_a_row(scripted: list[float], model: Any) -> None:
    validation = Validation(experiment(early_stop_patience=2), ALONE)
    scripted += [0.4, 0.3, 0.5, 0.4, 0.3]
    stops = []
    for done in (2, 4, 6, 8, 10):
        validation.run(Predictor(model), done)
        stops.append(validation.should_stop)
    assert stops == [False, False, False, False, True]
    patient = Validation(experiment(early_stop_patience=0), ALONE)
    patient.load_state_dict(validation.state_dict())
    assert patient.stale == 2 and not patient.should_stop


def test_a_checkpoint_keeps_the_best(scripted: list[float], model: Any) -> None:
    validation = Validation(experiment(), ALONE)
    scripted += [1 / 3, 0.1]
    for done in (2, 4):
        validation.run(Predictor(model), done)
    again = Validation(experiment(), ALONE)
    again.load_state_dict(json.loads(json.dumps(validation.state_dict())))
    assert (again.best, again.stale) == (validation.best, 1)
    assert again.best is not None and again.best.giou == 1 / 3
    empty = Validation(experiment(), ALONE)
    empty.load_state_dict({})  # of a version without validation
    assert (empty.best, empty.stale) == (None, 0)


def decided_by_a_rank(script: list[list[float]]) -> list[tuple[float, bool, bool]]:
    """Validates in step with another rank, which sees other gIoUs; returns what counts and what is decided."""
    process = join_processes(training=True)
    coming = iter(script[process.rank])

    def scored(*args: object, **kwargs: object) -> Any:
        metrics = SimpleNamespace(giou=next(coming), ciou=0.5, n_acc=None, t_acc=1.0, images=2, samples=3)
        return SimpleNamespace(by_scorer={"segmentation": SimpleNamespace(metrics=metrics)})

    room.evaluate = scored  # type: ignore[assignment]
    validation = Validation(experiment(early_stop_patience=1), process, in_step=True)
    segmenter: Any = SimpleNamespace()
    runs = [validation.run(segmenter, done) for done in (2, 4)]
    return [(score.giou, better, validation.should_stop) for score, better in runs]


def test_ranks_that_see_other_pixels_decide_alike() -> None:
    """Under ZeRO-3 each rank scores all images: the first finds the second score worse, the other one better."""
    pytest.importorskip("deepspeed", reason="ranks are forked from a training")
    from ranks import run_on_ranks

    first, other = run_on_ranks(decided_by_a_rank, [[0.5, 0.49], [0.5, 0.51]])
    assert first == other == [(0.5, True, True), (0.49, False, True)]


@pytest.mark.parametrize("change", [{"val_images": 3}, {"val_every": 5}, {"data": 1}])
def test_scores_of_other_images_or_steps_are_forgotten(
    scripted: list[float], model: Any, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    validation = Validation(experiment(), ALONE)
    scripted.append(0.9)
    validation.run(Predictor(model), 2)
    data = {"train": [{"name": "synthetic", "options": {**SMALL, "length": 7}}]} if change.pop("data", None) else None
    caplog.set_level(logging.INFO, "segearth")
    other = Validation(experiment(data, **change), ALONE)
    other.load_state_dict(validation.state_dict())
    assert other.best is None and other.stale == 0
    assert "validation has changed: the best score so far is forgotten" in caplog.messages


def test_defaults_of_the_experiments_are_readable() -> None:
    tree = OmegaConf.structured(ExperimentConfig)
    assert tree.data.val is None and tree.train.val_every > 0 and tree.train.early_stop_patience == 0

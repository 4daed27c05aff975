"""Scores a model while it is trained, on the same images of ``data.val`` every time, and keeps the best score.

Each score comes from the public evaluator and predictor, under the native protocol and without controls, so it is what
``segearth eval --split val`` would say of the same images. All processes share the work.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from segearth.config import DataConfig, DatasetConfig, ExperimentConfig
from segearth.data.base import SegmentationDataset
from segearth.data.registry import build_dataset, split_configs
from segearth.errors import ConfigError, DatasetError
from segearth.evaluation.evaluator import evaluate
from segearth.evaluation.protocols import get_protocol, scored_questions
from segearth.evaluation.run import UNKNOWN_SIDE
from segearth.evaluation.scorers import scorer_of
from segearth.evaluation.scorers.segmentation import SegmentationScorer
from segearth.segmenter import Segmenter, facts_of, usual_batch_size
from segearth.structures import Sample
from segearth.utils.processes import Process, gather_objects
from segearth.utils.seeds import rng_for

logger = logging.getLogger(__name__)
PROTOCOL = "native"
SEED = 0  # not the run's: runs of several seeds are compared on the same images


@dataclass(frozen=True)
class Score:
    """What one validation found.

    Attributes:
        step: Optimiser steps done.
        giou: Mean IoU of the questions; it decides which model is the best.
        ciou: Sum of intersections over sum of unions.
        n_acc: Share of absent things that were found absent; ``None`` if nothing is absent.
        t_acc: Share of present things that were found present; ``None`` if everything is absent.
        images: Images scored.
        questions: Questions asked.
    """

    step: int
    giou: float
    ciou: float
    n_acc: float | None
    t_acc: float | None
    images: int
    questions: int

    def facts(self) -> dict[str, Any]:
        """For ``metrics.jsonl`` and for the record beside a model."""
        values = {f"val_{name}": value for name, value in asdict(self).items() if name != "step"}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}


class Validation:
    """Knows which images are scored, after which steps, and the best score so far.

    Attributes:
        best: The best score so far; of equal ones the earliest.
        stale: Validations since then.
    """

    def __init__(self, config: ExperimentConfig, process: Process, in_step: bool = False) -> None:
        """Opens the data sets and draws the subset.

        Args:
            config: ``data.val`` (or ``data.train``, whose val splits stand in for it), and of ``train`` ``val_every``,
                ``val_images``, ``early_stop_patience`` and ``max_steps`` are read.
            process: This process.
            in_step: Whether every process must run the same images. ZeRO-3 needs it: all processes bring a layer's
                weights together, so all must run the same layer at the same time.

        Raises:
            DatasetError: A data set is missing or incomplete, or no question of the subset is answered with a mask.
            ConfigError: Early stopping without validation.
        """
        self.train, self.process, self.in_step = config.train, process, in_step
        self.best: Score | None = None
        self.stale = 0
        chosen = split_configs(config.data, "val") if config.train.val_every else []
        self.subset = Subset(_open(config.data, chosen), config.train.val_images) if chosen else None
        if self.subset is None and config.train.early_stop_patience:
            raise ConfigError(
                "train.early_stop_patience needs scores: set data.val and train.val_every, or set the patience to 0"
            )
        if self.subset is None:
            reason = "data.val names no data set" if config.train.val_every else "train.val_every is 0"
            logger.info("no validation: %s", reason)
        else:
            _check_masks_are_asked_for(self.subset)  # now, not after hours at the first validation
            _warn_of_strangers(chosen, config.data)
            logger.info("validation every %d steps on %s", config.train.val_every, self.subset)

    @property
    def is_on(self) -> bool:
        """Whether there is anything to score."""
        return self.subset is not None

    def is_due(self, done: int) -> bool:
        """Whether to validate after ``done`` steps: every ``val_every``, and at the end."""
        if self.subset is None:
            return False
        return done % self.train.val_every == 0 or done == self.train.max_steps

    def run(
        self, segmenter: Segmenter, done: int, weights: AbstractContextManager[None] | None = None
    ) -> tuple[Score, bool]:
        """Scores what is being trained; all processes call it together and get the same.

        Args:
            segmenter: Answers the questions.
            done: Optimiser steps done.
            weights: Entered while it is scored, such as :func:`weights_of` with the averaged weights; ``None``: it is
                scored as it is.

        Returns:
            The score, and whether it is the best so far.
        """
        assert self.subset is not None  # is_due says so
        began = time.perf_counter()
        rank, world_size = (0, 1) if self.in_step else (self.process.rank, self.process.world_size)
        at_a_time = usual_batch_size(self.process.device.type, facts_of(segmenter).side or UNKNOWN_SIDE)
        with weights or nullcontext():
            result = evaluate(
                segmenter, self.subset, protocol=PROTOCOL, controls=False, examples=0, progress=False,
                rank=rank, world_size=world_size, batch_size=at_a_time,
            )  # fmt: skip
        metrics = result.by_scorer[SegmentationScorer.name].metrics
        own = Score(
            done, metrics.giou, metrics.ciou, metrics.n_acc, metrics.t_acc, metrics.images, metrics.samples
        )
        # Where each process has scored all images itself, two GPUs may differ by a pixel. One process might then find
        # the score the best, or stop, and another not, and they would wait for each other for ever. So all take the
        # first one's.
        score = gather_objects(own, self.process.world_size)[0]
        better = self.best is None or score.giou > self.best.giou
        if better:
            self.best, self.stale = score, 0
        else:
            self.stale += 1
        beside = "" if better or self.best is None else f" ({100 * self.best.giou:.2f} at step {self.best.step})"
        logger.info(
            "step %d: validation gIoU %.2f, cIoU %.2f on %d images in %.1f s, %s so far%s",
            done, 100 * score.giou, 100 * score.ciou, score.images, time.perf_counter() - began,
            "the best" if better else "not the best", beside,
        )  # fmt: skip
        return score, better

    @property
    def should_stop(self) -> bool:
        """Whether nothing has become better for as many validations as patience allows."""
        return 0 < self.train.early_stop_patience <= self.stale

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run goes on with the same best."""
        best = None if self.best is None else asdict(self.best)
        return {"of": self._identity(), "best": best, "stale": self.stale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned, if the same images are scored after the same steps.

        Otherwise it is dropped, and the next score is the best so far: scores on different images do not compare.
        """
        if state.get("of") != self._identity():
            if state.get("best"):
                logger.info("validation has changed: the best score so far is forgotten")
            return
        self.best = Score(**state["best"]) if state["best"] else None
        self.stale = int(state["stale"])

    def _identity(self) -> str:
        return "" if self.subset is None else json.dumps([self.train.val_every, *self.subset.names])


class Subset(SegmentationDataset):
    """Some images of several data sets, as one data set whose ids are unique."""

    name = "validation"
    tree = ""

    def __init__(self, datasets: Sequence[SegmentationDataset], count: int | None) -> None:
        """Draws the images, in the order of the data sets.

        Args:
            datasets: What to draw from.
            count: How many, from each source as large a part as it has of the whole; ``None`` for all.

        Raises:
            DatasetError: There is no image.
        """
        self.split, self.several = "val", len(datasets) > 1
        everything = [(dataset, i) for dataset in datasets for i in range(len(dataset))]
        if not everything:
            raise DatasetError("data.val names no image; set data.val=[] to train without validation")
        sources = [f"{datasets.index(dataset)} {dataset.source_of(i)}" for dataset, i in everything]
        self.drawn = [everything[i] for i in draw_in_proportion(sources, count)]
        self.names = [f"{datasets.index(dataset)} {dataset.name} {dataset.root} {i}" for dataset, i in self.drawn]
        self.total = len(everything)

    def __str__(self) -> str:
        return f"{len(self.drawn)} of {self.total} images of {', '.join(sorted({d.name for d, _ in self.drawn}))}"

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> Sample:
        dataset, i = self.drawn[index]
        sample = dataset[i]
        if not self.several:
            return sample
        mark = f"{dataset.name}/{index}/"
        asked = [replace(question, id=mark + question.id if question.id else "") for question in sample.questions]
        return replace(sample, image_id=mark + sample.image_id, questions=asked)


def draw_in_proportion(sources: Sequence[str], count: int | None) -> list[int]:
    """Draws images so that every source has its share of them, to within one image.

    Shares are rounded down, and the images that are still missing come from the sources that lost most by it.

    Args:
        sources: The source of each image.
        count: How many; all if there are fewer, or if it is ``None``.

    Returns:
        Indices of images in ascending order, the same ones each time.
    """
    if count is None or count >= len(sources):
        return list(range(len(sources)))
    sizes = Counter(sources)
    quotas = {source: count * size / len(sources) for source, size in sizes.items()}
    taken = {source: int(quota) for source, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda source: (taken[source] - quotas[source], source))
    for source in by_remainder[: count - sum(taken.values())]:
        taken[source] += 1
    chosen: list[int] = []
    for number, source in enumerate(sorted(sizes)):
        members = np.flatnonzero([other == source for other in sources])
        chosen += rng_for(SEED, number).choice(members, taken[source], replace=False).tolist()
    return sorted(chosen)


@contextmanager
def weights_of(model: torch.nn.Module, weights: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
    """Gives a model other weights inside the block, and afterwards its own again, also after an error.

    Args:
        model: With whole parameters, so not under ZeRO-3.
        weights: Some or all of them by parameter name; ``None`` changes nothing.
    """
    live = {name: p.data for name, p in model.named_parameters() if weights is not None and name in weights}
    kept = {name: value.clone() for name, value in live.items()}
    try:
        for name, value in live.items():
            value.copy_(weights[name])  # type: ignore[index]
        yield
    finally:
        for name, value in live.items():
            value.copy_(kept[name])


def _open(data: DataConfig, chosen: Sequence[DatasetConfig]) -> list[SegmentationDataset]:
    try:
        return [build_dataset(d.name, d.root, d.split, **d.options) for d in chosen]
    except DatasetError as error:
        if data.val is not None:
            raise
        raise DatasetError(
            f"data.val is not set, so the val splits of data.train are taken: {error}\n"
            "set data.val, or data.val=[] to train without validation"
        ) from error


def _check_masks_are_asked_for(subset: Subset) -> None:
    """Raises an error if no question is answered with a mask: the best model is the one with the best masks."""
    protocol = get_protocol(PROTOCOL)
    for sample in subset:
        scorers = {scorer_of(question).name for question in scored_questions(sample, protocol).values()}
        if SegmentationScorer.name in scorers:
            return
    raise DatasetError(
        f"validation chooses the best model by its masks, and no question of {subset} has one to compare with: name a "
        f"data set of the tasks {', '.join(SegmentationScorer.tasks)} in data.val, take more of its images "
        "(train.val_images), or set data.val=[] to train without validation"
    )


def _warn_of_strangers(chosen: Sequence[DatasetConfig], data: DataConfig) -> None:
    """Warns where data sets are scored that are not trained on, such as ``data.val`` of a base file, not overridden."""
    strangers = {d.name for d in chosen} - {d.name for d in data.train}
    if strangers:
        logger.warning(
            "data.val scores on %s, which data.train does not train on (%s); is that meant?",
            ", ".join(sorted(strangers)), ", ".join(sorted({d.name for d in data.train})),
        )  # fmt: skip

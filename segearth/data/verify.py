"""Reads a whole data set and lists all problems found in it."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segearth.data.base import SegmentationDataset
from segearth.data.registry import build_dataset, dataset_class
from segearth.errors import DatasetError, SegEarthError
from segearth.structures import Sample, check_target
from segearth.utils.text import is_whole_text


@dataclass
class VerifyReport:
    """Counts and problems from reading every sample of a split.

    Attributes:
        name: The data set's name.
        split: The split that was read.
        images: Images that could be decoded with all their masks.
        questions: Number of questions about these images.
        answers: Number of questions that have an answer in words.
        empty_masks: Number of questions whose mask is all background. This is no problem: the thing is absent.
        unlabelled: Number of questions without a target of any kind: nothing can be learned from them or scored.
        kinds: Number of questions of each kind, if the data set states kinds.
        smallest: ``(width, height)`` of the image with the fewest pixels; ``(0, 0)`` if there is no image.
        largest: ``(width, height)`` of the image with the most pixels.
        problems: One line for each problem.
    """

    name: str
    split: str
    images: int = 0
    questions: int = 0
    answers: int = 0
    empty_masks: int = 0
    unlabelled: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def lines(self, max_problems: int = 50) -> list[str]:
        """Returns the report as lines of text, the problems last.

        Args:
            max_problems: How many problems to show; of the others only the number is given.
        """
        (w0, h0), (w1, h1) = self.smallest, self.largest
        out = [
            f"{self.name} {self.split}: {self.images} images of {w0}x{h0} to {w1}x{h1} pixels",
            f"  {self.questions} questions, {self.answers} with an answer",
            f"  {self.empty_masks} empty masks (the thing is absent), {self.unlabelled} without a target",
        ]
        if self.kinds:
            out.append("  kinds: " + ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common()))
        out.append("no problems" if self.ok else f"{len(self.problems)} problems:")
        out += [f"  {problem}" for problem in self.problems[:max_problems]]
        if len(self.problems) > max_problems:
            out.append(f"  … and {len(self.problems) - max_problems} more")
        return out


def verify_split(dataset: SegmentationDataset) -> VerifyReport:
    """Reads every sample and collects all problems instead of stopping at the first.

    Args:
        dataset: The split, opened with ``strict=False``, so that missing files are collected too (as
            :func:`verify_dataset` does).

    Returns:
        The report. Its problems are those that construction noted, samples that cannot be decoded, empty questions,
        masks that are not boolean or not of their image's size, pairs of images of two sizes, and ids that occur twice.
    """
    from tqdm import tqdm

    report = VerifyReport(dataset.name, dataset.split, problems=list(dataset.problems))
    image_ids: Counter[str] = Counter()
    question_ids: Counter[str] = Counter()
    for index in tqdm(range(len(dataset)), desc=f"{dataset.name} {dataset.split}", unit="image", disable=None):
        try:
            sample = dataset[index]
        except (SegEarthError, OSError) as error:
            report.problems += getattr(error, "problems", []) or [f"{error}".partition("\n")[0]]
            continue
        image_ids[sample.image_id] += 1
        question_ids.update(question.id for question in sample.questions if question.id)
        _count(report, sample)
        report.problems += _problems_of(sample)
    for what, ids in (("image", image_ids), ("question", question_ids)):
        report.problems += [f"{what} id {key!r} occurs {count} times" for key, count in ids.items() if count > 1]
    return report


def verify_dataset(name: str, root: str | Path | None, splits: Iterable[str] | None = None) -> list[VerifyReport]:
    """Opens and verifies some or all splits of a data set.

    Args:
        name: A name of :data:`segearth.data.registry.DATASETS`.
        root: The data set's folder, or ``None`` for its default place.
        splits: Which splits; default all that are there. If a split cannot be opened, its report holds that problem.

    Raises:
        UnknownNameError: No data set has that name, or it has no such split.
    """
    cls = dataset_class(name)
    options = {"strict": False} if "strict" in inspect.signature(cls).parameters else {}
    reports = []
    for split in splits or (cls.splits if root is None else cls.splits_in(root)):
        try:
            reports.append(verify_split(build_dataset(name, root, split, **options)))
        except DatasetError as error:
            reports.append(VerifyReport(name, split, problems=[str(error), *error.problems]))
    return reports


def _count(report: VerifyReport, sample: Sample) -> None:
    height, width = sample.image.shape[:2]
    sizes = [size for size in (report.smallest, report.largest, (width, height)) if size != (0, 0)]
    report.smallest, report.largest = min(sizes, key=np.prod), max(sizes, key=np.prod)
    report.images += 1
    report.questions += len(sample.questions)
    report.answers += sum(question.answer is not None for question in sample.questions)
    report.kinds.update(question.kind for question in sample.questions if question.kind)
    report.unlabelled += sum(question.target is None for question in sample.questions)
    report.empty_masks += sum(question.mask is not None and not question.mask.any() for question in sample.questions)


def _problems_of(sample: Sample) -> list[str]:
    where = f"{sample.path or sample.image_id}"
    problems = []
    if sample.image.ndim != 3 or sample.image.shape[2] != 3 or sample.image.dtype != np.uint8:
        problems.append(f"{where}: image is {sample.image.dtype} {sample.image.shape}, expected uint8 (H, W, 3)")
    if sample.before is not None and sample.before.shape != sample.image.shape:
        problems.append(f"{where}: the earlier image is {sample.before.shape}, the later one {sample.image.shape}")
    if not sample.questions:
        problems.append(f"{where}: no question")
    for question in sample.questions:
        if not question.text.strip():
            problems.append(f"{where}: question {question.id!r} is empty")
        if not is_whole_text(question.text + (question.answer or "")):
            what = f"question {question.id!r} or its answer"
            problems.append(f"{where}: {what} holds half a character; write it as UTF-8")
        try:
            check_target(question)
        except SegEarthError as error:
            problems.append(f"{where}: {error}")
        if question.mask is None:
            continue
        if question.mask.shape != sample.image.shape[:2]:
            problems.append(
                f"{where}: mask of question {question.id!r} is {question.mask.shape}, image {sample.image.shape[:2]}"
            )
        elif question.mask.dtype != bool:
            problems.append(f"{where}: mask of question {question.id!r} is {question.mask.dtype}, expected bool")
    return problems

"""Measures whether a model reads the question, or answers with what stands out in the image.

Many questions of an image ask for the same target, so a model that never reads them can score well. Three measures:

``needs_words``    questions whose target is not the image's commonest one, so that guessing that one does not help.
swapped question   the answer to another question of the same image, scored with this question's target. On questions
                   that need words, what the right answer scores beyond it is what reading them is worth.
minimal pairs      two questions of an image that differ in one word: do the logits move to the right one of the two
                   targets?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segearth.evaluation.calibration import calibration_error
from segearth.evaluation.records import SampleRecord
from segearth.metrics.bootstrap import bootstrap_interval
from segearth.metrics.masks import mask_iou

ALIKE = 0.9  # two targets with at least this IoU count as one when looking for the commonest
DIFFERENT = 0.5  # IoU below which a target differs from another


@dataclass(frozen=True, slots=True)
class PairRecord:
    """How two questions that differ in one word were answered.

    Attributes:
        image_id: The image both were asked of.
        what: The kind of word: ``"side"``, ``"size"`` or ``"class"``.
        first: The id of one question.
        second: The id of the other.
        won: Whether the logits move to the right target: from the second question to the first they must rise more
            where only the first target is than where only the second one is. Logits that ignore the question win half
            of the time.
    """

    image_id: str
    what: str
    first: str
    second: str
    won: bool


def needs_words(targets: Sequence[np.ndarray]) -> list[bool]:
    """Tells which questions of an image have a target that is not the commonest one.

    Args:
        targets: Boolean ``(H, W)`` target of each question of the image; an empty one never needs words here, since
            whether something is there is measured apart.

    Example:
        >>> house, tree = np.array([[1, 1, 0, 0]], bool), np.array([[0, 0, 0, 1]], bool)
        >>> needs_words([house, tree, house])
        [False, True, False]
    """
    groups: list[tuple[np.ndarray, int]] = []  # a target and how many questions ask for it
    for target in targets:
        if not target.any():
            continue
        for number, (member, count) in enumerate(groups):
            if mask_iou(member, target) >= ALIKE:
                groups[number] = (member, count + 1)
                break
        else:
            groups.append((target, 1))
    if not groups:
        return [False] * len(targets)
    # Of equally common ones the larger: it is what stands out.
    commonest = max(groups, key=lambda group: (group[1], np.count_nonzero(group[0])))[0]
    return [bool(target.any()) and mask_iou(commonest, target) < DIFFERENT for target in targets]


def swapped_partner(targets: Sequence[np.ndarray], texts: Sequence[str]) -> list[int | None]:
    """Chooses for each question of an image another one that asks for something else.

    Args:
        targets: Boolean ``(H, W)`` target of each question.
        texts: The questions.

    Returns:
        For each question the position of its partner: the next one, round the list, with another text and a target that
        differs (IoU < 0.5); ``None`` where there is none.
    """
    partners: list[int | None] = []
    for own, target in enumerate(targets):
        others = [*range(own + 1, len(targets)), *range(own)]
        fits = (k for k in others if texts[k] != texts[own] and mask_iou(targets[k], target) < DIFFERENT)
        partners.append(next(fits, None))
    return partners


def pair_won(first: np.ndarray, second: np.ndarray, only_first: np.ndarray, only_second: np.ndarray) -> bool:
    """Returns whether the logits move to the right target, see :class:`PairRecord`.

    Only the difference of the two maps counts, so it does not matter where masks are cut, nor what both have in common.

    Args:
        first: Float ``(H, W)`` logits for the first question.
        second: Likewise for the second.
        only_first: Boolean ``(H, W)``: the first one's target without the second one's; not empty.
        only_second: The other way round.

    Example:
        >>> left, right = np.array([[1, 0]], bool), np.array([[0, 1]], bool)
        >>> pair_won(np.array([[3.0, 2.9]]), np.array([[3.0, 3.0]]), left, right)  # the first map is lower on the right
        True
    """
    moved = first - second
    return bool(moved[only_first].mean() > moved[only_second].mean())


def score_pairs(
    image_id: str,
    ids: Sequence[str],
    pairs: Sequence[Sequence[str]],
    targets: Sequence[np.ndarray],
    logits: Sequence[np.ndarray],
) -> list[PairRecord]:
    """Scores the minimal pairs among an image's questions.

    Args:
        image_id: The image.
        ids: The questions' ids.
        pairs: The pairs each question belongs to, see :class:`~segearth.structures.Question`.
        targets: Boolean ``(H, W)`` each.
        logits: Float ``(H, W)`` each.

    Returns:
        One record a pair. One whose targets contain one another is left out: one of them has no pixel of its own.
    """
    members: dict[str, list[int]] = {}
    for index, names in enumerate(pairs):
        for name in names:
            members.setdefault(name, []).append(index)
    records = []
    for name, both in members.items():
        if len(both) != 2:
            continue  # the other one of the pair was not scored
        a, b = both
        only_first, only_second = targets[a] & ~targets[b], targets[b] & ~targets[a]
        if only_first.any() and only_second.any():
            won = pair_won(logits[a], logits[b], only_first, only_second)
            records.append(PairRecord(image_id, name.split()[0], ids[a], ids[b], won))
    return records


def listening_facts(records: Sequence[SampleRecord], pairs: Sequence[PairRecord], seed: int = 0) -> dict[str, Any]:
    """Returns what a report says about listening and about confidence; shares in [0, 1].

    Args:
        records: The model's records.
        pairs: Its pairs, possibly none.
        seed: Decides the bootstrap; images are drawn.

    Returns:
        ``needs_words``: on the questions that need words, how many there are, gIoU, gIoU of the swapped questions, and
        the margin with its 95 % interval; ``None`` where there is no such question. ``pairs``: by kind of word, and
        ``"all"``, how many and which share was won, with its interval. ``calibration``: the calibration error of
        presence, and of the score against the IoU of the answers that are not empty; ``None`` where no model was asked.
    """
    hard = [r for r in records if r.needs_words and r.swapped_iou is not None]
    facts: dict[str, Any] = {"needs_words": None, "pairs": {}, "calibration": None}
    if hard:
        gains = [r.iou - (r.swapped_iou or 0.0) for r in hard]
        facts["needs_words"] = {
            "samples": len(hard),
            "giou": float(np.mean([r.iou for r in hard])),
            "swapped_giou": float(np.mean([r.swapped_iou or 0.0 for r in hard])),
            "margin": float(np.mean(gains)),
            "margin_interval_95": bootstrap_interval(gains, [r.image_id for r in hard], seed=seed),
        }
    for what in [*sorted({pair.what for pair in pairs}), "all"] if pairs else []:
        chosen = [pair for pair in pairs if what in (pair.what, "all")]
        won = [float(pair.won) for pair in chosen]
        facts["pairs"][what] = {
            "pairs": len(chosen),
            "won": float(np.mean(won)),
            "interval_95": bootstrap_interval(won, [pair.image_id for pair in chosen], seed=seed),
        }
    asked = [r for r in records if r.presence is not None]
    if asked:
        shown = [r for r in asked if not r.predicted_empty]
        facts["calibration"] = {
            "presence": calibration_error([r.presence or 0.0 for r in asked], [not r.target_empty for r in asked]),
            "score": calibration_error([r.score or 0.0 for r in shown], [r.iou for r in shown]),
        }
    return facts

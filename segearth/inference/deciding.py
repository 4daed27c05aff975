"""Decides from raw scores whether a thing is there, which pixels belong to it, and how sure that is.

Raw scores are mask logits at the image's size and a presence in [0, 1]. Deciding is a step of its own, so that whoever
joins the scores of many tiles decides once for all of them: with :func:`decide` where all logits fit into memory, else
with :func:`threshold_of`, which needs only the highest of them, and :func:`score_of`, which needs only the mean
probability inside the mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segearth.segmenter import DecidingSettings

BELOW_HIGHEST = 1.0  # a mask that must not be empty is cut this far below its highest logit


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one question.

    Attributes:
        mask: Boolean ``(H, W)``, on the device of the logits; all ``False`` where nothing is judged to be there.
        present: Whether presence says that the thing is there and the mask has a pixel.
        score: IoU to expect, in [0, 1]; 0 where nothing is there.
        threshold: A scalar: above it a logit belongs to the mask.
        judged: Whether presence alone says that the thing is there.
    """

    mask: Tensor
    present: bool
    score: float
    threshold: Tensor
    judged: bool

    def of_frame(self, logits: Tensor) -> Tensor:
        """Applies the decision to other logits of the question, such as those in the model's frame.

        Returns:
            Boolean, of the shape of ``logits``.
        """
        return (logits > self.threshold) & self.judged


def decide(logits: Tensor, presence: float, settings: DecidingSettings) -> Decision:
    """Decides one question.

    Args:
        logits: ``(H, W)``, on any device; ``torch.from_numpy`` makes them of an array without a copy.
        presence: In [0, 1].
        settings: The segmenter's, see :func:`segearth.segmenter.facts_of`.
    """
    judged = presence >= settings.presence_threshold
    threshold = threshold_of(logits, settings)
    mask = logits > threshold
    present = judged and bool(mask.any())
    if not present:
        return Decision(torch.zeros_like(mask), False, 0.0, threshold, judged)
    score = score_of(float(logits[mask].sigmoid().mean()), *settings.score_curve)
    return Decision(mask, True, score, threshold, judged)


def threshold_of(logits: Tensor, settings: DecidingSettings) -> Tensor:
    """Returns where a mask is cut: at 0, or where presence decides a little below the highest logit if that is less.

    Presence and mask are two judgements, and can contradict each other: presence says that the thing is there, and no
    logit is above 0. An empty mask is then the worst answer, so the mask is cut at a lower logit (where the segmenter's
    ``presence_decides`` is on): the pixels that stand out are the best guess.

    Args:
        logits: All logits of the question, of any shape, or only the highest of them.
        settings: ``presence_decides`` is read.

    Returns:
        A scalar, at most 0.
    """
    if not settings.presence_decides:
        return logits.new_zeros(())
    return (logits.flatten().amax(0) - BELOW_HIGHEST).clamp_max(0)  # flat: amax() over all axes has no form in ONNX


def score_of(raw: float, slope: float, offset: float) -> float:
    """Returns the IoU to expect of a mask whose pixels have a mean probability of ``raw``, by a logistic curve.

    Slope and offset are fitted by :func:`segearth.evaluation.confidence.calibrate` (Platt scaling, 1999, with an IoU in
    place of right and wrong); 1 and 0 leave the mean probability as it is.
    """
    if (slope, offset) == (1, 0):
        return raw
    return 1 / (1 + math.exp(-min(max(slope * logit(raw) + offset, -60.0), 60.0)))


def logit(share: float) -> float:
    """Returns the inverse of the logistic function. It is infinite at 0 and 1, so shares keep 1e-6 away from both."""
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))

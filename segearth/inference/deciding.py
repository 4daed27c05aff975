"""From raw scores to an answer: is the thing there, which pixels belong to it, how sure is that.

Raw scores are mask logits at the image's size and a presence in [0, 1]. Deciding is a step of its own, so that whoever
joins the scores of many tiles can decide once for all of them and not once a tile: with :func:`decide` where all logits
fit into memory, else with :func:`threshold_of` the highest of them, and :func:`score_of` the mean inside the mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segearth.segmenter import DecidingSettings

BELOW_HIGHEST = 1.0  # how far below its highest logit a mask is cut that must not be empty


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one question.

    Attributes:
        mask: Boolean ``(H, W)``, on the device of the logits; all ``False`` where nothing is judged to be there.
        present: Whether presence says that the thing is there and the mask has a pixel.
        score: IoU to expect, in [0, 1]; 0 where nothing is there.
        threshold: A scalar: above it a logit belongs to the mask.
        judged: What presence alone says.
    """

    mask: Tensor
    present: bool
    score: float
    threshold: Tensor
    judged: bool

    def of_frame(self, logits: Tensor) -> Tensor:
        """Decides the same of other logits of the question, such as those in the model's frame: boolean, same shape."""
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

    Presence and mask are two judgements. Where presence says that the thing is there and no logit is above 0, the mask
    would contradict it and half of the present things would be answered by nothing; the best guess is what stands out.

    Args:
        logits: All logits of the question, of any shape; the highest of them alone serves as well.
        settings: ``presence_decides`` is read.

    Returns:
        A scalar, at most 0.
    """
    if not settings.presence_decides:
        return logits.new_zeros(())
    return (logits.flatten().amax(0) - BELOW_HIGHEST).clamp_max(0)  # flat: amax() over all axes has no form in ONNX


def score_of(raw: float, slope: float, offset: float) -> float:
    """Returns the IoU to expect of a mask whose pixels have a mean probability of ``raw``: a logistic curve.

    Slope and offset are fitted by :func:`segearth.evaluation.confidence.calibrate` (Platt scaling, 1999, with an IoU in
    place of right and wrong); 1 and 0 leave the mean probability as it is.
    """
    if (slope, offset) == (1, 0):
        return raw
    return 1 / (1 + math.exp(-min(max(slope * logit(raw) + offset, -60.0), 60.0)))


def logit(share: float) -> float:
    """Inverse of the logistic function; ends are moved in by a millionth, where it would be infinite."""
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))

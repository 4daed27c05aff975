"""Decides from raw scores whether a thing is there, which pixels belong to it, and how sure that is.

Raw scores are mask logits at the image's size and a presence in [0, 1]. Deciding is a step of its own, so that whoever
joins the scores of many tiles decides once for all of them, with :func:`threshold_of_tiles`, which needs only the
highest logit, and :func:`score_of`, which needs only the mean probability inside the mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segearth.config import ModelConfig
from segearth.errors import ConfigError
from segearth.segmenter import DecidingSettings

BELOW_HIGHEST = 1.0  # a mask of many tiles that must not be empty is cut this far below the highest logit
# Pixels of a lower probability are not counted among those that a mask may miss. Each is next to nothing, but a picture
# has many of them, and together they make a mask of something small look as if it had missed most of it.
LEAST_PROBABILITY = 0.05
LEAST_LOGIT = math.log(LEAST_PROBABILITY / (1 - LEAST_PROBABILITY))
# A map without a higher logit is lifted to this one: that presence says that the thing is there makes its best pixels
# likelier than they look by themselves. Else nearly nothing would be expected of any mask, and one pixel were the best.
FAINT = -1.0
LEAST_STEP = 1 / 32  # below the highest logit, at least


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


def deciding_of(config: ModelConfig) -> DecidingSettings:
    """Returns how a model's raw scores are decided, by its configuration.

    Raises:
        ConfigError: A curve is not a slope and an offset, or the one for masks turns logits around.
    """
    masks = _curve("mask_curve", config.mask_curve)
    if masks[0] <= 0:
        raise ConfigError(f"model.mask_curve has the slope {masks[0]}; give one above 0, such as 1.0")
    return DecidingSettings(
        config.presence_threshold, config.presence_decides, _curve("score_curve", config.score_curve), masks
    )


def _curve(name: str, values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2 or not all(map(math.isfinite, values)):
        raise ConfigError(f"model.{name} is {list(values)}; give a slope and an offset, such as [1.0, 0.0]")
    return float(values[0]), float(values[1])


def decide(logits: Tensor, presence: float, settings: DecidingSettings, *, of_tiles: bool = False) -> Decision:
    """Decides one question.

    Args:
        logits: ``(H, W)``, on any device; ``torch.from_numpy`` makes them of an array without a copy.
        presence: In [0, 1].
        settings: The segmenter's, see :func:`segearth.segmenter.facts_of`.
        of_tiles: Whether the logits are those of many tiles, joined.
    """
    judged = presence >= settings.presence_threshold
    if not judged:  # as of most tiles of a scene, which need no cut
        return Decision(torch.zeros_like(logits, dtype=torch.bool), False, 0.0, logits.new_zeros(()), False)
    logits = logits.float()  # fp16 and bf16 do not tell the highest logit from where it is cut
    threshold = threshold_of_tiles(logits, settings) if of_tiles else threshold_of(logits, settings)
    mask = logits > threshold
    if not mask.any():
        return Decision(mask, False, 0.0, threshold, True)
    score = score_of(float(logits[mask].sigmoid().mean()), *settings.score_curve)
    return Decision(mask, True, score, threshold, True)


def threshold_of(logits: Tensor, settings: DecidingSettings) -> Tensor:
    """Returns where a mask is cut: at 0, or where presence decides so that the IoU to expect is highest.

    Presence and mask are two judgements, and can contradict each other: presence says that the thing is there, and no
    logit is above 0. An empty mask is then the worst answer. But 0 is not the best place to cut where logits are higher
    either. If each of three houses may be the one that is meant, all three have a probability of a third; a mask of all
    three can expect an IoU of a third, and an empty one nothing. In general, of pixels with probabilities ``p`` a mask
    ``S`` can expect an IoU of about ``sum_S p / (sum p + |S| - sum_S p)``, the overlap and the union to expect. That is
    highest for the pixels whose ``p`` is above ``J / (1 + J)``, where ``J`` is that highest IoU itself: a mask that is
    going to be half wrong had better be wider. The search takes a mask's ``J``, then the mask for this ``J``, and so
    on, as long as that is better (Dinkelbach, "On nonlinear fractional programming", Management Science 13, 1967). For
    the Dice score the same holds, with a cut at half of the best one (Lipton and others, arXiv 1402.1892).

    Args:
        logits: All logits of the question, of any shape.
        settings: ``presence_decides`` and ``mask_curve`` are read.

    Returns:
        A scalar, in fp32. Without a curve it is at most 0; where presence decides it is below the highest logit.
    """
    if not settings.presence_decides:
        return logits.new_zeros(())
    slope, offset = settings.mask_curve
    curved = logits.flatten().float() * slope + offset
    # Where the best cut of the likelier pixels lies among them it is that of all pixels, and they are few.
    likely = curved[curved >= LEAST_LOGIT]
    cut = _best_cut(likely) if len(likely) else None
    if cut is None or cut < LEAST_LOGIT:
        cut = _best_cut(curved)
    return (cut - offset) / slope


def _best_cut(curved: Tensor) -> Tensor:
    """Returns where to cut logits of probabilities ``(N,)``, ``N`` at least 1, so that the IoU to expect is highest."""
    highest = curved.amax()
    lift = (FAINT - highest).clamp_min(0)
    probability = (curved + lift).sigmoid()
    counted = (probability * (probability >= LEAST_PROBABILITY)).sum()
    best, lowest = torch.zeros_like(highest), 0.5 * probability.amax()
    while True:
        chosen = (probability >= lowest).to(probability.dtype)
        overlap = (probability * chosen).sum()
        expected = overlap / (torch.maximum(counted, overlap) + chosen.sum() - overlap)
        if not expected > best:
            break
        best, lowest = expected, expected / (1 + expected)
    # The logit of J / (1 + J) is the logarithm of J. Rounding must not leave the mask empty.
    return torch.minimum(best.log() - lift, highest - LEAST_STEP)


def threshold_of_tiles(logits: Tensor, settings: DecidingSettings) -> Tensor:
    """Returns where the joined logits of many tiles are cut: at 0, or a little below the highest if that is less.

    What :func:`threshold_of` looks for would be the worse guide here. Most tiles of a large scene do not hold the
    thing, and what faint probability they leave adds up to more than all of it: every mask seems to miss most of what
    is there, and would be cut ever lower. It would also cut the same ground in another way in each scene.

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

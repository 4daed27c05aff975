"""Every constant of the rewards, as fields of a configuration.

Formulas that no publication states are reconstructions (``docs/decoupled.md`` says which); their constants are here
like the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segearth.errors import ConfigError, UnknownNameError

POSITIONAL_SHAPES = ("exp", "gaussian", "linear")
DETECTION_SCORES = ("matched_iou", "recall", "ap50", "ap")
MULTI_LABEL_SCORES = ("f1", "recall")
AGREEMENTS = ("centres", "iou")


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """What the reward functions can be told.

    Attributes:
        mended_answers_count: Whether a mask is rewarded whose list of things had to be mended before it could be read.
            Off, as in Think2Seg-RS: an answer that only a lenient reader understands gets nothing for its mask.
        positional_shape: How the positional reward falls with distance: ``"exp"``, ``"gaussian"`` or ``"linear"``.
        positional_sigma: At which distance it has fallen to 1/e (exp), to 0.61 (gaussian) or to 0 (linear); in shares
            of the image's sides, above 0.
        detection_score: ``"matched_iou"``; or, as published, ``"recall"``, which superfluous boxes do not lower;
            ``"ap50"``; ``"ap"``, the mean over the IoUs 0.50, 0.55, … 0.95.
        match_iou: Least IoU of a hit for ``"recall"``, in (0, 1].
        multi_label_score: ``"f1"``; or, as published, ``"recall"``, which naming every class wins.
        embedding_share: α of the captions' hybrid: how much of it is the embeddings' cosine, in [0, 1].
        detection_share: How much of a grounding description's reward is detection, in [0, 1].
        most_instances: An answer that lists more things than this is not scored, as it would hold up the others.
    """

    mended_answers_count: bool = False
    positional_shape: str = "exp"
    positional_sigma: float = 0.25
    detection_score: str = "matched_iou"
    match_iou: float = 0.5
    multi_label_score: str = "f1"
    embedding_share: float = 0.5
    detection_share: float = 0.5
    most_instances: int = 500

    def __post_init__(self) -> None:
        _check_name("positional_shape", self.positional_shape, POSITIONAL_SHAPES)
        _check_name("detection_score", self.detection_score, DETECTION_SCORES)
        _check_name("multi_label_score", self.multi_label_score, MULTI_LABEL_SCORES)
        _check_positive("positional_sigma", self.positional_sigma)
        _check_positive("match_iou", self.match_iou)
        for name in ("match_iou", "embedding_share", "detection_share"):
            _check_share(name, getattr(self, name))
        if self.most_instances < 1:
            raise ConfigError(f"most_instances is {self.most_instances}; give at least 1")


@dataclass(frozen=True, slots=True)
class ConsistencySettings:
    """How much a group of answers is trusted that point at different places; see :mod:`segearth.rl.groups`.

    Attributes:
        agreement: ``"centres"``: how little the centres scatter; ``"iou"``: the mean IoU of every two answers.
        scale: For ``"centres"``, at which scatter the agreement has fallen to 1/e, in shares of the image's sides.
        lowest_weight: ``w_min``: weight of a group without any agreement, in [0, 1]; 1 switches the effect off.
    """

    agreement: str = "centres"
    scale: float = 0.25
    lowest_weight: float = 0.5

    def __post_init__(self) -> None:
        _check_name("agreement", self.agreement, AGREEMENTS)
        _check_positive("scale", self.scale)
        _check_share("lowest_weight", self.lowest_weight)


def _check_name(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownNameError(field, value, known)


def _check_positive(field: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{field} is {value}; give a finite number above 0")


def _check_share(field: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{field} is {value}; give a number from 0 to 1")


DEFAULT_REWARDS = RewardSettings()
DEFAULT_CONSISTENCY = ConsistencySettings()

"""The rewards of three published systems, by name. ``docs/decoupled.md`` has them as a table.

Think2Seg-RS: arXiv 2512.19302. RSGround-R1: arXiv 2601.21634. GeoVLM-R1: arXiv 2509.25026.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from segearth.errors import UnknownNameError
from segearth.prompting.answers import ParsedAnswer
from segearth.rl.rewards.form import json_form, tags_form, whole_form
from segearth.rl.rewards.places import (
    detection_reward,
    instances_to_segment,
    mask_iou_reward,
    positional_reward,
)
from segearth.rl.rewards.settings import (
    DEFAULT_CONSISTENCY,
    DEFAULT_REWARDS,
    ConsistencySettings,
    RewardSettings,
)
from segearth.rl.rewards.terms import RewardPreset, RewardRow, RewardTerm, RewardTools
from segearth.rl.rewards.wording import (
    caption_reward,
    grounding_description_reward,
    hybrid_caption_reward,
    multi_label_reward,
    short_answer_reward,
    single_label_reward,
)


def reward_preset(
    name: str,
    settings: RewardSettings = DEFAULT_REWARDS,
    consistency: ConsistencySettings = DEFAULT_CONSISTENCY,
) -> RewardPreset:
    """Returns a published system's reward.

    Args:
        name: A key of :data:`PRESETS`.
        settings: The constants of the formulas.
        consistency: How groups that scatter are weighted, where the system does so.

    Raises:
        UnknownNameError: There is no such preset.

    Example:
        >>> [(term.name, term.weight) for term in reward_preset("think2seg_rs").terms]
        [('mask_iou', 2.0), ('json_form', 1.0), ('tags_form', 1.0)]
    """
    if name not in PRESETS:
        raise UnknownNameError("reward preset", name, PRESETS)
    terms = tuple(make(settings) for make in PRESETS[name])
    return RewardPreset(name, terms, consistency if name in SCATTER_COUNTS else None)


def reward_term(name: str, settings: RewardSettings = DEFAULT_REWARDS) -> RewardTerm:
    """Returns one term of the presets, to be put beside those of another.

    Raises:
        UnknownNameError: No preset has such a term.
    """
    made = {term.name: term for terms in PRESETS.values() for term in (make(settings) for make in terms)}
    if name not in made:
        raise UnknownNameError("reward term", name, made)
    return made[name]


def _mask_iou(settings: RewardSettings) -> RewardTerm:
    note = "IoU of the segmenter's mask; no target: 1 for [], else 0; unreadable: 0"
    return RewardTerm("mask_iou", partial(_masks, settings), 2.0, "code", note, needs=("masks_of",))


def _json_form(settings: RewardSettings) -> RewardTerm:
    return RewardTerm("json_form", partial(_form, json_form), 1.0, "code", "1 if the list of things is well formed")


def _tags_form(settings: RewardSettings) -> RewardTerm:
    return RewardTerm("tags_form", partial(_form, tags_form), 1.0, "code", "1 if the tags are well formed")


def _whole_form(settings: RewardSettings) -> RewardTerm:
    note = "1 if the tags, and the list of things where one is asked for, are well formed"
    return RewardTerm("form", partial(_form, whole_form), 1.0, "paper", note)


def _positional(settings: RewardSettings) -> RewardTerm:
    note = f"{settings.positional_shape} of the centres' distance, σ {settings.positional_sigma:g}"
    return RewardTerm("positional", partial(_position, settings), 1.0, "reconstruction", note)


def _box_iou(settings: RewardSettings) -> RewardTerm:
    note = "how well boxes fit; that RSGround-R1 adds such a term, and its weight, is assumed"
    return RewardTerm("detection", partial(_detection, settings), 1.0, "reconstruction", note)


def _geovlm_detection(settings: RewardSettings) -> RewardTerm:
    published = settings.detection_score in ("recall", "ap")
    note = f"{settings.detection_score}; published: IoU or mAP, superfluous boxes free"
    provenance = "paper" if published else "reconstruction"
    return RewardTerm("detection", partial(_detection, settings), 1.0, provenance, note)


def _single_label(settings: RewardSettings) -> RewardTerm:
    return RewardTerm("single_label", partial(_target, single_label_reward), 1.0, "paper", "exact match")


def _multi_label(settings: RewardSettings) -> RewardTerm:
    provenance = "paper" if settings.multi_label_score == "recall" else "reconstruction"
    note = f"{settings.multi_label_score}; published: recall, which naming every class wins"
    return RewardTerm("multi_label", partial(_labels, settings), 1.0, provenance, note)


def _description(settings: RewardSettings) -> RewardTerm:
    share = settings.detection_share
    note = f"{share:g} detection + {1 - share:g} mean(ROUGE-1, ROUGE-L, METEOR)"
    return RewardTerm("grounding_description", partial(_describe, settings), 1.0, "reconstruction", note)


def _hybrid(settings: RewardSettings) -> RewardTerm:
    share = settings.embedding_share
    note = f"{share:g} cosine of sentence embeddings + {1 - share:g} mean(ROUGE-1, ROUGE-L, METEOR)"
    return RewardTerm("hybrid_caption", partial(_embedded, settings), 1.0, "reconstruction", note, needs=("embed",))


def _caption(settings: RewardSettings) -> RewardTerm:
    return RewardTerm("caption", partial(_target, caption_reward), 1.0, "paper", "Levenshtein ratio")


def _short_answer(settings: RewardSettings) -> RewardTerm:
    return RewardTerm("short_answer", partial(_target, short_answer_reward), 1.0, "paper", "Jaccard index of words")


PRESETS: dict[str, tuple[Callable[[RewardSettings], RewardTerm], ...]] = {
    "think2seg_rs": (_mask_iou, _json_form, _tags_form),
    "rsground_r1": (_positional, _box_iou, _whole_form),
    "geovlm_r1/classification": (_single_label, _whole_form),
    "geovlm_r1/multi_label": (_multi_label, _whole_form),
    "geovlm_r1/temporal_classification": (_single_label, _whole_form),
    "geovlm_r1/detection": (_geovlm_detection, _whole_form),
    "geovlm_r1/referred_detection": (_geovlm_detection, _whole_form),
    "geovlm_r1/disaster_detection": (_geovlm_detection, _whole_form),
    "geovlm_r1/grounding_description": (_description, _whole_form),
    "geovlm_r1/region_caption": (_hybrid, _whole_form),
    "geovlm_r1/change_caption": (_hybrid, _whole_form),
    "geovlm_r1/image_caption": (_caption, _whole_form),
    "geovlm_r1/short_answer": (_short_answer, _whole_form),
}
SCATTER_COUNTS = ("rsground_r1",)  # systems that trust groups less whose answers scatter


# What a term's function is called with, brought to what each reward takes. Functions of the module and not closures, so
# that a preset can be sent to another process.


def _form(score: Callable[[ParsedAnswer], float], row: RewardRow, tools: RewardTools) -> float:
    return score(row.answer)


def _target(score: Callable[..., float | None], row: RewardRow, tools: RewardTools) -> float | None:
    return score(row.answer, row.target)


def _masks(settings: RewardSettings, row: RewardRow, tools: RewardTools) -> float | None:
    things = instances_to_segment(row.answer, row.target, settings)
    mask = tools.masks_of(row.image_key, things) if things and tools.masks_of else None
    return mask_iou_reward(row.answer, row.target, mask, settings)


def _position(settings: RewardSettings, row: RewardRow, tools: RewardTools) -> float | None:
    return positional_reward(row.answer, row.target, row.size, settings)


def _detection(settings: RewardSettings, row: RewardRow, tools: RewardTools) -> float | None:
    return detection_reward(row.answer, row.target, settings)


def _labels(settings: RewardSettings, row: RewardRow, tools: RewardTools) -> float | None:
    return multi_label_reward(row.answer, row.target, settings)


def _describe(settings: RewardSettings, row: RewardRow, tools: RewardTools) -> float | None:
    return grounding_description_reward(row.answer, row.target, row.wording, settings)


def _embedded(settings: RewardSettings, row: RewardRow, tools: RewardTools) -> float | None:
    assert tools.embed is not None  # checked before the first row
    return hybrid_caption_reward(row.answer, row.target, tools.embed, settings)


TERM_NAMES = tuple(sorted({make(DEFAULT_REWARDS).name for terms in PRESETS.values() for make in terms}))

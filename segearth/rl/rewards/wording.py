"""Rewards of what an answer says: classes, captions, descriptions and short answers.

``None`` means "not applicable to such a target", which is not 0. Every other value is in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from segearth.errors import RewardError
from segearth.metrics.choices import choice_scores, read_choices
from segearth.metrics.text import best_reference, levenshtein_ratio, lexical_score, word_jaccard
from segearth.prompting.answers import ParsedAnswer, words_of
from segearth.rl.rewards.places import detection_reward
from segearth.rl.rewards.settings import DEFAULT_REWARDS, RewardSettings
from segearth.structures import Choices, Target, Text

# From n texts to an array (n, d) of sentence embeddings; any scale, as only angles count.
Embed: TypeAlias = Callable[[Sequence[str]], Any]


def single_label_reward(answer: ParsedAnswer, target: Target | None) -> float | None:
    """Returns 1 where the answer names the right options and no other, else 0; applies to choices."""
    scores = _choices(answer, target)
    return None if scores is None else scores.accuracy


def multi_label_reward(
    answer: ParsedAnswer, target: Target | None, settings: RewardSettings = DEFAULT_REWARDS
) -> float | None:
    """Returns the F1 of the options that the answer names; applies to choices.

    ``multi_label_score="recall"`` is what GeoVLM-R1 (arXiv 2509.25026) publishes. Naming every class wins it.
    """
    scores = _choices(answer, target)
    if scores is None:
        return None
    return scores.f1 if settings.multi_label_score == "f1" else scores.recall


def caption_reward(answer: ParsedAnswer, target: Target | None) -> float | None:
    """Returns the Levenshtein ratio to the nearest reference; applies to texts.

    See :func:`segearth.metrics.text.levenshtein_ratio`.
    """
    if not isinstance(target, Text):
        return None
    return best_reference(levenshtein_ratio, words_of(answer.answer), target.references)


def hybrid_caption_reward(
    answer: ParsedAnswer,
    target: Target | None,
    embed: Embed,
    settings: RewardSettings = DEFAULT_REWARDS,
) -> float | None:
    """Returns ``α·cos + (1-α)·lexical`` for the nearest reference; applies to texts.

    ``cos`` is the cosine of two sentence embeddings, taken as 0 where it is negative. The mixture is a reconstruction:
    GeoVLM-R1 (arXiv 2509.25026) names its two parts, not how they are put together.

    Args:
        answer: The caption.
        target: Its references.
        embed: From texts to their sentence embeddings.
        settings: ``embedding_share``, which is α.

    Raises:
        RewardError: The embeddings are no finite numbers, one row a text.
    """
    if not isinstance(target, Text):
        return None
    text, share = words_of(answer.answer), settings.embedding_share
    cosines = _cosines(embed, text, target.references)
    lexical = [lexical_score(text, reference) for reference in target.references]
    return max(share * c + (1 - share) * word for c, word in zip(cosines, lexical, strict=True))


def grounding_description_reward(
    answer: ParsedAnswer,
    target: Target | None,
    wording: str | None,
    settings: RewardSettings = DEFAULT_REWARDS,
) -> float | None:
    """Returns the mixture of how well boxes fit and how near the words come, by default half each.

    A reconstruction: GeoVLM-R1 (arXiv 2509.25026) names boxes and lexical scores, not how they are put together.

    Args:
        answer: Words, and boxes in pixels of the image.
        target: Boxes or regions; for others the reward does not apply.
        wording: The right description; without one the reward does not apply.
        settings: ``detection_share``, and those of :func:`segearth.rl.rewards.places.detection_reward`.
    """
    boxes = detection_reward(answer, target, settings)
    if boxes is None or wording is None:
        return None
    share = settings.detection_share
    return share * boxes + (1 - share) * lexical_score(words_of(answer.answer), wording)


def short_answer_reward(answer: ParsedAnswer, target: Target | None) -> float | None:
    """Returns the Jaccard index of the words of the answer and of the nearest reference; applies to texts."""
    if not isinstance(target, Text):
        return None
    return best_reference(word_jaccard, words_of(answer.answer), target.references)


def _choices(answer: ParsedAnswer, target: Target | None) -> Any:
    if not isinstance(target, Choices):
        return None
    chosen = [target.options[index] for index in read_choices(words_of(answer.answer), target.options)]
    return choice_scores(chosen, target.right)


def _cosines(embed: Embed, text: str, references: Sequence[str]) -> list[float]:
    vectors = np.asarray(embed([text, *references]), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(references) + 1 or not np.isfinite(vectors).all():
        raise RewardError(
            f"embed returned an array of shape {vectors.shape} for {len(references) + 1} texts, or numbers that are "
            "not finite; give a function from n texts to an array (n, d)"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    return [float(value) for value in np.clip(units[1:] @ units[0], 0, 1)]

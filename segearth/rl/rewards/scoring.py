"""Scores a batch of rows, each on its own: what one row is worth never depends on another one."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence

from segearth.errors import RewardError
from segearth.rl.rewards.terms import MasksOf, RewardPreset, RewardRow, RewardTerm, RewardTools, RowScore
from segearth.rl.rewards.wording import Embed
from segearth.utils.text import first_line

logger = logging.getLogger(__name__)

ROUNDING = 1e-9  # by how much a value may leave its range before that counts as an error


def score_batch(
    preset: RewardPreset,
    rows: Sequence[RewardRow],
    *,
    masks_of: MasksOf | None = None,
    embed: Embed | None = None,
) -> list[RowScore]:
    """Scores rows; one that fails gets the floor of the terms that fail, and its error is recorded.

    Args:
        preset: See :func:`segearth.rl.rewards.presets.reward_preset`.
        rows: Any number. Put those of one image next to each other where ``masks_of`` keeps one image at a time.
        masks_of: Segments what answers point at; needed by presets that score masks.
        embed: Turns texts into sentence embeddings; needed by presets that compare them.

    Returns:
        One score a row, in their order; :func:`count_failures` counts what went wrong.

    Raises:
        ConfigError: The preset needs a tool that was not passed.
    """
    tools = RewardTools(masks_of, embed)
    preset.check_tools(tools)
    scores = [_score(preset, row, tools) for row in rows]
    if failed := [score for score in scores if score.errors]:
        example = next(iter(failed[0].errors.values()))
        logger.warning("%d of %d answers were not scored whole, the first one: %s", len(failed), len(rows), example)
    return scores


def count_failures(scores: Sequence[RowScore]) -> dict[str, int]:
    """Counts rows by what went wrong.

    Returns:
        For each term the number of rows in which it failed; under ``"row"`` those that could not be scored at all;
        under ``"answer"`` those whose answer was mended or not understood. What never happened is left out.
    """
    counts: Counter[str] = Counter()
    for score in scores:
        counts.update(score.errors.keys())
        if score.problems:
            counts["answer"] += 1
    return dict(counts)


def floor_score(preset: RewardPreset, problem: str) -> RowScore:
    """Returns the score of a row that cannot be scored: every term has its floor.

    Args:
        preset: Whose terms.
        problem: Why, recorded under ``"row"``.
    """
    values = {term.name: term.range[0] for term in preset.terms}
    return RowScore(_total(preset, values), values, {"row": problem})


def _score(preset: RewardPreset, row: RewardRow, tools: RewardTools) -> RowScore:
    if row.problem is not None:
        return floor_score(preset, row.problem)
    values: dict[str, float | None] = {}
    errors: dict[str, str] = {}
    for term in preset.terms:
        try:
            values[term.name] = _value(term, row, tools)
        except Exception as error:  # whatever a completion, a segmenter or an embedder comes up with: the run goes on
            values[term.name] = term.range[0]
            errors[term.name] = first_line(error)
    return RowScore(_total(preset, values), values, errors, row.answer.problems)


def _value(term: RewardTerm, row: RewardRow, tools: RewardTools) -> float | None:
    value = term.function(row, tools)
    if value is None:
        return None
    low, high = term.range
    if not (math.isfinite(value) and low - ROUNDING <= value <= high + ROUNDING):
        raise RewardError(f"term {term.name!r} is {value}, outside of [{low}, {high}]; mend its function or its range")
    return min(max(float(value), low), high)


def _total(preset: RewardPreset, values: dict[str, float | None] | dict[str, float]) -> float | None:
    parts = [term.weight * value for term in preset.terms if (value := values[term.name]) is not None]
    return sum(parts) if parts else None

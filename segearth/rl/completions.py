"""From what an engine hands to a reward function to rows, one way for every engine, so that all score alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from segearth.errors import RewardError
from segearth.prompting.answers import parse_answer
from segearth.prompting.frames import Frame
from segearth.prompting.templates import AnswerTemplate, answer_template
from segearth.rl.ground_truth import read_ground_truth
from segearth.rl.rewards.scoring import score_batch
from segearth.rl.rewards.terms import MasksOf, RewardPreset, RewardRow
from segearth.rl.rewards.wording import Embed
from segearth.structures import Target


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What beside the ground truth a row of a data set must say, so that its completions can be scored.

    Attributes:
        template: The answer template that the prompt asks for, such as ``"think2seg@1"``.
        height: Of the image, in pixels; the ground truth counts these.
        width: Of the image.
        frame_height: Height of the frame in which the model answers, see :mod:`segearth.prompting.frames`. A model
            may be trained on other sizes than the template's, so the row says it.
        frame_width: Its width.
        image_key: Names the image to the segmenter.
    """

    template: str
    height: int
    width: int
    frame_height: int
    frame_width: int
    image_key: str = ""

    @classmethod
    def of(cls, template: AnswerTemplate, height: int, width: int, image_key: str = "") -> RowFacts:
        """Returns the facts of a question that is asked by a template.

        Args:
            template: One of the table, or a copy of it with another frame.
            height: Of the image, in pixels.
            width: Of the image.
            image_key: See the class.

        Raises:
            UnknownNameError: It is of no template in the table, by whose name the answers will be read.
        """
        answer_template(template.id)
        return cls(template.id, height, width, *template.frame.size_for(height, width), image_key)

    @classmethod
    def read(cls, facts: Mapping[str, Any] | None) -> RowFacts:
        """Picks the fields out of a row's facts, which may have more.

        Raises:
            RewardError: One is missing; no row of such a data set could be scored.
        """
        known = {each.name: facts[each.name] for each in fields(cls) if facts and each.name in facts}
        if missing := [each.name for each in fields(cls) if each.name not in known and each.default is MISSING]:
            raise RewardError(f"a row's extra_info has no {', '.join(missing)}; give it RowFacts(…).as_dict()")
        return cls(**known)

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)


def row_of_completion(completion: Any, ground_truth: str, facts: RowFacts) -> RewardRow:
    """Takes a completion apart and brings it to the pixels of its image.

    Args:
        completion: A text, or a list of chat messages, whose texts are put together.
        ground_truth: See :mod:`segearth.rl.ground_truth`. One that cannot be read makes a row with a ``problem``.
        facts: Of the row.

    Raises:
        UnknownNameError: There is no such template; it is the data set that is wrong, not one answer.
    """
    answer = parse_answer(text_of(completion), answer_template(facts.template))
    size = facts.height, facts.width
    if answer.instances is not None:
        frame = Frame("the row's frame", (facts.frame_height, facts.frame_width))
        answer = replace(answer, instances=tuple(frame.to_pixels(each, *size) for each in answer.instances))
    try:
        target, wording = _read(ground_truth)
    except RewardError as error:
        return RewardRow(answer, None, size, facts.image_key, problem=str(error))
    return RewardRow(answer, target, size, facts.image_key, wording)


@lru_cache(maxsize=64)
def _read(ground_truth: str) -> tuple[Target | None, str | None]:
    """Reads what all answers of a group are held against once; nothing changes a target."""
    return read_ground_truth(ground_truth)


def text_of(completion: Any) -> str:
    """Returns the text of a completion: itself, or the texts of a list of chat messages; of anything else its name."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        return text_of(completion.get("content", completion.get("text", "")))
    if isinstance(completion, Sequence):
        return "".join(text_of(part) for part in completion)
    return ""


def reward_functions(
    preset: RewardPreset, *, masks_of: MasksOf | None = None, embed: Embed | None = None
) -> list[Callable[..., list[float | None]]]:
    """Returns the terms of a preset as the reward functions that ``GRPOTrainer`` of trl takes, to be logged one by one.

    Their weights are ``reward_weights=[term.weight for term in preset.terms]``. The data set has the columns
    ``ground_truth`` and ``extra_info``.

    Args:
        preset: See :func:`segearth.rl.rewards.presets.reward_preset`.
        masks_of: See :func:`segearth.rl.rewards.scoring.score_batch`.
        embed: Likewise.

    Returns:
        Functions named like the terms, in their order, from ``completions`` and columns to a value a completion, or
        ``None`` where the term does not apply.
    """

    read = _LastBatch()  # an engine calls one function after another with the same completions

    def alone(name: str, part: RewardPreset) -> Callable[..., list[float | None]]:
        def score(
            completions: Sequence[Any], ground_truth: Sequence[str], extra_info: Sequence[Any], **columns: Any
        ) -> list[float | None]:
            rows = read.rows(completions, ground_truth, extra_info)
            return [one.terms[name] for one in score_batch(part, rows, masks_of=masks_of, embed=embed)]

        score.__name__ = name
        return score

    return [alone(term.name, replace(preset, terms=(term,))) for term in preset.terms]


class _LastBatch:
    """Takes completions apart once for all terms: reading them, and the masks they are held against, costs the most."""

    def __init__(self) -> None:
        self.of: list[Any] = []
        self.made: list[RewardRow] = []

    def rows(
        self, completions: Sequence[Any], ground_truth: Sequence[str], extra_info: Sequence[Any]
    ) -> list[RewardRow]:
        asked = [
            (text_of(completion), truth, facts)
            for completion, truth, facts in zip(completions, ground_truth, extra_info, strict=True)
        ]
        if asked != self.of:
            self.made = [row_of_completion(text, truth, RowFacts.read(facts)) for text, truth, facts in asked]
            self.of = asked
        return self.made

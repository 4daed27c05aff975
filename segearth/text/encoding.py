"""Encodes questions to token ids with boolean masks.

Shapes: ``N`` prompts, ``L`` tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from segearth.errors import QuestionError, UnknownNameError
from segearth.model_types import EncodedText
from segearth.structures import Question, Task
from segearth.text.templates import ANSWER, PromptTemplate
from segearth.utils.text import is_whole_text

SEG_TOKEN = "[SEG]"
IGNORE = -100  # label of a position without supervision; the value that torch's cross-entropy skips by default


class PromptEncoder:
    """Builds prompts from their pieces and notes for each token which piece it is from.

    The masks are made while the prompt is put together. They are not found by searching the ids for special tokens,
    which would go wrong if a user's question contained one.

    Attributes:
        tokenizer: A fast tokenizer of transformers in which ``[SEG]`` is one token.
        template: The prompt's fixed pieces.
        max_question_tokens: The most tokens that a question may have.
    """

    def __init__(self, tokenizer: Any, template: PromptTemplate, max_question_tokens: int = 256) -> None:
        """Checks that the tokenizer has the special tokens.

        Args:
            tokenizer: See the class.
            template: See the class.
            max_question_tokens: See the class.

        Raises:
            ValueError: A special token is missing, or ``[SEG]`` is split into several tokens.
        """
        self.tokenizer, self.template, self.max_question_tokens = tokenizer, template, max_question_tokens
        ids = self._ids(SEG_TOKEN)
        if len(ids) != 1:
            raise ValueError(f"tokenizer splits {SEG_TOKEN} into {len(ids)} ids; add it as a special token")
        if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError("tokenizer needs an end-of-text and a padding token")

    @cached_property
    def before_image(self) -> list[int]:
        """Token ids of the text before the image, which is the same in every prompt."""
        return self._ids(self.template.before_image)

    def encode(self, questions: Sequence[Question], with_answers: bool = False, whole: bool = False) -> EncodedText:
        """Encodes the part of the prompts that follows the image, padded on the right to the longest.

        Args:
            questions: One prompt each. ``text`` and ``task`` are read, and ``answer`` if answers are wanted.
            with_answers: Appends the answer and labels it, so that it can be supervised. A question without an answer
                ends at ``[SEG]``.
            whole: Appends the reply to every prompt. This takes time and cannot change a mask, since no token sees what
                follows it. It exists to compare with the published code, which always does so.

        Raises:
            QuestionError: A question is empty, not text, or too long.
            UnknownNameError: The template has no prompt for a question's task.
        """
        rows = [self._row(question, whole or (with_answers and bool(question.answer))) for question in questions]
        return self._stack(questions, rows)

    def encode_for_generation(self, questions: Sequence[Question]) -> EncodedText:
        """Encodes the part of the prompts between image and answer, for a model that goes on to write the answer.

        Raises:
            QuestionError: As for :meth:`encode`.
        """
        rows = [self._row(question, False) for question in questions]
        for row, question in zip(rows, questions, strict=True):
            _append(row, self._before_reply)
            for piece in self.template.opening(question.task):
                _append(row, self._ids(piece))
        return self._stack(questions, rows)

    @property
    def stop_ids(self) -> list[int]:
        """Token ids at which the generation of an answer ends."""
        end = [int(self.tokenizer.eos_token_id)]
        return [*end, self._seg_id] if self.template.seg_after_answer else end

    def decode(self, ids: Sequence[int]) -> str:
        """Turns generated token ids into text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def descriptions(self, text: EncodedText) -> list[str]:
        """Returns the description of each encoded prompt in words again."""
        pairs = zip(text.input_ids.tolist(), text.description_mask.tolist(), strict=True)
        return [self.decode([token for token, own in zip(ids, mask, strict=True) if own]) for ids, mask in pairs]

    def check(self, text: str) -> None:
        """Checks that a text can be asked.

        Raises:
            QuestionError: It is empty, not text, or too long.
        """
        self._description(text)

    def _row(self, question: Question, with_reply: bool) -> dict[str, list[Any]]:
        row: dict[str, list[Any]] = {"ids": [], "description": [], "labels": []}
        if question.task not in self._before_description:
            raise UnknownNameError("task", question.task, self._before_description)
        _append(row, self._before_description[question.task])
        _append(row, self._description(question.text), description=True)
        if with_reply:
            _append(row, self._before_reply)
            for piece in self.template.reply[question.task]:
                _append(row, self._answer(question.answer) if piece == ANSWER else self._ids(piece), label=True)
            _append(row, [self.tokenizer.eos_token_id], label=True)
        return row

    def encode_names(self, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes ``K`` names without a prompt around them.

        Returns:
            Token ids ``(K, T)``, padded on the right, and a boolean mask ``(K, T)`` that is ``False`` on padding.
        """
        rows = [self._words(name) for name in names]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [int(self.tokenizer.pad_token_id)] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])

    def _stack(self, questions: Sequence[Question], rows: list[dict[str, list[Any]]]) -> EncodedText:
        lengths = [len(row["ids"]) for row in rows]

        def column(key: str, fill: Any) -> torch.Tensor:
            return torch.tensor([row[key] + [fill] * (max(lengths) - len(row[key])) for row in rows])

        labels = column("labels", IGNORE)
        return EncodedText(
            input_ids=column("ids", int(self.tokenizer.pad_token_id)),
            lengths=lengths,
            description_mask=column("description", False),
            labels=labels,
            labelled=(labels != IGNORE).nonzero(),
            openings=[(q.task, len(self._before_description[q.task])) for q in questions],
        )

    def _answer(self, text: str | None) -> list[int]:
        if text and not is_whole_text(text):
            raise QuestionError(f"the answer holds half a character ({text[:80]!r}); write it as UTF-8")
        return [*self._words(text or ""), *([self._seg_id] if self.template.seg_after_answer else [])]

    def _description(self, text: str) -> list[int]:
        if not isinstance(text, str) or not text.strip():
            raise QuestionError(f"the question is empty ({text!r}); ask for something, such as 'the roofs'")
        if not is_whole_text(text):
            raise QuestionError(f"the question holds half a character ({text[:80]!r}); write it as UTF-8")
        limit = self.max_question_tokens
        # Tokens have only a few characters on average, so a text with 50 times as many characters as tokens are allowed
        # is refused at once. Tokenizing a text of megabytes only to count its tokens would take seconds.
        too_long = len(text) > 50 * limit
        ids = [] if too_long else self._words(self.template.description.format(question=" ".join(text.split())))
        if too_long or len(ids) > limit:
            size = f"{len(text)} characters" if too_long else f"{len(ids)} tokens"
            raise QuestionError(f"the question has {size}; this model takes {limit} tokens: shorten it")
        return [*ids, self._seg_id]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _words(self, text: str) -> list[int]:
        """Encodes a user's text. Something like "[SEG]" in it is encoded as ordinary characters, not as the token."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @cached_property
    def _seg_id(self) -> int:
        return self._ids(SEG_TOKEN)[0]

    @cached_property
    def _before_description(self) -> dict[Task, list[int]]:
        return {task: self._ids(text) for task, text in self.template.before_description.items()}

    @cached_property
    def _before_reply(self) -> list[int]:
        return self._ids(self.template.before_reply)


def _append(
    row: dict[str, list[Any]], ids: Sequence[int], description: bool = False, label: bool = False
) -> None:
    row["ids"] += ids
    row["description"] += [description] * len(ids)
    row["labels"] += list(ids) if label else [IGNORE] * len(ids)

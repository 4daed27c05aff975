"""Evaluation protocols: which questions are asked, and at which size masks are compared. Every report names one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from segearth.config import ImageTransformConfig
from segearth.errors import DatasetError, SegEarthError, UnknownNameError
from segearth.segmenter import Segmenter, facts_of
from segearth.structures import Question, Sample, Segmentation, check_target


@dataclass(frozen=True, slots=True)
class EvaluationProtocol:
    """How samples are chosen and masks compared.

    Attributes:
        name: The name in :data:`PROTOCOLS`.
        rule: The protocol in words, printed in every report.
        first_question_only: Whether only the first question of each image is asked.
        frame_size: Side in pixels of the square both masks are letterboxed into to be compared; ``None``: they are
            compared at the image's own size.
    """

    name: str
    rule: str
    first_question_only: bool = False
    frame_size: int | None = None

    def predicted(self, answer: Segmentation) -> np.ndarray:
        """Returns an answer's mask in the frame in which masks are compared."""
        frame = answer.frame_mask
        if frame is not None and frame.shape == (self.frame_size, self.frame_size):
            return frame
        return self.to_frame(answer.mask)

    def to_frame(self, mask: np.ndarray) -> np.ndarray:
        """Brings a mask of the image's own ``(H, W)`` into the frame in which masks are compared."""
        if self.frame_size is None:
            return mask
        from segearth.preprocessing.transform import (
            ImageTransform,  # brings torch, which the native protocol does without
        )

        return ImageTransform(ImageTransformConfig(size=self.frame_size, fit="letterbox")).apply_to_mask(mask)


_EMPTIES = (
    "Both empty: IoU 1. A prediction on an empty target: IoU 0, its pixels enter the union of cIoU. Pr@t: IoU > t."
)

PROTOCOLS: dict[str, EvaluationProtocol] = {
    "native": EvaluationProtocol(
        name="native",
        rule=f"Every question of every image; prediction and target are compared at the image's own size. {_EMPTIES}",
    ),
    "segearth_r1": EvaluationProtocol(
        name="segearth_r1",
        rule=(
            "The first question of every image; prediction and target are compared in a zero-padded 1024x1024 frame "
            f"(longer side 1024, targets by nearest neighbour). {_EMPTIES} A model that letterboxes to that frame is "
            "thresholded in it, padding included, as in the published code; of any other the finished mask is brought "
            "into it."
        ),
        first_question_only=True,
        frame_size=1024,
    ),
}


def get_protocol(name: str) -> EvaluationProtocol:
    """Returns a row of :data:`PROTOCOLS`.

    Raises:
        UnknownNameError: There is no such protocol.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("evaluation protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def asked_questions(sample: Sample, protocol: EvaluationProtocol) -> list[Question]:
    """Returns the questions of an image that the protocol asks, whether they have a target or not."""
    return sample.questions[:1] if protocol.first_question_only else sample.questions


def scored_questions(sample: Sample, protocol: EvaluationProtocol) -> dict[str, Question]:
    """Returns the questions of an image that the protocol scores, by id; those without a target are left out.

    A question without an id is called ``"<image id>#<its index>"``.

    Raises:
        UnknownNameError: A question's task is unknown.
        DatasetError: A question has a target that its task does not take, or two questions have one id.
    """
    asked = asked_questions(sample, protocol)
    for question in asked:
        check_target(question)
    scored = [(q.id or f"{sample.image_id}#{i}", q) for i, q in enumerate(asked) if q.target is not None]
    if len(by_id := dict(scored)) < len(scored):
        twice = next(question_id for question_id, question in scored if by_id[question_id] is not question)
        raise DatasetError(f"sample id {twice!r} occurs twice; question ids must be unique within a split")
    return by_id


def ask(
    segmenter: Segmenter, questions: Iterable[Iterable[Question]], in_words: bool = False
) -> list[list[Segmentation]]:
    """Asks a segmenter the questions of each image that is set. It is given wordings, tasks and boxes, never targets.

    Logits are asked for only where questions come in minimal pairs, which are scored by them, and answers in words only
    where they are scored: both cost time and memory.

    Args:
        segmenter: With the images set.
        questions: Those of each image, in the order in which the images were set.
        in_words: Whether answers in words are scored.

    Returns:
        The answers, likewise.

    Raises:
        SegEarthError: A question is about a region of the image, and the segmenter cannot be told which.
    """
    rows = [list(own) for own in questions]
    asked = [question for own in rows for question in own]
    options: dict[str, Any] = {"return_logits": True} if any(q.pairs for q in asked) else {}
    if any(q.box is not None for q in asked):
        if not facts_of(segmenter).takes_boxes:
            raise SegEarthError(
                f"questions such as {asked[0].text!r} are about a region, and a {type(segmenter).__name__} is asked "
                "about whole images; take a vision-language model, see docs/decoupled.md"
            )
        options["boxes"] = [q.box for q in asked]
    if in_words:
        options["answer"] = True
    answers = iter(
        segmenter.predict(
            [q.text for q in asked],
            task=[q.task for q in asked],
            about=[number for number, own in enumerate(rows) for _ in own],
            **options,
        )
    )
    return [[next(answers) for _ in own] for own in rows]

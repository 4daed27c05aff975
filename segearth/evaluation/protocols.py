"""Evaluation protocols: which questions are asked, and at which size masks are compared. Every report names one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from segearth.config import ImageTransformConfig
from segearth.errors import UnknownNameError
from segearth.structures import Question, Sample, Segmentation


class QuestionPredictor(Protocol):
    """What evaluation needs of a predictor; no ground truth goes in."""

    def set_image(self, image: Any) -> None:
        """Takes a ``uint8`` RGB array of shape ``(H, W, 3)``."""

    def predict(self, questions: Any, *, task: Any, return_logits: bool = False) -> Any:
        """Takes a list of questions and a list of tasks; returns one ``Segmentation`` a question."""


@runtime_checkable
class BatchPredictor(Protocol):
    """A predictor that takes several images at a time, as :class:`segearth.inference.predictor.Predictor` does."""

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Tells which images can be set together: those for which this is equal."""

    def set_images(self, images: Any) -> None:
        """Takes a list of ``uint8`` RGB arrays, each of shape ``(H, W, 3)``."""

    def predict(self, questions: Any, *, task: Any, return_logits: bool = False) -> Any:
        """Takes, for each image, a list of questions and a list of tasks; returns a list of ``Segmentation`` each."""


class OneAtATime:
    """Gives a :class:`QuestionPredictor` the form of one that takes batches, of which each must hold one image."""

    def __init__(self, predictor: QuestionPredictor) -> None:
        self.predictor = predictor

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size as it is."""
        return height, width

    def set_images(self, images: Sequence[np.ndarray]) -> None:
        """Sets the one image."""
        (image,) = images
        self.predictor.set_image(image)

    def predict(self, questions: Any, *, task: Any, **options: Any) -> list[list[Segmentation]]:
        """Asks the questions of the one image."""
        (own,), (tasks,) = questions, task
        return [self.predictor.predict(own, task=tasks, **options)]


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


def scored_questions(sample: Sample, protocol: EvaluationProtocol) -> dict[str, Question]:
    """Returns the questions of an image that the protocol scores, by id; those without a target are left out.

    A question without an id is called ``"<image id>#<its index>"``.
    """
    asked = sample.questions[:1] if protocol.first_question_only else sample.questions
    return {q.id or f"{sample.image_id}#{i}": q for i, q in enumerate(asked) if target_of(q) is not None}


def target_of(question: Question) -> Any:
    """Returns what a right answer to a question is; ``None`` where it has no ground truth."""
    return getattr(question, "target", question.mask)


def ask(
    predictor: BatchPredictor, questions: Iterable[Iterable[Question]], in_words: bool = False
) -> list[list[Segmentation]]:
    """Asks a predictor the questions of each image it holds: their wordings and tasks go in, their targets do not.

    Logits are asked for only where questions come in pairs that are told apart by them, and an answer in words only
    where it is scored: both cost time and memory.
    """
    rows = [list(own) for own in questions]
    options = {"return_logits": True} if any(q.pairs for own in rows for q in own) else {}
    if in_words:
        options["answer"] = True
    texts, tasks = [[q.text for q in own] for own in rows], [[q.task for q in own] for own in rows]
    return predictor.predict(texts, task=tasks, **options)

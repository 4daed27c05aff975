"""What users see: a question, an image with its questions, an answer. No model code, no I/O.

The model's own data classes are in :mod:`segearth.model_types`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Task = Literal["referring", "reasoning"]


@dataclass(slots=True)
class Question:
    """One question about one image, with what is known of its answer.

    Attributes:
        text: The question or expression as a user would type it.
        mask: Boolean target of shape ``(H, W)`` at the image's own size; all ``False`` means "nothing of the kind is
            there"; ``None`` when there is no ground truth.
        answer: The answer in words, if the data set has one.
        task: ``"referring"`` (the thing is named) or ``"reasoning"`` (the need is named); it picks the prompt.
        kind: Finer label for reports, such as ``"class"``, ``"position"`` or ``"absent"``; empty where unknown.
        id: Unique within the data set's split; names the sample in per-sample records.
        present: Whether what is asked for is in the image; ``None`` when there is no ground truth. Left out, it is read
            off ``mask``, once: a copy with a smaller mask keeps it, so that what shrinks to nothing is not called
            absent.
        valid: Boolean ``(H, W)``: where ``mask`` is known to be right, and a model may be judged; ``None``: everywhere.
        pairs: Names such as ``"side 12"``. Two questions of an image that share one differ in a single word and have
            different targets.
    """

    text: str
    mask: np.ndarray | None = None
    answer: str | None = None
    task: Task = "referring"
    kind: str = ""
    id: str = ""
    present: bool | None = None
    valid: np.ndarray | None = None
    pairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.present is None and self.mask is not None:
            self.present = bool(self.mask.any())



@dataclass(slots=True)
class Sample:
    """One image with all its questions.

    Attributes:
        image_id: Unique within the data set's split.
        image: ``uint8`` RGB array of shape ``(H, W, 3)``.
        questions: Every question of the image; may be empty.
        path: Where the image came from, for messages.
        meta: Free extra facts (source, ground sampling distance, georeference); kept, never interpreted by the model.
    """

    image_id: str
    image: np.ndarray
    questions: list[Question] = field(default_factory=list)
    path: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)



@dataclass(slots=True)
class Segmentation:
    """The answer to one question.

    Attributes:
        question: The question as asked.
        mask: Boolean array of exactly the image's ``(H, W)``; all ``False`` where the thing is judged absent.
        score: Confidence of the mask in [0, 1]: mean probability inside it; 0 for an empty mask.
        present: Whether the asked-for thing is judged to be in the image.
        presence: The probability behind ``present``, in [0, 1].
        answer: The answer in words, where asked for.
        frame_mask: Where the model letterboxes, the mask in its square frame, padding included; published protocols
            compare there.
        logits: Float32 ``(H, W)`` behind ``mask``, before anything is decided, where asked for.
    """

    question: str
    mask: np.ndarray
    score: float
    present: bool
    presence: float
    answer: str | None = None
    frame_mask: np.ndarray | None = None
    logits: np.ndarray | None = None

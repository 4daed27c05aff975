"""The few data classes every room shares. No model code, no I/O.

Those that hold tensors have no slots: ZeRO-3 looks for tensors in the ``__dict__`` of what modules return.

Shape legend used across the package: ``B`` images, ``N`` questions (all images of a batch together), ``L`` text
tokens, ``S`` image tokens, ``C`` channels, ``H W`` pixels, ``h w`` feature cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

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
    """

    text: str
    mask: np.ndarray | None = None
    answer: str | None = None
    task: Task = "referring"
    kind: str = ""
    id: str = ""


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


@dataclass
class EncodedText:
    """Prompts as token ids with boolean masks; every field has shape ``(N, L)``.

    Attributes:
        input_ids: Real token ids everywhere, also at image placeholders.
        attention_mask: ``True`` at tokens, ``False`` at padding.
        image_mask: ``True`` where an image token takes the place of the embedding.
        description_mask: ``True`` at the question's tokens and its ``[SEG]``.
        labels: Next-token targets aligned with ``input_ids``; -100 where nothing is to be learned.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    image_mask: torch.Tensor
    description_mask: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device | str) -> EncodedText:
        """Returns a copy with every tensor on ``device``."""
        return EncodedText(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass
class Batch:
    """What a training step needs: ``B`` images and the ``N`` questions asked of them.

    Attributes:
        images: ``(B, 3, H, W)`` float, normalised as the model's card says.
        text: The ``N`` encoded prompts.
        image_index: ``(N,)`` long, ascending; which image each question belongs to.
        masks: ``(N, H, W)`` float in {0, 1}, in the model's frame.
        valid: ``(B, H, W)`` bool, ``False`` on letterbox padding, which is not supervised; ``None`` where nothing is
        padded.
        question_ids: ``N`` ids, for messages.
    """

    images: torch.Tensor
    text: EncodedText
    image_index: torch.Tensor
    masks: torch.Tensor
    valid: torch.Tensor | None
    question_ids: list[str]

    def to(self, device: torch.device | str) -> Batch:
        """Returns a copy with every tensor on ``device``."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.text.to(device),
            self.image_index.to(device),
            self.masks.to(device, non_blocking=True),
            None if self.valid is None else self.valid.to(device),
            self.question_ids,
        )


@dataclass
class ImageFeatures:
    """Everything that depends on the image alone: computed once, asked as often as one likes.

    Attributes:
        image_tokens: ``(B, S, D)`` compressed tokens in the language model's embedding space.
        res5: ``(B, C5, h5, w5)`` deepest vision feature, read by the description projector.
        mask_features: ``(B, C, H/4, W/4)`` per-pixel embedding.
        memory: Pixel-decoder levels, each ``(B, C, h, w)``, coarse to fine (strides 32, 16, 8).
    """

    image_tokens: torch.Tensor
    res5: torch.Tensor
    mask_features: torch.Tensor
    memory: list[torch.Tensor]


@dataclass
class QueryEmbeddings:
    """Questions in the mask decoder's space.

    Attributes:
        queries: ``(N, C)`` one query per question.
        image_index: ``(N,)`` which image each query belongs to.
        hidden_states: ``(N, L, D)`` last states of the language model, for the text loss; ``None`` if not asked for.
    """

    queries: torch.Tensor
    image_index: torch.Tensor
    hidden_states: torch.Tensor | None = None


@dataclass
class MaskOutput:
    """What the mask decoder says.

    Attributes:
        mask_logits: ``(N, H/4, W/4)`` final logits.
        presence_logits: ``(N,)`` logit of "the asked-for thing is in the image".
        auxiliary: Logits before the first and after every but the last layer, each ``(N, H/4, W/4)``.
    """

    mask_logits: torch.Tensor
    presence_logits: torch.Tensor
    auxiliary: list[torch.Tensor] = field(default_factory=list)


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
    """

    question: str
    mask: np.ndarray
    score: float
    present: bool
    presence: float
    answer: str | None = None
    frame_mask: np.ndarray | None = None

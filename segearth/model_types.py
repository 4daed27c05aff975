"""What the model's parts hand to each other, from a batch of encoded questions to mask logits. No model code, no I/O.

What users see is in :mod:`segearth.structures`.

Those that hold tensors have no slots: ZeRO-3 looks for tensors in the ``__dict__`` of what modules return.

Shape legend used across the package: ``B`` images, ``N`` questions (all images of a batch together), ``L`` text
tokens, ``S`` image tokens, ``C`` channels, ``H W`` pixels, ``h w`` feature cells.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from segearth.utils.devices import to_device

if TYPE_CHECKING:
    import torch

KeysValues: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
_T = TypeVar("_T")


def _with_tensors(whole: _T, change: Callable[[torch.Tensor], torch.Tensor], but: str = "") -> _T:
    """Returns a copy of a data class in which every field that holds a tensor, ``but`` one, is changed."""
    import torch

    tensors = {name: value for name, value in vars(whole).items() if isinstance(value, torch.Tensor) and name != but}
    return replace(whole, **{name: change(value) for name, value in tensors.items()})  # type: ignore[type-var]


@dataclass
class EncodedText:
    """What follows the image in ``N`` prompts, padded on the right; tensors have shape ``(N, L)``.

    Attributes:
        input_ids: Token ids.
        lengths: Real tokens of each prompt, kept on the host, where the layout of a batch is decided.
        description_mask: ``True`` at the question's tokens and its ``[SEG]``.
        labels: Next-token targets aligned with ``input_ids``; -100 where nothing is to be learned.
        labelled: ``(K, 2)`` row and column of every label, so that no device has to be asked for them.
        openings: For each prompt the name of its opening, and how many tokens it has. Prompts with the same name begin
            with the same tokens, which are read once for all of an image's questions. Empty: nothing is shared.
    """

    input_ids: torch.Tensor
    lengths: list[int]
    description_mask: torch.Tensor
    labels: torch.Tensor
    labelled: torch.Tensor
    openings: list[tuple[str, int]] = field(default_factory=list)

    def to(self, device: torch.device | str) -> EncodedText:
        """Returns a copy with every tensor on ``device``."""
        return _with_tensors(self, lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> EncodedText:
        """Returns a copy in memory that a GPU reads by itself; see :meth:`Batch.pin_memory`."""
        return _with_tensors(self, lambda tensor: tensor.pin_memory())


@dataclass
class ClassMaps:
    """Where whole classes are in the images of a batch, ``K`` pairs of an image and a class; tensors only.

    Attributes:
        input_ids: ``(K, T)`` token ids of each class's name, padded on the right.
        real: ``(K, T)`` bool, ``False`` on padding.
        image_index: ``(K,)`` long; the image of each pair.
        masks: ``(K, H, W)`` float in [0, 1]: how much of each cell is of the class; all zero where it is known to be
            absent.
        known: ``(K, H, W)`` bool: where that is known; ``False`` everywhere in a pair that stands in for none.
    """

    input_ids: torch.Tensor
    real: torch.Tensor
    image_index: torch.Tensor
    masks: torch.Tensor
    known: torch.Tensor

    def to(self, device: torch.device | str) -> ClassMaps:
        """Returns a copy with every tensor on ``device``."""
        return _with_tensors(self, lambda tensor: to_device(tensor, device))

    def pin_memory(self) -> ClassMaps:
        """Returns a copy in memory that a GPU reads by itself; see :meth:`Batch.pin_memory`."""
        return _with_tensors(self, lambda tensor: tensor.pin_memory())


@dataclass
class Batch:
    """What a training step needs: ``B`` images and the ``N`` questions asked of them.

    Attributes:
        images: ``(B, 3, H, W)`` float, normalised as the model's card says.
        text: The ``N`` encoded prompts.
        image_index: ``(N,)`` long, ascending; which image each question belongs to. It stays on the host.
        masks: ``(N, H, W)`` float in [0, 1], in the model's frame: how much of each cell is target.
        present: ``(N,)`` bool; whether what is asked for is in the image. It comes from the annotation: in a mask of
            this size a small target may have vanished.
        valid: ``(B, H, W)`` bool, ``False`` on letterbox padding, which is not supervised; ``None`` where nothing is
            padded.
        question_ids: ``N`` ids, for messages.
        placeholder: Whether no image has a question. The batch then holds one that was made up, with losses of zero, so
            that every module runs: other processes, whose batches have questions, exchange gradients of every module
            and would wait for this one for ever.
        known: ``(N, H, W)`` bool: where each question's mask is known to be right; ``None``: everywhere.
        classes: Maps of whole classes, for the loss that needs them; ``None`` where it is not asked for.
        candidates: ``(N, H, W)`` float in [0, 1]: all that a question chooses its target from by size; the target where
            nothing is chosen; empty where that is not known. ``None`` for models that do not choose among regions.
    """

    images: torch.Tensor
    text: EncodedText
    image_index: torch.Tensor
    masks: torch.Tensor
    present: torch.Tensor
    valid: torch.Tensor | None
    question_ids: list[str]
    placeholder: bool = False
    known: torch.Tensor | None = None
    classes: ClassMaps | None = None
    candidates: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Returns a copy with every tensor on ``device`` but ``image_index``."""
        classes = None if self.classes is None else self.classes.to(device)
        host = replace(self, text=self.text.to(device), classes=classes)
        return _with_tensors(host, lambda tensor: to_device(tensor, device), but="image_index")

    def pin_memory(self) -> Batch:
        """Returns a copy in memory that a GPU reads by itself, so that :meth:`to` need not wait for it.

        A data loader pins what has this method; a data class without one it would pass on as it is.
        """
        classes = None if self.classes is None else self.classes.pin_memory()
        pinned = _with_tensors(self, lambda tensor: tensor.pin_memory())
        return replace(pinned, text=self.text.pin_memory(), classes=classes)


@dataclass
class KVCache:
    """What the language model has read already: the prefix of every prompt, then ``K`` tokens of openings.

    The prefix is what all prompts about an image begin with: the words before the image, then the image's tokens. An
    opening is what all questions of one task begin with, right after the image.

    Attributes:
        keys_values: Keys and values of every layer, each ``(B, heads, P + K, head_dim)``.
        openings: How many tokens each opening has, by name and in their order.
        opening_states: ``(B, K, D)`` last hidden states of the openings.
    """

    keys_values: list[KeysValues]
    openings: dict[str, int]
    opening_states: torch.Tensor


@dataclass
class PromptPrefix:
    """What all prompts about an image begin with: the words before the image, then its tokens.

    Attributes:
        embeds: ``(B, P, D)`` embeddings of both.
        kv_cache: What the language model keeps of reading it. The opening of a task is added when its first question is
            asked. ``None`` in a training step, where the prefix is read together with the questions, so that gradients
            reach it.
    """

    embeds: torch.Tensor
    kv_cache: KVCache | None = None


@dataclass
class DecoderFeatures:
    """What the mask decoder needs of an image, whatever is asked about it.

    Attributes:
        mask_features: ``(B, C, H/4, W/4)`` per-pixel embedding.
        shrunk_mask_features: The same at the sizes of the pixel decoder's multi-scale features, coarse to fine, each
            ``(B, C, K)``: they decide where a query may look. No gradient goes through them.
        keys_values: Keys and values of every layer, each ``(B, M, K, C/M)``.
    """

    mask_features: torch.Tensor
    shrunk_mask_features: list[torch.Tensor]
    keys_values: list[KeysValues]


@dataclass
class ImageFeatures:
    """Everything that depends on the image alone: computed once, asked as often as one likes.

    Attributes:
        image_tokens: ``(B, S, D)`` compressed tokens in the language model's embedding space.
        prefix: For the language model.
        projector_keys_values: For the description projector: keys and values of every layer, each ``(B, R, M, d)``.
        decoder: For the mask decoder.
    """

    image_tokens: torch.Tensor
    prefix: PromptPrefix
    projector_keys_values: list[KeysValues]
    decoder: DecoderFeatures

    def of_images(self, start: int, stop: int) -> ImageFeatures:
        """Returns the features of the images from ``start`` to before ``stop`` alone, without copying tensors."""
        everything = (start, stop) == (0, len(self.image_tokens))
        return self if everything else _rows(self, slice(start, stop))


def _rows(value: Any, images: slice) -> Any:
    """Takes some images out of tensors whose first dimension is ``B``, however they are nested."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{each.name: _rows(getattr(value, each.name), images) for each in fields(value)})
    if isinstance(value, (list, tuple)):
        return type(value)(_rows(each, images) for each in value)
    return value[images] if hasattr(value, "shape") else copy(value)


@dataclass
class QueryEmbeddings:
    """Questions in the mask decoder's space.

    Attributes:
        queries: ``(N, C)`` one query per question.
        image_index: ``(N,)`` which image each query belongs to.
        hidden_states: ``(N, L, D)`` last states of the language model after the image; the next token is read off them.
        words: ``(N, W)`` sums of the description's word vectors; ``None`` where no part reads them.
    """

    queries: torch.Tensor
    image_index: torch.Tensor
    hidden_states: torch.Tensor
    words: torch.Tensor | None = None


@dataclass
class Choice:
    """Which regions of ``N`` masks are kept; ``K`` is the largest number of one mask's regions.

    Attributes:
        keep: ``(N, K)`` logits: how surely a region is what the words ask for.
        labels: ``(N, h, w)`` long: the region that each cell belongs to or is nearest to.
        real: ``(N, K)`` bool: whether the mask has so many regions.
    """

    keep: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor


@dataclass
class MaskOutput:
    """What the mask decoder says.

    Attributes:
        mask_logits: ``(N, H/4, W/4)`` final logits.
        presence_logits: ``(N,)`` logit of "the asked-for thing is in the image".
        auxiliary: Logits before the first and after every but the last layer, each ``(N, H/4, W/4)``.
        class_logits: ``(K, H/4, W/4)``, what mask features alone say of each of a batch's ``K`` class maps; ``None``
            where there are none. The model's forward pass adds them, as it does the next.
        token_logits: ``(T, V)`` vocabulary logits for each of a batch's ``T`` labelled tokens, in the order of
            ``EncodedText.labelled``; one row that stands in where there is none, see
            :meth:`segearth.models.segearth.SegEarth.predict_labels`.
        boxes: ``(N, P, 6)`` boxes outside of which the ``P`` predictions end (those of ``auxiliary``, then the final
            one); ``None`` where the model draws none.
            See :class:`segearth.models.word_heads.BoxGate`.
        candidate_logits: ``(N, H/4, W/4)`` the logits before regions were chosen among; ``None`` where the model does
            not choose. See :class:`segearth.models.region_chooser.RegionChooser`.
        choice: Which regions of these were kept; ``None`` where the model does not choose.
    """

    mask_logits: torch.Tensor
    presence_logits: torch.Tensor
    auxiliary: list[torch.Tensor] = field(default_factory=list)
    class_logits: torch.Tensor | None = None
    token_logits: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    candidate_logits: torch.Tensor | None = None
    choice: Choice | None = None

"""The promptable segmenters of transformers: SAM, SAM 2 and 2.1, EdgeTAM, and the tracker half of SAM 3.

Their image processors are not used: they want a torchvision whose compiled part works. What they do to an image, resize
and normalise, is done here.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.errors import CheckpointError, UnknownNameError
from segearth.preprocessing.images import as_rgb
from segearth.preprocessing.resampling import resized
from segearth.prompting.answers import Instance
from segearth.prompting.opening import open_pretrained
from segearth.prompting.promptable import PromptedMask, image_that_is_set, level_box
from segearth.segmenter import ImageInput

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PROMPTS_AT_ONCE = 64  # their masks at the image's size are held together: 256 MiB for 1024 x 1024 px


@dataclass(frozen=True)
class SamKind:
    """What the models of one kind want of an image.

    Attributes:
        model: Class of transformers.
        mean: Of each channel, subtracted from values in [0, 1].
        std: Of each channel, by which they are then divided.
        square: Whether the image is stretched to the frame; else its longer side fills it, and the rest is padded.
    """

    model: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    square: bool = True


# By the `model_type` in a model's config.json. A folder of SAM 3 or of a video model holds the promptable half too.
KINDS = {
    "sam": SamKind("SamModel", *IMAGENET, square=False),
    "sam2": SamKind("Sam2Model", *IMAGENET),
    "sam2_video": SamKind("Sam2Model", *IMAGENET),
    "edgetam": SamKind("EdgeTamModel", *IMAGENET),
    "edgetam_video": SamKind("EdgeTamModel", *IMAGENET),
    "sam3_tracker": SamKind("Sam3TrackerModel", *HALF),
    "sam3_video": SamKind("Sam3TrackerModel", *HALF),
}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """What serves all prompts about an image.

    Attributes:
        features: Of the encoder, one map or several.
        size: The image's ``(H, W)``.
        content: The part ``(h, w)`` of the frame that the image fills, from the upper left corner on.
    """

    features: Any
    size: tuple[int, int]
    content: tuple[int, int]


class PromptableSam:
    """A :class:`~segearth.prompting.promptable.PromptableSegmenter` over a SAM of transformers.

    Box and points of an instance go in together, and one mask comes out. Encoded images are kept by their pixels, so
    that all completions of a GRPO group, and all questions about an image, share one pass of the encoder.
    """

    def __init__(self, model: Any, keep: int = 8) -> None:
        """Takes a model.

        Args:
            model: ``SamModel``, ``Sam2Model``, ``EdgeTamModel`` or ``Sam3TrackerModel``, where it shall run.
            keep: How many encoded images are kept; the one asked least recently goes first. One of SAM 2 takes 16 MiB.

        Raises:
            UnknownNameError: The model is of another kind.
        """
        kind = model.config.model_type
        if kind not in KINDS:
            raise UnknownNameError("promptable segmenter", kind, KINDS)
        self.model, self.kind, self.keep = model.eval(), KINDS[kind], keep
        side = model.config.prompt_encoder_config.image_size
        self.side: int = side if isinstance(side, int) else side[0]
        self.encodings = 0
        self._kept: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._image: EncodedImage | None = None

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | str = "cpu", keep: int = 8) -> PromptableSam:
        """Opens a model from a folder or a hub id.

        Args:
            source: As for :func:`segearth.utils.hub.find_source`, such as ``"facebook/sam2.1-hiera-small"``.
            device: Where to run.
            keep: See the class.

        Raises:
            CheckpointError: Nothing is there, or no model of a known kind.
        """
        def class_of(config: Any) -> str:
            if config.model_type not in KINDS:
                raise CheckpointError(
                    f"{source} is a {config.model_type!r}, which takes no boxes or points; give one of {sorted(KINDS)}"
                )
            return KINDS[config.model_type].model

        return cls(open_pretrained(source, class_of, "promptable segmenter").to(device), keep)

    @torch.inference_mode()
    def set_image(self, image: ImageInput) -> None:
        """See :meth:`segearth.prompting.promptable.PromptableSegmenter.set_image`."""
        self._image = None
        array = as_rgb(image)
        key = hashlib.blake2b(array.data, digest_size=16, salt=str(array.shape).encode()[:16]).digest()
        if key not in self._kept:
            pixels, content = self._frame(array)
            features = self.model.get_image_embeddings(pixels.to(self.model.device, self.model.dtype))
            self._kept[key] = EncodedImage(features, (array.shape[0], array.shape[1]), content)
            self.encodings += 1
        self._kept.move_to_end(key)
        self._image = self._kept[key]
        while len(self._kept) > max(self.keep, 1):
            self._kept.popitem(last=False)

    @torch.inference_mode()
    def masks(self, instances: Sequence[Instance]) -> list[PromptedMask]:
        """See :meth:`segearth.prompting.promptable.PromptableSegmenter.masks`; one pass for all of one form.

        Instances of one form have a box or not, and equally many points. Were they padded to one form instead, a mask
        would depend on what else was asked, as the padding takes part in the decoder's attention.
        """
        image = image_that_is_set(self._image)
        found: dict[int, PromptedMask] = {}
        for places in _of_one_form(instances, PROMPTS_AT_ONCE):
            some = self._masks(image, [instances[place] for place in places])
            found.update(zip(places, some, strict=True))
        return [found[place] for place in range(len(instances))]

    def _masks(self, image: EncodedImage, instances: list[Instance]) -> list[PromptedMask]:
        """Asks about instances of one form."""
        boxes, points, labels = self._prompts(image, instances)
        if boxes is None and points is None:  # an instance that says nothing of where it is
            empty = PromptedMask(np.zeros(image.size, bool), 0.0)
            return [empty] * len(instances)
        output = self.model(
            image_embeddings=image.features, input_boxes=boxes, input_points=points, input_labels=labels,
            multimask_output=False,
        )  # fmt: skip
        masks = self._at_image_size(output.pred_masks[0, :, 0].float(), image).cpu().numpy()
        scores = output.iou_scores[0, :, 0].float().clamp(0, 1).nan_to_num(0).tolist()
        return [PromptedMask(mask, score if mask.any() else 0.0) for mask, score in zip(masks, scores, strict=True)]

    def _prompts(
        self, image: EncodedImage, instances: list[Instance]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Brings prompts to the frame: boxes ``(1, N, 4)``, points ``(1, N, P, 2)`` and their labels ``(1, N, P)``."""
        (height, width), (h, w) = image.size, image.content
        device, dtype = self.model.device, self.model.dtype

        def framed(values: list[Any]) -> Tensor:
            # SAM counts from the centre of the first pixel and adds half a pixel itself; here it is the corner. A value
            # far outside, which a language model may write, would be a box of infinite size in half precision.
            pairs = np.clip(np.array(values, np.float64).reshape(len(instances), -1, 2), 0, [width, height])
            return torch.from_numpy(pairs * [w / width, h / height] - 0.5).to(device, dtype)[None]

        boxed = [level_box(instance) for instance in instances]
        boxes = framed(boxed).flatten(2) if boxed[0] is not None else None
        if not instances[0].points:
            return boxes, None, None
        marks = [instance.point_labels or (1,) * len(instance.points) for instance in instances]
        return boxes, framed([one.points for one in instances]), torch.tensor(marks, device=device)[None]

    def _frame(self, array: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Returns the normalised image ``(1, 3, side, side)`` and the part of it that the image fills."""
        height, width = array.shape[:2]
        scale = self.side / max(height, width)
        h, w = (self.side,) * 2 if self.kind.square else (int(side * scale + 0.5) for side in (height, width))
        mean, std = np.array(self.kind.mean, np.float32), np.array(self.kind.std, np.float32)
        values = (resized(array, h, w).astype(np.float32) / 255 - mean) / std
        pixels = torch.from_numpy(values.transpose(2, 0, 1))[None]
        return F.pad(pixels, (0, self.side - w, 0, self.side - h)), (h, w)

    def _at_image_size(self, logits: Tensor, image: EncodedImage) -> Tensor:
        """Brings mask logits ``(N, a, b)`` of the frame to the image: boolean ``(N, H, W)``."""
        if not self.kind.square:
            frame = F.interpolate(logits[None], size=(self.side,) * 2, mode="bilinear", align_corners=False)
            logits = frame[0, :, : image.content[0], : image.content[1]]
        return F.interpolate(logits[None], size=image.size, mode="bilinear", align_corners=False)[0] > 0


def _of_one_form(instances: Sequence[Instance], most: int) -> Iterator[list[int]]:
    """Yields the places of instances that have a box or not, and equally many points; at most so many together."""
    forms: dict[tuple[bool, int], list[int]] = {}
    for place, instance in enumerate(instances):
        forms.setdefault((level_box(instance) is not None, len(instance.points)), []).append(place)
    for places in forms.values():
        yield from (places[start : start + most] for start in range(0, len(places), most))

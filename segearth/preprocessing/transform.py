"""From an image's own pixels to the model's frame, and exactly back.

Shapes: ``H W`` the image's own size, ``h w`` the model's frame.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.config import ImageTransformConfig
from segearth.errors import UnknownNameError
from segearth.preprocessing.resampling import raised, resized

MULTIPLE = 32  # the encoder's coarsest stride: a frame whose sides are multiples of it needs no padding in the encoder


class ImageTransform:
    """Preprocessing of one model: brings images and masks into its frame, and logits back to the image's size.

    ``fit: resize`` scales the longer side to ``size`` and rounds both sides to multiples of 32. There is no padding, so
    the model never sees, and never learns from, anything beside the image. ``fit: letterbox`` keeps the aspect ratio
    exactly and centres the image in a square that is padded with zeros and normalised afterwards.
    """

    def __init__(self, config: ImageTransformConfig) -> None:
        """Takes ``size``, ``fit``, ``mean`` and ``std``.

        Raises:
            UnknownNameError: An unknown ``fit``.
        """
        if config.fit not in ("resize", "letterbox"):
            raise UnknownNameError("image fit", config.fit, ["resize", "letterbox"])
        self.config, self.size, self.fit = config, config.size, config.fit
        self.mean = np.array(config.mean, np.float32)
        self.std = np.array(config.std, np.float32)

    def at_size(self, size: int) -> ImageTransform:
        """Returns the same preprocessing for frames whose longer side is ``size`` pixels."""
        return ImageTransform(replace(self.config, size=size))

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the size ``(h, w)`` of the frame of an image of ``(height, width)``."""
        if self.fit == "letterbox":
            return self.size, self.size
        scale = self.size / max(height, width)
        h, w = (max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (height, width))
        return h, w

    def content_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Returns where an image lies in its frame: ``(top, left, h, w)``; without letterboxing it fills the frame."""
        if self.fit == "resize":
            return (0, 0, *self.frame_size(height, width))
        longer = max(height, width)
        h, w = (self.size if side == longer else max(1, int(side * self.size / longer)) for side in (height, width))
        return (self.size - h) // 2, (self.size - w) // 2, h, w

    def apply(self, image: np.ndarray) -> Tensor:
        """Maps ``uint8`` RGB ``(H, W, 3)`` to a normalised ``(3, h, w)`` float32 tensor."""
        top, left, h, w = self.content_box(*image.shape[:2])
        letterbox = self.fit == "letterbox"  # the published protocol interpolates, even where the image shrinks
        content = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR) if letterbox else resized(image, h, w)
        frame = self._place(content, image.shape[:2], top, left)
        return torch.from_numpy(np.ascontiguousarray(self.normalise(frame).transpose(2, 0, 1)))

    def apply_to_target(self, mask: np.ndarray) -> np.ndarray:
        """Maps a boolean ``(H, W)`` mask to the training target in the frame: float32 ``(h, w)`` in [0, 1].

        A cell holds the share of its area that belongs to the target. Targets too small to fill a cell are scaled up by
        :func:`~segearth.preprocessing.resampling.raised`.
        """
        top, left, h, w = self.content_box(*mask.shape)
        return self._place(raised(resized(mask.astype(np.float32), h, w)), mask.shape, top, left)

    def apply_to_mask(self, mask: np.ndarray) -> np.ndarray:
        """Maps a boolean ``(H, W)`` mask to a boolean mask ``(h, w)`` in the frame.

        With ``fit: resize`` the mask is averaged, and even a tiny target keeps a cell. With ``fit: letterbox`` the
        nearest pixel is taken, as the published protocol does.
        """
        if self.fit == "resize":
            return self.apply_to_target(mask) > 0.5
        top, left, h, w = self.content_box(*mask.shape)
        content = cv2.resize(mask.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0
        return self._place(content, mask.shape, top, left)

    def valid(self, height: int, width: int) -> np.ndarray:
        """Returns boolean ``(h, w)``: ``True`` where the frame shows the image, ``False`` on padding."""
        top, left, h, w = self.content_box(height, width)
        return self._place(np.ones((h, w), bool), (height, width), top, left)

    def invert(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Maps logits of the frame to the image's own size.

        Args:
            logits: ``(N, a, b)``, which cover the whole frame at any resolution.
            height: The image's height ``H``.
            width: The image's width ``W``.

        Returns:
            ``(N, H, W)`` float32.
        """
        if self.fit == "letterbox":
            return self.leave_frame(self.fill_frame(logits, height, width), height, width)
        return F.interpolate(logits.float()[None], size=(height, width), mode="bilinear", align_corners=False)[0]

    def fill_frame(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Resizes logits that cover the frame at any resolution to the frame's own: ``(N, h, w)`` float32."""
        size = self.frame_size(height, width)
        return F.interpolate(logits.float()[None], size=size, mode="bilinear", align_corners=False)[0]

    def leave_frame(self, frame: Tensor, height: int, width: int) -> Tensor:
        """Cuts the image's part out of ``(N, h, w)`` from :meth:`fill_frame` and resizes it to ``(N, H, W)``."""
        top, left, h, w = self.content_box(height, width)
        inside = frame[None, :, top : top + h, left : left + w]
        return F.interpolate(inside, size=(height, width), mode="bilinear", align_corners=False)[0]

    def normalise(self, image: np.ndarray) -> np.ndarray:
        """Maps ``uint8`` ``(…, 3)`` to float32 of zero mean and unit variance."""
        return (image.astype(np.float32) - self.mean) / self.std

    def _place(self, content: np.ndarray, size: tuple[int, ...], top: int, left: int) -> np.ndarray:
        frame_h, frame_w = self.frame_size(size[0], size[1])
        if content.shape[:2] == (frame_h, frame_w):
            return content
        frame = np.zeros((frame_h, frame_w, *content.shape[2:]), content.dtype)
        frame[top : top + content.shape[0], left : left + content.shape[1]] = content
        return frame

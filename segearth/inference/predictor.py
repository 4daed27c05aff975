"""Set an image once, ask as often as you like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segearth.data.transform import ImageTransform
from segearth.errors import ImageError, SegEarthError
from segearth.structures import ImageFeatures, Question, Segmentation, Task
from segearth.utils.files import read_image, rgb_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from segearth.models.segearth import SegEarth

MIN_SIDE = 8
PIXELS_AT_ONCE = 1 << 26  # upsampled logits held at a time: 256 MiB
QUESTIONS_AT_ONCE = 32  # read and decoded together: beyond this memory grows and time a question does not fall


class Predictor:
    """Asks a model about one image at a time; no ground truth can enter here.

    Attributes:
        model: The model, in eval mode.
        transform: Its preprocessing.
    """

    def __init__(self, model: SegEarth, device: torch.device | str | None = None) -> None:
        """Takes a model.

        Args:
            model: From ``load_model`` or ``SegEarth.from_pretrained``.
            device: Where to run; where the model is if left out.
        """
        self.model = model.eval()
        if device is not None:
            self.model.to(device)
        self.transform = ImageTransform(model.config.image_transform)
        self._features: ImageFeatures | None = None
        self._size = (0, 0)

    @torch.inference_mode()
    def set_image(self, image: str | Path | np.ndarray | Image) -> None:
        """Encodes an image; its features serve every following question.

        If anything goes wrong, no image is set, so that a caller who goes on asking is not answered about the image
        before.

        Args:
            image: A file, an array, or a PIL image. Arrays are ``uint8`` RGB ``(H, W, 3)`` or grey ``(H, W)``.

        Raises:
            ImageError: It is missing, damaged, not 8-bit, or smaller than 8 px a side.
        """
        self._features = None
        array = as_rgb(image)
        tensor = self.transform.apply(array)[None].to(self.model.device)
        features = self.model.encode_image(tensor)
        self._features, self._size = features, (array.shape[0], array.shape[1])

    def predict(
        self,
        questions: str | Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        answer: bool = False,
    ) -> Any:
        """Answers questions about the image.

        Args:
            questions: One question, or several.
            task: ``"referring"`` or ``"reasoning"``, for all or for each.
            answer: Also answer in words.

        Returns:
            One :class:`Segmentation`, or a list of them in the order of the questions; masks have the image's size.

        Raises:
            SegEarthError: No image was set, or a task is unknown.
            QuestionError: A question is empty or too long.
        """
        texts = [questions] if isinstance(questions, str) else list(questions)
        tasks: list[Any] = [task] * len(texts) if isinstance(task, str) else list(task)
        if len(tasks) != len(texts):
            raise SegEarthError(f"{len(texts)} questions but {len(tasks)} tasks; give one task, or one each")
        if unknown := set(tasks) - {"referring", "reasoning"}:
            raise SegEarthError(f"unknown task {sorted(unknown)}; use 'referring' or 'reasoning'")
        asked = [Question(text, task=t) for text, t in zip(texts, tasks, strict=True)]
        answered = self._answer(asked, answer) if asked else []
        return answered[0] if isinstance(questions, str) else answered

    @torch.inference_mode()
    def _answer(self, questions: list[Question], in_words: bool) -> list[Segmentation]:
        if self._features is None:
            raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
        results: list[Segmentation] = []
        for start in range(0, len(questions), QUESTIONS_AT_ONCE):
            results += self._answer_some(self._features, questions[start : start + QUESTIONS_AT_ONCE], in_words)
        return results

    def _answer_some(self, features: ImageFeatures, questions: list[Question], in_words: bool) -> list[Segmentation]:
        index = torch.zeros(len(questions), dtype=torch.long)
        text = self.model.prompt_encoder.encode(questions).to(self.model.device)
        output = self.model.decode_masks(features, self.model.encode_text(features, text, index))
        words: list[str | None] = [None] * len(questions)
        if in_words:
            words = [*self.model.generate_answers(features, questions, index)]
        presence = output.presence_logits.float().sigmoid().tolist()
        height, width = self._size
        chunk = max(1, PIXELS_AT_ONCE // max(height * width, self.transform.size**2))
        results = []
        for start in range(0, len(questions), chunk):
            coarse = output.mask_logits[start : start + chunk]
            if self.transform.fit == "letterbox":
                frames: Any = self.transform.fill_frame(coarse, height, width)
                logits = self.transform.leave_frame(frames, height, width)
            else:
                frames, logits = [None] * len(coarse), self.transform.invert(coarse, height, width)
            for i, (row, frame) in enumerate(zip(logits, frames, strict=True), start):
                results.append(self._segmentation(questions[i].text, row, frame, presence[i], words[i]))
        return results

    def _segmentation(
        self, question: str, logits: torch.Tensor, frame: torch.Tensor | None, presence: float, words: str | None
    ) -> Segmentation:
        mask = logits > 0
        judged = presence >= self.model.config.presence_threshold
        present = judged and bool(mask.any())
        score = float(logits[mask].sigmoid().mean()) if present else 0.0
        array = mask.cpu().numpy() if present else np.zeros(tuple(logits.shape), bool)
        frame_mask = None if frame is None else ((frame > 0) & judged).cpu().numpy()
        return Segmentation(question, array, score, present, presence, words, frame_mask)


def as_rgb(image: Any) -> np.ndarray:
    """Returns a file, array or PIL image as ``uint8`` RGB ``(H, W, 3)``.

    Raises:
        ImageError: It is missing, damaged, of more than 8 bits a sample, of another type or shape, or smaller than 8 px
            a side.
    """
    if isinstance(image, (str, Path)):
        array = read_image(image)
    elif isinstance(image, np.ndarray):
        array = image
    elif hasattr(image, "convert"):
        array = rgb_of(image, getattr(image, "filename", "") or "PIL image")
    else:
        raise ImageError(f"cannot read an image from {type(image).__name__}; give a path, an array or a PIL image")
    if array.dtype != np.uint8:
        raise ImageError(f"image array is {array.dtype}; scale it to 0-255 and convert it to uint8")
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise ImageError(f"image array has shape {array.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if min(array.shape[:2]) < MIN_SIDE:
        raise ImageError(f"image is {array.shape[1]}x{array.shape[0]} px; at least {MIN_SIDE} px a side are needed")
    return np.ascontiguousarray(array[..., :3])

"""Set an image or several once, ask as often as you like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from segearth.errors import ImageError, SegEarthError
from segearth.model_types import ImageFeatures
from segearth.preprocessing.transform import ImageTransform
from segearth.structures import Question, Segmentation, Task
from segearth.utils.files import read_image, rgb_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from segearth.models.segearth import SegEarth

MIN_SIDE = 8
PIXELS_AT_ONCE = 1 << 26  # upsampled logits held at a time: 256 MiB
QUESTIONS_AT_ONCE = 32  # read and decoded together: beyond this memory grows and time a question does not fall

BELOW_HIGHEST = 1.0  # how far below its highest logit a mask is cut that must not be empty

Portion: TypeAlias = list[tuple[int, list[Question]]]  # images by number, with some questions of each


class Predictor:
    """Asks a model about one image, or about several at a time; no ground truth can enter here.

    Attributes:
        model: The model, in eval mode.
        transform: Its preprocessing.
    """

    def __init__(self, model: SegEarth, device: torch.device | str | None = None) -> None:
        """Takes a model.

        Args:
            model: From :func:`segearth.zoo.opening.open_model`; :func:`segearth.load` opens and wraps at once.
            device: Where to run; where the model is if left out.
        """
        self.model = model.eval()
        if device is not None:
            self.model.to(device)
        self.transform = ImageTransform(model.config.image_transform)
        self._features: ImageFeatures | None = None
        self._sizes: list[tuple[int, int]] = []

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Size ``(h, w)`` at which the model sees an image of ``(H, W)``; images of one frame can be set together."""
        return self.transform.frame_size(height, width)

    def set_image(self, image: str | Path | np.ndarray | Image) -> None:
        """Encodes an image; its features serve every following question.

        If anything goes wrong, no image is set, so that a caller who goes on asking is not answered about the image
        before.

        Args:
            image: A file, an array, or a PIL image. Arrays are ``uint8`` RGB ``(H, W, 3)`` or grey ``(H, W)``.

        Raises:
            ImageError: It is missing, damaged, not 8-bit, or smaller than 8 px a side.
        """
        self.set_images([image])

    @torch.inference_mode()
    def set_images(self, images: Sequence[str | Path | np.ndarray | Image]) -> None:
        """Encodes several images in one pass, to be asked together with one list of questions for each.

        Args:
            images: As for :meth:`set_image`. Their sizes may differ, their :meth:`frame_size` may not.

        Raises:
            ImageError: There is none, one cannot be used, or their frames differ.
        """
        self._features = None
        arrays = [as_rgb(image) for image in images]
        sizes = [(array.shape[0], array.shape[1]) for array in arrays]
        frames = sorted({self.frame_size(*size) for size in sizes})
        if len(frames) != 1:
            seen = ", ".join(f"{h}x{w}" for h, w in frames) or "no image"
            raise ImageError(f"images set together need one frame, here: {seen}; group them by Predictor.frame_size")
        tensor = torch.stack([self.transform.apply(array) for array in arrays]).to(self.model.device)
        features = self.model.encode_image(tensor)
        self._features, self._sizes = features, sizes

    def predict(
        self,
        questions: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        task: Task | Sequence[Task] | Sequence[Sequence[Task]] = "referring",
        answer: bool = False,
        return_logits: bool = False,
    ) -> Any:
        """Answers questions about the image, or about each of several.

        Args:
            questions: One question, or several; after :meth:`set_images` one list of questions for each image.
            task: ``"referring"`` or ``"reasoning"``, for all or, nested as the questions are, for each.
            answer: Also answer in words.
            return_logits: Also give the logits, four bytes a pixel and question.

        Returns:
            One :class:`Segmentation`, a list of them in the order of the questions, or a list of them for each image;
            masks have their image's size.

        Raises:
            SegEarthError: No image was set, there are not as many lists of questions as images, or a task is unknown.
            QuestionError: A question is empty or too long.
        """
        if isinstance(questions, str):
            return self._ask([[questions]], task if isinstance(task, str) else [task], answer, return_logits)[0][0]
        if not questions or any(isinstance(question, str) for question in questions):
            return self._ask([questions], task if isinstance(task, str) else [task], answer, return_logits)[0]
        return self._ask(questions, task, answer, return_logits)

    def _ask(self, questions: Any, task: Any, in_words: bool, with_logits: bool) -> list[list[Segmentation]]:
        """Answers the questions of each image, with one task for all or a list for each image."""
        tasks = [[task] * len(texts) for texts in questions] if isinstance(task, str) else task
        asked, given = ([len(each) for each in rows] for rows in (questions, tasks))
        if asked != given:
            counts = [" + ".join(map(str, numbers)) for numbers in (asked, given)]
            raise SegEarthError(f"{counts[0]} questions but {counts[1]} tasks; give one task, or one each")
        if unknown := {each for row in tasks for each in row} - {"referring", "reasoning"}:
            raise SegEarthError(f"unknown task {sorted(unknown)}; use 'referring' or 'reasoning'")
        if self._features is None:
            raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
        if len(questions) != len(self._sizes):
            raise SegEarthError(
                f"{len(self._sizes)} images are set and {len(questions)} lists of questions given; give one list each"
            )
        rows = [
            [Question(text, task=each) for text, each in zip(texts, row, strict=True)]
            for texts, row in zip(questions, tasks, strict=True)
        ]
        return self._answer(self._features, rows, in_words, with_logits)

    @torch.inference_mode()
    def _answer(
        self, features: ImageFeatures, asked: list[list[Question]], in_words: bool, with_logits: bool
    ) -> list[list[Segmentation]]:
        answers: list[list[Segmentation]] = [[] for _ in asked]
        for portion in _portions(asked, QUESTIONS_AT_ONCE):
            found = self._answer_portion(features, portion, in_words, with_logits)
            for (image, _), some in zip(portion, found, strict=True):
                answers[image] += some
        return answers

    def _answer_portion(
        self, features: ImageFeatures, portion: Portion, in_words: bool, with_logits: bool
    ) -> list[list[Segmentation]]:
        first, last = portion[0][0], portion[-1][0]
        features = features.of_images(first, last + 1)
        questions = [question for _, some in portion for question in some]
        index = torch.tensor([image - first for image, some in portion for _ in some])
        text = self.model.prompt_encoder.encode(questions).to(self.model.device)
        output = self.model.decode_masks(features, self.model.encode_text(features, text, index))
        words: list[str | None] = [None] * len(questions)
        if in_words:
            words = [*self.model.generate_answers(features, questions, index)]
        presence = output.presence_logits.float().sigmoid().tolist()
        answers, start = [], 0
        for image, some in portion:
            own = slice(start, start + len(some))
            found = self._decide(
                self._sizes[image], some, output.mask_logits[own], presence[own], words[own], with_logits
            )
            answers.append(found)
            start = own.stop
        return answers

    def _decide(
        self,
        size: tuple[int, int],
        questions: list[Question],
        coarse: torch.Tensor,
        presence: list[float],
        words: list[str | None],
        with_logits: bool,
    ) -> list[Segmentation]:
        """Makes the masks of one image, of ``(H, W)`` = ``size``, from the decoder's ``(N, h, w)`` logits."""
        height, width = size
        chunk = max(1, PIXELS_AT_ONCE // max(height * width, self.transform.size**2))
        results = []
        for start in range(0, len(questions), chunk):
            logits = coarse[start : start + chunk]
            frames: Any = [None] * len(logits)
            if self.transform.fit == "letterbox":
                frames = self.transform.fill_frame(logits, height, width)
                logits = self.transform.leave_frame(frames, height, width)
            else:
                logits = self.transform.invert(logits, height, width)
            for i, (row, frame) in enumerate(zip(logits, frames, strict=True), start):
                result = self._segmentation(questions[i].text, row, frame, presence[i], words[i])
                results.append(replace(result, logits=row.float().cpu().numpy()) if with_logits else result)
        return results

    def _segmentation(
        self, question: str, logits: torch.Tensor, frame: torch.Tensor | None, presence: float, words: str | None
    ) -> Segmentation:
        judged = presence >= self.model.config.presence_threshold
        cut = threshold_of(logits) if self.model.config.presence_decides else logits.new_zeros(())
        mask = logits > cut
        present = judged and bool(mask.any())
        score = score_of(float(logits[mask].sigmoid().mean()), *self.model.config.score_curve) if present else 0.0
        array = mask.cpu().numpy() if present else np.zeros(tuple(logits.shape), bool)
        frame_mask = None if frame is None else ((frame > cut) & judged).cpu().numpy()
        return Segmentation(question, array, score, present, presence, words, frame_mask)


def threshold_of(logits: torch.Tensor) -> torch.Tensor:
    """Where a mask is cut that is known not to be empty: at 0, or a little below the highest logit if that is less.

    Presence and mask are two judgements. Where presence says that the thing is there and no logit is above 0, the mask
    would contradict it and half of the present things would be answered by nothing; the best guess is what stands out.

    Args:
        logits: ``(H, W)``.

    Returns:
        A scalar, at most 0.
    """
    return (logits.amax() - BELOW_HIGHEST).clamp_max(0)


def score_of(raw: float, slope: float, offset: float) -> float:
    """Returns the IoU to expect of a mask whose pixels have a mean probability of ``raw``: a logistic curve.

    Slope and offset are fitted by :func:`segearth.evaluation.confidence.calibrate` (Platt scaling, 1999, with an IoU in
    place of right and wrong); 1 and 0 leave the mean probability as it is.
    """
    if (slope, offset) == (1, 0):
        return raw
    return 1 / (1 + math.exp(-min(max(slope * logit(raw) + offset, -60.0), 60.0)))


def logit(share: float) -> float:
    """Inverse of the logistic function; ends are moved in by a millionth, where it would be infinite."""
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))


def _portions(asked: list[list[Question]], most: int) -> Iterator[Portion]:
    """Cuts the questions of several images into portions that are read and decoded together.

    The images of a portion lie side by side, each with as many places as the one with most questions fills: memory
    must hold the places, so these are what is kept to ``most``, not the questions.
    """
    portion: Portion = []
    longest = 0
    for image, questions in enumerate(asked):
        for start in range(0, len(questions), most):
            some = questions[start : start + most]
            if portion and (len(portion) + 1) * max(longest, len(some)) > most:
                yield portion
                portion, longest = [], 0
            portion.append((image, some))
            longest = max(longest, len(some))
    if portion:
        yield portion


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

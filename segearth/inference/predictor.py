"""The predictor: set an image, or several, once, and ask as often as you like."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, overload

import torch
from torch import Tensor

from segearth.errors import ImageError, SegEarthError
from segearth.inference.deciding import decide, deciding_of
from segearth.model_types import ImageFeatures
from segearth.preprocessing.images import as_rgb
from segearth.segmenter import ImageInput, RawAnswer, SegmenterFacts, numbers_of_images, one_each
from segearth.structures import Question, Segmentation, Task
from segearth.text.known_words import Reading, read_question, warning_of

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)

PIXELS_AT_ONCE = 1 << 26  # enlarged logits are computed so many at a time: 256 MiB
# Questions that are read and decoded together. More of them take more memory, and no less time each.
QUESTIONS_AT_ONCE = 32
MOST_WARNED_OF = 1000  # unknown words that are remembered, so that each is told once

# What is read and decoded together: some images, each with some questions about it. An image is given by its number
# among those that were set, a question by its index in the list that the caller gave to `predict`.
Portion: TypeAlias = list[tuple[int, list[int]]]


@dataclass(frozen=True, slots=True)
class RawScores:
    """What the model says about one question, before anything is decided.

    Attributes:
        logits: ``(H, W)`` at the image's size.
        frame: The logits in a letterbox's square frame, padding included; ``None`` without a letterbox.
        presence: In [0, 1].
        words: The answer in words, where asked for.
    """

    logits: Tensor
    frame: Tensor | None
    presence: float
    words: str | None


class Predictor:
    """Asks a model about one image, or about several at a time: the :class:`~segearth.segmenter.Segmenter` of SegEarth.

    No method takes a target or a written answer, so no ground truth can reach the model.

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
        self.transform = model.image_transform
        self._features: ImageFeatures | None = None
        self._sizes: list[tuple[int, int]] = []
        self._warned_of: set[str] = set()

    @property
    def facts(self) -> SegmenterFacts:
        """What the model's configuration says that others need to know."""
        config = self.model.config
        deciding = deciding_of(config)
        known = (config.resolutions[0], config.resolutions[-1]) if config.resolutions else None
        return SegmenterFacts(config.protocol, config.image_transform.size, self.model.device.type, deciding, known)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Size ``(h, w)`` at which the model sees an image of ``(H, W)``; images of one frame can be set together."""
        return self.transform.frame_size(height, width)

    def set_image(self, image: ImageInput) -> None:
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
    def set_images(self, images: Sequence[ImageInput]) -> None:
        """Encodes several images in one pass, to be asked together.

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

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is a sequence of texts to a type checker, to nobody else
        self, questions: str, *, task: Task = ..., about: int | None = ..., answer: bool = ...,
        return_logits: bool = ...,
    ) -> Segmentation: ...  # fmt: skip

    @overload
    def predict(
        self, questions: Sequence[str], *, task: Task | Sequence[Task] = ..., about: int | Sequence[int] | None = ...,
        answer: bool = ..., return_logits: bool = ...,
    ) -> list[Segmentation]: ...  # fmt: skip

    def predict(
        self,
        questions: str | Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
        answer: bool = False,
        return_logits: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """Answers questions about the image, or about several; see :meth:`segearth.segmenter.Segmenter.predict`.

        Args:
            questions: One question, or several.
            task: ``"referring"`` or ``"reasoning"``, for all or for each.
            about: After :meth:`set_images`, for all questions or for each the number of its image, from 0.
            answer: Also answer in words.
            return_logits: Also give the logits, four bytes a pixel and question.

        Returns:
            One :class:`Segmentation`, or a list of them in the order of the questions; masks have their image's size.

        Raises:
            SegEarthError: No image was set, or tasks or numbers of images do not fit the questions.
            UnknownNameError: The model has no prompt for a task.
            QuestionError: A question is empty or too long.
        """
        texts = [questions] if isinstance(questions, str) else questions
        answers = {
            index: self._decide(texts[index], scores, return_logits, unknown)
            for index, scores, unknown in self._scores(texts, task, about, answer)
        }
        return answers[0] if isinstance(questions, str) else [answers[index] for index in range(len(texts))]

    def predict_raw(
        self,
        questions: Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
    ) -> list[RawAnswer]:
        """Gives logits and presence alone, for whoever joins tiles and decides later.

        Args:
            questions: As for :meth:`predict`, as are the others and what is raised.
            task: See there.
            about: See there.
        """
        raw = {
            index: RawAnswer(scores.logits.float().cpu().numpy(), scores.presence, unknown)
            for index, scores, unknown in self._scores(questions, task, about, False)
        }
        return [raw[index] for index in range(len(questions))]

    @torch.inference_mode()
    def _scores(
        self, texts: Sequence[str], task: Task | Sequence[Task], about: int | Sequence[int] | None, in_words: bool
    ) -> Iterator[tuple[int, RawScores, tuple[str, ...]]]:
        """Yields each question's index, its raw scores and its unknown words; a few questions' are in memory at once.

        The arguments are those of :meth:`predict`.
        """
        if self._features is None:
            raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
        features = self._features
        read = [self._read(text) for text in texts]
        tasks = one_each(task, len(texts), "tasks")
        asked = [Question(reading.text, task=own) for reading, own in zip(read, tasks, strict=True)]
        of_images: list[list[int]] = [[] for _ in self._sizes]  # for each image the indices of its questions
        for index, image in enumerate(numbers_of_images(about, len(texts), len(self._sizes))):
            of_images[image].append(index)
        for portion in _portions(of_images, QUESTIONS_AT_ONCE):
            first, last = portion[0][0], portion[-1][0]
            some = features.of_images(first, last + 1)
            questions = [asked[index] for _, indices in portion for index in indices]
            image_index = torch.tensor([image - first for image, indices in portion for _ in indices])
            text = self.model.prompt_encoder.encode(questions).to(self.model.device)
            output = self.model.decode_masks(some, self.model.encode_text(some, text, image_index))
            words: list[str | None] = [None] * len(questions)
            if in_words:
                words = [*self.model.generate_answers(some, questions, image_index)]
            presence = output.presence_logits.float().sigmoid().tolist()
            start = 0
            for image, indices in portion:
                own = slice(start, start + len(indices))
                enlarged = self._enlarged(self._sizes[image], output.mask_logits[own])
                for index, (logits, frame), sure, said in zip(
                    indices, enlarged, presence[own], words[own], strict=True
                ):
                    yield index, RawScores(logits, frame, sure, said), read[index].unknown
                start = own.stop

    def _enlarged(self, size: tuple[int, int], coarse: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Enlarges the decoder's ``(N, h, w)`` logits to an image's ``size`` ``(H, W)``.

        Yields for each the logits, and those in the letterbox's frame, or ``None`` without a letterbox.
        """
        height, width = size
        chunk = max(1, PIXELS_AT_ONCE // max(height * width, self.transform.size**2))
        for start in range(0, len(coarse), chunk):
            logits = coarse[start : start + chunk]
            if self.transform.fit == "letterbox":
                frames = self.transform.fill_frame(logits, height, width)
                yield from zip(self.transform.leave_frame(frames, height, width), frames, strict=True)
            else:
                yield from ((row, None) for row in self.transform.invert(logits, height, width))

    def _read(self, text: str) -> Reading:
        """Leaves out words that the model never met, and warns of each once."""
        if self.model.known_words is not None:
            self.model.prompt_encoder.check(text)  # as it was asked: what is wrong with it may be left out below
        reading = read_question(text, self.model.known_words)
        if new := [word for word in reading.unknown if word not in self._warned_of]:
            self._warned_of = {*new, *(self._warned_of if len(self._warned_of) < MOST_WARNED_OF else ())}
            logger.warning("%s", warning_of(new))
        return reading

    @torch.inference_mode()
    def _decide(
        self, question: str, scores: RawScores, with_logits: bool, unknown_words: tuple[str, ...]
    ) -> Segmentation:
        decision = decide(scores.logits, scores.presence, self.facts.deciding)
        return Segmentation(
            question,
            decision.mask.cpu().numpy(),
            decision.score,
            decision.present,
            scores.presence,
            scores.words,
            frame_mask=None if scores.frame is None else decision.of_frame(scores.frame).cpu().numpy(),
            logits=scores.logits.float().cpu().numpy() if with_logits else None,
            unknown_words=unknown_words,
        )


def _portions(asked: list[list[int]], most: int) -> Iterator[Portion]:
    """Cuts the questions of several images into portions that are read and decoded together.

    In a portion every image takes as much memory as the one with the most questions. So the number of images times the
    most questions of one is kept to ``most``, not the number of questions.
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

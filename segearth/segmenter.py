"""The one contract of whatever answers questions about images: :class:`Segmenter`.

An end-to-end model, a vision-language model that prompts a segmenter, a concept segmenter and a stub in a test have
nothing in common but this. Evaluation, controls, validation, the command line and the other rooms ask through it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from segearth.errors import SegEarthError
from segearth.structures import Segmentation, Task

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from PIL.Image import Image

    ImageInput: TypeAlias = str | Path | np.ndarray | Image
else:
    ImageInput = Any  # Pillow is not imported for a name

FrameSize: TypeAlias = Callable[[int, int], tuple[int, int]]


@runtime_checkable
class Segmenter(Protocol):
    """Holds an image, or several, and answers questions about them. No ground truth goes in.

    Further members are read where a segmenter has them, and do without where it has not:

    ``facts``       a :class:`SegmenterFacts`, see :func:`facts_of`. One that says ``sees_pairs`` takes ``before=`` in
                    ``set_image`` and ``set_images``, one that says ``takes_boxes`` takes ``boxes=`` in ``predict``.
    ``counts``      an :class:`AnswerCounts` of all its answers so far, see :func:`counts_of`.
    ``frame_size``  a method from the ``(H, W)`` of an image to the size at which it is seen, see :func:`frame_size_of`:
                    only images for which it gives the same can be set together.
    ``predict_raw`` a method that takes what ``predict`` takes but ``answer`` and ``return_logits``, and gives a list of
                    :class:`RawAnswer`: what is decided later, of many tiles together, need not be decided of each.
    """

    def set_image(self, image: ImageInput) -> None:
        """Takes one image, which serves every following question.

        Args:
            image: A file, a PIL image, or a ``uint8`` array of shape ``(H, W, 3)``, RGB.
        """

    def set_images(self, images: Sequence[ImageInput]) -> None:
        """Takes several images, or tiles of one, in place of those that were set before.

        Args:
            images: At least one, each as for :meth:`set_image`. Their sizes may differ, their ``frame_size`` may not.
        """

    def predict(
        self,
        questions: Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
        answer: bool = False,
        return_logits: bool = False,
    ) -> list[Segmentation]:
        """Answers ``N`` questions; the answer to one does not depend on the others.

        Args:
            questions: In any order, whichever image they are about.
            task: What is asked for, for all or for each; see :class:`segearth.structures.Question`.
            about: For each question, or for all, the number of the image it is about, counted from 0 in the order of
                :meth:`set_images`. May be left out where one image is set.
            answer: Also answer in words, if the segmenter can.
            return_logits: Also give the raw scores: ``Segmentation.logits``, float32 ``(H, W)`` of the image's size,
                which with ``Segmentation.presence`` is what :func:`segearth.inference.deciding.decide` needs. A
                segmenter that has none leaves them ``None``.

        Returns:
            ``N`` answers in the order of the questions; the mask of each has the ``(H, W)`` of its image.
        """


@dataclass(frozen=True, slots=True)
class DecidingSettings:
    """How raw scores become an answer; :mod:`segearth.inference.deciding` does it.

    Attributes:
        presence_threshold: From which presence on, in [0, 1], a thing is judged to be there.
        presence_decides: Whether what is judged present gets a mask in any case, even where no logit is above 0: the
            one with the highest IoU to expect.
        score_curve: Slope and offset of the curve from a mask's mean probability to its score; (1, 0) changes nothing.
            It is fitted to masks of single pictures; those of joined tiles are cut higher, and score more by it.
        mask_curve: Slope (above 0) and offset that make of a mask logit the logit of the pixel's probability, where
            presence decides; (1, 0) changes nothing.
    """

    presence_threshold: float = 0.5
    presence_decides: bool = False
    score_curve: tuple[float, float] = (1.0, 0.0)
    mask_curve: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class SegmenterFacts:
    """What a segmenter may tell of itself; what it leaves out has a value that suits any.

    Attributes:
        protocol: The evaluation protocol that its numbers are published under.
        side: Longer side in pixels at which it sees an image; ``None``: the image's own.
        device: Where it computes: ``"cpu"``, ``"cuda"``, …
        deciding: How its raw scores are decided.
        resolutions: Finest and coarsest ground resolution, in metres a pixel, of the images it learned from, where that
            is known; a scene of another one is shown to it at the nearest of these.
        sees_pairs: Whether it can look at two images of one place: ``set_image(image, before=earlier)``, and for
            ``set_images`` a list with the earlier image, or ``None``, for each image.
        takes_boxes: Whether a question can be about a region: ``predict(…, boxes=[(x0, y0, x1, y1), None, …])``, in
            pixels of the images.
    """

    protocol: str = "native"
    side: int | None = None
    device: str = "cpu"
    deciding: DecidingSettings = DecidingSettings()
    resolutions: tuple[float, float] | None = None
    sees_pairs: bool = False
    takes_boxes: bool = False


class RawAnswer(NamedTuple):
    """What a segmenter says of one question before anything is decided.

    Attributes:
        logits: Float32 ``(H, W)`` of the image's size.
        presence: How sure it is that the thing is in the image, in [0, 1].
        unknown_words: Words of the question that it does not know.
    """

    logits: np.ndarray
    presence: float
    unknown_words: tuple[str, ...]


class AnswerCounts(NamedTuple):
    """How a segmenter that answers in writing has fared so far.

    Attributes:
        unreadable: Answers that could not be read; each counts as an empty one.
        answered: All answers.
    """

    unreadable: int
    answered: int


NO_ANSWERS = AnswerCounts(0, 0)


def facts_of(segmenter: Segmenter) -> SegmenterFacts:
    """Returns the segmenter's ``facts``; those that suit any where it has none."""
    facts: SegmenterFacts = getattr(segmenter, "facts", SegmenterFacts())
    return facts


def counts_of(segmenter: Segmenter) -> AnswerCounts:
    """Returns the segmenter's ``counts``; zeros where it has none, since a mask can always be read."""
    counts: AnswerCounts = getattr(segmenter, "counts", NO_ANSWERS)
    return counts


def set_images_of(
    segmenter: Segmenter, images: Sequence[ImageInput], before: Sequence[ImageInput | None]
) -> None:
    """Sets images, those of pairs together with the earlier image of the same place.

    Args:
        segmenter: Takes them.
        images: As for :meth:`Segmenter.set_images`; of pairs the later ones.
        before: For each the earlier image, or ``None``.

    Raises:
        SegEarthError: There is a pair, and the segmenter sees single images only.
    """
    if all(one is None for one in before):
        segmenter.set_images(images)
        return
    if not facts_of(segmenter).sees_pairs:
        raise SegEarthError(
            f"the questions are about pairs of images, and a {type(segmenter).__name__} sees one image at a time; take "
            "a vision-language model with a template about two images, see docs/decoupled.md"
        )
    segmenter.set_images(images, before=before)  # type: ignore[call-arg]  # its facts say that it takes them


def frame_size_of(segmenter: Segmenter) -> FrameSize:
    """Returns the segmenter's ``frame_size``; where it has none, any images can be set together."""
    method: FrameSize = getattr(segmenter, "frame_size", lambda height, width: (0, 0))
    return method


def usual_batch_size(device: str, side: int) -> int:
    """Returns how many images to give a segmenter at a time where the user has not said it.

    A GPU is not busy with one image. On a CPU several small images take less time together than one by one, since each
    call has a fixed cost. For large images that cost is a small part, and several would take much memory.

    Args:
        device: Where to run.
        side: Longer side of the model's frame in pixels.
    """
    return 4 if device != "cpu" else max(1, min(4, 1024**2 // side**2))


def one_each(given: Any, count: int, what: str) -> list[Any]:
    """Repeats what was given once for all questions, and checks that a list has one for each.

    Args:
        given: One value, or a sequence of them; a text counts as one value.
        count: How many questions there are.
        what: What the values are, for the message, such as ``"tasks"``.

    Raises:
        SegEarthError: There are not as many values as questions.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [given] * count
    if len(given) != count:
        raise SegEarthError(f"{count} questions but {len(given)} {what}; give one for all, or one each")
    return list(given)


def numbers_of_images(about: int | Sequence[int] | None, questions: int, images: int) -> list[int]:
    """Returns for each question the number of the image it is about.

    Args:
        about: As for :meth:`Segmenter.predict`.
        questions: How many are asked.
        images: How many are set.

    Raises:
        SegEarthError: Several images are set and ``about`` is missing, or it names one that is not set, or its length
            differs from the number of questions.
    """
    if about is None:
        if images > 1:
            raise SegEarthError(
                f"{images} images are set; say which one each question is about: about=[…], from 0 to {images - 1}"
            )
        about = 0
    numbers: list[int] = one_each(about, questions, "numbers of images")
    if strange := sorted({number for number in numbers if not 0 <= number < images}):
        raise SegEarthError(f"about names image {strange[0]}, but {images} are set, counted from 0; name one of them")
    return numbers

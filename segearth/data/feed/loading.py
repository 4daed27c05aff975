"""Makes training batches: a view of each image with its questions, and the collation of several views.

The order in which images come is decided in ``sampling.py``.

Shapes: ``B`` images, ``N`` questions of all images together, ``h w`` the model's frame.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from ctypes import c_bool
from dataclasses import dataclass, field, replace
from multiprocessing import RawValue

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segearth.config import DataConfig
from segearth.data.base import SegmentationDataset
from segearth.data.feed.sampling import Frame, StepSampler
from segearth.data.feed.views import AnnotatedViews, jitter
from segearth.data.questions.annotation import AnnotatedDataset
from segearth.data.questions.builder import DEFAULT_MIX, BuilderSettings
from segearth.data.questions.regions import has_direction
from segearth.errors import ConfigError, DatasetError
from segearth.model_types import Batch, ClassMaps
from segearth.preprocessing.transform import MULTIPLE, ImageTransform
from segearth.structures import Question, Regions, Sample, check_target
from segearth.text.encoding import PromptEncoder
from segearth.utils.seeds import rng_for

logger = logging.getLogger(__name__)

# How many absent classes `loss.classes` gets for each view. Few views show more classes than that, and that a class is
# absent is learned quickly.
ABSENT_CLASSES = 4


@dataclass(slots=True)
class TrainingExample:
    """One image in the model's frame with the questions drawn for it.

    Attributes:
        image: Normalised float32 ``(3, h, w)``.
        valid: Boolean ``(h, w)``, ``False`` on padding; ``None`` if there is no padding.
        questions: The questions, possibly none. A mask ``(h, w)`` holds how much of each cell belongs to the target, as
            a boolean or a float in [0, 1].
        classes: For ``loss.classes``: whole classes, each as a question with the class's name as its text.
    """

    image: Tensor
    valid: np.ndarray | None
    questions: list[Question]
    classes: list[Question] = field(default_factory=list)


class TrainingView(Dataset[TrainingExample]):
    """Data sets with augmentation: every read gives a new view, which depends only on seed, epoch and index.

    Images of an :class:`AnnotatedDataset` are cropped to a square, turned and mirrored together with their annotation.
    Then *new* questions are built about what the view shows, so they are true of it. Of other data sets the given
    questions are used. Their images are never cropped, because a crop could cut off what a sentence refers to; they are
    turned only if no question names a direction; and they keep their aspect ratio, as when the model is used. Questions
    without a mask are left out, which a warning says once; an image with no others counts as one without questions.

    Attributes:
        frames: ``(h, w)`` of every view. They are known before any image is decoded, so that batches can be made of
            images that share a frame.
    """

    def __init__(
        self, datasets: Sequence[SegmentationDataset], transform: ImageTransform, config: DataConfig, seed: int,
        with_classes: bool = False, repeats: Sequence[int] | None = None,
    ) -> None:
        """Joins data sets.

        Args:
            datasets: The data sets; their images are numbered one data set after another.
            transform: The model's preprocessing.
            config: The experiment's ``data`` section.
            seed: Decides every random choice.
            with_classes: Whether to give the masks of whole classes too, for images with annotations.
            repeats: For each data set, how often its images come in an epoch, each time in another view; default once.

        Raises:
            DatasetError: No data set has an image.
            ConfigError: ``data.train_size`` does not fit the model's preprocessing, or a repeat is less than 1.
        """
        self.datasets = list(datasets)
        repeats = [1] * len(self.datasets) if repeats is None else repeats
        if any(times < 1 for times in repeats):
            raise ConfigError("repeat must be at least 1; take a data set that is not wanted out of data.train")
        self.places = [
            (number, i)
            for number, (dataset, times) in enumerate(zip(datasets, repeats, strict=True))
            for _ in range(times)
            for i in range(len(dataset))
        ]
        if not self.places:
            raise DatasetError("no training image in any of the data sets; check data.train in the config")
        size = config.train_size or transform.size
        if size != transform.size and (transform.fit != "resize" or size % MULTIPLE):
            raise ConfigError(f"data.train_size {size} needs fit: resize and a multiple of {MULTIPLE}")
        self.transform, self.config, self.seed = transform.at_size(size), config, seed
        self._warned = RawValue(c_bool, False)  # shared with the loader's processes, so that one of them warns, once
        self.square = self.transform.frame_size(size, size)
        self.frames = [self._frame(self.datasets[number], i) for number, i in self.places]
        settings = BuilderSettings(config.questions_per_image, config.mix or DEFAULT_MIX, config.twins)
        self.views = {
            number: AnnotatedViews(
                dataset, self.square[0], config.augment, settings, ABSENT_CLASSES if with_classes else None
            )
            for number, dataset in enumerate(datasets)
            if isinstance(dataset, AnnotatedDataset)
        }

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: tuple[int, int]) -> TrainingExample:
        """Returns the view of image ``index`` in an epoch; ``key`` is ``(epoch, index)``."""
        epoch, index = key
        rng = rng_for(self.seed, epoch, index)
        number, i = self.places[index]
        if number in self.views and self.augments_annotated:
            view = self.views[number].draw(i, rng)
            return TrainingExample(self._tensor(view.image), None, view.questions, view.classes)
        dataset = self.datasets[number]
        sample = dataset[i]
        questions = self._with_masks(sample, dataset.name)
        if self.config.first_question_only:
            questions = questions[:1]
        order = rng.permutation(len(questions))[: self.config.questions_per_image]
        example = self._given_view(sample.image, [questions[j] for j in sorted(order)], rng)
        if example.image.shape[1:] != self.frames[index]:
            (h, w), (height, width) = self.frames[index], sample.image.shape[:2]
            raise DatasetError(
                f"image {sample.image_id} of {dataset.name} is {width}x{height}, which is not what image_size says and "
                f"does not make a frame of {w}x{h}; save it again without an EXIF orientation"
            )
        return example

    @property
    def augments_annotated(self) -> bool:
        """Whether annotated images are cropped and turned; a letterboxed model sees whole images only."""
        return self.config.augment.enabled and self.transform.fit == "resize"

    def _with_masks(self, sample: Sample, dataset_name: str) -> list[Question]:
        for question in sample.questions:
            check_target(question)
        questions = [question for question in sample.questions if question.mask is not None]
        if len(questions) < len(sample.questions) and not self._warned.value:
            self._warned.value = True
            other = next(question for question in sample.questions if question.mask is None)
            logger.warning(
                "training leaves out questions without a mask, such as %r about image %s of %s; "
                "an image with no others counts as one without questions",
                other.text, sample.image_id, dataset_name,
            )  # fmt: skip
        return questions

    def _given_view(self, image: np.ndarray, questions: list[Question], rng: np.random.Generator) -> TrainingExample:
        augment = self.config.augment
        turns, flip = 0, False
        if augment.enabled:
            if augment.flips_and_turns and not any(has_direction(q.text) for q in questions):
                turns, flip = int(rng.integers(4)), bool(rng.integers(2))
                height, width = image.shape[:2]
                if self.transform.frame_size(height, width) != self.transform.frame_size(width, height):
                    turns = turns // 2 * 2  # a quarter turn would change the frame, and the batch has another one
            image = jitter(image, augment, rng)

        def turned(array: np.ndarray) -> np.ndarray:
            array = np.rot90(array, turns)
            return np.ascontiguousarray(array[:, ::-1] if flip else array)

        return frame_example(turned(image), _moved(questions, turned, turned), self.transform)

    def _frame(self, dataset: SegmentationDataset, index: int) -> Frame:
        whole = self.transform.fit == "letterbox"
        if whole or (isinstance(dataset, AnnotatedDataset) and self.augments_annotated):
            return self.square
        return self.transform.frame_size(*dataset.image_size(index))

    def _tensor(self, frame: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.transform.normalise(frame).transpose(2, 0, 1)))


def frame_example(image: np.ndarray, questions: Sequence[Question], transform: ImageTransform) -> TrainingExample:
    """Brings an image and its masks into the model's frame, with the same preprocessing as the predictor.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``.
        questions: Each with a mask ``(H, W)``; where ``valid`` says that it is known, that is framed too.
        transform: The model's preprocessing.
    """
    valid = transform.valid(*image.shape[:2]) if transform.fit == "letterbox" else None

    def known(array: np.ndarray) -> np.ndarray:
        # What is not known is framed, so that however small it is it keeps a cell, and padding counts as known.
        return ~transform.apply_to_mask(~array)

    return TrainingExample(transform.apply(image), valid, _moved(questions, transform.apply_to_target, known))


def _moved(
    questions: Sequence[Question],
    move_mask: Callable[[np.ndarray], np.ndarray],
    move_valid: Callable[[np.ndarray], np.ndarray],
) -> list[Question]:
    """Returns copies of the questions that have a mask, with the mask, and where it is known to be right, moved."""
    moved = []
    for question in questions:
        if question.mask is None:
            continue
        mask, candidates = move_mask(question.mask), question.candidates
        if candidates is question.mask:
            candidates = mask
        elif candidates is not None:
            # A small target may be raised more than the rest, and is one of the candidates all the same.
            candidates = np.maximum(mask, move_mask(candidates))
        valid = None if question.valid is None else move_valid(question.valid)
        moved.append(replace(question, target=Regions(mask), valid=valid, candidates=candidates))
    return moved


def group_by_frame(examples: Sequence[TrainingExample]) -> list[list[TrainingExample]]:
    """Returns the examples in groups that share a frame size; groups and members keep the order of the list."""
    groups: dict[tuple[int, ...], list[TrainingExample]] = {}
    for example in examples:
        groups.setdefault(tuple(example.image.shape), []).append(example)
    return list(groups.values())


class Collator:
    """Joins examples of one frame size to a batch."""

    def __init__(
        self, prompt_encoder: PromptEncoder, with_answers: bool, with_classes: bool = False,
        with_candidates: bool = False,
    ) -> None:  # fmt: skip
        """Stores the settings.

        Args:
            prompt_encoder: The model's prompt encoder.
            with_answers: Whether the batch holds answers to be supervised.
            with_classes: Whether the batch holds masks of whole classes.
            with_candidates: Whether the batch holds masks of all that targets are chosen from.
        """
        self.prompt_encoder, self.with_answers = prompt_encoder, with_answers
        self.with_classes, self.with_candidates = with_classes, with_candidates

    def __call__(self, examples: Sequence[TrainingExample]) -> Batch:
        """Collates examples; question ``k`` of the batch belongs to image ``image_index[k]``.

        If no image has a question, the batch gets one that does not count and is marked as a placeholder: in training
        on several processes every process must still run its forward and backward pass.
        """
        questions = [q for example in examples for q in example.questions]
        index = [i for i, example in enumerate(examples) for _ in example.questions]
        placeholder = not questions
        if placeholder:
            frame = tuple(examples[0].image.shape[1:])
            questions, index = [Question("nothing", np.zeros(frame, bool), id="(no question)")], [0]
        masks = np.stack([q.mask for q in questions if q.mask is not None]).astype(np.float32)
        valid = [example.valid for example in examples if example.valid is not None]
        known = None
        if any(q.valid is not None for q in questions):
            everywhere = np.ones(masks.shape[1:], bool)
            known = torch.from_numpy(np.stack([everywhere if q.valid is None else q.valid for q in questions]))
        candidates = None
        if self.with_candidates:
            unknown = np.zeros(masks.shape[1:], np.float32)
            chosen_from = [unknown if q.candidates is None else np.asarray(q.candidates, np.float32) for q in questions]
            candidates = torch.from_numpy(np.stack(chosen_from))
        return Batch(
            images=torch.stack([example.image for example in examples]),
            text=self.prompt_encoder.encode(questions, self.with_answers),
            image_index=torch.tensor(index),
            masks=torch.from_numpy(masks),
            present=torch.tensor([bool(q.present) for q in questions]),
            valid=torch.from_numpy(np.stack(valid)) if valid else None,
            question_ids=[q.id or q.text for q in questions],
            placeholder=placeholder,
            known=known,
            candidates=candidates,
            classes=self._class_maps(examples) if self.with_classes else None,
        )

    def _class_maps(self, examples: Sequence[TrainingExample]) -> ClassMaps:
        """Joins the class masks of all images; if there are none, one that is known nowhere takes their place."""
        pairs = [(i, shown) for i, example in enumerate(examples) for shown in example.classes]
        frame = tuple(examples[0].image.shape[1:])
        if not pairs:
            pairs = [(0, Question("nothing", np.zeros(frame, bool), valid=np.zeros(frame, bool)))]
        everywhere = np.ones(frame, bool)
        ids, real = self.prompt_encoder.encode_names([shown.text for _, shown in pairs])
        return ClassMaps(
            input_ids=ids,
            real=real,
            image_index=torch.tensor([i for i, _ in pairs]),
            masks=torch.from_numpy(np.stack([np.asarray(shown.mask, np.float32) for _, shown in pairs])),
            known=torch.from_numpy(np.stack([everywhere if s.valid is None else s.valid for _, s in pairs])),
        )


def build_loader(view: TrainingView, collator: Collator, sampler: StepSampler, num_workers: int) -> DataLoader:
    """Returns a loader that gives batches in the sampler's order; the number of workers does not change them."""
    return DataLoader(
        view,
        batch_sampler=sampler,
        collate_fn=collator,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_one_thread,
    )


def _one_thread(worker: int) -> None:
    """Keeps a loader process to one thread: several processes with many threads each would slow each other down."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

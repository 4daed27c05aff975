"""From data sets to batches: augmentation, sampling that can resume anywhere, collation.

Shapes: ``B`` images, ``N`` questions of all images together, ``h w`` the model's frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segearth.config import AugmentConfig, DataConfig
from segearth.data.base import SegmentationDataset
from segearth.data.expressions.builder import BuilderSettings, ExpressionBuilder
from segearth.data.expressions.regions import has_direction
from segearth.data.scene import Box, SceneDataset, transform_image
from segearth.data.transform import MULTIPLE, ImageTransform
from segearth.errors import ConfigError, DatasetError
from segearth.structures import Batch, Question
from segearth.text.encoding import PromptEncoder
from segearth.utils.seeds import rng_for


@dataclass(slots=True)
class Example:
    """One image in the model's frame with the questions drawn for it; masks are boolean ``(h, w)``."""

    image: Tensor
    valid: np.ndarray | None
    questions: list[Question]


class TrainingView(Dataset[Example]):
    """Data sets as seen in training: every read is a fresh view that depends on seed, epoch and index alone.

    Where annotations are known (:class:`SceneDataset`), the image is cropped, turned and mirrored together with them,
    and *new* questions are built for what is then in view: they stay true. Elsewhere the data set's own questions are
    drawn, and an image is turned only if none of them names a direction; it is never cropped, since what a sentence
    refers to could be cut off.
    """

    def __init__(
        self, datasets: Sequence[SegmentationDataset], transform: ImageTransform, config: DataConfig, seed: int
    ) -> None:
        """Joins data sets.

        Args:
            datasets: Read one after the other.
            transform: The model's preprocessing.
            config: ``questions_per_image`` and ``augment`` are read.
            seed: Decides every draw.

        Raises:
            DatasetError: There is not a single image.
            ConfigError: ``data.train_size`` does not fit the model's preprocessing.
        """
        self.places = [(dataset, i) for dataset in datasets for i in range(len(dataset))]
        if not self.places:
            raise DatasetError("no training image in any of the data sets; check data.train in the config")
        self.size = config.train_size or transform.size
        if self.size != transform.size and (transform.fit != "resize" or self.size % MULTIPLE):
            raise ConfigError(f"data.train_size {self.size} needs fit: resize and a multiple of {MULTIPLE}")
        self.transform, self.config, self.seed = transform.at_size(self.size), config, seed
        self.builder = ExpressionBuilder(settings=BuilderSettings(max_questions=config.questions_per_image))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        """Returns the view of ``(epoch, index)``."""
        epoch, index = key
        rng = rng_for(self.seed, epoch, index)
        dataset, i = self.places[index]
        augment = self.config.augment
        if isinstance(dataset, SceneDataset) and self.augments_scenes:
            image, questions = self._fresh_view(dataset, i, rng)
            return Example(self._tensor(jitter(image, augment, rng)), None, questions)
        sample = dataset[i]
        questions = [q for q in sample.questions if q.mask is not None]
        if not questions:
            raise DatasetError(f"image {sample.image_id} of {dataset.name} has no question with a mask")
        order = rng.permutation(len(questions))[: self.config.questions_per_image]
        return self._given_view(sample.image, [questions[j] for j in sorted(order)], rng)

    @property
    def augments_scenes(self) -> bool:
        """Whether annotated images are seen in fresh views; a letterboxed model sees whole images only."""
        return self.config.augment.enabled and self.transform.fit == "resize"

    def _fresh_view(
        self, dataset: SceneDataset, index: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[Question]]:
        image, scene = dataset.image(index), dataset.scene(index)
        augment = self.config.augment
        size = (self.size, self.size)
        flip, turns = False, 0
        for _ in range(4):  # a crop may show nothing that can be asked about
            crop = random_crop(image.shape[0], image.shape[1], augment.min_scale, rng)
            if augment.flips_and_turns:
                flip, turns = bool(rng.integers(2)), int(rng.integers(4))
            view = scene.transform(crop, size, flip, turns)
            questions = self.builder.build(view, rng)
            if questions:
                return transform_image(image, crop, size, flip, turns), questions
        view = scene.transform((0, 0, image.shape[1], image.shape[0]), size)
        whole = transform_image(image, (0, 0, image.shape[1], image.shape[0]), size)
        return whole, self.builder.build(view, rng)

    def _given_view(self, image: np.ndarray, questions: list[Question], rng: np.random.Generator) -> Example:
        augment = self.config.augment
        turns, flip = 0, False
        if augment.enabled:
            if augment.flips_and_turns and not any(has_direction(q.text) for q in questions):
                turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            image = jitter(image, augment, rng)

        def turned(array: np.ndarray) -> np.ndarray:
            array = np.rot90(array, turns)
            return np.ascontiguousarray(array[:, ::-1] if flip else array)

        asked = [replace(q, mask=turned(q.mask)) for q in questions if q.mask is not None]
        return frame_example(turned(image), asked, self.transform)

    def _tensor(self, frame: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.transform.normalise(frame).transpose(2, 0, 1)))


def frame_example(image: np.ndarray, questions: Sequence[Question], transform: ImageTransform) -> Example:
    """Brings an image and the masks of its questions into the model's frame, which is a square in training.

    Args:
        image: ``uint8`` RGB ``(H, W, 3)``.
        questions: Each with a mask ``(H, W)``.
        transform: The model's preprocessing.
    """
    masks = [q.mask for q in questions if q.mask is not None]
    valid = None
    if transform.fit == "letterbox":
        valid = transform.valid(*image.shape[:2])
    else:  # a batch has one frame, a square: other aspects are squeezed into it
        side = max(image.shape[:2])
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
        masks = [cv2.resize(m.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0 for m in masks]
    framed = [replace(q, mask=transform.apply_to_mask(m)) for q, m in zip(questions, masks, strict=True)]
    return Example(transform.apply(image), valid, framed)


class Collator:
    """Joins examples of one frame size to a batch."""

    def __init__(self, prompt_encoder: PromptEncoder, with_answers: bool) -> None:
        """Takes what prompts need.

        Args:
            prompt_encoder: The model's.
            with_answers: Whether answers are supervised.
        """
        self.prompt_encoder, self.with_answers = prompt_encoder, with_answers

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Collates; the ``k``-th question of the batch belongs to ``image_index[k]``.

        A batch in which no image has a question is marked as a placeholder and asks one that does not count.
        """
        questions = [q for example in examples for q in example.questions]
        index = [i for i, example in enumerate(examples) for _ in example.questions]
        placeholder = not questions
        if placeholder:
            frame = tuple(examples[0].image.shape[1:])
            questions, index = [Question("nothing", np.zeros(frame, bool), id="(no question)")], [0]
        masks = np.stack([q.mask for q in questions if q.mask is not None]).astype(np.float32)
        valid = [example.valid for example in examples if example.valid is not None]
        return Batch(
            images=torch.stack([example.image for example in examples]),
            text=self.prompt_encoder.encode(questions, self.with_answers),
            image_index=torch.tensor(index),
            masks=torch.from_numpy(masks),
            present=torch.tensor([bool(q.present) for q in questions]),
            valid=torch.from_numpy(np.stack(valid)) if valid else None,
            question_ids=[q.id or q.text for q in questions],
            placeholder=placeholder,
        )


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Micro-batches of one rank from a given optimiser step on: what is drawn depends on the step alone.

    Every epoch is a new permutation; ranks take interleaved parts of each global batch, which may span two epochs.
    """

    def __init__(
        self, length: int, global_batch: int, micro_batch: int, first_step: int, last_step: int, rank: int, world: int,
        seed: int,
    ) -> None:  # fmt: skip
        """Takes sizes in images; steps ``first_step`` to ``last_step - 1`` are drawn."""
        self.length, self.global_batch, self.micro_batch = length, global_batch, micro_batch
        self.first_step, self.last_step, self.rank, self.world, self.seed = first_step, last_step, rank, world, seed

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * (self.global_batch // self.micro_batch // self.world)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.first_step, self.last_step):
            keys = []
            for position in range(step * self.global_batch + self.rank, (step + 1) * self.global_batch, self.world):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = rng_for(self.seed, epoch).permutation(self.length)
                keys.append((epoch, int(order[position % self.length])))
            for start in range(0, len(keys), self.micro_batch):
                yield keys[start : start + self.micro_batch]


def build_loader(view: TrainingView, collator: Collator, sampler: StepSampler, num_workers: int) -> DataLoader:
    """Returns a loader of batches in the sampler's order, whatever the number of workers."""
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


def random_crop(height: int, width: int, min_scale: float, rng: np.random.Generator) -> Box:
    """Draws a square crop ``(x0, y0, x1, y1)`` with a side of ``min_scale`` to 1 of the shorter side."""
    side = round(min(height, width) * rng.uniform(min_scale, 1.0))
    x0, y0 = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    return x0, y0, x0 + side, y0 + side


def jitter(image: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast and the channels' gains by up to ``config.colour_jitter``."""
    strength = config.colour_jitter
    if not strength:
        return image
    gain = rng.uniform(1 - strength, 1 + strength) * rng.uniform(1 - strength / 4, 1 + strength / 4, 3)
    bias = rng.uniform(-strength, strength) * 128
    mean = image.mean(axis=(0, 1))
    table = (np.arange(256)[:, None] - mean) * gain + mean + bias  # one look-up table a channel
    return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

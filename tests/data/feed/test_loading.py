"""What training sees of an image: true questions, masks that move with it, the frame that use gives it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segearth.config import AugmentConfig, DataConfig, ImageTransformConfig
from segearth.data.base import SegmentationDataset
from segearth.data.feed.loading import (
    ABSENT_CLASSES,
    Collator,
    TrainingExample,
    TrainingView,
    build_loader,
    frame_example,
    group_by_frame,
)
from segearth.data.feed.sampling import StepSampler
from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.builder import DEFAULT_MIX, BuilderSettings
from segearth.data.questions.table import load_table
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.errors import ConfigError, DatasetError
from segearth.models.segearth import SegEarth
from segearth.preprocessing.transform import ImageTransform
from segearth.structures import Boxes, Question, Regions, Sample, Text

TRANSFORM = ImageTransform(ImageTransformConfig(size=64, mean=[0.0] * 3, std=[255.0] * 3))
STILL = AugmentConfig(enabled=False)
GEOMETRY = AugmentConfig(colour_jitter=0.0)


class Given(SegmentationDataset):
    """Images with questions and no annotation; each mask is where its image is bright."""

    name = "given"
    tree: ClassVar[str] = ""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class Annotated(Given):
    """One annotated image."""

    def __init__(self, image: np.ndarray, annotated: AnnotatedImage) -> None:
        super().__init__([Sample("a", image)])
        self.annotation, self.table = annotated, load_table()

    def image(self, index: int) -> np.ndarray:
        return self.samples[index].image

    def annotated(self, index: int) -> AnnotatedImage:
        return self.annotation


def corner(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A mark that looks different under each turn and each mirroring, and its image."""
    mask = np.zeros((height, width), bool)
    mask[: height // 2, : width // 4] = True
    mask[: height // 8, : width // 2] = True
    return np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255, mask


def given(height: int, width: int, *texts: str) -> Given:
    image, mask = corner(height, width)
    return Given([Sample("a", image, [Question(text, mask) for text in texts])])


def view_of(*datasets: Any, augment: AugmentConfig = STILL, **settings: Any) -> TrainingView:
    transform = settings.pop("transform", TRANSFORM)
    return TrainingView(datasets, transform, DataConfig(augment=augment, **settings), seed=0)


def seen(example: TrainingExample) -> bytes:
    """The image as bytes, to tell views apart."""
    return (example.image[0].numpy() > 0.5).tobytes()


class TestGivenViews:
    @pytest.mark.parametrize(("height", "width", "views"), [(128, 128, 8), (64, 128, 4), (200, 90, 4)])
    def test_image_and_mask_turn_together_into_every_view_that_fits_the_frame(
        self, height: int, width: int, views: int
    ) -> None:
        view = view_of(given(height, width, "ships"), augment=GEOMETRY)
        (frame,) = view.frames
        assert frame == TRANSFORM.frame_size(height, width)
        found = set()
        for epoch in range(40):
            example = view[epoch, 0]
            assert example.image.shape[1:] == frame
            (question,) = example.questions
            sure = (example.image[0] - 0.5).abs().numpy() > 0.4  # edges are interpolated, not averaged, where both grow
            assert np.array_equal((example.image[0].numpy() > 0.5)[sure], (question.mask > 0.5)[sure])
            found.add(seen(example))
        assert len(found) == views

    def test_where_a_mask_is_known_moves_with_it(self) -> None:
        image, mask = corner(128, 128)
        asked = [Question("ships", mask, valid=mask), Question("cars", mask)]
        view = view_of(Given([Sample("a", image, asked)]), augment=GEOMETRY)
        found = set()
        for epoch in range(40):
            known, everywhere = view[epoch, 0].questions
            assert known.valid is not None and known.valid.dtype == bool
            assert np.array_equal(known.valid, known.mask == 1)
            assert everywhere.valid is None
            found.add(known.valid.tobytes())
        assert len(found) == 8

    def test_what_a_target_is_chosen_from_moves_with_it(self) -> None:
        image, mask = corner(128, 128)
        small = mask & (np.arange(128) < 16)
        asked = [Question("the largest ship", small, candidates=mask), Question("cars", mask)]
        asked.append(Question("ships", mask, candidates=mask))
        view = view_of(Given([Sample("a", image, asked)]), augment=GEOMETRY)
        for epoch in range(8):
            choosing, unknown, plain = view[epoch, 0].questions
            assert unknown.candidates is None
            assert np.array_equal(choosing.candidates, unknown.mask) and not np.array_equal(choosing.mask, unknown.mask)
            assert plain.candidates is plain.mask

    def test_a_target_that_is_raised_is_one_of_the_candidates(self) -> None:
        image, mask = corner(1280, 1280)
        speck = np.zeros_like(mask)
        speck[3:5, 3:5] = True
        view = view_of(Given([Sample("a", image, [Question("the smallest", speck, candidates=speck | mask)])]))
        (question,) = view[0, 0].questions
        assert question.mask.max() == 1 and (question.candidates >= question.mask).all()

    def test_an_image_whose_question_names_a_direction_stays_as_it_is(self) -> None:
        directed = view_of(given(128, 128, "ships", "the ship on the left", "pools"), augment=GEOMETRY)
        assert len({seen(directed[epoch, 0]) for epoch in range(20)}) == 1
        free = view_of(given(128, 128, "ships", "boats"), augment=replace(GEOMETRY, flips_and_turns=False))
        assert len({seen(free[epoch, 0]) for epoch in range(20)}) == 1

    def test_only_questions_that_are_asked_keep_an_image_from_turning(self) -> None:
        view = view_of(given(128, 128, "ships", "the ship on the left"), augment=GEOMETRY, questions_per_image=1)
        views: dict[str, set[bytes]] = {"ships": set(), "the ship on the left": set()}
        for epoch in range(60):
            example = view[epoch, 0]
            views[example.questions[0].text].add(seen(example))
        assert {text: len(found) for text, found in views.items()} == {"ships": 8, "the ship on the left": 1}

    def test_questions_are_drawn_anew_each_epoch_and_keep_their_order(self) -> None:
        texts = [f"thing {i}" for i in range(5)]
        view = view_of(given(64, 64, *texts), questions_per_image=2)
        drawn = [tuple(q.text for q in view[epoch, 0].questions) for epoch in range(40)]
        assert all(len(texts) == 2 and texts == tuple(sorted(texts)) for texts in drawn)
        assert len(set(drawn)) == 10
        assert drawn[3] == tuple(q.text for q in view[3, 0].questions)

    def test_only_the_first_question_is_asked_where_that_is_wanted(self) -> None:
        view = view_of(given(64, 64, "ships", "boats", "pools"), first_question_only=True, questions_per_image=3)
        assert [[q.text for q in view[epoch, 0].questions] for epoch in range(9)] == [["ships"]] * 9

    def test_colours_change_from_epoch_to_epoch_and_targets_do_not(self) -> None:
        augment = AugmentConfig(flips_and_turns=False)
        view = view_of(given(64, 64, "ships"), augment=augment)
        examples = [view[epoch, 0] for epoch in range(5)]
        assert len({example.image.numpy().tobytes() for example in examples}) > 2  # black and white are cut off
        assert len({example.questions[0].mask.tobytes() for example in examples}) == 1

    @pytest.mark.parametrize("size", [(100, 260), (260, 100), (96, 96), (48, 50)])
    def test_training_sees_an_image_as_use_does(self, size: tuple[int, int]) -> None:
        """One geometry for both: an image keeps its aspect."""
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = image[..., 0] > 127
        example = view_of(Given([Sample("a", image, [Question("ships", mask)])]))[0, 0]
        assert torch.equal(example.image, TRANSFORM.apply(image))
        assert example.valid is None
        assert np.array_equal(example.questions[0].mask, TRANSFORM.apply_to_target(mask))

    def test_a_letterboxed_view_is_a_square_with_its_padding_marked(self) -> None:
        transform = ImageTransform(ImageTransformConfig(size=64, fit="letterbox", mean=[0.0] * 3, std=[255.0] * 3))
        view = view_of(given(40, 80, "ships"), augment=GEOMETRY, transform=transform)
        assert view.frames == [(64, 64)]
        for epoch in range(20):
            example = view[epoch, 0]
            assert example.valid is not None and example.valid.sum() == 64 * 32
            assert not example.image[:, ~example.valid].any()

    def test_a_target_that_fills_no_cell_is_still_there(self) -> None:
        """A ship of 3 x 3 pixels where a cell is 16 x 16: present, and with a mask to learn."""
        mask = np.zeros((1024, 1024), bool)
        mask[500:503, 300:303] = True
        nothing = np.zeros_like(mask)
        image = np.zeros((1024, 1024, 3), np.uint8)
        view = view_of(Given([Sample("a", image, [Question("ships", mask), Question("cars", nothing)])]))
        ship, car = view[0, 0].questions
        assert (ship.present, car.present) == (True, False)
        assert ship.mask.shape == (64, 64) and ship.mask.max() == 1 and ship.mask[31, 18] == 1
        assert ship.mask.sum() == 1
        assert not car.mask.any()

    @pytest.mark.parametrize("first_question_only", [False, True])
    def test_questions_without_a_mask_are_left_out_with_one_warning(
        self, first_question_only: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        image, mask = corner(64, 64)
        caption = Question("describe it", task="caption", target=Text(("ships",)))
        boxes = Question("find ships", task="detection", target=Boxes(((0.0, 0.0, 8.0, 8.0),)))
        samples = [
            Sample("empty", image),
            Sample("mixed", image, [caption, Question("ships", mask), boxes]),
            Sample("others", image, [boxes, caption]),
            Sample("unlabelled", image, [Question("ships")]),
        ]
        view = view_of(Given(samples), first_question_only=first_question_only)
        assert view[0, 0].questions == [] and not caplog.messages
        for epoch in range(3):
            asked = [[q.text for q in view[epoch, i].questions] for i in range(4)]
            assert asked == [[], ["ships"], [], []]
        assert caplog.messages == [
            "training leaves out questions without a mask, such as 'describe it' about image mixed of given; "
            "an image with no others counts as one without questions"
        ]

    def test_the_loaders_processes_warn_once_together(self, caplog: pytest.LogCaptureFixture) -> None:
        view = view_of(Given([Sample("unlabelled", corner(64, 64)[0], [Question("ships")])]))
        sampler = StepSampler(view.frames, 1, 1, 0, 1, 0, 1, seed=0)
        assert list(build_loader(view, len, sampler, 1)) == [1]
        assert view[0, 0].questions == []  # read in this process too, which need not warn again
        assert not caplog.messages

    def test_a_target_that_its_task_does_not_take_is_not_passed_over(self) -> None:
        boxed = Sample("boxed", corner(64, 64)[0], [Question("ships", target=Boxes(()))])
        with pytest.raises(DatasetError, match="takes a target of Regions, not Boxes"):
            view_of(Given([boxed]))[0, 0]

    def test_an_image_of_another_size_than_its_head_says(self) -> None:
        data = given(64, 128, "ships")
        view = view_of(data)
        data.samples[0] = given(128, 64, "ships").samples[0]
        with pytest.raises(DatasetError, match=r"image a of given is 64x128, .* a frame of 64x32"):
            view[0, 0]


class TestFreshViews:
    def test_image_and_mask_move_together(self) -> None:
        """Where both shrink, both are averaged: the target is what the image shows of the ship."""
        image, mask = corner(256, 320)
        image, mask = image.copy(), mask.copy()
        mask[100:200:3], image[100:200:3] = True, 255  # thin, so that sampling would leave gaps
        item = AnnotatedObject(1, "ship", mask, (0, 0, 320, 256))
        view = view_of(Annotated(image, AnnotatedImage(320, 256, [item], frozenset(("ship",)))), augment=GEOMETRY)
        assert view.frames == [(64, 64)]
        found = set()
        for epoch in range(40):
            example = view[epoch, 0]
            shown = example.image[0].numpy()
            for question in example.questions:
                if question.kind == "class" and shown.max() > 0.99:  # else the target is raised
                    assert np.abs(shown - question.mask).max() < 0.01
                    found.add(seen(example))
        assert len(found) > 20

    def test_stuff_is_cut_at_the_line_and_thin_things_are_raised(self) -> None:
        """A road of one pixel in eight; its part in a half of the frame ends at the middle."""
        mask = np.zeros((512, 512), bool)
        mask[300] = True
        mask[104:112] = True
        rows = ((1, 300, 301), (2, 104, 112))
        road = [AnnotatedObject(n, "road", mask[y0:y1], (0, y0, 512, y1), False) for n, y0, y1 in rows]
        image = np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255
        still = replace(GEOMETRY, min_scale=1.0, flips_and_turns=False)
        for objects, level in ((road[:1], 1.0), (road, 0.125)):  # alone it is raised; beside a whole road it is not
            view = view_of(Annotated(image, AnnotatedImage(512, 512, objects, frozenset(("road",)))), augment=still)
            asked = [q for epoch in range(30) for q in view[epoch, 0].questions]
            whole = [q.mask for q in asked if q.kind == "class"]
            halves = [q.mask for q in asked if "left half" in q.text]
            assert whole and halves
            assert all(m.dtype == np.float32 and (m[37] == level).all() for m in whole)
            assert all((m[37, :32] == level).all() and not m[:, 32:].any() for m in halves)
            assert all(q.present for q in asked if q.mask.any())

    def test_the_last_crop_is_the_largest_square_and_shows_the_largest_object(self) -> None:
        """Nothing can be asked of a crop beside the ship, and an image is never squeezed to show all of it."""
        image = np.zeros((64, 640, 3), np.uint8)
        image[20:40, 600:630] = 255
        ship = AnnotatedObject(1, "ship", np.ones((20, 30), bool), (600, 20, 630, 40))
        annotated = AnnotatedImage(640, 64, [ship], frozenset(("ship",)), unresolved=frozenset(("ship",)))
        view = view_of(Annotated(image, annotated), augment=replace(GEOMETRY, min_scale=1.0, flips_and_turns=False))
        examples = [view[epoch, 0] for epoch in range(6)]
        assert all(example.questions for example in examples)
        for bright in (example.image[0] > 0.5 for example in examples):
            assert bright.any(1).sum() == 20
            assert bright.any(0).sum() == 30 or bright[:, [0, -1]].any()

    def test_what_is_asked_of_a_view_is_what_the_configuration_says(self) -> None:
        data, mix = SyntheticDataset(length=1, size=96), {"class": 0.5, "position": 0.5}
        config = DataConfig(augment=GEOMETRY, questions_per_image=5, mix=mix, twins=0.25)
        plain, with_classes = (TrainingView([data], TRANSFORM, config, 0, *given) for given in ((), (True,)))
        assert plain.views[0].builder.settings == BuilderSettings(5, mix, 0.25)
        assert view_of(data).views[0].builder.settings.mix == DEFAULT_MIX
        assert plain[0, 0].classes == [] and with_classes[0, 0].classes
        absent = [sum(c.kind == "absent" for c in with_classes[epoch, 0].classes) for epoch in range(5)]
        assert 0 < max(absent) <= ABSENT_CLASSES

    def test_an_image_of_which_nothing_can_be_asked(self) -> None:
        view = view_of(Annotated(corner(64, 64)[0], AnnotatedImage(64, 64, [])), augment=GEOMETRY)
        assert view[0, 0].questions == []

    def test_the_mix_of_kinds_and_the_cap_on_each(self) -> None:
        view = view_of(SyntheticDataset(length=25, size=160), augment=GEOMETRY, questions_per_image=6)
        kinds: Counter[str] = Counter()
        for index in range(25):
            for epoch in range(3):
                own = Counter(q.kind for q in view[epoch, index].questions)
                assert 0 < own.total() <= 6
                for kind, count in own.items():  # 2.5 times its share of six, at least one
                    assert kind == "absent" or count <= max(1, round(2.5 * DEFAULT_MIX[kind] * 6)), kind
                kinds += own
        share = {kind: count / kinds.total() for kind, count in kinds.items()}
        assert share["class"] == pytest.approx(0.35, abs=0.08)
        assert share["reasoning"] == pytest.approx(0.25, abs=0.08)
        assert 0.1 < share["absent"] < 0.2
        assert sum(share[kind] for kind in ("position", "count", "size", "neighbour", "attribute")) < 0.35

    def test_no_fresh_view_without_augmentation_or_of_a_letterboxed_model(self) -> None:
        data = SyntheticDataset(length=2, size=128, max_questions=3)
        letterbox = ImageTransform(ImageTransformConfig(size=64, fit="letterbox"))
        for view in (view_of(data), view_of(data, augment=GEOMETRY, transform=letterbox)):
            for index in range(2):
                assert [q.text for q in view[0, index].questions] == [q.text for q in data[index].questions]


def test_views_depend_on_seed_epoch_and_image_alone() -> None:
    data = SyntheticDataset(length=3, size=128)
    view, again = (view_of(data, augment=AugmentConfig()) for _ in range(2))
    for key in ((0, 0), (1, 0), (0, 2)):
        one, two = view[key], again[key]
        assert torch.equal(one.image, two.image) and [q.text for q in one.questions] == [q.text for q in two.questions]
    other = TrainingView([data], TRANSFORM, DataConfig(), seed=1)
    pictures = [view[0, 0], view[1, 0], view[0, 1], other[0, 0]]
    assert len({example.image.numpy().tobytes() for example in pictures}) == 4


def test_settings_and_data_that_cannot_train() -> None:
    with pytest.raises(DatasetError, match=r"no training image .* data\.train"):
        view_of(Given([]))
    with pytest.raises(ConfigError, match=r"data\.train_size 50 needs fit: resize and a multiple of 32"):
        view_of(given(64, 64, "ships"), train_size=50)
    letterbox = ImageTransform(ImageTransformConfig(size=64, fit="letterbox"))
    with pytest.raises(ConfigError, match=r"data\.train_size 32 needs"):
        view_of(given(64, 64, "ships"), train_size=32, transform=letterbox)
    view = view_of(given(64, 128, "ships"), train_size=32)
    assert view.frames == [(32, 32)] and view[0, 0].image.shape == (3, 32, 32)
    assert len(view_of(given(64, 64, "a"), given(64, 128, "b"))) == 2
    odd = ImageTransform(ImageTransformConfig(size=100))  # use rounds its frames to 96, and so does a fresh view
    for augment in (STILL, GEOMETRY):
        view = view_of(SyntheticDataset(length=1, size=128), augment=augment, transform=odd)
        assert view.frames == [(96, 96)] and view[0, 0].image.shape == (3, 96, 96)


def test_data_sets_are_read_one_after_the_other() -> None:
    view = view_of(given(64, 64, "a"), given(64, 128, "b"))
    assert [view[0, i].questions[0].text for i in range(2)] == ["a", "b"]
    assert view.frames == [(64, 64), (32, 64)]


def test_a_data_set_that_is_seen_more_often_than_another_is_seen_differently_each_time() -> None:
    data = [SyntheticDataset(length=2, size=128), given(64, 64, "a")]
    view = TrainingView(data, TRANSFORM, DataConfig(augment=AugmentConfig()), 0, repeats=[2, 1])
    assert view.places == [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0)] and len(view.frames) == 5
    assert seen(view[0, 0]) != seen(view[0, 2])  # another place of an epoch, another crop
    with pytest.raises(ConfigError, match="repeat must be at least 1"):
        TrainingView(data, TRANSFORM, DataConfig(), 0, repeats=[1, 0])


class TestCollator:
    @pytest.fixture
    def collator(self, debug_model: SegEarth) -> Collator:
        return Collator(debug_model.prompt_encoder, with_answers=False)

    @staticmethod
    def example(level: float, *questions: Question, valid: np.ndarray | None = None) -> TrainingExample:
        return TrainingExample(torch.full((3, 32, 64), level), valid, list(questions))

    def test_questions_stay_with_their_image_and_their_mask(self, collator: Collator, debug_model: SegEarth) -> None:
        masks = [np.full((32, 64), value, np.float32) for value in (0.25, 0.5, 1.0)]
        a, b, c = (Question(text, mask) for text, mask in zip("abc", masks, strict=True))
        absent = replace(c, target=Regions(masks[2] * 0), id="nothing here")
        gone = replace(b, target=Regions(masks[0] * 0))  # present, though its mask has vanished
        absent.present = False
        batch = collator([self.example(0, a, gone), self.example(1), self.example(2, c, absent)])
        assert batch.image_index.tolist() == [0, 0, 2, 2]
        assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert batch.masks.dtype == torch.float32 and batch.masks[:, 5, 5].tolist() == [0.25, 0.0, 1.0, 0.0]
        assert batch.present.tolist() == [True, True, True, False]
        assert batch.question_ids == ["a", "b", "c", "nothing here"]
        assert batch.valid is None and not batch.placeholder
        encoded = debug_model.prompt_encoder.encode([a, b, c, c])
        assert torch.equal(batch.text.input_ids, encoded.input_ids)

    def test_what_questions_choose_from_is_there_for_models_that_choose(self, collator: Collator) -> None:
        masks = [np.full((32, 64), value, np.float32) for value in (0.25, 0.5)]
        unknown, choosing = Question("a", masks[0]), Question("b", masks[0], candidates=masks[1])
        assert collator([self.example(1, choosing)]).candidates is None  # for a model that does not choose
        collator.with_candidates = True
        batch = collator([self.example(0, unknown), self.example(1, choosing)])
        assert batch.candidates is not None and batch.candidates[:, 5, 5].tolist() == [0.0, 0.5]
        assert batch.candidates.dtype == torch.float32 and batch.masks[:, 5, 5].tolist() == [0.25, 0.25]

    def test_answers_only_where_they_are_learned(self, debug_model: SegEarth) -> None:
        asked = self.example(0, Question("a", np.zeros((32, 64), bool), "There is none."))
        for with_answers in (False, True):
            labels = Collator(debug_model.prompt_encoder, with_answers)([asked]).text.labelled
            assert bool(len(labels)) == with_answers

    def test_padding_is_that_of_each_image(self, collator: Collator) -> None:
        halves = np.zeros((2, 32, 64), bool)
        halves[0, :, :10], halves[1, :, 50:] = True, True
        question = Question("a", np.ones((32, 64), bool))
        batch = collator([self.example(0, question, valid=halves[0]), self.example(0, question, valid=halves[1])])
        assert batch.valid is not None and np.array_equal(batch.valid.numpy(), halves)

    def test_where_the_classes_of_a_question_are_known(self, collator: Collator) -> None:
        left = np.zeros((32, 64), bool)
        left[:, :32] = True
        target = np.zeros((32, 64), np.float32)
        everywhere, half = Question("a", target), Question("b", target, valid=left)
        assert collator([self.example(0, everywhere)]).known is None
        known = collator([self.example(0, everywhere), self.example(1, half)]).known
        assert known is not None and known.dtype == torch.bool
        assert known[0].all() and np.array_equal(known[1], left)

    def test_class_maps_stay_with_their_image_their_name_and_where_they_are_known(self, debug_model: SegEarth) -> None:
        encoder = debug_model.prompt_encoder
        left = np.zeros((32, 64), bool)
        left[:, :32] = True
        roads = Question("roads", np.full((32, 64), 0.25, np.float32))
        ships = Question("ships", np.zeros((32, 64), np.float32))
        trees = Question("trees", np.ones((32, 64), bool), valid=left)
        asked = Question("a", left)
        examples = [self.example(0, asked), self.example(1, asked), self.example(2)]
        examples[0].classes, examples[2].classes = [roads, ships], [trees]
        batch = Collator(encoder, False, with_classes=True)(examples)
        maps = batch.classes
        assert maps is not None and maps.image_index.tolist() == [0, 0, 2]
        ids, real = encoder.encode_names(["roads", "ships", "trees"])
        assert torch.equal(maps.input_ids, ids) and torch.equal(maps.real, real)
        assert maps.masks.dtype == torch.float32 and maps.masks[:, 5, 5].tolist() == [0.25, 0.0, 1.0]
        assert maps.known.dtype == torch.bool and maps.known[:2].all() and np.array_equal(maps.known[2], left)
        assert batch.image_index.tolist() == [0, 1]  # the questions have their own
        assert Collator(encoder, False)(examples).classes is None

    def test_where_no_class_is_shown_one_that_does_not_count_stands_in(self, debug_model: SegEarth) -> None:
        collator = Collator(debug_model.prompt_encoder, False, with_classes=True)
        maps = collator([self.example(0), self.example(1)]).classes
        assert maps is not None and maps.image_index.tolist() == [0]
        assert maps.masks.shape == maps.known.shape == (1, 32, 64)
        assert (maps.masks.dtype, maps.known.dtype) == (torch.float32, torch.bool)
        assert collator([self.example(0)]).classes is not None
        assert not maps.known.any() and not maps.masks.any()

    def test_a_batch_without_a_question_is_a_placeholder(self, collator: Collator) -> None:
        batch = collator([self.example(0), self.example(1)])
        assert batch.placeholder and batch.to("cpu").placeholder
        assert (len(batch.images), batch.masks.shape, batch.image_index.tolist()) == (2, (1, 32, 64), [0])
        assert batch.question_ids == ["(no question)"] and batch.present.tolist() == [False]
        assert collator([self.example(0)]).masks.shape == (1, 32, 64)


def test_examples_of_one_frame_together() -> None:
    sizes = [(32, 64), (64, 64), (32, 64), (64, 32)]
    examples = [TrainingExample(torch.zeros(3, *size), None, []) for size in sizes]
    groups = group_by_frame(examples)
    assert [[next(k for k, e in enumerate(examples) if e is member) for member in group] for group in groups] == [
        [0, 2],
        [1],
        [3],
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_mixed_sizes_load_in_the_samplers_order_whatever_the_workers(debug_model: SegEarth, workers: int) -> None:
    view = view_of(given(64, 128, "a"), given(128, 64, "b"), given(64, 64, "c"), given(100, 200, "d"), augment=GEOMETRY)
    sampler = StepSampler(view.frames, 2, 2, 0, 4, 0, 1, seed=0)
    batches = list(build_loader(view, Collator(debug_model.prompt_encoder, False), sampler, workers))
    assert [batch.question_ids for batch in batches] == [
        [view[key].questions[0].text for key in keys] for keys in sampler
    ]
    assert sorted(Counter(tuple(batch.images.shape[2:]) for batch in batches).values()) == [1, 1, 2]


def test_workers_stay_are_ahead_and_take_one_thread_each(debug_model: SegEarth) -> None:
    """A worker that opened threads of its own would take them from the others and from the step."""
    view, collator = view_of(given(64, 128, "a")), Collator(debug_model.prompt_encoder, False)
    sampler = StepSampler(view.frames, 1, 1, 0, 1, 0, 1, seed=0)
    alone, one = (build_loader(view, collator, sampler, workers) for workers in (0, 1))
    assert (alone.persistent_workers, alone.prefetch_factor) == (False, None)
    assert (one.persistent_workers, one.prefetch_factor) == (True, 4)
    assert one.pin_memory == torch.cuda.is_available()
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        one.worker_init_fn(0)
        assert torch.get_num_threads() == 1 and cv2.getNumThreads() == 1
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def test_sizes_are_read_without_decoding(tmp_path: Path) -> None:
    """The head of a file is enough, and agrees with what is decoded, also for photographs that lie on their side."""
    from segearth.utils.files import image_size, read_image

    picture = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    sideways = Image.Exif()
    sideways[0x0112] = 6
    for name in ("a.png", "a.jpg", "a.tif"):
        picture.save(tmp_path / name)
        picture.save(tmp_path / f"turned_{name}", exif=sideways)
        for path in (tmp_path / name, tmp_path / f"turned_{name}"):
            assert image_size(path) == read_image(path).shape[:2], path
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:60])  # whole enough to tell its size
    assert image_size(tmp_path / "cut.png") == (40, 60)
    assert math.prod(SyntheticDataset(length=1, size=128).image_size(0)) == 128**2


def test_framing_is_the_same_for_all_who_train() -> None:
    image, mask = corner(64, 128)
    left = np.zeros_like(mask)
    left[:, :64] = True
    example = frame_example(image, [Question("a", mask, valid=left), Question("without")], TRANSFORM)
    assert example.image.shape == (3, 32, 64) and [q.text for q in example.questions] == ["a"]
    assert np.array_equal(example.questions[0].valid, left[::2, ::2])


def test_what_is_not_known_of_a_letterboxed_mask_reaches_the_batch(debug_model: SegEarth) -> None:
    transform = ImageTransform(ImageTransformConfig(size=64, fit="letterbox"))
    image, mask = corner(64, 128)
    left = np.zeros_like(mask)
    left[:, :64] = True
    example = frame_example(image, [Question("a", mask, valid=left), Question("b", mask)], transform)
    batch = Collator(debug_model.prompt_encoder, False)([example])
    known, inside = batch.known, batch.valid
    assert known is not None and inside is not None and known.shape == (2, 64, 64)
    assert np.array_equal(known[0], transform.apply_to_mask(left) | ~inside[0].numpy())  # padding counts as known
    assert known[1].all() and not known[0].all()

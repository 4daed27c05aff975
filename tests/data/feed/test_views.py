"""Fresh views: mosaics and pasted objects in the shares asked for, and questions that stay true."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from segearth.config import AugmentConfig
from segearth.data.feed import views as module
from segearth.data.feed.views import AnnotatedViews, jitter, largest_crop, random_crop
from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.builder import BuilderSettings
from segearth.data.questions.table import load_table
from segearth.structures import Regions

SIZE = 64


class Sources:
    """Two sources: even images are dark with one bright house each, odd ones light with a dark road."""

    table = load_table()

    def __len__(self):
        return 6

    def image(self, index):
        image = np.full((100, 80, 3), 200 if index % 2 else 20, np.uint8)
        x0, y0, x1, y1 = self._box(index)
        image[y0:y1, x0:x1] = 90 if index % 2 else 250
        return image

    def annotated(self, index):
        x0, y0, x1, y1 = box = self._box(index)
        name, source = ("road", "roads") if index % 2 else ("building", "houses")
        item = AnnotatedObject(1, name, np.ones((y1 - y0, x1 - x0), bool), box, name == "building")
        return AnnotatedImage(80, 100, [item], frozenset({name}), source=source)

    @staticmethod
    def _box(index):
        return (0, 30, 80, 50) if index % 2 else (10 + 6 * index, 20, 34 + 6 * index, 44)


def views(**augment):
    return AnnotatedViews(
        Sources(), SIZE, AugmentConfig(colour_jitter=0.0, min_scale=0.6, **augment), BuilderSettings()
    )


def drawn(place, number=40, **augment):
    source = views(**augment)
    views_drawn = [source.draw(place, np.random.default_rng(seed)) for seed in range(number)]
    return [
        (image, [replace(q, target=Regions(q.mask > 0.5)) for q in questions]) for image, questions, _ in views_drawn
    ]


def test_a_view_depends_on_its_generator_alone():
    source = views(mosaic=0.5, paste=0.5)
    first = source.draw(0, np.random.default_rng(7))
    source.draw(3, np.random.default_rng(8))
    again = source.draw(0, np.random.default_rng(7))
    assert np.array_equal(first[0], again[0])
    assert [(q.text, q.mask.tobytes()) for q in first[1]] == [(q.text, q.mask.tobytes()) for q in again[1]]
    assert not np.array_equal(first[0], source.draw(0, np.random.default_rng(9))[0])


def test_masks_move_with_their_image():
    for image, questions in drawn(0):
        assert image.shape == (SIZE, SIZE, 3)
        for question in questions:
            if question.kind == "class":
                assert (image[question.mask] > 135).mean() > 0.97 and (image[~question.mask] < 135).mean() > 0.97


@pytest.mark.parametrize("augment", [{}, {"paste": 1.0}, {"mosaic": 1.0}])
def test_a_target_holds_the_share_of_each_pixel(augment):
    """Edges are averaged: a sampled mask would have no value between 0 and 1."""
    source = views(**augment)
    asked = [q for seed in range(20) for q in source.draw(0, np.random.default_rng(seed))[1] if q.kind == "class"]
    shares = np.concatenate([q.mask[(q.mask > 0.02) & (q.mask < 0.98)] for q in asked])
    assert len(shares) > 50 and 0.2 < shares.mean() < 0.8
    assert all(q.mask.dtype == np.float32 and q.mask.min() >= 0 and q.mask.max() <= 1 for q in asked)


class Corner(Sources):
    """A house of 40 x 20 pixels in a corner of a square: it looks different under each turn and each mirroring."""

    def image(self, index):
        image = np.full((80, 80, 3), 20, np.uint8)
        image[4:24, 4:44] = 250
        return image

    def annotated(self, index):
        house = AnnotatedObject(1, "building", np.ones((20, 40), bool), (4, 4, 44, 24))
        return AnnotatedImage(80, 80, [house], frozenset({"building"}))


@pytest.mark.parametrize(("turned", "number"), [(True, 8), (False, 1)])
def test_views_are_turned_and_mirrored_in_every_way_or_not_at_all(turned, number):
    augment = AugmentConfig(colour_jitter=0.0, min_scale=1.0, flips_and_turns=turned)
    source = AnnotatedViews(Corner(), SIZE, augment, BuilderSettings(mix={"class": 1.0}))
    seen = {}
    for seed in range(80):
        image, (question, *_), _ = source.draw(0, np.random.default_rng(seed))
        assert np.array_equal(image[..., 0] > 135, question.mask > 0.5)
        seen.setdefault((image[..., 0] > 135).tobytes(), image)
    assert len(seen) == number
    if not turned:
        (image,) = seen.values()
        assert (image[4:18, 4:34] == 250).all()


@pytest.mark.parametrize(("augment", "number"), [({}, 300), ({"mosaic": 1.0}, 120)])
def test_each_way_to_turn_and_mirror_is_as_frequent(monkeypatch, augment, number):
    ways, transform = Counter(), module.transform_image

    def noting(image, crop, size, flip, turns):
        if image.ndim == 3:  # not for each target again
            ways[flip, turns] += 1
        return transform(image, crop, size, flip, turns)

    monkeypatch.setattr(module, "transform_image", noting)
    drawn(0, number, **augment)
    shares = {way: count / ways.total() for way, count in ways.items()}
    assert shares == {(flip, turns): pytest.approx(1 / 8, abs=0.06) for flip in (False, True) for turns in range(4)}


@pytest.mark.parametrize("augment", [{}, {"mosaic": 1.0}])
def test_what_is_said_of_a_place_is_true_of_the_turned_view(augment):
    """The middle of a target lies on the side that its question names, and nothing of a road beyond the line."""
    source, said = views(**augment), set()
    source.builder.settings = BuilderSettings(mix={"position": 1.0})
    middle = SIZE / 2
    for seed in range(60):
        for place in (0, 1):
            for question in source.draw(place, np.random.default_rng(seed)).questions:
                ys, xs = (np.add(places, 0.5) for places in np.nonzero(question.mask > 0.5))
                for word, position in (("left", xs), ("right", -xs), ("upper", ys), ("lower", -ys)):
                    line = middle if word in ("left", "upper") else -middle
                    if word in question.text.split() and "middle" not in question.text:
                        said.add((word, "road" in question.text))
                        assert position.mean() < line, question.text
                        if "road" in question.text:
                            assert position.max() < line, question.text
    assert said == {(word, road) for word in ("left", "right", "upper", "lower") for road in (True, False)}


@pytest.mark.parametrize("box", [(0, 0, 24, 64), (10, 0, 64, 20)])
def test_a_part_of_a_mosaic_keeps_the_proportions_of_its_image(box):
    """However it is turned: a square house stays a square. Its size varies as that of a crop does."""

    class Middle(Sources):
        _box = staticmethod(lambda index: (32, 42, 46, 56))

    source, sides = AnnotatedViews(Middle(), SIZE, AugmentConfig(min_scale=0.6), BuilderSettings()), []
    for seed in range(150):
        view = source._part(0, box, np.random.default_rng(seed))
        assert view.image.shape == (box[3] - box[1], box[2] - box[0], 3)
        for item in view.annotated.objects:
            x0, y0, x1, y1 = item.box
            if x0 > 0 and y0 > 0 and x1 < view.annotated.width and y1 < view.annotated.height:  # whole
                sides.append((x1 - x0, y1 - y0))
    assert len(sides) > 20
    assert all(abs(width - height) <= 2 for width, height in sides)
    areas = [width * height for width, height in sides]
    assert 1.8 < max(areas) / min(areas) < 4.5  # (1 / 0.6)² and rounding


def test_a_view_that_nothing_can_be_asked_of_is_drawn_anew_and_the_last_is_the_largest(monkeypatch):
    class Bare(Sources):
        def annotated(self, index):
            return AnnotatedImage(80, 100, [])

    crops = []
    for name in ("random_crop", "largest_crop"):
        draw = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, name=name, draw=draw: crops.append(name) or draw(*given))
    AnnotatedViews(Bare(), SIZE, AugmentConfig(), BuilderSettings()).draw(0, np.random.default_rng(0))
    assert crops == ["random_crop"] * 4 + ["largest_crop"]
    views().draw(0, np.random.default_rng(0))
    assert crops[5:] == ["random_crop"]  # one is enough where something can be asked


def test_questions_are_worded_by_the_data_sets_table():
    class Renamed(Sources):
        table = replace(Sources.table, classes={**Sources.table.classes, "building": Sources.table.classes["stadium"]})

    source = AnnotatedViews(Renamed(), SIZE, AugmentConfig(), BuilderSettings(mix={"class": 1.0}))
    asked = {q.text for seed in range(5) for q in source.draw(0, np.random.default_rng(seed)).questions}
    assert asked and all("stadium" in text or "arena" in text for text in asked), asked


def test_mosaics_come_in_the_share_asked_for_and_join_sources():
    def joined(image):
        light = (image > 150).mean()  # the light source's ground; a house alone is never this large
        return 0.25 < light < 0.9 and (image == 20).mean() > 0.1

    assert not any(joined(image) for image, _ in drawn(0, paste=0.0))
    shares = [np.mean([joined(image) for image, _ in drawn(0, 120, mosaic=share)]) for share in (0.4, 1.0)]
    assert 0.1 < shares[0] < 0.5 and shares[1] > 1.5 * shares[0]


def test_in_a_mosaic_a_question_counts_where_its_class_is_known():
    found = 0
    for image, questions in drawn(0, 60, mosaic=1.0):
        for question in questions:
            if question.kind != "class" or question.valid is None:
                continue
            found += 1
            houses = "road" not in question.text
            ground = image[question.valid & ~question.mask]
            dark = (ground < 60).mean()
            assert dark > 0.9 if houses else dark < 0.1  # the other source's ground does not count
            assert not (question.mask & ~question.valid).any()
    assert found > 20


def test_objects_are_pasted_from_images_of_the_same_source():
    plain = [len(self_made(questions)) for _, questions in drawn(0)]
    assert set(plain) <= {0, 1}
    counts = [number_of_houses(image) for image, _ in drawn(0, paste=1.0)]
    assert np.mean([count > 1 for count in counts]) > 0.6
    assert max(number_of_houses(image) for image, _ in drawn(0, paste=0.0)) == 1
    # Roads are no things: nothing can be pasted into their images.
    assert all((image < 60).mean() == 0 for image, _ in drawn(1, paste=1.0))


def number_of_houses(image):
    import cv2

    labels, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 135).astype(np.uint8))
    return sum(area > 12 for area in stats[1:labels, 4])


def self_made(questions):
    return {q.mask.tobytes() for q in questions if q.kind == "class"}


def test_pasted_objects_are_part_of_what_is_asked():
    for image, questions in drawn(0, paste=1.0):
        for question in questions:
            if question.kind == "class":
                assert (image[question.mask] > 120).mean() > 0.8
                assert (image[~question.mask] < 150).mean() > 0.95


@pytest.mark.parametrize("augment", [{}, {"mosaic": 1.0}, {"paste": 1.0}])
def test_what_is_chosen_by_size_comes_with_all_that_it_is_chosen_from(augment):
    class Street(Sources):
        """A large and a small house, and in the odd images roads."""

        def annotated(self, index):
            found = super().annotated(index)
            (first,) = found.objects
            box = (60, 60, 70, 72)
            small = AnnotatedObject(2, first.category, np.ones((12, 10), bool), box, first.is_thing)
            return replace(found, objects=[first, small])

    settings = BuilderSettings(max_questions=6, mix={"size": 1.0, "class": 1.0})
    source = AnnotatedViews(Street(), SIZE, AugmentConfig(colour_jitter=0.0, min_scale=0.8, **augment), settings)
    chosen = 0
    for seed in range(30):
        questions = source.draw(0, np.random.default_rng(seed)).questions
        whole = {(q.mask > 0).tobytes() for q in questions if q.kind == "class"}
        for question in questions:
            if question.kind != "size":
                assert question.candidates is question.mask
                continue
            chosen += 1
            assert question.candidates.shape == question.mask.shape and question.candidates.dtype == np.float32
            assert (question.candidates >= question.mask).all() and question.candidates.sum() > question.mask.sum()
            assert not whole or (question.candidates > 0).tobytes() in whole
    assert chosen > 10


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_pasted_than_asked_for(most):
    counts = [number_of_houses(image) for image, _ in drawn(0, 60, paste=1.0, most_pasted=most)]
    assert 1 < max(counts) <= 1 + most


class Annotating(Sources):
    """The source of the houses also looks for ships and pools; there are none."""

    def annotated(self, index):
        return replace(super().annotated(index), vocabulary=frozenset({"building", "ship", "swimming pool"}))


@pytest.mark.parametrize("most_absent", [0, 1, 5])
def test_whole_classes_are_shown_of_the_same_view(most_absent):
    """Without a question about them: each class that is there, with its own target, and some that are not."""
    augment = AugmentConfig(colour_jitter=0.0, min_scale=0.9)
    source = AnnotatedViews(Annotating(), SIZE, augment, BuilderSettings(mix={"position": 1.0}), most_absent)
    for seed in range(20):
        image, questions, classes = source.draw(0, np.random.default_rng(seed))
        there, *absent = classes
        assert all(question.kind == "position" for question in questions)
        assert there.kind == "class" and there.text in ("buildings", "structures")
        assert (image[there.mask > 0.5] > 135).all() and (image[there.mask < 0.02] < 60).all()
        assert len(absent) == min(most_absent, 2)
        assert all((c.kind, c.present, bool(c.mask.any())) == ("absent", False, False) for c in absent)
        assert all(c.mask.shape == (SIZE, SIZE) and c.mask.dtype == np.float32 for c in classes)


def test_whole_classes_are_shown_only_where_they_are_wanted():
    assert views().draw(0, np.random.default_rng(0)).classes == []


def test_as_many_are_pasted_as_are_drawn_at_the_scale_of_the_crop(monkeypatch):
    crops, pasted = [], []
    draw, paste = module.random_crop, module.paste

    def noting_crop(*given):
        crops.append(draw(*given))
        return crops[-1]

    def noting_paste(image, annotated, cutouts, scale, rng):
        pasted.append((len(cutouts), scale))
        return paste(image, annotated, cutouts, scale, rng)

    monkeypatch.setattr(module, "random_crop", noting_crop)
    monkeypatch.setattr(module, "paste", noting_paste)
    drawn(0, paste=1.0, most_pasted=3)
    assert {number for number, _ in pasted} == {1, 2, 3}
    assert [scale for _, scale in pasted] == [SIZE / (x1 - x0) for x0, _, x1, _ in crops]


def test_an_image_nothing_can_be_asked_about_is_seen_all_the_same():
    class Bare(Sources):
        def annotated(self, index):
            return AnnotatedImage(80, 100, [])

    source = AnnotatedViews(Bare(), SIZE, AugmentConfig(), BuilderSettings())
    image, questions, _ = source.draw(0, np.random.default_rng(0))
    assert image.shape == (SIZE, SIZE, 3) and questions == []


@pytest.mark.parametrize(("place", "start"), [(0, 0), (26, 0), (29, 1), (300, 272), (610, 576), (632, 576)])
def test_the_largest_crop_by_hand(place, start):
    """Around the middle of the larger object, as far as the frame reaches; without one, in the middle."""
    small = AnnotatedObject(1, "ship", np.ones((4, 4), bool), (30, 30, 34, 34))
    large = AnnotatedObject(2, "ship", np.ones((8, 8), bool), (place, 20, place + 8, 28))
    upright = AnnotatedObject(2, "ship", np.ones((8, 8), bool), (20, place, 28, place + 8))
    assert largest_crop(AnnotatedImage(640, 64, [small, large])) == (start, 0, start + 64, 64)
    assert largest_crop(AnnotatedImage(64, 640, [upright, small])) == (0, start, 64, start + 64)
    assert largest_crop(AnnotatedImage(640, 64, [])) == (288, 0, 352, 64)
    assert largest_crop(AnnotatedImage(64, 640, [])) == (0, 288, 64, 352)


@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (34, 34)])
def test_random_crops_are_squares_of_every_size_and_place(height, width):
    rng = np.random.default_rng(0)
    crops = [random_crop(height, width, 0.5, rng) for _ in range(2000)]
    sides = {x1 - x0 for x0, y0, x1, y1 in crops if x1 - x0 == y1 - y0}
    shorter = min(height, width)
    assert sides == set(range(round(shorter * 0.5), shorter + 1))
    assert {min(c[0] for c in crops), min(c[1] for c in crops)} == {0}
    assert (max(c[2] for c in crops), max(c[3] for c in crops)) == (width, height)
    assert len(crops) == 2000 == sum(x1 - x0 == y1 - y0 for x0, y0, x1, y1 in crops)


def test_jitter_by_hand():
    """Grey levels m - d and m + d become m + bias ± gain * d, with gain and bias within what the setting allows."""
    image = np.full((4, 4, 3), 100, np.uint8)
    image[:2] = 60  # mean 80
    assert jitter(image, AugmentConfig(colour_jitter=0.0), np.random.default_rng(0)) is image
    gains, biases, tints = [], [], []
    for seed in range(200):
        changed = jitter(image, AugmentConfig(colour_jitter=0.2), np.random.default_rng(seed)).astype(float)
        assert changed.shape == image.shape
        low, high = changed[0, 0], changed[3, 0]
        gains.append((high - low).mean() / 40)
        biases.append((high + low).mean() / 2 - 80)
        tints.append(np.ptp(high - low) / 40)
        assert np.ptp((high + low) / 2) <= 1  # channels differ in gain alone
    assert 0.75 < min(gains) < 0.85 and 1.15 < max(gains) < 1.25
    assert -26.5 < min(biases) < -23 and 23 < max(biases) < 26.5
    assert 0.03 < max(tints) < 0.15
    bright = np.full((2, 2, 3), 250, np.uint8)
    levels = [jitter(bright, AugmentConfig(colour_jitter=0.2), np.random.default_rng(seed)).max() for seed in range(9)]
    assert max(levels) == 255 and min(levels) > 200  # cut off, not wrapped round
    dark = np.full((2, 2, 3), 5, np.uint8)
    levels = [jitter(dark, AugmentConfig(colour_jitter=0.2), np.random.default_rng(seed)).max() for seed in range(9)]
    assert min(levels) == 0 and max(levels) < 50


def test_jitter_stretches_each_channel_about_its_own_mean():
    image = np.full((4, 4, 3), (60, 120, 180), np.uint8)
    image[:2] += 20
    for seed in range(20):
        changed = jitter(image, AugmentConfig(colour_jitter=0.2), np.random.default_rng(seed))
        assert changed.dtype == np.uint8
        moved = changed.mean(axis=(0, 1)) - image.mean(axis=(0, 1))
        assert np.ptp(moved) <= 1  # all by the brightness, whatever the gains

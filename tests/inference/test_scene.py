"""Scenes, asked with a stub that sees colours, so that what should come out is known to the pixel."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from segearth.cli import app
from segearth.errors import ConfigError, ImageError, OutputError, QuestionError
from segearth.geo.strips import parts_folder
from segearth.geo.tiling import blended, plan_tiles, rows_of_tiles
from segearth.geo.windows import Window
from segearth.inference import scene as scene_module
from segearth.inference import scene_run
from segearth.inference.scene import read_questions, segment_scene
from segearth.inference.scene_types import SceneOptions, SceneResult
from segearth.inference.tiles import TilePass
from segearth.segmenter import DecidingSettings, SegmenterFacts, numbers_of_images
from segearth.structures import Segmentation

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed: pip install 'segearth[geo]'")
shapely = pytest.importorskip("shapely", reason="shapely is not installed: pip install 'segearth[geo]'")
geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed: pip install 'segearth[geo]'")

CHANNELS = {"red": 0, "green": 1, "blue": 2}
NORTH_UP = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 3_000_000)
QUIET = SceneOptions(tile_size=64, overlap=16, batch_size=2, progress=False)


class ColourFinder:
    """Answers "the red things" by how much red a pixel has; where a tile has none it says that none is there.

    Attributes:
        asked: Sizes of all images it was shown.
        dies_at: After so many calls it raises an error.
    """

    facts = SegmenterFacts(side=64, deciding=DecidingSettings(presence_threshold=0.5, presence_decides=True))

    def __init__(self, dies_at: int | None = None) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.dies_at, self.calls = dies_at, 0

    def set_image(self, image: Any) -> None:
        self.set_images([image])

    def set_images(self, images: Sequence[Any]) -> None:
        self.images = [np.asarray(image) for image in images]
        self.asked += [image.shape[:2] for image in self.images]

    def predict(self, questions: Sequence[str], *, about: Any = None, **options: Any) -> list[Segmentation]:
        self.calls += 1
        if self.dies_at is not None and self.calls > self.dies_at:
            raise KeyboardInterrupt
        answers = []
        for text, number in zip(questions, numbers_of_images(about, len(questions), len(self.images)), strict=True):
            channel = next(index for name, index in CHANNELS.items() if name in text)
            logits = self.images[number][..., channel].astype(np.float32) / 16 - 8
            presence = 0.9 if (logits > 0).any() else 0.1
            mask = (logits > 0) & (presence > 0.5)
            answers.append(Segmentation(text, mask, 0.5, bool(mask.any()), presence, logits=logits))
        return answers


def write(path: Path, array: np.ndarray, transform: Any = NORTH_UP, crs: Any = "EPSG:32645", **options: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[1], height=array.shape[0], count=array.shape[2], dtype=array.dtype,
        crs=crs, transform=transform, **options,
    ) as file:  # fmt: skip
        file.write(array.transpose(2, 0, 1))
    return path


def picture(height: int = 150, width: int = 210) -> np.ndarray:
    """Red squares of 10, 20 and 30 px, one of them across the seams of tiles, and a blue bar."""
    array = np.full((height, width, 3), 40, np.uint8)
    for top, left, side in ((10, 10, 10), (50, 60, 30), (120, 180, 20)):
        array[top : top + side, left : left + side, 0] = 250
    array[100:104, :, 2] = 250
    return array


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.tif", picture())


def bands(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def asked(source: Path, questions: Any, tmp_path: Path, segmenter: Any = None, **options: Any) -> SceneResult:
    return segment_scene(
        segmenter or ColourFinder(), source, questions, tmp_path / "out.tif", vector=tmp_path / "out.gpkg",
        options=dataclasses.replace(QUIET, **options),
    )  # fmt: skip


def test_mask_polygons_and_counts(source: Path, tmp_path: Path) -> None:
    result = asked(source, ["the red things", "the blue things", "the green things"], tmp_path)
    red, blue, green = bands(result.output)
    np.testing.assert_array_equal(red == 1, picture()[..., 0] > 128)
    np.testing.assert_array_equal(blue == 1, picture()[..., 2] > 128)
    assert not green.any() and not result.answers[2].present and result.answers[2].score == 0
    first = result.answers[0]
    assert (first.regions, first.pixels, first.area_unit) == (3, 100 + 900 + 400, "m2")
    assert first.area == pytest.approx(1400 * 0.25) and first.presence == pytest.approx(0.9)
    table = geopandas.read_file(tmp_path / "out.gpkg")
    assert table["question"].tolist() == ["the red things"] * 3 + ["the blue things"]
    assert table["area"][:3].tolist() == pytest.approx([225, 100, 25]) and str(table.crs) == "EPSG:32645"
    assert not parts_folder(result.output).exists()


def test_a_polygon_has_the_calibrated_score_of_its_own_pixels(tmp_path: Path) -> None:
    """A scene of one thing: the polygon's score and the mask's are one number; of two, the clearer one's is higher."""
    array = np.full((60, 120, 3), 40, np.uint8)
    array[10:30, 10:30, 0] = 250
    segmenter = ColourFinder()
    deciding = dataclasses.replace(segmenter.facts.deciding, score_curve=(1.5, -2.0))
    segmenter.facts = dataclasses.replace(segmenter.facts, deciding=deciding)
    one = asked(write(tmp_path / "one.tif", array), "the red things", tmp_path, segmenter)
    table = geopandas.read_file(one.vector)
    assert table["score"].tolist() == [pytest.approx(one.answers[0].score, abs=1e-4)]
    assert one.answers[0].score < 0.9  # by the curve; nearly all of the thing is certain
    array[10:30, 80:100, 0] = 150
    two = asked(write(tmp_path / "two.tif", array), "the red things", tmp_path, segmenter)
    scores = geopandas.read_file(two.vector).set_index("region")["score"]
    assert scores.min() < two.answers[0].score < scores.max()
    assert scores.max() == pytest.approx(one.answers[0].score, abs=0.02)


@pytest.mark.parametrize(("mode", "least"), [("auto", 0.0), ("auto", 99.0), ("tile", 0.0), ("whole", 0.0)])
def test_a_count_is_answered_by_the_number_of_polygons(source: Path, tmp_path: Path, mode: str, least: float) -> None:
    questions = ["the blue things", "How many red things are there?"]
    result = asked(source, questions, tmp_path, mode=mode, min_area=least)
    table = geopandas.read_file(result.vector)
    assert [each.answer for each in result.answers] == [None, "2" if least else "3"]
    assert table["answer"][table["question"] == questions[0]].isna().all()
    assert set(table["answer"][table["question"] == questions[1]]) == {result.answers[1].answer}


def test_the_output_lies_on_the_source_grid(tmp_path: Path) -> None:
    turned = rasterio.Affine(1.7, 1.0, 500_000, 1.0, -1.7, 3_000_000)
    source = write(tmp_path / "in.tif", picture(), turned)
    result = asked(source, "the red things", tmp_path)
    with rasterio.open(source) as before, rasterio.open(result.output) as after:
        assert after.crs == before.crs and after.transform == before.transform and after.shape == before.shape
        assert after.tags(1)["SEGEARTH_QUESTION"] == "the red things" and after.descriptions == ("the red things",)


@pytest.mark.parametrize(
    ("question", "chosen"),
    [
        ("the largest red thing", [(50, 60, 30)]),
        ("the red thing nearest to the blue things", [(120, 180, 20)]),
        ("the red things within 9 m of the blue bar", [(120, 180, 20)]),
        ("the red things in the upper half", [(10, 10, 10), (50, 60, 30)]),
    ],
)
def test_what_no_tile_sees_is_settled(source: Path, tmp_path: Path, question: str, chosen: list) -> None:
    expected = np.zeros((150, 210), bool)
    for top, left, side in chosen:
        expected[top : top + side, left : left + side] = True
    result = asked(source, question, tmp_path)
    np.testing.assert_array_equal(bands(result.output)[0] == 1, expected)
    assert result.answers[0].mode == "settle" and result.answers[0].regions == len(chosen)
    table = geopandas.read_file(tmp_path / "out.gpkg")
    assert table["area"].sum() == pytest.approx(expected.sum() * 0.25)


def test_the_ground_decides_what_is_largest_and_what_is_east(tmp_path: Path) -> None:
    """In degrees, and mirrored: of 12 px a side at 68 degrees north, and of 10 px near the equator, which is larger."""
    array = np.full((700, 40, 3), 40, np.uint8)
    array[20:32, 20:32, 0] = array[680:690, 5:15, 0] = 250
    source = write(tmp_path / "in.tif", array, rasterio.Affine(-0.1, 0, 14, 0, -0.1, 70), "EPSG:4326")
    result = asked(source, ["the largest red thing", "the easternmost red thing"], tmp_path, resolution=None)
    expected = np.zeros((700, 40), bool)
    expected[680:690, 5:15] = True
    for mask in bands(result.output):
        np.testing.assert_array_equal(mask == 1, expected)
    assert result.answers[0].area == pytest.approx(100 * 11_120 * 11_060, rel=0.01)


def test_a_scene_that_is_asked_as_a_whole(source: Path, tmp_path: Path) -> None:
    stub = ColourFinder()
    result = asked(source, "the only red thing", tmp_path, stub)
    assert stub.asked == [(150, 210)] and result.answers[0].mode == "whole" and result.tiles == 0
    np.testing.assert_array_equal(bands(result.output)[0] == 1, picture()[..., 0] > 128)
    large = write(tmp_path / "large.tif", np.kron(picture(), np.ones((4, 4, 1), np.uint8)))
    result = asked(large, "the only red thing", tmp_path, stub)
    assert max(stub.asked[-1]) == 256  # four times the stub's side
    found, expected = bands(result.output)[0] == 1, np.kron(picture()[..., 0] > 128, np.ones((4, 4), bool))
    assert (found & expected).sum() / (found | expected).sum() > 0.9


def test_presence_of_one_tile_does_not_lift_the_others(tmp_path: Path) -> None:
    """Best guesses of tiles that have nothing stay out, although presence decides for the scene as a whole."""
    array = picture()
    array[..., 0] = np.where(array[..., 0] > 128, 250, 120)  # half a logit below the cut everywhere else
    result = asked(write(tmp_path / "in.tif", array), "the red things", tmp_path)
    np.testing.assert_array_equal(bands(result.output)[0] == 1, array[..., 0] > 128)


def test_the_same_ground_through_a_moved_window_gives_the_same_mask(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)

    class Contextual(ColourFinder):
        """Its logits depend on all of a tile, as a network's do."""

        def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
            answers = super().predict(questions, **options)
            for answer, number in zip(answers, options["about"], strict=True):
                assert answer.logits is not None
                answer.logits += 4 * np.sin(float(self.images[number].sum()))
            return answers

    whole = bands(asked(write(tmp_path / "whole.tif", noise), "the red things", tmp_path, Contextual()).output)[0]
    for top, left in ((17, 31), (64, 5)):
        moved = rasterio.Affine(0.5, 0, NORTH_UP.c + 0.5 * left, 0, -0.5, NORTH_UP.f - 0.5 * top)
        cut = write(tmp_path / "cut.tif", np.ascontiguousarray(noise[top : top + 200, left : left + 200]), moved)
        part = bands(asked(cut, "the red things", tmp_path, Contextual()).output)[0]
        inner = slice(64, 136)
        np.testing.assert_array_equal(part[inner, inner], whole[top:, left:][inner, inner])


def test_no_seam(tmp_path: Path) -> None:
    """Tiles that differ by a constant are blended without a step higher than the ramp between them."""

    class Drifting(ColourFinder):
        def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
            answers = super().predict(questions, **options)
            for answer in answers:
                assert answer.logits is not None
                self.drift = getattr(self, "drift", 0) + 1
                answer.logits[:] = self.drift % 2
            return answers

    grid = np.full((150, 210, 3), 250, np.uint8)
    whole = Window(0, 0, 150, 210)
    rows = rows_of_tiles(plan_tiles(150, 210, 64, 16))
    tile_pass = TilePass(Drifting(), ["red"], ["referring"], 1)
    tiles = tile_pass.over(((tile, grid[tile.slices_in(whole)]) for tile in row) for row in rows)
    logits = np.concatenate([strip.logits[0] for strip in blended(tiles, whole, (150, 210), 16, 1)])
    steps = max(np.abs(np.diff(logits, axis=0)).max(), np.abs(np.diff(logits, axis=1)).max())
    assert logits.max() - logits.min() > 0.9 and steps < 0.11  # the steepest step of a cosine ramp of 16 px is 0.098


@pytest.mark.parametrize(("resolution", "calls"), [(None, 8), (0.4, 10)])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    source: Path, tmp_path: Path, resolution: float | None, calls: int
) -> None:
    questions = ["the red things", "the blue things"]
    whole = asked(source, questions, tmp_path, resolution=resolution)
    expected = whole.output.read_bytes()
    whole.output.unlink()
    with pytest.raises(KeyboardInterrupt):
        asked(source, questions, tmp_path, ColourFinder(dies_at=calls), resolution=resolution)
    assert not whole.output.exists() and parts_folder(whole.output).exists()
    again = asked(source, questions, tmp_path, resolution=resolution)
    assert 0 < again.tiles < whole.tiles and again.output.read_bytes() == expected
    assert [answer.presence for answer in again.answers] == [answer.presence for answer in whole.answers]


class Unlearned(ColourFinder):
    """Does not know "things"."""

    def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
        answers = super().predict(questions, **options)
        return [dataclasses.replace(answer, unknown_words=("things",)) for answer in answers]


@pytest.mark.parametrize("mode", ["tile", "whole"])
def test_unknown_words_are_told(source: Path, tmp_path: Path, mode: str) -> None:
    (answer,) = asked(source, "the red things", tmp_path, Unlearned(), mode=mode).answers
    assert answer.unknown_words == ("things",)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.tags(1)["SEGEARTH_UNKNOWN_WORDS"] == "things"
    assert asked(source, "the red things", tmp_path, mode=mode).answers[0].unknown_words == ()
    with rasterio.open(tmp_path / "out.tif") as file:
        assert "SEGEARTH_UNKNOWN_WORDS" not in file.tags(1)


def test_unknown_words_of_another_thing_that_is_asked_about_are_told(source: Path, tmp_path: Path) -> None:
    class OneWord(ColourFinder):
        def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
            answers = super().predict(questions, **options)
            return [dataclasses.replace(a, unknown_words=("blue",) if "blue" in a.question else ()) for a in answers]

    (answer,) = asked(source, "the red thing nearest to the blue things", tmp_path, OneWord()).answers
    assert answer.mode == "settle" and answer.unknown_words == ("blue",)


def test_unknown_words_are_told_by_a_run_that_has_nothing_left_to_ask(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(scene_run, "scene_writer", lambda *_, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        asked(source, ["the red things", "the largest red thing"], tmp_path, Unlearned())
    again = asked(source, ["the red things", "the largest red thing"], tmp_path, Unlearned())
    assert again.tiles == 0 and [answer.unknown_words for answer in again.answers] == [("things",)] * 2


def test_a_run_with_other_settings_does_not_go_on(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(source, "the red things", tmp_path, ColourFinder(dies_at=5))
    with pytest.raises(OutputError, match="--restart"):
        asked(source, "the blue things", tmp_path)
    assert asked(source, "the blue things", tmp_path, restart=True).answers[0].present


def test_a_run_does_not_go_on_with_weights_that_have_changed(source: Path, tmp_path: Path) -> None:
    def ask(stub: ColourFinder, **weights: int) -> SceneResult:
        return segment_scene(stub, source, "the red things", tmp_path / "out.tif", weights=weights, options=QUIET)

    with pytest.raises(KeyboardInterrupt):
        ask(ColourFinder(dies_at=5), changed_ns=1)
    with pytest.raises(OutputError, match="--restart"):
        ask(ColourFinder(), changed_ns=2)
    assert ask(ColourFinder(), changed_ns=1).answers[0].present


def test_what_has_no_data_is_not_asked_and_marked(tmp_path: Path) -> None:
    array = picture()
    array[:, :100] = 0
    stub = ColourFinder()
    result = asked(write(tmp_path / "in.tif", array, nodata=0), "the red things", tmp_path, stub)
    mask = bands(result.output)[0]
    assert (mask[:, :100] == 255).all() and (mask[:, 100:] != 255).all() and mask[120:140, 180:200].all()
    assert len(stub.asked) == 12 - 3 and result.tiles == 9


def test_a_scene_without_any_data(tmp_path: Path) -> None:
    result = asked(write(tmp_path / "in.tif", np.zeros((150, 210, 3), np.uint8), nodata=0), "the red things", tmp_path)
    assert (bands(result.output) == 255).all() and not result.answers[0].present and result.tiles == 0


def test_area_of_interest(source: Path, tmp_path: Path) -> None:
    area = tmp_path / "area.geojson"
    left, top = NORTH_UP.c, NORTH_UP.f
    geopandas.GeoDataFrame(
        geometry=[geopandas.points_from_xy([left + 35], [top - 33])[0].buffer(12)], crs="EPSG:32645"
    ).to_crs(4326).to_file(area)
    stub = ColourFinder()
    result = asked(source, "the red things", tmp_path, stub, aoi=area)
    mask = bands(result.output)[0]
    assert result.answers[0].regions == 1 and mask[15, 15] == 255 and mask[60, 70] == 1 and mask[130, 190] == 255
    assert len(stub.asked) < 12


def test_a_plain_picture(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture()).save(tmp_path / "in.png")
    result = asked(tmp_path / "in.png", "the red things", tmp_path)
    assert (result.answers[0].area, result.answers[0].area_unit, result.resolution) == (1400, "pixels", None)
    with rasterio.open(result.output) as file:
        assert file.crs is None and file.shape == (150, 210)


def test_sixteen_bits_are_stretched_by_the_scene(tmp_path: Path) -> None:
    array = picture().astype(np.uint16) * 40
    result = asked(write(tmp_path / "in.tif", array), "the red things", tmp_path)
    np.testing.assert_array_equal(bands(result.output)[0] == 1, picture()[..., 0] > 128)


def test_another_resolution_for_the_model_the_same_grid_for_the_output(source: Path, tmp_path: Path) -> None:
    stub = ColourFinder()
    result = asked(source, "the red things", tmp_path, stub, resolution=1.0)
    assert result.resolution == pytest.approx(1.0, rel=0.01) and result.tiles < 15
    found, expected = bands(result.output)[0] == 1, picture()[..., 0] > 128
    assert found.shape == (150, 210) and (found & expected).sum() / (found | expected).sum() > 0.85


@pytest.mark.parametrize(
    ("latitude", "known", "shown"),
    [
        (68, (0.13, 10.0), 0.614),
        (68, None, 0.614),
        (68, (2.0, 10.0), 2.0),
        (68, (0.001, 0.01), 1.002 / 32),
        (20, (0.13, 10.0), None),
    ],
)
def test_a_model_is_shown_square_pixels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, latitude: float, known: Any, shown: float | None
) -> None:
    """In degrees at 68 degrees north a pixel is 0.376 x 1.002 m; at 20 it is 6 % higher than wide."""
    degree = 1 / 111_320
    source = write(tmp_path / "in.tif", picture(), rasterio.Affine(degree, 0, 20, 0, -degree, latitude), "EPSG:4326")
    stub = ColourFinder()
    stub.facts = dataclasses.replace(stub.facts, resolutions=known)
    with caplog.at_level("INFO"), scene_module._opened(source, stub, QUIET) as scene:
        assert scene.grid.is_native == (shown is None)
        sides = scene.grid.columns.scale, scene.grid.rows.scale
        if shown is not None:
            seen = np.multiply(sides, scene.metres_per_pixel)
            np.testing.assert_allclose(seen, [shown, shown], rtol=0.01)
            assert f"0.376 x 1 m a pixel; it is shown to the model in square ones of {shown:.3g} m" in caplog.text
    with scene_module._opened(source, stub, dataclasses.replace(QUIET, resolution=None)) as scene:
        assert scene.grid.is_native


def test_logits_of_minus_infinity_are_resampled(source: Path, tmp_path: Path) -> None:
    class Infinite(ColourFinder):
        def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
            answers = super().predict(questions, **options)
            for answer in answers:
                assert answer.logits is not None
                answer.logits[answer.logits < 0] = -np.inf
            return answers

    result = asked(source, "the red things", tmp_path, Infinite(), resolution=1.0)
    found, expected = bands(result.output)[0] == 1, picture()[..., 0] > 128
    assert (found & expected).sum() / (found | expected).sum() > 0.8


@pytest.mark.parametrize(("known", "shown"), [((0.1, 5.0), 0.5), ((1.0, 5.0), 1.0), ((0.05, 0.25), 0.25), (None, 0.5)])
def test_a_model_is_shown_the_resolution_it_knows(source: Path, tmp_path: Path, known: Any, shown: float) -> None:
    stub = ColourFinder()
    stub.facts = dataclasses.replace(stub.facts, resolutions=known)
    assert asked(source, "the red things", tmp_path, stub).resolution == pytest.approx(shown, rel=0.01)
    assert asked(source, "the red things", tmp_path, stub, resolution=None).resolution == pytest.approx(0.5, rel=0.01)


def test_a_segmenter_without_logits(source: Path, tmp_path: Path) -> None:
    class MasksAlone(ColourFinder):
        def predict(self, questions: Sequence[str], **options: Any) -> list[Segmentation]:
            return [dataclasses.replace(answer, logits=None) for answer in super().predict(questions, **options)]

    result = asked(source, "the red things", tmp_path, MasksAlone())
    np.testing.assert_array_equal(bands(result.output)[0] == 1, picture()[..., 0] > 128)


@pytest.mark.parametrize(
    ("questions", "options", "error", "message"),
    [
        ([], {}, QuestionError, "at least one"),
        (["the red things", " "], {}, QuestionError, "question 2 of 2 is empty"),
        ("the red things", {"mode": "best"}, ConfigError, "auto, tile, whole"),
        ("the red things", {"resolution": "fine"}, ConfigError, "metres a pixel"),
        ("the red things", {"overlap": 60}, ConfigError, "half a tile"),
        ("the red things", {"aoi": "SRID=4326;POLYGON((0 0, 1 0, 1 1, 0 0))"}, ConfigError, "outside"),
        ("the red things", {"resolution": 20.0}, ImageError, "finer resolution"),
    ],
)
def test_bad_input(source: Path, tmp_path: Path, questions: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        asked(source, questions, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_what_cannot_be_written_is_told_before_anything_is_asked(source: Path, tmp_path: Path) -> None:
    stub, area = ColourFinder(), tmp_path / "area.gpkg"
    box = shapely.box(500_000, 2_999_950, 500_050, 3_000_000)
    geopandas.GeoDataFrame(geometry=[box], crs="EPSG:32645").to_file(area)
    with pytest.raises(OutputError, match=r"end with \.tif"):
        segment_scene(stub, source, "the red things", tmp_path / "out.png", options=QUIET)
    with pytest.raises(OutputError, match="named twice"):
        segment_scene(
            stub, source, "the red things", tmp_path / "out.tif", vector=area,
            options=dataclasses.replace(QUIET, aoi=area),
        )  # fmt: skip
    assert not stub.asked and len(geopandas.read_file(area)) == 1


@pytest.mark.parametrize("name", ["{0}/mosaic.vrt", "GTIFF_DIR:1:{0}/in.tif", "file://{0}/in.tif"])
def test_a_file_that_the_source_reads_is_not_replaced(source: Path, tmp_path: Path, name: str) -> None:
    stub, before = ColourFinder(), source.read_bytes()
    (tmp_path / "mosaic.vrt").write_text(
        '<VRTDataset rasterXSize="210" rasterYSize="150"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">in.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(OutputError, match=r"in\.tif is named twice"):
        segment_scene(stub, name.format(tmp_path), "the red things", source, options=QUIET)
    assert not stub.asked and source.read_bytes() == before


def test_a_signed_address_does_not_stand_in_what_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = scene_module._opened

    def under_an_address(*arguments: Any) -> Any:
        raster = opened(*arguments)
        raster.name = "https://me:word@host/in.tif?sig=SECRET"
        return raster

    monkeypatch.setattr(scene_module, "_opened", under_an_address)
    result = asked(source, "the red things", tmp_path)
    with rasterio.open(result.output) as file:
        assert file.tags()["SEGEARTH_SOURCE"] == "https://host/in.tif"
    assert set(geopandas.read_file(result.vector)["source"]) == {"https://host/in.tif"}


def test_an_area_of_interest_as_a_long_text(source: Path, tmp_path: Path) -> None:
    bend = ", ".join(f"{500_000 + x} {2_999_990 - x % 2}" for x in range(100))
    area = f"SRID=32645;POLYGON((500000 2999925, {bend}, 500100 2999925, 500000 2999925))"
    assert len(area) > 1000 and (bands(asked(source, "the red things", tmp_path, aoi=area).output)[0, :10] == 255).all()


def test_a_source_that_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="name one that exists"):
        asked(tmp_path / "none.tif", "the red things", tmp_path)
    cut = write(tmp_path / "cut.tif", np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    cut.write_bytes(cut.read_bytes()[:100_000])
    with pytest.raises(ImageError, match="damaged"):
        asked(cut, "the red things", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tif"]


@pytest.mark.parametrize(
    ("question", "remedy"),
    [("the red things within 9 m of the blue bar", "in pixels"), ("the northernmost red thing", "upper")],
)
def test_what_a_scene_without_a_map_cannot_settle_is_told_first(tmp_path: Path, question: str, remedy: str) -> None:
    source, stub = write(tmp_path / "in.tif", picture(), rasterio.Affine.identity(), None), ColourFinder()
    with pytest.raises(QuestionError, match=remedy):
        asked(source, question, tmp_path, stub)
    assert not stub.asked


def test_of_a_plain_picture_no_warning_is_printed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.tif", picture(), rasterio.Affine.identity(), None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked(source, "the red things", tmp_path)


def test_a_whole_scene_with_an_area_of_interest_is_seen_there_alone(source: Path, tmp_path: Path) -> None:
    stub, box = ColourFinder(), shapely.box(500_025, 2_999_950, 500_055, 2_999_980)  # columns 50 to 110, rows 40 to 100
    result = asked(source, "the red things", tmp_path, stub, mode="whole", aoi=f"SRID=32645;{box.wkt}")
    expected = np.full((150, 210), 255, np.uint8)
    expected[40:100, 50:110] = picture()[40:100, 50:110, 0] > 128
    assert stub.asked == [(60, 60)]
    np.testing.assert_array_equal(bands(result.output)[0], expected)


@pytest.mark.parametrize("narrow", [False, True])
def test_what_is_too_small_to_be_asked_as_a_whole_is_told_before_tiles_are_asked(
    source: Path, tmp_path: Path, narrow: bool
) -> None:
    stub, area = ColourFinder(), None if narrow else f"SRID=32645;{shapely.box(500_000, 2_999_997, 500_004, 3e6).wkt}"
    if narrow:  # of 10,000 px in length 256 are shown, four times the stub's side
        source = write(tmp_path / "in.tif", np.full((40, 10_000, 3), 60, np.uint8))
    seen = "in.tif, 10000 x 40 px, would be seen as 256 x 1 px" if narrow else "area of interest .*in.tif, 8 x 6 px"
    with pytest.raises(ImageError, match=seen):
        asked(source, ["the red things", "the only red thing"], tmp_path, stub, aoi=area)
    assert not stub.asked
    assert asked(source, "the red things", tmp_path, stub, aoi=area).tiles


def test_a_list_of_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("the ships\nthe pier \n")
    assert read_questions(path) == ["the ships", "the pier"]
    path.write_text("the ships\r\nthe pier\r\n", encoding="utf-8-sig")  # as Windows' Notepad writes it
    assert read_questions(path) == ["the ships", "the pier"]
    path.write_text("the ships\n\nthe pier\n")
    with pytest.raises(QuestionError, match="line 2 is empty"):
        read_questions(path)
    with pytest.raises(QuestionError, match="no list of questions"):
        read_questions(tmp_path / "none.txt")


def test_the_command(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    options = ["--model", "segearth_debug", "--tile-size", "64", "--vector", str(tmp_path / "out.geojson")]
    result = CliRunner().invoke(app, ["scene", str(source), "the red roofs", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "the red roofs: " in result.output and "nothing in it depends on more than a tile shows" in result.output
    with rasterio.open(out) as file:
        assert file.shape == (150, 210) and file.tags()["SEGEARTH_MODEL"] == "segearth_debug"
    assert len(geopandas.read_file(tmp_path / "out.geojson")) >= 0
    wrong = CliRunner().invoke(app, ["scene", str(source), str(out)])
    assert wrong.exit_code == 2 and "between quotes" in wrong.output.replace("\n", " ")


SLOW_WRITING = """
import sys, time
from segearth.cli import app
from segearth.geo.writing import SceneWriter
write = SceneWriter.write
def slow(self, *values):
    write(self, *values)
    print("writing", flush=True)
    time.sleep(20)
SceneWriter.write = slow
app(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
def test_a_command_that_is_cancelled_leaves_nothing_half_written(source: Path, tmp_path: Path) -> None:
    arguments = ["scene", str(source), "the roofs", str(tmp_path / "out.tif"), "--model", "segearth_debug"]
    with subprocess.Popen([sys.executable, "-c", SLOW_WRITING, *arguments], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"writing\n"
        assert list(tmp_path.glob(".out.tif.*"))
        running.terminate()
        assert running.wait(timeout=15) == 143
    assert {path.name for path in tmp_path.iterdir()} <= {"in.tif", "out.tif.parts"}


LITTLE_MEMORY = """
import re, resource, sys
from pathlib import Path
from test_scene import ColourFinder, QUIET, segment_scene
import dataclasses, geopandas, rasterio.features, torch
questions = ["the red thing " + str(number) for number in range(8)]
options = dataclasses.replace(QUIET, tile_size=512, overlap=64, mode="tile")
first = segment_scene(ColourFinder(), sys.argv[1], "the red things", sys.argv[3], options=options)  # all is imported
now = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (now + (700 << 20),) * 2)
result = segment_scene(ColourFinder(), sys.argv[2], questions, sys.argv[3], options=options)
assert all(answer.present for answer in result.answers)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_memory_does_not_grow_with_the_scene(source: Path, tmp_path: Path) -> None:
    """Eight questions on 8,000 x 4,000 pixels: their logits alone would be a gigabyte, 700 MiB are allowed."""
    tall = write(tmp_path / "tall.tif", np.tile(picture(160, 200), (50, 20, 1)), tiled=True, compress="deflate")
    command = [sys.executable, "-c", LITTLE_MEMORY, str(source), str(tall), str(tmp_path / "out.tif")]
    ran = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]

"""What the web page does for a user, without a browser."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from web_fakes import Halves, geotiff_bytes, picture_bytes

from segearth.cli import app
from segearth.errors import ConfigError, ImageError, QuestionError
from segearth.inference.visualize import PREDICTION_COLOUR
from segearth.segmenter import SegmenterFacts, numbers_of_images
from segearth.structures import Region, Segmentation
from segearth.web import sessions
from segearth.web.addresses import address_of, check_free
from segearth.web.asking import Asker, without
from segearth.web.examples import EXAMPLES
from segearth.web.reading import read_upload
from segearth.web.sessions import Session
from segearth.web.uploads import Limits, Picture, UploadError, shown_name

LIMITS = Limits(megabytes=0.5, megapixels=0.5)
HALVES = Asker(Halves(), "halves")


def session_of(tmp_path: Path, content: bytes | None = None, name: str = "a.png") -> Session:
    picture = read_upload(picture_bytes(100, (80, 40)) if content is None else content, name, LIMITS)
    return sessions.begin(picture, tmp_path)


def asked(tmp_path: Path, *questions: str, content: bytes | None = None, name: str = "a.png") -> Session:
    session, asker = session_of(tmp_path, content, name), Asker(Halves(), "halves")
    for question in questions:
        session = sessions.ask(asker, session, question, reasoning=False, in_words=True)
    return session


def test_questions_in_turn_encode_a_picture_once(tmp_path: Path) -> None:
    segmenter = Halves()
    asker, session = Asker(segmenter, "halves"), session_of(tmp_path)
    for question in ("left", " nothing ", "right", "left"):
        session = sessions.ask(asker, session, question, reasoning=False, in_words=False)
    assert segmenter.images == [100]
    assert [each.question for each in session.answers] == ["nothing", "right", "left"]  # asked again: the newest
    assert sessions.labels(session) == ["nothing (not there)", "right (1)", "left (1)"]


def test_two_users_in_turn_are_each_answered_about_their_own_picture(tmp_path: Path) -> None:
    asker = Asker(Halves(), "halves")
    users = [session_of(tmp_path, picture_bytes(colour)) for colour in (10, 200)]
    for _ in range(2):
        users = [sessions.ask(asker, user, "left", reasoning=False, in_words=True) for user in users]
        assert [user.answers[-1].answer for user in users] == ["mean 10", "mean 200"]


class Near(Halves):
    """Sees pictures at 32 px."""

    facts = SegmenterFacts(side=32)

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def set_images(self, images: Any) -> None:
        self.sizes += [np.asarray(image).shape[:2] for image in images]
        self._images = [np.asarray(image) for image in images]
        super().set_images(images[-1:])

    def predict(self, questions: Any, *, about: Any = None, return_logits: bool = False, **options: Any) -> Any:
        answers = []
        for text, number in zip(questions, numbers_of_images(about, len(questions), len(self._images)), strict=True):
            self._image = self._images[number]
            answers += super().predict([text], task="referring", answer=bool(options.get("answer")))
        logits = [np.where(each.mask, 4.0, -4.0).astype(np.float32) for each in answers]
        return [replace(each, logits=z) for each, z in zip(answers, logits, strict=True)] if return_logits else answers


def test_a_large_picture_is_looked_at_in_tiles_where_a_tile_can_tell(tmp_path: Path) -> None:
    segmenter = Near()
    asker, session = Asker(segmenter, "near"), session_of(tmp_path)  # 80 x 40 px
    session = sessions.ask(asker, session, "left", reasoning=False, in_words=False)
    assert set(segmenter.sizes) == {(32, 32)} and len(segmenter.sizes) == 6
    assert sessions.way_of(asker, session, 0) == "tiles"
    assert "tile by tile" in sessions.described(session.answers[0], "tiles")
    assert session.answers[0].mask[:, 48:60].any()  # the left of a tile in the right half
    segmenter.sizes.clear()
    for question, in_words in (("the largest left", False), ("right", True), ("the largest left", False)):
        session = sessions.ask(asker, session, question, reasoning=False, in_words=in_words)
    assert segmenter.sizes == [(40, 80)]  # once more as a whole, since a tile was set
    assert [sessions.way_of(asker, session, number) for number in (1, 2)] == ["shrunk", "shrunk"]
    assert "small things may be lost" in sessions.described(session.answers[1], "shrunk")
    facts = json.loads((sessions.write_files(session, 0, asker).geojson or Path()).read_text())
    assert facts["answers"][0]["looked_at"] == "tiles"
    off = Asker(segmenter, "near", tiles=False)
    assert off.ways_of(session.picture, ["left"]) == ["shrunk"]
    assert off.ways_of(Picture(np.zeros((40, 40, 3), np.uint8), "a"), ["left"]) == ["whole"]


def test_a_picture_of_very_many_tiles_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    asker, picture = Asker(Near(), "near"), Picture(np.zeros((40, 80, 3), np.uint8), "a")
    for most, way in ((6, "tiles"), (5, "shrunk")):
        monkeypatch.setattr("segearth.web.asking.MOST_TILES", most)
        assert asker.ways_of(picture, ["left"]) == [way]
    monkeypatch.setattr("segearth.web.asking.MOST_TILES", 12)
    assert asker.ways_of(picture, ["left", "the largest left", "right"]) == ["tiles", "shrunk", "tiles"]
    assert asker.ways_of(picture, ["left", "right", "corners"]) == ["shrunk"] * 3


def test_questions_of_both_kinds_are_answered_in_their_order() -> None:
    segmenter = Near()
    asker, picture = Asker(segmenter, "near"), Picture(np.zeros((40, 80, 3), np.uint8), "a")
    answers = asker.ask(picture, ["the largest left", "left", "right", "left"])
    assert [each.question for each in answers] == ["the largest left", "left", "right", "left"]
    assert segmenter.sizes[0] == (40, 80) and segmenter.sizes[1:] == [(32, 32)] * 6
    assert answers[0].mask[:, :40].all() and not answers[0].mask[:, 40:].any()


def test_pictures_of_equal_bytes_and_other_shape_have_other_digests() -> None:
    flat, high = (Picture(np.zeros(shape, np.uint8), "a") for shape in ((2, 8, 3), (8, 2, 3)))
    assert flat.digest != high.digest
    assert flat.digest == Picture(np.zeros((2, 8, 3), np.uint8), "b").digest


def test_the_oldest_answers_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_KEPT", 2)
    session = asked(tmp_path, "left", "right", "corners")
    assert [each.question for each in session.answers] == ["right", "corners"]


def test_without_a_picture_or_a_question(tmp_path: Path) -> None:
    asker = Asker(Halves(), "halves")
    with pytest.raises(QuestionError, match="no picture yet; pick an example"):
        sessions.ask(asker, None, "left", reasoning=False, in_words=False)
    with pytest.raises(QuestionError, match="a question is empty"):
        sessions.ask(asker, session_of(tmp_path), "   ", reasoning=False, in_words=False)


def test_opacity_tints_the_mask_alone(tmp_path: Path) -> None:
    session = asked(tmp_path, "left")
    bare = sessions.drawn(session, None, 0.5)
    assert np.array_equal(bare, session.picture.pixels)
    pictures = [sessions.drawn(session, 0, opacity).astype(int) for opacity in (0, 0.5, 1)]
    for picture, opacity in zip(pictures, (0, 0.5, 1), strict=True):
        expected = (1 - opacity) * 100 + opacity * np.array(PREDICTION_COLOUR)
        assert np.abs(picture[30, 10] - expected).max() <= 1
        assert (picture[:, 50:] == 100).all()


def test_a_region_that_is_picked_is_outlined(tmp_path: Path) -> None:
    session = asked(tmp_path, "corners")
    plain, first, second = (sessions.drawn(session, 0, 0.5, marked) for marked in (None, 1, 2))
    yellow = [(picture == sessions.MARK_COLOUR).all(-1) for picture in (plain, first, second)]
    assert not yellow[0].any() and yellow[1][:20, :30].any() and not yellow[1][30:].any()
    assert yellow[2][30:, 60:].any() and not yellow[2][:20].any()
    assert np.array_equal(sessions.drawn(session, 0, 0.5, 9), plain)  # no such region


def test_a_large_picture_is_shown_smaller_and_a_thin_region_stays_visible(tmp_path: Path) -> None:
    picture = Picture(np.full((900, 2560, 3), 60, np.uint8), "a.png")
    session = sessions.begin(picture, tmp_path)
    assert session.shown.shape == (450, 1280, 3)
    mask = np.zeros((900, 2560), bool)
    mask[100, 200:800] = True
    answer = Segmentation("the road", mask, 0.5, True, 0.9)
    drawn = sessions.drawn(Session(picture, session.shown, tmp_path, (answer,)), 0, 1.0)
    assert drawn.shape == (450, 1280, 3) and (drawn[:, :, 0] > 200).any()


def test_a_number_stands_inside_a_bent_region() -> None:
    mask = np.ones((40, 40), bool)
    mask[10:, 10:] = False  # an L, whose centroid lies outside
    x, y = sessions._inner_point(Region(mask, 100, 50))
    assert mask[int(y) - 50, int(x) - 100]


def test_what_is_said_of_an_answer(tmp_path: Path) -> None:
    session = asked(tmp_path, "corners", "nothing *here* <b>")
    there, not_there = (sessions.described(answer) for answer in session.answers)
    assert "**There**, in 2 regions: 7.8 % of the picture." in there  # 20 x 10 and 10 x 5 of 80 x 40 pixels
    assert "0.90" in there and "0.75" in there and "“mean 100”" in there
    assert "**Not there**" in not_there and "IoU" not in not_there and "0.10" in not_there
    assert r"nothing \*here\* \<b\>" in not_there  # shown as it was typed


def test_regions_are_listed_with_number_area_score_and_box(tmp_path: Path) -> None:
    session = asked(tmp_path, "corners")
    assert sessions.region_headers(session.picture) == ["number", "pixels", "score", "box in pixels"]
    assert sessions.region_rows(session.picture, session.answers[0]) == [
        [1, 200, 0.75, "0, 0 to 20, 10"], [2, 50, 0.75, "70, 35 to 80, 40"],
    ]  # fmt: skip


def test_a_scene_s_regions_have_square_metres_too(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    session = asked(tmp_path, "corners", content=geotiff_bytes(), name="a.tif")
    assert sessions.region_headers(session.picture)[2] == "m²"
    rows = sessions.region_rows(session.picture, session.answers[0])
    assert [row[2] for row in rows] == pytest.approx([768, 192], rel=2e-3)  # pixels of 2 m; UTM is right to 0.1 %
    assert "EPSG:32614" in sessions.picture_line(session).replace("\\", "")


def test_files_to_take_away(tmp_path: Path) -> None:
    pytest.importorskip("geopandas")
    session = asked(tmp_path, "left", "a/b: corners?", content=picture_bytes(), name="my picture.png")
    files = sessions.write_files(session, 1, HALVES)
    assert files.png.name == "my picture_a_b_corners.png" and files.geotiff is None
    mask = np.asarray(Image.open(files.png))
    assert mask.shape == (48, 64) and set(np.unique(mask)) == {0, 255}
    assert files.geojson is not None
    assert len(json.loads(files.geojson.read_text())["features"]) == 2
    assert stat.S_IMODE(session.folder.stat().st_mode) == 0o700  # so nobody else reads what is in it
    written = files.png.stat().st_mtime_ns
    assert sessions.write_files(session, 1, HALVES) == files and files.png.stat().st_mtime_ns == written
    other = sessions.write_files(session, 0, HALVES)
    assert other.png != files.png and files.png.exists()
    sessions.forget(session)
    assert list(tmp_path.iterdir()) == []
    sessions.forget(None)


def test_long_names_are_cut_between_letters(tmp_path: Path) -> None:
    question, picture = "left " + "где находятся дома " * 20, "снимок" * 40 + ".png"
    session = asked(tmp_path, question, content=picture_bytes(), name=picture)
    name = sessions.write_files(session, 0, HALVES).png.name
    assert name.startswith("снимок") and "_left_где_" in name and len(name.encode()) <= 170


def test_a_scene_also_gives_a_geotiff(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("geopandas")
    session = asked(tmp_path, "left", content=geotiff_bytes(), name="a.tif")
    files = sessions.write_files(session, 0, HALVES)
    with rasterio.open(files.geotiff) as file:
        assert file.crs.to_epsg() == 32614 and file.transform.c == 500_000
    assert files.geojson is not None
    assert "EPSG::32614" in files.geojson.read_text()


def test_without_the_packages_for_maps_there_is_still_a_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = asked(tmp_path, "left")
    monkeypatch.setitem(sys.modules, "shapely", None)
    files = sessions.write_files(session, 0, HALVES)
    assert files.png.exists() and files.geojson is None and files.geotiff is None


def test_an_upload_over_a_limit_or_of_the_wrong_kind(tmp_path: Path) -> None:
    large, text, huge = (tmp_path / name for name in ("large.png", "text.png", "huge.png"))
    large.write_bytes(picture_bytes() + bytes(600_000))
    text.write_text("not a picture")
    huge.write_bytes(picture_bytes(size=(1000, 1000)))
    for path, said in ((large, "0.5 MB"), (text, "no picture of a known kind"), (huge, "0.5 million are taken")):
        with pytest.raises(UploadError, match=said):
            sessions.begin_with_file(path, LIMITS, tmp_path)


def test_a_segmenter_that_refuses_a_picture_is_not_believed_to_hold_it(tmp_path: Path) -> None:
    segmenter = Halves()
    asker, session = Asker(segmenter, "halves"), session_of(tmp_path)

    def refuses(images: object) -> None:
        raise ImageError("too small")

    right, segmenter.set_images = segmenter.set_images, refuses  # type: ignore[method-assign]
    for _ in range(2):  # the second time too
        with pytest.raises(ImageError):
            sessions.ask(asker, session, "left", reasoning=False, in_words=False)
    segmenter.set_images = right  # type: ignore[method-assign]
    assert sessions.ask(asker, session, "left", reasoning=False, in_words=False).answers[0].present


def test_pixels_without_data_are_taken_out_of_an_answer() -> None:
    mask, valid = np.zeros((4, 6), bool), np.ones((4, 6), bool)
    mask[:, :2] = mask[:, 4:] = True
    valid[:, :3] = False
    regions = (Region(np.ones((4, 2), bool), 0, 0, 0.4), Region(np.ones((4, 2), bool), 4, 0, 0.6))
    left = without(Segmentation("q", mask, 0.5, True, 0.9, given_regions=regions), valid)
    assert left.mask.sum() == 8 and left.present and [each.score for each in left.regions] == [0.6]
    nothing = without(Segmentation("q", mask, 0.5, True, 0.9), np.zeros((4, 6), bool))
    assert (nothing.present, nothing.score, nothing.presence, nothing.regions) == (False, 0.0, 0.9, ())


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.png", "a.png"), ("../../etc/passwd", "passwd"), ("C:\\x\\y.tif", "y.tif"), ("a\r\nb\0", "ab"), ("", "upload"),
     ("x" * 300, "x" * 100)],
)  # fmt: skip
def test_names_are_only_shown(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_the_examples_are_packaged_and_credited() -> None:
    for example in EXAMPLES:
        assert cv2.imread(str(example.path)) is not None and example.credit and len(example.questions) == 3
    assert {example.path.parent.name for example in EXAMPLES} >= {"hot_oam_buildings", "gsi_solar", "sen2ships"}


def test_addresses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port} .*; choose another --port"):
            check_free("127.0.0.1", port)
    with pytest.raises(ConfigError, match="choose another"):
        check_free("nowhere.invalid", 8000)
    check_free("127.0.0.1", port)
    assert not caplog.records
    check_free("0.0.0.0", port)
    assert "can be reached from other machines" in caplog.text
    assert address_of("0.0.0.0", 80) == "http://127.0.0.1:80" and address_of("::1", 80) == "http://[::1]:80"


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_command_says_that_its_port_is_taken_before_it_opens_a_model(command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, [command, "--port", port, "--model", "nowhere"])
    assert result.exit_code == 1 and "choose another --port" in " ".join(result.output.split())


@pytest.mark.parametrize(("command", "module"), [("serve", "service.serve"), ("demo", "page.run_page")])
def test_a_command_hands_on_what_was_asked_for(command: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(f"segearth.web.{module}", lambda *arguments: given.extend(arguments))
    monkeypatch.setattr("segearth.zoo.opening.load", lambda *arguments: Halves())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = ["--max-megabytes", "3", "--max-megapixels", "2"]
    result = CliRunner().invoke(app, [command, "--port", str(port), "--model", "segearth_tiny", *limits])
    assert result.exit_code == 0, result.output
    assert f"segearth_tiny at http://127.0.0.1:{port}" in result.output
    assert given[0].name == "segearth_tiny" and given[1:4] == ["127.0.0.1", port, Limits(3, 2)]


def test_the_page_is_started_for_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradio = pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # restored afterwards
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from segearth.web import page

    launched: dict[str, Any] = {}

    def launch(self: Any, **given: Any) -> None:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        launched.update(given, config=str(self.get_config_file()), mode=stat.S_IMODE(folder.stat().st_mode))

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    page.run_page(Asker(Halves(), "halves"), "127.0.0.1", 7999, Limits(3, 2))
    assert gradio.analytics.analytics_enabled() is False
    assert launched["share"] is False and launched["server_name"] == "127.0.0.1" and launched["server_port"] == 7999
    assert launched["max_file_size"] == 3_000_000 and launched["mode"] == 0o700
    assert launched["theme"]._stylesheets == []  # fonts of a theme that come from elsewhere
    assert "at most 3 MB, 2 million pixels" in launched["config"]
    assert list(tmp_path.iterdir()) == []  # nothing is left

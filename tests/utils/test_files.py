from __future__ import annotations

import errno
import io
import os
import random

import numpy as np
import pytest
from PIL import Image

from segearth.errors import CheckpointError, ImageError, OutputError
from segearth.utils.files import (
    atomic_folder,
    atomic_path,
    check_apart,
    check_new_folder,
    check_output_file,
    check_output_folder,
    read_image,
    read_mask,
    write_text,
)


class BodyError(Exception):
    pass


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_atomic_path_renames_what_is_whole(tmp_path, umask):
    (tmp_path / "other.txt").write_text("other")
    with atomic_path(tmp_path / "made" / "a.txt") as temporary:
        assert temporary.parent == tmp_path / "made" and temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not (tmp_path / "made" / "a.txt").exists()
    assert (tmp_path / "made" / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["made", "other.txt"] and names(tmp_path / "made") == ["a.txt"]
    assert (tmp_path / "made" / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("older", ["old", None])
def test_atomic_path_leaves_no_half_file(tmp_path, older):
    if older:
        (tmp_path / "a.txt").write_text(older)
    with pytest.raises(BodyError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise BodyError
    assert names(tmp_path) == (["a.txt"] if older else [])
    assert not older or (tmp_path / "a.txt").read_text() == older


def test_write_text_replaces_and_is_utf8(tmp_path):
    (tmp_path / "a.txt").write_text("a longer text than the new one")
    write_text(tmp_path / "a.txt", "né\n")
    assert (tmp_path / "a.txt").read_bytes() == b"n\xc3\xa9\n"
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "half \ud800")
    assert (tmp_path / "a.txt").read_bytes() == b"n\xc3\xa9\n" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("empty_there", [True, False])
def test_atomic_folder_renames_what_is_whole(tmp_path, umask, empty_there):
    final = tmp_path / "above" / "final"
    if empty_there:
        final.mkdir(parents=True)
    with atomic_folder(final) as temporary:
        (temporary / "a.txt").write_text("new")
        assert not final.exists() or not names(final)
    assert (final / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["above"] and names(tmp_path / "above") == ["final"]
    assert final.stat().st_mode & 0o777 == 0o750


def test_atomic_folder_leaves_no_half_folder(tmp_path):
    with pytest.raises(BodyError), atomic_folder(tmp_path / "final") as temporary:
        (temporary / "a.txt").write_text("half")
        raise BodyError
    assert names(tmp_path) == []


def test_atomic_folder_keeps_what_another_made_meanwhile(tmp_path):
    with pytest.raises(CheckpointError, match="exists already"), atomic_folder(tmp_path / "final"):
        write_text(tmp_path / "final" / "theirs.txt", "theirs")
    assert names(tmp_path) == ["final"] and names(tmp_path / "final") == ["theirs.txt"]


@pytest.mark.parametrize("target_there", [True, False])
def test_links_to_folders_are_followed(tmp_path, target_there):
    if target_there:
        (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    assert check_new_folder(tmp_path / "link") == (tmp_path / "target").resolve()
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "a.txt").write_text("new")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "target") == ["a.txt"]


def a_file(root):
    (root / "file").write_text("kept")
    return root / "file"


def under_a_file(root):
    return a_file(root) / "a" / "out"


def full_folder(root):
    a_file(root)
    return root


def link_to_a_file(root):
    a_file(root)
    (root / "link").symlink_to("file")
    return root / "link"


def circle(root):
    (root / "circle").symlink_to("circle")
    return root / "circle"


def name_too_long(root):
    return root / ("x" * 300)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (a_file, "file exists already; name a new folder"),
        (full_folder, "exists already; name a new folder"),
        (link_to_a_file, "link exists already"),
        (under_a_file, "out cannot be made, since .*file is no folder"),
        (circle, "circle (cannot be made|exists already)"),
        (name_too_long, "cannot be made .*name another folder"),
    ],
)
def test_places_where_no_folder_can_be_are_refused_before_any_work(tmp_path, place, message):
    path = place(tmp_path)
    before = names(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        check_new_folder(path)
    with pytest.raises(CheckpointError, match=message), atomic_folder(path):
        pytest.fail("work began")
    assert names(tmp_path) == before


def test_the_working_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (".", tmp_path):
        with pytest.raises(CheckpointError, match="is the working folder or a mount point; name a new folder in it"):
            check_new_folder(path)
    assert check_new_folder("out") == tmp_path.resolve() / "out" and names(tmp_path) == []


def test_mount_points_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: os.fspath(path) == os.fspath(tmp_path.resolve()))
    with pytest.raises(CheckpointError, match="mount point"):
        check_new_folder(tmp_path)


def test_folders_of_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != os.fspath(tmp_path.resolve()))
    with pytest.raises(CheckpointError, match="not yours to write to"):
        check_new_folder(tmp_path / "a" / "out")
    (tmp_path / "b").mkdir()
    assert check_new_folder(tmp_path / "b" / "out").name == "out"


def a_folder(root):
    return root


def without_rights(root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != os.fspath(root.resolve()))
    return root / "a" / "out"


@pytest.mark.parametrize(
    ("place", "check", "message"),
    [
        (a_folder, check_output_file, "is a folder; name a file in it"),
        (under_a_file, check_output_file, r"out cannot be written, since .*file is no folder; name another place"),
        (under_a_file, check_output_folder, r"out cannot be written, since .*file is no folder; name another place"),
        (a_file, check_output_folder, r"file cannot be written, since .*file is no folder"),
        (link_to_a_file, check_output_folder, r"link cannot be written, since .*file is no folder"),
        (circle, check_output_folder, r"circle cannot be written"),
        (name_too_long, check_output_folder, r"cannot be written .*name another place"),
        (name_too_long, check_output_file, r"cannot be written .*name another place"),
    ],
)
def test_places_where_nothing_can_be_written_are_named_before_any_work(tmp_path, place, check, message):
    path = place(tmp_path)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=message):
        check(path)
    assert names(tmp_path) == before


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
def test_places_of_others_are_named_before_any_work(tmp_path, monkeypatch, check):
    with pytest.raises(OutputError, match="is not yours to write to; name another place"):
        check(without_rights(tmp_path, monkeypatch))


def test_places_where_something_can_be_written_pass(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    for name in ("there", "link", "new", "new/deeper", "."):
        check_output_folder(tmp_path / name)
    for name in ("new.png", "new/deeper.png", "link/new.png"):
        check_output_file(tmp_path / name)
    check_output_file(a_file(tmp_path))
    assert names(tmp_path) == ["file", "link", "there"]


@pytest.mark.parametrize("place", [under_a_file, name_too_long, a_folder])
def test_what_cannot_be_written_is_one_error(tmp_path, place):
    path = place(tmp_path)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=r"cannot be written \(.*\); name another place"):
        write_text(path, "new")
    assert names(tmp_path) == before


def test_a_full_disk_is_one_error(tmp_path):
    for make, names_left in ((lambda: atomic_path(tmp_path / "a"), []), (lambda: atomic_folder(tmp_path / "b"), [])):
        message = r"[ab] cannot be written \(No space left on device\); free some space or name another place"
        with pytest.raises(OutputError, match=message), make():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert names(tmp_path) == names_left


def test_long_names_in_any_writing_are_written(tmp_path):
    for name in ("x" * 250, "地" * 80 + ".png"):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


def test_files_that_would_replace_each_other_are_refused(tmp_path):
    (tmp_path / "link.png").symlink_to("a.png")
    check_apart(tmp_path / "a.png", tmp_path / "b.png")
    for other in ("a.png", "link.png", "x/../a.png"):
        with pytest.raises(OutputError, match="is named twice"):
            check_apart(tmp_path / "a.png", tmp_path / "b.png", tmp_path / other)


PICTURE = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)


@pytest.mark.parametrize(("mode", "pixel"), [("RGB", [255, 0, 0]), ("L", [76, 76, 76]), ("RGBA", [255, 0, 0])])
def test_images_become_rgb(tmp_path, mode, pixel):
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 3) and image.dtype == np.uint8 and image[0, 0].tolist() == pixel


def test_orientation_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn clockwise to see it
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PICTURE.transpose(1, 0, 2))


def test_unusable_images_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"no image file .*a\.png"):
        read_image(tmp_path / "a.png")
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: mode I;16 is not 8-bit"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_images_beyond_pillows_limit_are_named(tmp_path, monkeypatch, read):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
    with pytest.raises(ImageError, match=r"a\.png: more than the 24 pixels that Pillow opens; `segearth scene` reads"):
        read(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "bmp"])
def test_damaged_images_are_clear_errors_or_pixels(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(buffer, kind)
    whole, chance = buffer.getvalue(), random.Random(0)
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(3):
            content[chance.randrange(min(len(content), 200))] = chance.randrange(256)
        (tmp_path / "a").write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        for read in (read_image, read_mask):
            try:
                assert read(tmp_path / "a").size < 1 << 28
            except ImageError as error:
                assert str(tmp_path / "a") in str(error)

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from segearth.errors import ImageError
from segearth.utils.files import read_image, read_mask, rgb_of
from segearth.utils.image_headers import has_place

GEOTIFFS = Path(__file__).resolve().parents[3] / "shared" / "data" / "geotiff"
RGB, MINISBLACK = 2, 1
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def write_tiff(path, array, photometric=RGB, order="<", kind=UNSIGNED, big=False):
    """An uncompressed TIFF of one strip, written byte by byte: Pillow itself cannot write most of these."""
    height, width, bands = array.shape
    pixels = array.astype(array.dtype.newbyteorder(order)).tobytes()
    bits = array.dtype.itemsize * 8
    count, offset, start = ("Q", "Q", 16) if big else ("H", "I", 8)
    tags = [(256, [width]), (257, [height]), (258, [bits] * bands), (259, [1]), (262, [photometric])]
    tags += [(273, [start]), (277, [bands]), (278, [height]), (279, [len(pixels)]), (339, [kind] * bands)]
    if photometric == RGB and bands > 3:
        tags.insert(-1, (338, [0] * (bands - 3)))
    tail, entries = b"", b""
    after = start + len(pixels) + struct.calcsize(order + count) + len(tags) * (20 if big else 12) + (8 if big else 4)
    for tag, values in tags:
        data = struct.pack(f"{order}{len(values)}I", *values)
        room = 8 if big else 4
        if len(data) > room:
            tail, data = tail + data, struct.pack(order + offset, after + len(tail))
        entries += struct.pack(f"{order}HH{'Q' if big else 'I'}", tag, 4, len(values)) + data.ljust(room, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, start + len(pixels)) if big else b""
    head = head or struct.pack(f"{order}HI", 42, start + len(pixels))
    end = struct.pack(order + offset, 0)
    path.write_bytes(mark + head + pixels + struct.pack(order + count, len(tags)) + entries + end + tail)
    return path


def write_png16(path, colour, bands):
    rows = b"".join(b"\0" + np.full((9, bands), 700, ">u2").tobytes() for _ in range(8))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 8, 16, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def ramp(bands, dtype=np.uint8):
    return np.arange(8 * 9 * bands).reshape(8, 9, bands).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_tiffs_of_8_bits_are_read_exactly(tmp_path, order, bands):
    path = write_tiff(tmp_path / "a.tif", ramp(bands), RGB if bands > 1 else MINISBLACK, order)
    assert (read_image(path) == ramp(bands)[..., :3]).all()


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize(
    ("bands", "dtype", "photometric", "kind", "message"),
    [
        (1, np.uint16, MINISBLACK, UNSIGNED, "mode I;16B? is not 8-bit; stretch it to 8 bits first"),
        (3, np.uint16, RGB, UNSIGNED, "unsigned numbers of 16 bits, not unsigned ones of 8; stretch it"),
        (4, np.uint16, RGB, UNSIGNED, "unsigned numbers of 16 bits, not unsigned ones of 8; stretch it"),
        (1, np.int8, MINISBLACK, SIGNED, "signed numbers of 8 bits, not unsigned ones of 8"),
        (1, np.float32, MINISBLACK, FLOAT, "mode F is not 8-bit"),
        (3, np.float32, RGB, FLOAT, r"3 bands of 32 bits \(float\), stored as RGB; stretch it .* -scale MIN MAX 0 255"),
        (3, np.uint16, MINISBLACK, UNSIGNED, r"3 bands of 16 bits \(unsigned\), stored as MINISBLACK; stretch it"),
        (12, np.uint16, MINISBLACK, UNSIGNED, r"12 bands of 16 bits \(unsigned\).*-scale MIN MAX 0 255 -b 1 -b 2 -b 3"),
        (12, np.uint8, MINISBLACK, UNSIGNED, "12 bands of 8 bits .*choose three bands first, such as with: gdal_tr"),
        (4, np.uint8, MINISBLACK, UNSIGNED, "4 bands of 8 bits .*stored as MINISBLACK; choose three bands .*-b 1 -b 2"),
        (2, np.uint8, RGB, UNSIGNED, "2 bands of 8 bits"),
    ],
)
def test_other_tiffs_are_named_for_what_they_are(tmp_path, order, big, bands, dtype, photometric, kind, message):
    path = write_tiff(tmp_path / "a.tif", ramp(bands, dtype), photometric, order, kind, big)
    with pytest.raises(ImageError, match=r"a\.tif: .*" + message) as caught:
        read_image(path)
    assert "damaged" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_big_endian_bigtiff_is_named(tmp_path):
    path = write_tiff(tmp_path / "a.tif", ramp(3), order=">", big=True)
    with pytest.raises(ImageError, match=r"a\.tif: a BigTIFF of big-endian numbers; rewrite it"):
        read_image(path)


@pytest.mark.parametrize(("colour", "bands"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits(tmp_path, colour, bands):
    path = write_png16(tmp_path / "a.png", colour, bands)
    with pytest.raises(ImageError, match=r"a\.png: .*(16 bits, not 8|mode I;16 is not 8-bit); stretch it to 8 bits"):
        read_image(path)
    with Image.open(path) as image:
        with pytest.raises(ImageError, match="not 8"):
            rgb_of(image, "PIL image")
        image.load()  # from here on the image itself has forgotten its depth
        with pytest.raises(ImageError, match="not 8"):
            rgb_of(image, "PIL image")


def test_names_that_no_image_file_has(tmp_path):
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=r"is a folder; name the (image|mask) file itself"):
            read(tmp_path)
        for name in ("x" * 300, "a\0b", "", "no\ud800name"):
            with pytest.raises(ImageError, match=r"no (image|mask) file|is a folder"):
                read(tmp_path / name)


def test_portable_pixmap_of_16_bits(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6\n2 2\n65535\n" + np.full(12, 700, ">u2").tobytes())
    with pytest.raises(ImageError, match="16 bits, not 8"):
        read_image(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").write_bytes(b"P6\n2 2\n255\n" + bytes(range(12)))
    assert read_image(tmp_path / "a.ppm")[1, 1].tolist() == [9, 10, 11]


def test_jpeg_2000_says_its_depth_in_the_codestream(tmp_path):
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(tmp_path / "a.jp2")
    assert (read_image(tmp_path / "a.jp2") == 9).all()
    content = bytearray((tmp_path / "a.jp2").read_bytes())
    content[content.index(b"\xff\x4f\xff\x51") + 42] = 11  # twelve bits
    (tmp_path / "a.jp2").write_bytes(content)
    with pytest.raises(ImageError, match="12 bits, not 8"):
        read_image(tmp_path / "a.jp2")


def test_avif_says_its_depth_in_a_flag(tmp_path):
    Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(tmp_path / "a.avif")
    assert read_image(tmp_path / "a.avif").shape == (40, 40, 3)
    content = bytearray((tmp_path / "a.avif").read_bytes())
    content[content.index(b"av1C") + 6] |= 0x40
    (tmp_path / "a.avif").write_bytes(content)
    with pytest.raises(ImageError, match=r"10 bits, not 8|damaged"):  # decoders may refuse the flag themselves
        read_image(tmp_path / "a.avif")


def test_coloured_masks_of_16_bits_would_lose_their_ones(tmp_path):
    write_png16(tmp_path / "m.png", 2, 3)
    with pytest.raises(ImageError, match="16 bits, not 8; save the mask as a grey PNG of 0 and 255"):
        read_mask(tmp_path / "m.png")
    write_png16(tmp_path / "m.png", 0, 1)
    assert read_mask(tmp_path / "m.png").all()


@pytest.mark.skipif(not GEOTIFFS.is_dir(), reason="needs the real rasters beside the repository")
def test_real_rasters():
    with pytest.raises(ImageError, match="numbers of 16 bits"):
        read_image(GEOTIFFS / "honolulu_s2_rgb_uint16.tif")
    with Image.open(GEOTIFFS / "honolulu_s2_rgb_uint16.tif") as image, pytest.raises(ImageError, match="16 bits"):
        image.load()
        rgb_of(image, "PIL image")
    assert read_image(GEOTIFFS / "banepa_oam_a.tif").shape == (512, 512, 3)
    assert read_image(GEOTIFFS / "naip_4band_utm14.tif").shape == (723, 934, 3)  # red, green, blue and a fourth


def test_a_tiff_with_a_place_on_the_map_is_told_from_a_plain_one(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550] = (0.5, 0.5, 0.0)  # the scale of its pixels
    tags.tagtype[33550] = 12
    Image.new("RGB", (4, 4)).save(tmp_path / "map.tif", tiffinfo=tags)
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.tif")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "map.tif").read_bytes()[:20])
    assert has_place(tmp_path / "map.tif")
    assert not has_place(tmp_path / "plain.tif") and not has_place(tmp_path / "cut.tif")

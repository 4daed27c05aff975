"""What one user of the web page has before them: a picture, what they asked of it, and what they look at.

Plain functions on plain values. The page calls them; nothing of them knows how a page is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from segearth.errors import MissingExtraError, QuestionError
from segearth.inference.tiled import Way
from segearth.inference.visualize import overlay
from segearth.structures import Region, Segmentation
from segearth.utils.files import atomic_folder
from segearth.web.asking import Asker, checked_questions
from segearth.web.reading import read_upload
from segearth.web.results import collection_of, dumped, mask_geotiff, mask_png
from segearth.web.uploads import Limits, Picture, shown_name

SHOWN_SIDE = 1280  # pixels of the longer side on the page; the answer keeps the picture's own
NUMBERED = 40  # regions that carry their number in the picture; more would hide it
SMALLEST_NUMBERED = 250  # pixels on the page; a number would hide a smaller region
LISTED = 200  # rows of the list
NAME_BYTES = 80  # of the picture's name, and of the question, in the names of files
MOST_KEPT = 20  # answers of one user; the oldest goes first
WAYS: dict[Way, str] = {
    "tiles": "This large picture was looked at tile by tile.",
    "shrunk": (
        "This large picture was shrunk to the side at which the model sees, so small things may be lost; "
        "`segearth scene` looks at it tile by tile."
    ),
}
MARK_COLOUR = (255, 220, 0)  # around the region that was picked in the list


@dataclass(frozen=True)
class Session:
    """One user's picture and questions. A new one is made at each step; none is ever changed.

    Attributes:
        picture: What is asked about.
        shown: The same, ``uint8`` RGB, with its longer side at most :data:`SHOWN_SIDE`.
        folder: Where the files to take away are written; of this session alone, readable by nobody else.
        answers: In the order in which they were asked.
        credit: Whose picture it is, where that must be said.
    """

    picture: Picture
    shown: np.ndarray
    folder: Path
    answers: tuple[Segmentation, ...] = ()
    credit: str = ""


@dataclass(frozen=True, slots=True)
class Files:
    """Files to take away: masks have the picture's own size."""

    png: Path
    geojson: Path | None  # not without the packages for maps
    geotiff: Path | None  # only where the picture has a place on the map


def begin(picture: Picture, folder: str | Path, credit: str = "") -> Session:
    """Starts with a picture; nothing is asked yet.

    Args:
        picture: What is to be asked about.
        folder: In which the session gets a folder of its own.
        credit: See :class:`Session`.
    """
    height, width = picture.pixels.shape[:2]
    scale = min(1.0, SHOWN_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shown = picture.pixels if scale == 1 else cv2.resize(picture.pixels, size, interpolation=cv2.INTER_AREA)
    return Session(picture, shown, Path(tempfile.mkdtemp(dir=folder)), credit=credit)


def begin_with_file(path: str | Path, limits: Limits, folder: str | Path, credit: str = "") -> Session:
    """Starts with an uploaded file.

    Args:
        path: The file.
        limits: What is taken.
        folder: As for :func:`begin`.
        credit: See :class:`Session`.

    Raises:
        UploadError: It is too large, no picture, or cannot be decoded.
    """
    path = Path(path)
    limits.check_bytes(path.stat().st_size)  # before it is read
    return begin(read_upload(path.read_bytes(), path.name, limits), folder, credit)


def forget(session: Session | None) -> None:
    """Deletes what was written for a session."""
    if session is not None:
        shutil.rmtree(session.folder, ignore_errors=True)


def ask(asker: Asker, session: Session | None, question: str, reasoning: bool, in_words: bool) -> Session:
    """Asks one more question about the session's picture.

    Args:
        asker: Who answers.
        session: ``None`` where no picture is chosen yet.
        question: What to look for. Asked again, it takes the place of the earlier one.
        reasoning: Whether it names a need and not a thing.
        in_words: Whether to answer in words too.

    Returns:
        The session with the answer as its last.

    Raises:
        QuestionError: There is no picture, or the question is empty or too long.
        ImageError: The segmenter cannot take the picture.
    """
    if session is None:
        raise QuestionError("there is no picture yet; pick an example or upload one")
    (text,) = checked_questions([question])
    (answer,) = asker.ask(
        session.picture, [text], task="reasoning" if reasoning else "referring", answer=in_words
    )
    others = tuple(each for each in session.answers if each.question != text)
    return replace(session, answers=(*others, answer)[-MOST_KEPT:])


def drawn(session: Session, number: int | None, opacity: float, marked: int | None = None) -> np.ndarray:
    """Draws an answer on the picture, its regions numbered as in the list.

    Args:
        session: Whose.
        number: Which of its answers, from 0; ``None``: the bare picture.
        opacity: Of the tint, in [0, 1].
        marked: A region's number in the list, from 1, to be drawn with a yellow outline.

    Returns:
        ``uint8`` RGB of the size of ``session.shown``.
    """
    if number is None:
        return session.shown
    answer, shown = session.answers[number], session.shown
    picture = overlay(shown, _shrunk(answer.mask, shown), alpha=opacity)
    if marked is not None and 1 <= marked <= len(answer.regions):
        chosen = _shrunk(answer.regions[marked - 1].in_image(*answer.mask.shape), shown)
        outlines, _ = cv2.findContours(chosen.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, MARK_COLOUR, max(2, max(shown.shape) // 200))
    scale = shown.shape[1] / answer.mask.shape[1]
    for place, region in enumerate(answer.regions[:NUMBERED], start=1):
        if region.area * scale**2 >= SMALLEST_NUMBERED:
            _write_number(picture, str(place), _inner_point(region), scale)
    return picture


def way_of(asker: Asker, session: Session, number: int) -> Way:
    """Returns how the picture was looked at for one of its answers."""
    answer = session.answers[number]
    return asker.ways_of(session.picture, [answer.question], answer.answer is not None)[0]


def described(answer: Segmentation, way: Way = "whole") -> str:
    """Says in Markdown what an answer is: there or not, how sure, how much, and in words where it has them.

    Args:
        answer: To one question.
        way: How the picture was looked at, see :meth:`segearth.web.asking.Asker.ways_of`.
    """
    if answer.present:
        count, share = len(answer.regions), 100 * float(answer.mask.mean())
        what = f"**There**, in {count} region{'s' * (count != 1)}: {share:.1f} % of the picture."
    else:
        what = "**Not there**, as far as the model can tell."
    sure = f"Probability that it is there: {answer.presence:.2f}."
    if answer.present:
        sure += f" Expected overlap of the mask with the truth (IoU): {answer.score:.2f}."
    lines = [what, sure]
    if answer.answer:
        lines.append(f"In the model's words, which are made apart from the mask: “{_plain(answer.answer)}”")
    if answer.unknown_words:
        lines.append(f"Words that the model does not know: {_plain(', '.join(answer.unknown_words))}.")
    if way != "whole":
        lines.append(WAYS[way])
    return "\n\n".join([f"#### {_plain(answer.question)}", *lines])


def labels(session: Session) -> list[str]:
    """Returns a short line for each answer, the picture's questions as a list to choose from."""
    return [
        f"{each.question} ({len(each.regions)})" if each.present else f"{each.question} (not there)"
        for each in session.answers
    ]


def region_headers(picture: Picture) -> list[str]:
    """Returns what the columns of :func:`region_rows` are called."""
    return ["number", "pixels", *(["m²"] if _pixel_area(picture) else []), "score", "box in pixels"]


def region_rows(picture: Picture, answer: Segmentation) -> list[list[int | float | str]]:
    """Returns the regions as rows; of many the first :data:`LISTED`.

    Returns:
        For each its number from 1, its pixels, its area on the ground where the picture has a place on the map, its
        score and its box ``x0, y0 to x1, y1``, the ends exclusive.
    """
    rows: list[list[int | float | str]] = []
    pixel_area = _pixel_area(picture)
    for number, region in enumerate(answer.regions[:LISTED], start=1):
        x0, y0, x1, y1 = region.box
        ground = [float(f"{region.area * pixel_area:.4g}")] if pixel_area else []
        rows.append([number, region.area, *ground, round(answer.score_of(region), 2), f"{x0}, {y0} to {x1}, {y1}"])
    return rows


def _pixel_area(picture: Picture) -> float | None:
    """Returns the square metres of a pixel at the picture's centre; ``None`` where it has no place on the map."""
    if picture.place is None:
        return None
    from segearth.geo.grids import metres_per_pixel

    sides = metres_per_pixel(picture.place.crs, picture.place.transform, *picture.pixels.shape[:2])
    return None if sides is None else sides[0] * sides[1]


def write_files(session: Session, number: int, asker: Asker) -> Files:
    """Writes an answer's mask and polygons into the session's folder.

    Args:
        session: Whose.
        number: Which of its answers, from 0.
        asker: Who answered; the polygons and the GeoTIFF say it.

    Returns:
        Where the files are. Their names hold the picture's and the question's. An answer that was looked at before has
        its files already.
    """
    answer = session.answers[number]
    words = re.sub(r"\W+", "_", answer.question).strip("_")
    name = f"{_shortened(Path(session.picture.name).stem)}_{_shortened(words)}"
    # Two questions may look alike as file names, and one asked again may get another answer.
    told = f"{answer.question}\n{answer.answer}\n{answer.presence}".encode() + np.packbits(answer.mask).tobytes()
    folder = session.folder / hashlib.sha256(told).hexdigest()[:16]
    png, geojson, geotiff = (folder / f"{name}.{ending}" for ending in ("png", "geojson", "tif"))
    if not folder.exists():
        with atomic_folder(folder) as made:
            (made / png.name).write_bytes(mask_png(answer.mask))
            ways = [way_of(asker, session, number)]
            with contextlib.suppress(MissingExtraError):
                (made / geojson.name).write_bytes(dumped(collection_of(session.picture, [answer], asker.name, ways)))
                if session.picture.place is not None:
                    (made / geotiff.name).write_bytes(mask_geotiff(session.picture, [answer], asker.name))
    return Files(png, *(path if path.exists() else None for path in (geojson, geotiff)))


def _shortened(text: str) -> str:
    """Cuts a part of a file's name, since names may have 255 bytes, and a letter has up to four of them."""
    return text.encode()[:NAME_BYTES].decode(errors="ignore")


def picture_line(session: Session) -> str:
    """Says in Markdown which picture it is, how large, where on the map, and whose."""
    height, width = session.picture.pixels.shape[:2]
    facts = [_plain(shown_name(session.picture.name)), f"{width} × {height} pixels"]
    if session.picture.place is not None:
        facts.append(_plain(str(session.picture.place)))
    if session.credit:
        facts.append(_plain(session.credit))
    return " · ".join(facts)


def _shrunk(mask: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Brings a boolean mask to the size of the picture that is shown; no region vanishes in between two pixels."""
    if mask.shape == shown.shape[:2]:
        return mask
    height, width = shown.shape[:2]
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.3


def _inner_point(region: Region) -> tuple[float, float]:
    """Returns the pixel of a region that is farthest from its border, ``(x, y)`` in pixels of the image.

    The centroid of a ring or of a bent road lies outside of it.
    """
    padded = np.pad(region.mask.astype(np.uint8), 1)
    y, x = np.unravel_index(int(cv2.distanceTransform(padded, cv2.DIST_L2, 3).argmax()), padded.shape)
    return region.x0 + float(x) - 0.5, region.y0 + float(y) - 0.5


def _write_number(picture: np.ndarray, text: str, point: tuple[float, float], scale: float) -> None:
    size = max(0.45, max(picture.shape) / 1400)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x, y = round(point[0] * scale - width / 2), round(point[1] * scale + height / 2)
    x, y = min(max(x, 1), picture.shape[1] - width - 1), min(max(y, height + 1), picture.shape[0] - 1)
    for colour, line in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # white on a dark rim is seen on any ground
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, line, cv2.LINE_AA)


def _plain(text: str) -> str:
    """Returns a text of a user or a model so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$&])", r"\\\1", " ".join(text.split()))

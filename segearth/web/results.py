"""Answers in the forms that people take away: pictures of masks, lists of regions."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from segearth.geo.packages import geo_package
from segearth.structures import Segmentation
from segearth.web.uploads import Picture


def mask_png(mask: np.ndarray) -> bytes:
    """Returns a mask as a grey PNG of 0 and 255.

    Args:
        mask: Boolean ``(H, W)``.
    """
    import cv2

    done, data = cv2.imencode(".png", mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise RuntimeError("OpenCV wrote no PNG")
    return bytes(data)


def facts_of_answers(answers: Sequence[Segmentation], ways: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Returns for each answer what is known of it as a whole, absent things included, as plain numbers and texts.

    Args:
        answers: About a picture.
        ways: How the picture was looked at for each, see :meth:`segearth.web.asking.Asker.ways_of`; left out: as a
            whole.
    """
    return [
        {
            "question": answer.question,
            "looked_at": way,
            "present": bool(answer.present),
            "presence": round(float(answer.presence), 4),
            "score": round(float(answer.score), 4),
            "answer": answer.answer,
            "unknown_words": list(answer.unknown_words),
            "regions": len(answer.regions),
            "area_px": int(np.count_nonzero(answer.mask)),
        }
        for answer, way in zip(answers, ways or ["whole"] * len(answers), strict=True)
    ]


def boxes_json(
    picture: Picture, answers: Sequence[Segmentation], ways: Sequence[str] | None = None
) -> dict[str, Any]:
    """Returns the regions' boxes and scores in pixels of the picture.

    ``image_width``, ``image_height``, ``num_detections`` and ``detections`` with ``id``, ``bbox``, ``width``,
    ``height`` and ``score`` are named as in segment-geospatial's REST (https://samgeo.gishub.org/api), but here the
    ends of a box are exclusive.

    Args:
        picture: What was asked about.
        answers: About it.
        ways: As for :func:`facts_of_answers`.
    """
    height, width = picture.pixels.shape[:2]
    detections: list[dict[str, Any]] = []
    for answer in answers:
        for region in answer.regions:
            x0, y0, x1, y1 = region.box
            detections.append(
                {
                    "id": len(detections) + 1, "question": answer.question, "bbox": [x0, y0, x1, y1],
                    "width": x1 - x0, "height": y1 - y0, "area_px": region.area,
                    "score": round(answer.score_of(region), 4),
                }
            )  # fmt: skip
    return {
        "image_width": width,
        "image_height": height,
        "num_detections": len(detections),
        "detections": detections,
        "answers": facts_of_answers(answers, ways),
    }


def mask_geotiff(picture: Picture, answers: Sequence[Segmentation], model: str) -> bytes:
    """Returns masks as a GeoTIFF on exactly the picture's grid: a band of 0 and 255 for each answer.

    Each band is called as its question and has presence, score and model as tags. A picture without a place on the map
    gives a plain TIFF.

    Args:
        picture: What was asked about.
        answers: About it; at least one.
        model: Who answered.

    Raises:
        MissingExtraError: rasterio is not installed.
    """
    rasterio = geo_package("rasterio")
    height, width = picture.pixels.shape[:2]
    profile: dict[str, Any] = {"compress": "deflate"}
    if min(height, width) >= 256:
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    if picture.place is not None:
        profile |= {"crs": picture.place.crs, "transform": picture.place.transform}
    with geo_package("rasterio.io").MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # of a plain picture that is so
        with memory.open(
            driver="GTiff", height=height, width=width, count=len(answers), dtype="uint8", **profile
        ) as file:
            for band, (answer, facts) in enumerate(zip(answers, facts_of_answers(answers), strict=True), start=1):
                file.write(answer.mask.astype(np.uint8) * 255, band)
                file.set_band_description(band, answer.question)
                file.update_tags(band, model=model, presence=facts["presence"], score=facts["score"])
        return bytes(memory.getbuffer())


def collection_of(
    picture: Picture, answers: Sequence[Segmentation], model: str, ways: Sequence[str] | None = None
) -> dict[str, Any]:
    """Returns the regions' outlines as a GeoJSON FeatureCollection, in the picture's own coordinates.

    Its properties are the columns of :func:`segearth.geo.vectors.vectorise`; ``region`` counts from 1 for each answer,
    in the order of :attr:`Segmentation.regions`. ``crs`` names the coordinate reference system, as the format's first
    edition has it, since RFC 7946 knows longitude and latitude alone. A plain picture has none: its coordinates are
    pixels, y down. Beside the features, ``answers`` tells of every question, also of those that found nothing.

    Args:
        picture: What was asked about.
        answers: About it.
        model: Who answered.
        ways: As for :func:`facts_of_answers`.

    Raises:
        MissingExtraError: A package for maps is not installed.
    """
    from segearth.inference.formats import to_geodataframe

    place = picture.place
    transform, crs = (None, None) if place is None else (place.transform, place.crs)
    table = to_geodataframe(answers, transform, crs, source=picture.name, model=model)
    collection = json.loads(table.to_json(drop_id=True, na="null"))
    return {**collection, "answers": facts_of_answers(answers, ways)}


def dumped(value: dict[str, Any]) -> bytes:
    """Returns a value as JSON in UTF-8; a number that JSON has no word for, such as infinity, is an error."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


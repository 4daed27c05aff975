"""Answers in the words of other libraries: tables of polygons, detections, COCO, pipeline outputs, torchgeo samples.

All take one :class:`~segearth.structures.Segmentation`, or the answers to several questions about one image. They are
functions and no methods of ``Segmentation``, which knows no library for maps, models or pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from segearth.errors import DatasetError, ImageError, MissingPackageError
from segearth.structures import Region, Segmentation
from segearth.utils.coco_masks import encode_mask

if TYPE_CHECKING:
    import geopandas

Answers = Segmentation | Sequence[Segmentation]


def to_geodataframe(
    answers: Answers, transform: Any = None, crs: Any = None, *, source: str = "", model: str = "", **options: Any
) -> geopandas.GeoDataFrame:
    """Makes a table of polygons, one row for each region, as geopandas, QGIS and PostGIS read them.

    Args:
        answers: To one question or to several, whose tables go below each other.
        transform: Affine from pixels to the CRS; ``None``: polygons are in pixels, y down.
        crs: Anything that pyproj takes, or ``None``.
        source: Name of the image.
        model: Name of the weights.
        **options: ``min_area``, ``simplify``, ``right_angles``, ``points`` of
            :func:`segearth.geo.vectors.vectorise`.

    Returns:
        The table of :func:`segearth.geo.vectors.vectorise`. Row ``region`` ``k`` of a question is
        ``answer.regions[k - 1]``, with its score.

    Raises:
        MissingExtraError: A package for maps is missing.
    """
    from segearth.geo.vector_files import joined_tables
    from segearth.geo.vectors import table_of

    tables = []
    for answer in _several(answers):
        facts = {"question": answer.question, "answer": answer.answer, "source": source, "model": model}
        traced = _traced(answer)
        table = table_of(traced, answer.mask.shape, transform=transform, crs=crs, facts=facts, **options)
        tables.append(table.drop(columns="value"))
    return joined_tables(tables)


def to_supervision(answers: Answers) -> Any:
    """Makes ``supervision.Detections`` (https://supervision.roboflow.com), one for each region.

    Returns:
        ``xyxy`` float32 ``(n, 4)`` in pixels, the ends exclusive; ``mask`` boolean ``(n, H, W)``, which of many regions
        of a large image takes much memory; ``confidence`` the regions' scores; ``class_id`` the number of the question
        from 0, whose text is in ``data["class_name"]``.

    Raises:
        MissingPackageError: supervision is missing. No extra installs it: versions below 0.31 bring an OpenCV of their
            own, whose files would replace those of the one that this package needs.
    """
    try:
        import supervision
    except ImportError as error:
        page = "https://supervision.roboflow.com"
        raise MissingPackageError("supervision", "pip install 'supervision>=0.31'", page) from error

    found = _numbered_regions(answers)
    if not found:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([region.box for _, _, region in found], np.float32),
        mask=np.stack([region.in_image(*answer.mask.shape) for _, answer, region in found]),
        confidence=np.array([answer.score_of(region) for _, answer, region in found], np.float32),
        class_id=np.array([number for number, _, _ in found], np.int64),
        data={"class_name": np.array([answer.question for _, answer, _ in found])},
    )


def to_coco(answers: Answers, file_name: str = "", image_id: int = 1) -> dict[str, Any]:
    """Makes a COCO data set of one image, which ``json`` writes and pycocotools, FiftyOne, CVAT and Detectron2 read.

    Args:
        answers: To one question or to several; each question is a category, numbered from 1.
        file_name: Of the image.
        image_id: Its number.

    Returns:
        ``images``, ``categories`` and ``annotations``, one annotation for each region: ``segmentation`` in compressed
        run lengths, ``bbox`` ``[x, y, width, height]`` and ``area`` in pixels, ``score`` in [0, 1]. The annotations
        alone are a list of results as ``COCO.loadRes`` takes them.

    Raises:
        ImageError: The answers are about images of different sizes.
    """
    several = _several(answers)
    height, width = _common_size(several)
    annotations: list[dict[str, Any]] = []
    for number, answer, region in _numbered_regions(several):
        x0, y0, x1, y1 = region.box
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": number + 1,
                "segmentation": encode_mask(region.in_image(height, width)),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": region.area,
                "iscrowd": 0,
                "score": answer.score_of(region),
            }
        )
    return {
        "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
        "categories": [{"id": number, "name": answer.question} for number, answer in enumerate(several, start=1)],
        "annotations": annotations,
    }


def to_pipeline(answers: Answers) -> list[dict[str, Any]]:
    """Makes what the ``image-segmentation`` pipeline of Hugging Face's transformers gives.

    Returns:
        For each question of which something was found ``label`` (the question), ``score`` in [0, 1] and ``mask``, a
        Pillow image of mode ``L`` and of the image's size, 255 inside and 0 outside. A question of which nothing was
        found has no entry, as in the pipeline.
    """
    from PIL import Image

    return [
        {
            "label": answer.question,
            "score": float(answer.score),
            "mask": Image.fromarray(answer.mask.astype(np.uint8) * 255),
        }
        for answer in _several(answers)
        if answer.mask.any()
    ]


def to_torchgeo(answers: Answers, image: np.ndarray, transform: Any, crs: Any) -> dict[str, Any]:
    """Makes a sample as the data sets of torchgeo give it and its transforms and plots take it.

    Args:
        answers: To one question or to several.
        image: ``(H, W, C)`` as it was read, of any type.
        transform: Affine from pixels to the CRS, without rotation: torchgeo knows upright bounds alone.
        crs: Anything that pyproj takes.

    Returns:
        ``image`` float32 ``(C, H, W)`` in the image's own values; ``mask`` int64 ``(H, W)``, the number of the question
        from 1, 0 where none applies (where several do, the last one's); ``crs``, a ``pyproj.CRS``; ``bounds``,
        ``(x, y)`` slices from least to most in the CRS, with the pixel's size as the step.

    Raises:
        ImageError: Image and masks have different sizes, or the transform is rotated.
        MissingExtraError: pyproj is missing.
    """
    import torch

    from segearth.geo.packages import geo_package

    several = _several(answers)
    height, width = _common_size(several)
    if image.ndim != 3 or image.shape[:2] != (height, width):
        raise ImageError(f"the image has the shape {image.shape}, the mask {height, width}; give (H, W, C) of its size")
    step_x, across, x, along, step_y, y = transform[:6]
    if across or along:
        raise ImageError("the transform is rotated, which torchgeo's bounds cannot tell; warp image and mask first")
    classes = np.zeros((height, width), np.int64)
    for number, answer in enumerate(several, start=1):
        classes[answer.mask] = number
    (left, right), (bottom, top) = sorted((x, x + width * step_x)), sorted((y, y + height * step_y))
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)),
        "mask": torch.from_numpy(classes),
        "crs": geo_package("pyproj").CRS.from_user_input(crs),
        "bounds": (slice(left, right, abs(step_x)), slice(bottom, top, abs(step_y))),
    }


def _several(answers: Answers) -> list[Segmentation]:
    several = [answers] if isinstance(answers, Segmentation) else list(answers)
    if not several:
        raise DatasetError("there is no answer to convert; give at least one, with an empty mask if nothing was found")
    return several


def _common_size(answers: Sequence[Segmentation]) -> tuple[int, int]:
    sizes = sorted({answer.mask.shape for answer in answers})
    if len(sizes) > 1:
        raise ImageError(f"the answers have masks of the sizes {sizes}; convert those of each image by themselves")
    height, width = sizes[0]
    return height, width


def _numbered_regions(answers: Answers) -> list[tuple[int, Segmentation, Region]]:
    return [(k, answer, region) for k, answer in enumerate(_several(answers)) for region in answer.regions]


def _traced(answer: Segmentation) -> Any:
    """Traces an answer's regions one by one where it tells them apart itself (they may overlap), else its mask."""
    from segearth.geo.packages import geo_package
    from segearth.geo.tracing import Traced, trace

    if answer.given_regions is None:
        traced = trace([(answer.mask.astype(bool), None)], answer.mask.shape[1])
        return Traced(traced.polygons, traced.pixels, traced.values, np.full(len(traced.pixels), float(answer.score)))
    shapely = geo_package("shapely")
    polygons = []
    for region in answer.given_regions:
        own = trace([(np.ascontiguousarray(region.mask, bool), None)], region.mask.shape[1]).polygons
        parts = shapely.transform(shapely.get_parts(own), partial(np.add, np.array([region.x0, region.y0])))
        polygons.append(parts[0] if len(parts) == 1 else shapely.multipolygons(parts))
    return Traced(
        np.array(polygons, object),
        np.array([region.area for region in answer.given_regions], np.int64),
        np.ones(len(polygons), np.int64),
        np.array([answer.score_of(region) for region in answer.given_regions], np.float64),
    )

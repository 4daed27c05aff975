from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from segearth.errors import DatasetError, ImageError, MissingPackageError
from segearth.inference.formats import to_coco, to_geodataframe, to_pipeline, to_supervision, to_torchgeo
from segearth.structures import Region, Segmentation

UTM = (0.5, 0, 733601, 0, -0.5, 3725139)


def answer(question: str = "roofs", **facts: object) -> Segmentation:
    """Two regions: 6 x 4 pixels, and two pixels that touch at a corner."""
    mask = np.zeros((20, 30), bool)
    mask[2:6, 3:9] = mask[10, 20] = mask[11, 21] = True
    return Segmentation(question, mask, 0.75, True, 0.9, **facts)


def nothing(question: str = "pools") -> Segmentation:
    return Segmentation(question, np.zeros((20, 30), bool), 0.0, False, 0.1)


def overlapping() -> Segmentation:
    """Two things that the segmenter tells apart, one in front of the other; the smaller comes first."""
    regions = (Region(np.ones((2, 3), bool), 4, 5, 0.6), Region(np.ones((4, 4), bool), 5, 5, None))
    mask = np.zeros((20, 30), bool)
    mask[5:7, 4:7] = mask[5:9, 5:9] = True
    return Segmentation("cars", mask, 0.5, True, 0.9, given_regions=regions)


def test_to_geodataframe() -> None:
    pytest.importorskip("geopandas")
    table = to_geodataframe([answer(answer="two"), nothing()], UTM, 32616, source="a.tif", model="tiny")
    assert table.crs.to_epsg() == 32616
    assert table.region.tolist() == [1, 2]
    assert table["area"].tolist() == [6, 0.5]
    assert table.score.tolist() == [0.75, 0.75]
    assert table.iloc[0][["question", "answer", "source", "model"]].tolist() == ["roofs", "two", "a.tif", "tiny"]
    assert table.geometry[0].bounds == (733602.5, 3725136, 733605.5, 3725138)
    assert table.geometry[1].geom_type == "MultiPolygon"
    assert len(to_geodataframe(nothing())) == 0


def test_to_geodataframe_of_things_that_overlap() -> None:
    pytest.importorskip("geopandas")
    table = to_geodataframe(overlapping(), simplify=1.0)
    assert table.geometry.bounds.to_numpy().tolist() == [[4, 5, 7, 7], [5, 5, 9, 9]]  # in their own order
    assert table["area"].tolist() == [6, 16]
    assert table.score.tolist() == [0.6, 0.5]  # the answer's, where a thing has none


def test_to_coco_is_read_by_pycocotools(tmp_path) -> None:
    from pycocotools.coco import COCO

    given = to_coco([answer(), nothing(), overlapping()], "a.png", image_id=7)
    (tmp_path / "coco.json").write_text(json.dumps(given))
    coco = COCO(tmp_path / "coco.json")
    assert coco.imgs == {7: {"id": 7, "file_name": "a.png", "width": 30, "height": 20}}
    assert [category["name"] for category in coco.loadCats([1, 2, 3])] == ["roofs", "pools", "cars"]
    found = coco.loadAnns(coco.getAnnIds(imgIds=[7]))
    assert [annotation["id"] for annotation in found] == [1, 2, 3, 4]
    assert [annotation["category_id"] for annotation in found] == [1, 1, 3, 3]
    assert [annotation["bbox"] for annotation in found] == [[3, 2, 6, 4], [20, 10, 2, 2], [4, 5, 3, 2], [5, 5, 4, 4]]
    assert [annotation["area"] for annotation in found] == [24, 2, 6, 16]
    assert [annotation["score"] for annotation in found] == [0.75, 0.75, 0.6, 0.5]
    np.testing.assert_array_equal(coco.annToMask(found[0]) | coco.annToMask(found[1]), answer().mask)
    assert len(coco.loadRes(given["annotations"]).anns) == 4


def test_to_pipeline() -> None:
    found = to_pipeline([answer(), nothing()])
    assert [set(each) for each in found] == [{"label", "score", "mask"}]
    assert (found[0]["label"], found[0]["score"]) == ("roofs", 0.75)
    assert (found[0]["mask"].mode, found[0]["mask"].size) == ("L", (30, 20))
    np.testing.assert_array_equal(np.asarray(found[0]["mask"]), answer().mask * 255)
    assert to_pipeline(nothing()) == []


def test_to_torchgeo() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyproj")
    image = np.arange(20 * 30 * 4, dtype=np.uint16).reshape(20, 30, 4)
    sample = to_torchgeo([answer(), overlapping()], image, UTM, 32616)
    assert set(sample) == {"image", "mask", "crs", "bounds"}
    assert sample["image"].dtype == torch.float32
    np.testing.assert_array_equal(sample["image"].numpy(), image.transpose(2, 0, 1))
    assert sample["mask"].dtype == torch.int64
    expected = np.where(overlapping().mask, 2, answer().mask)  # where both apply, the later question
    np.testing.assert_array_equal(sample["mask"].numpy(), expected)
    assert sample["crs"].to_epsg() == 32616
    assert sample["bounds"] == (slice(733601, 733616, 0.5), slice(3725129, 3725139, 0.5))


def test_to_torchgeo_refuses_what_it_cannot_say() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ImageError, match="rotated"):
        to_torchgeo(answer(), image, (1, 0.1, 0, 0.1, -1, 0), 32616)
    with pytest.raises(ImageError, match=r"shape \(3, 20, 30\), the mask \(20, 30\)"):
        to_torchgeo(answer(), image.transpose(2, 0, 1), UTM, 32616)


def check_detections(found: object) -> None:
    assert found.xyxy.tolist() == [[3, 2, 9, 6], [20, 10, 22, 12], [4, 5, 7, 7], [5, 5, 9, 9]]
    assert found.mask.shape == (4, 20, 30)
    assert found.mask.dtype == bool
    np.testing.assert_array_equal(found.mask[2:].any(axis=0), overlapping().mask)
    np.testing.assert_allclose(found.confidence, [0.75, 0.75, 0.6, 0.5])
    assert found.class_id.tolist() == [0, 0, 2, 2]
    assert found.data["class_name"].tolist() == ["roofs", "roofs", "cars", "cars"]


def test_to_supervision() -> None:
    pytest.importorskip("supervision")
    found = to_supervision([answer(), nothing(), overlapping()])
    check_detections(found)
    assert len(found[found.class_id == 2]) == 2  # it can be filtered
    assert len(to_supervision(nothing())) == 0


def test_what_supervision_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is not installed: what would be handed to it."""

    class Detections(types.SimpleNamespace):
        @classmethod
        def empty(cls) -> Detections:
            return cls(xyxy=[])

    monkeypatch.setitem(sys.modules, "supervision", types.SimpleNamespace(Detections=Detections))
    check_detections(to_supervision([answer(), nothing(), overlapping()]))
    assert to_supervision(nothing()).xyxy == []


def test_supervision_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match="supervision is not installed; run: pip install"):
        to_supervision(answer())


def test_bad_answers() -> None:
    with pytest.raises(DatasetError, match="no answer to convert"):
        to_pipeline([])
    small = Segmentation("roofs", np.ones((2, 3), bool), 0.5, True, 0.9)
    with pytest.raises(ImageError, match=r"sizes \[\(2, 3\), \(20, 30\)\]"):
        to_coco([answer(), small])

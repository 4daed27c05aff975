from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_fakes import coco, corrupt, square, write_image

from segearth.data.readers.coco import CocoDataset
from segearth.data.verify import verify_dataset
from segearth.errors import ConfigError, DatasetError, ImageError


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_annotations_meet_their_image_by_id(tmp_path):
    dataset = CocoDataset(coco(tmp_path), "train")
    assert [(s.image_id, int(s.image[0, 0, 0])) for s in dataset] == [("b.png", 20), ("a.png", 10)]
    b, a = (dataset.annotated(i) for i in range(2))
    assert sorted(item.id for item in b.objects) == [11, 12, 13, 14] and [item.id for item in a.objects] == [15]
    assert b.vocabulary == {"building", "swimming pool"} and (b.width, b.height) == (80, 64)
    assert b.union_mask([11]).sum() == 144 and b.union_mask([11])[:12, :12].all()
    assert np.array_equal(dataset.image(0), dataset[0].image)


def test_questions_are_of_the_image_and_stay_the_same(tmp_path):
    first, again = (list(CocoDataset(coco(tmp_path), "train")) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert one.questions and [q.text for q in one.questions] == [q.text for q in two.questions]
        assert all(np.array_equal(p.mask, q.mask) for p, q in zip(one.questions, two.questions, strict=True))
        assert all(q.mask.shape == (64, 80) for q in one.questions)
        assert [q.id for q in one.questions] == [f"{one.image_id}_{k}" for k in range(len(one.questions))]


def test_questions_of_an_image_do_not_depend_on_the_others(tmp_path):
    before = [q.text for q in CocoDataset(coco(tmp_path), "train")[1].questions]
    edit(tmp_path / "annotations_train.json", lambda content: content["images"].pop(0))
    edit(tmp_path / "annotations_train.json", lambda content: content.update(annotations=content["annotations"][4:]))
    assert [q.text for q in CocoDataset(tmp_path, "train")[0].questions] == before


def test_another_seed_asks_other_questions(tmp_path):
    coco(tmp_path)
    asked = {tuple(q.text for q in CocoDataset(tmp_path, "train", seed=seed)[0].questions) for seed in range(5)}
    assert len(asked) > 1


@pytest.mark.parametrize("name", ["annotations_train.json", "train.json", "annotations.json"])
def test_names_of_the_annotation_file(tmp_path, name):
    assert len(CocoDataset(coco(tmp_path, name), "train")) == 2
    assert CocoDataset.splits_in(tmp_path) == ("train",)


def test_one_file_with_splits(tmp_path):
    coco(tmp_path, "annotations.json")
    edit(tmp_path / "annotations.json", lambda content: content["images"][0].update(split="test"))
    assert [s.image_id for s in CocoDataset(tmp_path, "test")] == ["b.png"]
    assert [s.image_id for s in CocoDataset(tmp_path, "train")] == ["a.png"]
    assert CocoDataset.splits_in(tmp_path) == ("train", "test")


def test_one_file_without_splits_is_never_tested_on(tmp_path):
    coco(tmp_path, "annotations.json")
    with pytest.raises(DatasetError, match=r"no usable image of split 'test'; name it annotations_test\.json, or give"):
        CocoDataset(tmp_path, "test")


def test_missing_files_print_the_tree(tmp_path):
    coco(tmp_path)
    with pytest.raises(DatasetError, match=r"annotations_val\.json is missing under .*\nexpected:\nROOT/"):
        CocoDataset(tmp_path, "val")
    (tmp_path / "images/b.png").unlink()
    with pytest.raises(DatasetError, match=r"images/b\.png is missing under .*\nexpected:\nROOT/"):
        CocoDataset(tmp_path, "train")
    (report,) = verify_dataset("coco", tmp_path)
    assert report.images == 1 and len(report.problems) == 1


def test_image_of_another_size_names_both(tmp_path):
    coco(tmp_path, size=(64, 81))
    with pytest.raises(DatasetError, match=r"b\.png is 81x64 but .*annotations_train\.json says 80x64"):
        CocoDataset(tmp_path, "train")[0]


def test_corrupt_image_is_named(tmp_path):
    coco(tmp_path)
    corrupt(write_image(tmp_path / "images/b.png", 9, size=(64, 80)))
    with pytest.raises(ImageError, match=r"b\.png: damaged"):
        CocoDataset(tmp_path, "train")[0]


CONTRADICTIONS = [
    (lambda c: c["annotations"][0].update(image_id=99), "annotation 11 names image 99, which is not listed"),
    (lambda c: c["annotations"][0].update(category_id=99), "annotation 11 names category 99"),
    (lambda c: c["annotations"][0].update(segmentation=[]), "annotation 11 has no segmentation; a box alone"),
    (lambda c: c["images"][0].update(id=2), "two images have the same id"),
    (lambda c: c.pop("categories"), "not a COCO instance file, a field is missing: 'categories'"),
    (lambda c: c["images"][0].pop("height"), "a field is missing: 'height'"),
]


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS)
def test_contradictions_are_named(tmp_path, change, message):
    coco(tmp_path)
    edit(tmp_path / "annotations_train.json", change)
    with pytest.raises(DatasetError, match=r"annotations_train\.json: .*" + message):
        CocoDataset(tmp_path, "train")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "x", None])
def test_polygons_that_are_no_numbers_name_their_annotation(tmp_path, value):
    coco(tmp_path)
    bad = [[1, 1, 9, 1, 9, value]]
    edit(tmp_path / "annotations_train.json", lambda c: c["annotations"][0].update(segmentation=bad))
    with pytest.raises(DatasetError, match=r"image b\.png: annotation 11: .*pairs of finite numbers"):
        CocoDataset(tmp_path, "train")[0]


@pytest.mark.parametrize("far", [1e6, 1e12, 1.7e308])
def test_polygons_that_reach_far_out_are_cut_to_the_image(tmp_path, far):
    coco(tmp_path)
    polygon = [[-far, 10, far, 10, far, 20, -far, 20]]
    edit(tmp_path / "annotations_train.json", lambda c: c["annotations"][0].update(segmentation=polygon))
    data = CocoDataset(tmp_path, "train")
    mask = data.annotated(0).union_mask([data.annotated(0).objects[0].id])
    assert mask[10:20].all() and mask.sum() == 10 * mask.shape[1]


def test_bad_polygon_names_file_image_and_annotation(tmp_path):
    coco(tmp_path)
    edit(
        tmp_path / "annotations_train.json",
        lambda c: c["annotations"][0].update(segmentation={"size": [3, 3], "counts": [9]}),
    )
    with pytest.raises(DatasetError, match=r"annotations_train\.json: image b\.png: annotation 11"):
        CocoDataset(tmp_path, "train")[0]


MINE = """
classes:
  swimming pool: {singular: lido, plural: lidos}
  building: {singular: shed, plural: sheds}
needs:
  - {classes: [swimming pool], questions: ["Where do the ducks land?"]}
"""


def training_views(options, root, count=12):
    """Questions of training views of a data set opened as an experiment's ``options`` say."""
    from segearth.config import AugmentConfig, DataConfig, ImageTransformConfig
    from segearth.data.feed.loading import TrainingView
    from segearth.data.registry import build_dataset
    from segearth.preprocessing.transform import ImageTransform

    config = DataConfig(questions_per_image=8, augment=AugmentConfig(min_scale=0.9))
    dataset = build_dataset("coco", root, "train", **options)
    view = TrainingView([dataset], ImageTransform(ImageTransformConfig(size=64)), config, seed=0)
    return [q for epoch in range(count) for q in view[epoch, 0].questions]


def test_words_and_needs_of_ones_own_are_used_in_training_and_in_evaluation(tmp_path):
    coco(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    options = {"table": str(tmp_path / "mine.yaml")}
    fixed = [q for seed in range(6) for q in CocoDataset(tmp_path, "train", seed=seed, **options)[0].questions]
    for asked in (training_views(options, tmp_path), fixed):
        texts = " ".join(q.text for q in asked)
        assert "Where do the ducks land?" in texts and "shed" in texts and "lido" in texts
        assert "building" not in texts and "pool" not in texts
    plain = " ".join(q.text for q in training_views({}, tmp_path))
    assert "ducks" not in plain and "building" in plain


def test_what_is_known_of_classes_reaches_training_and_evaluation(tmp_path):
    """The first image lacks nothing that is annotated; ships are known to be nowhere, buildings annotated in part."""
    coco(tmp_path)
    options = {"known_absent": ["ship"], "incomplete": ["building"]}
    fixed = [q for seed in range(20) for q in CocoDataset(tmp_path, "train", seed=seed, **options)[0].questions]
    for asked in (training_views(options, tmp_path), fixed):
        ships = [q for q in asked if "ship" in q.text]
        assert ships and all(q.kind == "absent" and not q.present for q in ships)
        assert {q.kind for q in asked if "building" in q.text} == {"class"}
    plain = training_views({}, tmp_path)
    assert not any("ship" in q.text for q in plain)
    assert {"class", "size"} < {q.kind for q in plain if "building" in q.text}


def test_possible_classes_keep_needs_from_being_asked(tmp_path):
    (coco(tmp_path) / "mine.yaml").write_text(
        "needs:\n  - {classes: [swimming pool], conflicts: [duck pond], questions: ['Where do the ducks land?']}\n"
    )
    for possible, is_asked in (([], True), ("duck pond", False)):
        options = {"table": [tmp_path / "mine.yaml"], "possible": possible}
        texts = {q.text for q in training_views(options, tmp_path)}
        assert ("Where do the ducks land?" in texts) is is_asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"incomplete": ["bulding"]}, r"annotations_train\.json has no category 'bulding'.*did you mean 'building'"),
        ({"known_absent": "building"}, r"known_absent: .*annotates 'building' itself; take it off the list"),
        ({"possible": ["building"]}, "possible: .*annotates 'building' itself"),
        ({"table": "nowhere.yaml"}, r"no table of needs nowhere\.yaml"),
        ({"tabel": "mine.yaml"}, "data set coco has no option 'tabel'.*did you mean 'table'"),
    ],
)
def test_options_that_do_not_fit_are_named(tmp_path, options, message):
    coco(tmp_path)
    with pytest.raises(ConfigError, match=message):
        training_views(options, tmp_path)


def test_a_crowd_is_stuff(tmp_path):
    """``iscrowd`` marks objects run together: asked for as a class, never counted or told apart."""
    coco(tmp_path)
    edit(tmp_path / "annotations_train.json", lambda c: [a.update(iscrowd=1) for a in c["annotations"][:3]])
    dataset = CocoDataset(tmp_path, "train")
    assert [o.is_thing for o in dataset.annotated(0).objects] == [False, False, False, True]
    kinds = {q.kind for q in training_views({}, tmp_path) if "building" in q.text}
    assert "class" in kinds and not kinds & {"count", "size", "neighbour", "attribute"}


def test_overlapping_objects_of_a_class_are_united(tmp_path):
    coco(tmp_path)
    extra = {"id": 99, "image_id": 2, "category_id": 9, "segmentation": [square(40, 20, 20)], "iscrowd": 0}
    edit(tmp_path / "annotations_train.json", lambda c: c["annotations"].append(extra))
    mask = CocoDataset(tmp_path, "train").annotated(1).union_mask([15, 99])
    assert mask.dtype == bool and mask.sum() == 576

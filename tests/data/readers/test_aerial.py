from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from segearth.data.questions.table import load_table
from segearth.data.readers.aerial import PACKAGED, SPLITS, AerialMini
from segearth.errors import DatasetError, UnknownNameError

TREE = json.loads((PACKAGED / "annotations.json").read_text(encoding="utf-8"))
RECORDS = {record["id"]: record for record in TREE["images"]}


@pytest.fixture(scope="module", params=SPLITS)
def data(request: pytest.FixtureRequest) -> AerialMini:
    return AerialMini(split=request.param)


def test_size_on_disk() -> None:
    total = sum(path.stat().st_size for path in PACKAGED.rglob("*") if path.is_file())
    assert total < 25e6
    assert {path.name for path in (PACKAGED / "images").iterdir()} == set(TREE["sources"])
    files = {str(path.relative_to(PACKAGED)) for path in PACKAGED.rglob("*.jpg")}
    assert files == {record["file_name"] for record in TREE["images"]}


def test_every_source_has_its_licence() -> None:
    text = (PACKAGED / "LICENSES.md").read_text(encoding="utf-8")
    assert all(f"## {name}" in text for name in TREE["sources"])


def test_no_group_is_in_two_splits() -> None:
    split_of: dict[tuple[str, str], str] = {}
    for record in TREE["images"]:
        key = (record["source"], record["group"])
        assert split_of.setdefault(key, record["split"]) == record["split"], key


def test_chips_of_two_splits_do_not_overlap() -> None:
    placed = [record for record in TREE["images"] if "bounds_lonlat" in record]
    assert len(placed) == 113
    for a, b in combinations(placed, 2):
        if a["split"] != b["split"]:
            west, south, east, north = a["bounds_lonlat"]
            w2, s2, e2, n2 = b["bounds_lonlat"]
            width, height = min(east, e2) - max(west, w2), min(north, n2) - max(south, s2)
            assert width < 1e-7 or height < 1e-7, (a["file_name"], b["file_name"])


def test_no_building_is_in_two_splits() -> None:
    splits: dict[str, set[str]] = {}
    for annotation in TREE["annotations"]:
        number = annotation.get("attributes", {}).get("osm_id")
        if number is not None:
            splits.setdefault(number, set()).add(RECORDS[annotation["image_id"]]["split"])
    assert len(splits) > 1000
    assert all(len(found) == 1 for found in splits.values())


def test_facts_are_known_words_and_do_not_contradict_the_annotations() -> None:
    table = load_table()
    for facts in TREE["sources"].values():
        assert set(facts["vocabulary"]).isdisjoint(facts["known_absent"])
        assert set(facts["incomplete"]) <= set(facts["vocabulary"])
        assert {name for names in facts.values() for name in names} <= table.classes.keys()


def test_every_class_has_six_sentences() -> None:
    needs = load_table().needs
    for name in {name for facts in TREE["sources"].values() for name in facts["vocabulary"]}:
        assert sum(len(need.questions) for need in needs if name in need.classes) >= 6, name


def test_samples(data: AerialMini) -> None:
    for index in range(0, len(data), 9):
        sample, record = data[index], data.records[index]
        assert sample.image.shape == (record["height"], record["width"], 3)
        assert max(sample.image.shape) <= 640
        assert 0 < len(sample.questions) <= 8
        for question in sample.questions:
            assert question.mask is not None
            assert question.mask.shape == sample.image.shape[:2]
            assert question.mask.any() == (question.kind != "absent")
            assert question.answer
            assert question.task == "referring" or question.kind in ("reasoning", "absent")


def test_fixed_mix(data: AerialMini) -> None:
    kinds = [line["kind"] for lines in data.questions.values() for line in lines]
    share = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    other = sum(value for kind, value in share.items() if kind not in ("class", "reasoning", "absent"))
    assert share["class"] == pytest.approx(0.345, abs=0.025)
    assert share["reasoning"] == pytest.approx(0.25, abs=0.025)
    assert share["absent"] == pytest.approx(0.135, abs=0.02)
    assert other == pytest.approx(0.27, abs=0.03)
    identifiers = [line["id"] for lines in data.questions.values() for line in lines]
    assert len(identifiers) == len(set(identifiers))


def test_without_questions_and_bad_split() -> None:
    assert AerialMini(split="val", questions="none")[0].questions == []
    with pytest.raises(UnknownNameError, match="aerial_mini split"):
        AerialMini(split="validation")


def test_missing_folder_prints_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"annotations.json is missing"):
        AerialMini(tmp_path)


def test_the_training_split_in_two_by_group() -> None:
    whole, fit, dev = (AerialMini(split=split, questions="none") for split in ("train", "fit", "dev"))
    names = [{record["file_name"] for record in part.records} for part in (whole, fit, dev)]
    assert names[1] | names[2] == names[0] and not names[1] & names[2]
    assert 40 <= len(dev) <= 56
    groups = [{(record["source"], record["group"]) for record in part.records} for part in (fit, dev)]
    assert not groups[0] & groups[1]
    assert {record["source"] for record in dev.records} == set(whole.sources)  # every source can be judged
    asked = sum(map(len, dev.questions.values())) + sum(map(len, fit.questions.values()))
    assert asked == 0
    assert sum(len(sample.questions) for sample in AerialMini(split="dev")) == 400


def test_dense_questions_ask_the_rare_kinds_and_pair_what_differs_in_a_word() -> None:
    data = AerialMini(split="test", questions="dense")
    kinds = Counter(line["kind"] for lines in data.questions.values() for line in lines)
    assert kinds["position"] == 579 and kinds["neighbour"] == 126 and kinds["size"] == 30 and kinds["attribute"] == 28
    sample = data[10]
    members: dict[str, list[str]] = {}
    for question in sample.questions:
        for pair in question.pairs:
            members.setdefault(pair, []).append(question.text)
    assert members and all(len(set(texts)) == 2 for texts in members.values())


def test_unseen_questions_and_their_twins_differ_in_words_alone() -> None:
    unseen, seen = (AerialMini(split="dev", questions=which) for which in ("unseen", "seen"))
    assert len(unseen) == len(seen) == len(AerialMini(split="dev", questions="none"))
    for index in range(0, len(unseen), 9):
        for one, other in zip(unseen[index].questions, seen[index].questions, strict=True):
            assert one.text != other.text and one.mask is not None and other.mask is not None
            assert (one.mask == other.mask).all() and one.mask.any() == (one.kind != "absent")
            assert (one.id, one.kind, one.task, one.answer) == (other.id, other.kind, other.task, other.answer)


@pytest.mark.parametrize("questions", ["unseen", "seen"])
@pytest.mark.parametrize("split", ["train", "fit"])
def test_nothing_unseen_is_there_to_be_trained_on(split: str, questions: str) -> None:
    with pytest.raises(DatasetError, match=f"{split} has no {questions} questions; take one of .* dev, val, test"):
        AerialMini(split=split, questions=questions)


def test_the_images_of_some_sources() -> None:
    whole = AerialMini(split="test")
    some = AerialMini(split="test", sources=["gsi_road", "sen2ships"])
    assert {some.source_of(index) for index in range(len(some))} == {"gsi_road", "sen2ships"}
    assert len(some) == sum(record["source"] in ("gsi_road", "sen2ships") for record in whole.records) == 15
    assert set(some.questions) == {record["id"] for record in some.records}
    both = [AerialMini(split="fit", questions="none", sources=[source]) for source in whole.sources]
    assert sum(map(len, both)) == 168
    assert len(AerialMini(split="val", questions="unseen", sources=["gsi_road"])) == 4
    with pytest.raises(UnknownNameError, match="aerial_mini source 'gsi_roads'; did you mean 'gsi_road'"):
        AerialMini(sources=["gsi_roads"])


def test_an_unknown_set_of_questions() -> None:
    with pytest.raises(UnknownNameError, match="question set 'densest'; did you mean 'dense'"):
        AerialMini(questions="densest")

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segearth.data.expressions.builder import BuilderSettings, ExpressionBuilder
from segearth.data.expressions.claims import Claim, Margins, verify
from segearth.data.expressions.propose import PROPOSERS
from segearth.data.expressions.regions import REGIONS, has_direction, mirrored
from segearth.data.expressions.table import load_table
from segearth.data.scene import Scene, SceneObject
from segearth.data.synthetic import draw_scene
from segearth.errors import ConfigError

TABLE = load_table()
BUILDER = ExpressionBuilder(TABLE, BuilderSettings(max_questions=30, paraphrases=1))


def block(number: int, category: str, x0: int, y0: int, x1: int, y1: int, **facts) -> SceneObject:
    return SceneObject(number, category, np.ones((y1 - y0, x1 - x0), bool), (x0, y0, x1, y1), **facts)


def village(**facts) -> Scene:
    """100 x 100: a large, a middle and a small building, a pool beside the middle one, a road along the bottom."""
    objects = [
        block(1, "building", 5, 5, 35, 25, attributes={"roof:material": "tin"}),  # 600 px, upper left
        block(2, "building", 70, 10, 90, 30, attributes={"roof:material": "concrete"}),  # 400 px, upper right
        block(3, "building", 10, 65, 20, 75, attributes={"roof:material": "tin"}),  # 100 px, lower left
        block(4, "swimming pool", 75, 35, 85, 41),
        block(5, "road", 0, 90, 100, 96, is_thing=False),
    ]
    vocabulary = frozenset(("building", "swimming pool", "road", "vehicle", "driveway"))
    return Scene(100, 100, objects, vocabulary, frozenset(("ship",)), **facts)


def answer(claim: Claim, scene: Scene | None = None) -> tuple[int, ...] | None:
    found = verify(scene or village(), claim, TABLE, Margins())
    return None if found is None else found.ids


BUILDING = Claim(("building",))


@pytest.mark.parametrize(
    ("claim", "ids"),
    [
        (BUILDING, (1, 2, 3)),
        (replace(BUILDING, count=3), (1, 2, 3)),
        (replace(BUILDING, count=2), None),
        (replace(BUILDING, region="upper half"), (1, 2)),
        (replace(BUILDING, region="left half"), (1, 3)),
        (replace(BUILDING, region="upper left corner", one=True), (1,)),
        (replace(BUILDING, region="lower right corner", one=True), None),
        (replace(BUILDING, rank=1, one=True), (1,)),
        (replace(BUILDING, rank=2, one=True), (2,)),
        (replace(BUILDING, rank=-1, one=True), (3,)),
        (replace(BUILDING, attribute=("roof:material", "tin")), (1, 3)),
        (replace(BUILDING, attribute=("roof:material", "tin"), region="upper half", one=True), (1,)),
        (replace(BUILDING, attribute=("roof:shape", "flat")), None),  # unknown of all
        (replace(BUILDING, relation="closest", one=True, anchor=Claim(("swimming pool",), one=True)), (2,)),
        (replace(BUILDING, relation="beside", anchor=Claim(("swimming pool",), one=True)), None),  # 5 px: unclear
        (replace(BUILDING, relation="left", anchor=Claim(("swimming pool",), one=True)), (1, 3)),
        (replace(BUILDING, relation="right", anchor=replace(BUILDING, rank=1, one=True)), (2,)),
        (replace(BUILDING, relation="below", anchor=replace(BUILDING, rank=1, one=True)), None),  # 2 is half below
        (Claim(("swimming pool",), rank=1, one=True), None),  # the largest of one
        (Claim(("vehicle",), absent=True), ()),
        (Claim(("ship",), absent=True), ()),
        (Claim(("driveway",), absent=True), None),  # the road might be taken for one
        (Claim(("airplane",), absent=True), None),  # not known
        (Claim(("building",), absent=True), None),
        (Claim(("building",), region="lower right quarter", absent=True), ()),
        (Claim(("building",), region="upper left quarter", absent=True), None),
        (Claim(("building",), attribute=("roof:material", "clay_tiles"), absent=True), ()),
        (Claim(("building",), attribute=("roof:material", "tin"), region="upper right quarter", absent=True), ()),
        (Claim(("building",), attribute=("roof:material", "tin"), absent=True), None),
    ],
)
def test_verdicts_by_hand(claim: Claim, ids: tuple[int, ...] | None) -> None:
    assert answer(claim) == ids


def test_stuff_is_cut_at_the_line() -> None:
    scene = village()
    found = verify(scene, Claim(("road",), region="left half"), TABLE)
    assert found is not None
    assert scene.union_mask(found.ids, found.within).sum() == 50 * 6


def test_straddling_object_drops_the_question() -> None:
    scene = village()
    scene = replace(scene, objects=[*scene.objects, block(6, "building", 40, 40, 60, 60)])
    assert answer(replace(BUILDING, region="left half"), scene) is None


@pytest.mark.parametrize("second", [590, 470])
def test_close_sizes_drop_the_superlative(second: int) -> None:
    scene = village()
    wide = block(2, "building", 50, 10, 50 + second // 10, 20)
    scene = replace(scene, objects=[scene.objects[0], wide])
    assert answer(replace(BUILDING, rank=1, one=True), scene) is None


def test_unknown_attribute_is_harmless_only_outside() -> None:
    scene = village()
    scene = replace(scene, objects=[*scene.objects, block(6, "building", 70, 65, 90, 85)])
    tin = replace(BUILDING, attribute=("roof:material", "tin"))
    assert answer(tin, scene) is None
    assert answer(replace(tin, region="left half"), scene) == (1, 3)


def test_truncated_object_is_never_the_one() -> None:
    scene = village()
    pieces = [replace(scene.objects[0], truncated=True), *scene.objects[1:]]
    scene = replace(scene, objects=pieces)
    assert answer(replace(BUILDING, region="upper left corner", one=True), scene) is None
    assert answer(replace(BUILDING, count=3), scene) is None
    assert answer(BUILDING, scene) == (1, 2, 3)


def test_incomplete_class_is_neither_counted_nor_called_absent() -> None:
    scene = village(incomplete=frozenset(("building", "vehicle")))
    assert answer(BUILDING, scene) == (1, 2, 3)
    for claim in (replace(BUILDING, count=3), replace(BUILDING, region="left half"), Claim(("vehicle",), absent=True)):
        assert answer(claim, scene) is None


def test_unresolved_class_is_not_called_absent() -> None:
    assert answer(Claim(("vehicle",), absent=True), village(unresolved=frozenset(("vehicle",)))) is None


def test_ambiguous_name_is_dropped() -> None:
    trees = block(1, "trees and shrubs", 0, 0, 30, 30, is_thing=False)
    thicket = block(2, "dense vegetation", 50, 50, 90, 90, is_thing=False)
    vocabulary = frozenset(("trees and shrubs", "dense vegetation"))
    assert answer(Claim(("trees and shrubs",)), Scene(100, 100, [trees], vocabulary)) == (1,)
    assert answer(Claim(("trees and shrubs",)), Scene(100, 100, [trees, thicket], vocabulary)) is None


def shelter(scene: Scene) -> Claim | None:
    need = next(n for n in TABLE.needs if "Where could people find shelter from the storm?" in n.questions)
    known = tuple(name for name in need.classes if name in scene.vocabulary)
    return Claim(known, need=need)


def test_need_takes_every_class_that_satisfies_it() -> None:
    objects = [block(1, "property roof", 0, 0, 30, 30), block(2, "secondary structure", 50, 50, 70, 70)]
    both = frozenset(("property roof", "secondary structure"))
    scene = Scene(100, 100, objects, both)
    assert answer(shelter(scene), scene) == (1, 2)
    only = Scene(100, 100, objects[:1], frozenset(("property roof",)))  # sheds are not annotated: not to be asked
    assert answer(shelter(only), only) is None
    doubtful = replace(scene, possible=frozenset(("under construction",)))
    assert answer(shelter(doubtful), doubtful) is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_built_question_verifies_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, 192)[1]
    for found in BUILDER.expressions(scene, rng):
        assert verify(scene, found.claim, TABLE) == found.referents
        question = found.question(scene)
        assert question.mask.shape == (192, 192)
        assert question.mask.any() == (found.kind != "absent")
        assert question.task == ("reasoning" if found.claim.need else "referring")
        assert (question.answer or "").endswith(".")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_mirroring_the_scene_mirrors_the_answers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, 192)[1]
    flipped = scene.transform((0, 0, 192, 192), (192, 192), flip=True)
    for found in BUILDER.expressions(scene, rng):
        claim = replace(
            found.claim,
            region=found.claim.region and mirrored(found.claim.region),
            relation=found.claim.relation and mirrored(found.claim.relation),
        )
        again = verify(flipped, claim, TABLE)
        assert again is not None
        mask = scene.union_mask(found.referents.ids, found.referents.within)
        assert np.array_equal(flipped.union_mask(again.ids, again.within), mask[:, ::-1])
        if found.claim.region in REGIONS and found.claim.region != "middle":
            assert has_direction(found.text)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_absent_means_absent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, 128)[1]
    for found in BUILDER.expressions(scene, rng):
        if found.kind == "absent" and found.claim.region is None and found.claim.attribute is None:
            assert not scene.of(found.claim.categories)
            for name in found.claim.categories:
                assert not scene.of(set(TABLE.words(name).confusable) - set(found.claim.categories))


def test_same_generator_same_questions() -> None:
    scene = draw_scene(np.random.default_rng(3), 128)[1]
    first, second = (BUILDER.build(scene, np.random.default_rng(5)) for _ in range(2))
    assert [q.text for q in first] == [q.text for q in second]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first, second, strict=True))
    other = BUILDER.build(scene, np.random.default_rng(6))
    assert [q.text for q in first] != [q.text for q in other]


def test_mix_is_kept_and_unknown_kind_is_an_error() -> None:
    only = ExpressionBuilder(TABLE, BuilderSettings(mix={"class": 1.0, "absent": 0.0}))
    assert {q.kind for q in only.build(village(), np.random.default_rng(0))} == {"class"}
    with pytest.raises(ConfigError, match="did you mean 'position'"):
        ExpressionBuilder(TABLE, BuilderSettings(mix={"positon": 1.0}))


def test_every_kind_occurs() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        kinds.update(q.kind for q in BUILDER.expressions(draw_scene(rng, 192)[1], rng))
    assert set(kinds) == set(PROPOSERS)


def test_words() -> None:
    scene = village()
    texts = {q.kind: (q.text, q.answer) for q in BUILDER.build(scene, np.random.default_rng(1))}
    answers = {q.answer for seed in range(20) for q in BUILDER.build(scene, np.random.default_rng(seed))}
    assert texts
    assert {"The 3 buildings.", "The road.", "There is no ship in this image.", "The largest building."} <= answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the building in the upper left corner", True),
        ("houses north-west of the road", True),
        ("the northernmost pool", True),
        ("what is above it?", True),
        ("the second largest building", False),
        ("leftovers", False),
        ("the eastern wall", True),
        ("the least green field", False),
    ],
)
def test_has_direction(text: str, expected: bool) -> None:
    assert has_direction(text) is expected


def test_needs_name_known_classes() -> None:
    assert {c for n in TABLE.needs for c in (*n.classes, *n.conflicts)} <= TABLE.classes.keys()


def test_user_table_is_merged(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "classes:\n  silo: {singular: silo}\nneeds:\n  - {classes: [silo], questions: ['Where is grain kept?']}\n"
    )
    table = load_table([path])
    assert table.words("silo").plural == "silos"
    assert table.needs[-1].questions == ("Where is grain kept?",)
    assert table.words("greenhouse").plural == "greenhouses"  # a class of no table keeps its own name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clases: {}", "did you mean 'classes'"),
        ("classes: {silo: {plural: silos}}", "no 'singular'"),
        ("needs: [{classes: [silo]}]", "at least one of each"),
        ("needs: [", "not readable as YAML"),
    ],
)
def test_bad_table_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_table([path])

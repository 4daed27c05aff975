from __future__ import annotations

from dataclasses import replace

import pytest
from village import BUILDING, POOL, TABLE, TIN, answer, block, far, frame_of, verdict, village

from segearth.data.questions.annotation import AnnotatedImage, AnnotatedObject
from segearth.data.questions.claims import Claim, Margins, verify_claim
from segearth.data.questions.regions import REGIONS


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


@pytest.mark.parametrize(
    ("claim", "candidates"),
    [
        (replace(BUILDING, rank=2, one=True), (1, 2, 3)),
        (replace(BUILDING, rank=1, region="upper half", one=True), (1, 2)),
        (replace(BUILDING, rank=1, attribute=("roof:material", "tin"), one=True), (1, 3)),
        (BUILDING, ()),
        (replace(BUILDING, relation="closest", one=True, anchor=Claim(("swimming pool",), one=True)), ()),
    ],
)
def test_what_is_chosen_by_size_is_chosen_from_these(claim: Claim, candidates: tuple[int, ...]) -> None:
    found = verify_claim(village(), claim, TABLE)
    assert found is not None and found.candidates == candidates


def test_stuff_is_cut_at_the_line() -> None:
    annotated = village()
    found = verify_claim(annotated, Claim(("road",), region="left half"), TABLE)
    assert found is not None
    assert annotated.union_mask(found.ids, found.within).sum() == 50 * 6


def test_straddling_object_drops_the_question() -> None:
    annotated = village()
    annotated = replace(annotated, objects=[*annotated.objects, block(6, "building", 40, 40, 60, 60)])
    assert answer(replace(BUILDING, region="left half"), annotated) is None


@pytest.mark.parametrize("second", [590, 470])
def test_close_sizes_drop_the_superlative(second: int) -> None:
    annotated = village()
    wide = block(2, "building", 50, 10, 50 + second // 10, 20)
    annotated = replace(annotated, objects=[annotated.objects[0], wide])
    assert answer(replace(BUILDING, rank=1, one=True), annotated) is None


def test_unknown_attribute_is_harmless_only_outside() -> None:
    annotated = village()
    annotated = replace(annotated, objects=[*annotated.objects, block(6, "building", 70, 65, 90, 85)])
    tin = replace(BUILDING, attribute=("roof:material", "tin"))
    assert answer(tin, annotated) is None
    assert answer(replace(tin, region="left half"), annotated) == (1, 3)


def test_truncated_object_is_never_the_one() -> None:
    annotated = village()
    pieces = [replace(annotated.objects[0], truncated=True), *annotated.objects[1:]]
    annotated = replace(annotated, objects=pieces)
    assert answer(replace(BUILDING, region="upper left corner", one=True), annotated) is None
    assert answer(replace(BUILDING, count=3), annotated) is None
    assert answer(BUILDING, annotated) == (1, 2, 3)


# ---- where a thing counts as inside, outside, or neither --------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "inside"),
    [
        ((42, 52), True),  # eight tenths of it in the left half, its centre at 47
        ((43, 53), None),  # seven tenths
        ((19, 59), None),  # 31 of 40
        ((41, 81), None),  # 9 of 40
        ((45, 49), True),  # its centre at 47, the core's edge
        ((46, 49), None),  # all of it in the left half, its centre past the core
        ((46, 66), False),  # two tenths inside
        ((44, 64), None),  # three tenths inside
        ((51, 55), None),  # none of it inside, its centre at 53: on the halo's edge
        ((52, 56), False),  # its centre past the halo
    ],
)
@pytest.mark.parametrize("place", ["left half", "right half", "upper half", "lower half"])
def test_in_a_half_by_hand(place: str, columns: tuple[int, int], inside: bool | None) -> None:
    x0, x1 = columns if place in ("left half", "upper half") else (100 - columns[1], 100 - columns[0])
    box = (x0, 20, x1, 60) if place in ("left half", "right half") else (20, x0, 60, x1)
    lone = block(1, "building", *box)
    there = block(2, "building", 20, 20, 30, 30) if place in ("left half", "upper half") else far(2)
    expected = {True: (1, 2), False: (2,), None: None}[inside]
    assert verdict(replace(BUILDING, region=place), lone, there) == expected


@pytest.mark.parametrize("mirrored_x", [False, True])
@pytest.mark.parametrize("mirrored_y", [False, True])
@pytest.mark.parametrize(
    ("place", "centre", "inside"),
    [
        ("quarter", (46, 46), True),
        ("quarter", (46, 50), None),
        ("quarter", (50, 46), None),
        ("quarter", (46, 55), False),
        ("quarter", (55, 46), False),
        ("corner", (35, 35), True),
        ("corner", (35, 38), None),
        ("corner", (38, 35), None),
        ("corner", (55, 20), False),
    ],
)
def test_in_a_quarter_or_corner_by_hand(
    place: str, centre: tuple[int, int], inside: bool | None, mirrored_x: bool, mirrored_y: bool
) -> None:
    x, y = (100 - v if turned else v for v, turned in zip(centre, (mirrored_x, mirrored_y), strict=True))
    name = f"{'lower' if mirrored_y else 'upper'} {'right' if mirrored_x else 'left'} {place}"
    sure = tuple(90 if turned else 10 for turned in (mirrored_x, mirrored_y))
    objects = [block(k, "building", u - 3, v - 3, u + 3, v + 3) for k, (u, v) in enumerate(((x, y), sure), 1)]
    expected = {True: (1, 2), False: (2,), None: None}[inside]
    assert verdict(replace(BUILDING, region=name), *objects) == expected


@pytest.mark.parametrize(
    ("centre", "inside"),
    [
        ((50, 50), True),
        ((36, 64), True),
        ((35, 50), None),
        ((50, 65), None),
        ((80, 50), None),
        ((50, 20), None),
        ((81, 50), False),
        ((50, 19), False),
        ((19, 81), False),
    ],
)
def test_in_the_middle_by_hand(centre: tuple[int, int], inside: bool | None) -> None:
    x, y = centre
    objects = [block(1, "building", x - 3, y - 3, x + 3, y + 3), block(2, "building", 45, 45, 55, 55)]
    assert verdict(replace(BUILDING, region="middle"), *objects) == {True: (1, 2), False: (2,), None: None}[inside]


def test_places_are_parts_of_the_frame_whatever_its_shape() -> None:
    wide = AnnotatedImage(200, 60, [block(1, "building", 60, 5, 90, 20), block(2, "building", 120, 40, 150, 55)])
    assert [answer(replace(BUILDING, region=place), wide) for place in REGIONS if "half" in place] == [
        (1,), (2,), (1,), (2,)
    ]  # fmt: skip


def test_one_means_exactly_one() -> None:
    corner = replace(BUILDING, region="upper left corner", one=True)
    first, second = block(1, "building", 5, 5, 15, 15), block(2, "building", 20, 20, 30, 30)
    assert verdict(corner, first, far()) == (1,)
    assert verdict(corner, first, second, far()) is None
    assert verdict(replace(corner, one=False), first, second, far()) == (1, 2)
    assert verdict(replace(BUILDING, one=True), first) == (1,)
    assert verdict(replace(BUILDING, one=True), first, second) is None


# ---- stuff ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "asked"), [((0, 100), True), ((49, 100), True), ((50, 100), False), ((0, 51), True), ((0, 50), False)]
)
def test_stuff_needs_something_inside_and_something_outside(columns: tuple[int, int], asked: bool) -> None:
    grass = block(1, "grass", columns[0], 30, columns[1], 40, is_thing=False)  # 10 px a column: 0.1 % of the frame
    found = verify_claim(frame_of(grass), Claim(("grass",), region="left half"), TABLE)
    assert (found is not None) == asked
    if found is not None:
        assert found.within == (0, 0, 50, 100) and found.ids == (1,)


@pytest.mark.parametrize("columns", [(49, 100), (0, 51)])
def test_a_little_less_of_stuff_is_too_little(columns: tuple[int, int]) -> None:
    grass = block(1, "grass", columns[0], 30, columns[1], 39, is_thing=False)  # 9 px a column
    assert verdict(Claim(("grass",), region="left half"), grass) is None


def test_stuff_in_a_place_leaves_out_pieces_that_lie_elsewhere() -> None:
    pieces = [block(1, "grass", 0, 0, 20, 20, is_thing=False), block(2, "grass", 80, 0, 90, 20, is_thing=False)]
    assert verdict(Claim(("grass",), region="left half"), *pieces) == (1,)
    assert verdict(Claim(("grass",)), *pieces) == (1, 2)
    for odd in (dict(one=True), dict(attribute=("roof:material", "tin"))):
        assert verdict(Claim(("grass",), region="left half", **odd), *pieces) is None


@pytest.mark.parametrize("odd", [dict(count=2), dict(rank=1), dict(one=True), dict(relation="beside", anchor=POOL)])
def test_stuff_is_not_counted_or_told_apart(odd: dict) -> None:
    pieces = [block(1, "grass", 0, 0, 20, 20, is_thing=False), block(2, "grass", 80, 0, 90, 20, is_thing=False)]
    pool = block(3, "swimming pool", 21, 0, 31, 10)
    assert verdict(Claim(("grass",), **odd), *pieces, pool) is None
    mixed = [replace(pieces[0], is_thing=True), pieces[1]]  # as `iscrowd` does to one object of a class
    assert verdict(Claim(("grass",), **odd), *mixed, pool) is None


# ---- attributes -------------------------------------------------------------------------------------------------


def test_a_value_that_is_neither_is_unknown() -> None:
    flat = block(1, "building", 0, 0, 20, 20, attributes={"roof:shape": "flat"})
    mixed = block(2, "building", 50, 50, 70, 70, attributes={"roof:shape": "mixed"})
    gabled = replace(mixed, attributes={"roof:shape": "gabled"})
    claim = replace(BUILDING, attribute=("roof:shape", "flat"))
    assert verdict(claim, flat, gabled) == (1,)
    assert verdict(claim, flat, mixed) is None
    assert verdict(replace(claim, attribute=("roof:colour", "red")), flat) is None  # of no table


def test_an_absent_attribute_is_known_of_every_object() -> None:
    claim = Claim(("building",), attribute=("roof:material", "clay_tiles"), absent=True)
    tin, bare = block(1, "building", 0, 0, 20, 20, attributes={"roof:material": "tin"}), far(2)
    assert verdict(claim, tin) == ()
    assert verdict(claim, tin, bare) is None
    assert verdict(replace(claim, region="upper left quarter"), tin, bare) == ()  # the unknown one lies elsewhere
    assert verdict(replace(claim, region="lower right quarter"), tin, bare) is None
    assert verdict(claim, block(3, "vehicle", 0, 0, 9, 9)) is None  # no building at all: the plain claim says it better


# ---- size -------------------------------------------------------------------------------------------------------


def rows(*areas: int) -> list[AnnotatedObject]:
    """Buildings of these areas, four pixels high, stacked away from the frame's edge."""
    return [block(k, "building", 1, 5 * k, 1 + area // 4, 5 * k + 4) for k, area in enumerate(areas, 1)]


@pytest.mark.parametrize(
    ("rank", "areas", "ids"),
    [
        (1, (260, 200), (1,)),  # exactly 1.3 times
        (1, (256, 200), None),
        (1, (200, 260), (2,)),
        (1, (260,), None),
        (1, (260, 200, 200), (1,)),
        (2, (400, 260, 200), (2,)),
        (2, (320, 260, 200), None),  # the largest is in doubt
        (2, (400, 256, 200), None),  # the third is
        (2, (400, 200), None),  # "second largest" of two is odd
        (2, (200, 400, 260, 100), (3,)),
        (-1, (400, 260, 200), (3,)),
        (-1, (400, 256, 200), None),
        (-1, (200, 400, 400), (1,)),  # the others may be alike
        (-1, (260, 200), None),
    ],
)
def test_superlatives_by_hand(rank: int, areas: tuple[int, ...], ids: tuple[int, ...] | None) -> None:
    assert verdict(replace(BUILDING, rank=rank, one=True), *rows(*areas), size=120) == ids


@pytest.mark.parametrize(("x", "y"), [(0, 10), (85, 10), (30, 0), (80, 90)])
def test_the_smallest_is_not_cut_off_by_the_frame(x: int, y: int) -> None:
    largest, middle = block(1, "building", 30, 30, 60, 60), block(2, "building", 30, 70, 50, 90)
    claim = replace(BUILDING, rank=-1, one=True)
    assert verdict(claim, largest, middle, block(3, "building", 30, 10, 45, 20)) == (3,)
    assert verdict(claim, largest, middle, block(3, "building", x, y, x + 15, y + 10)) is None
    edge = block(1, "building", 0, 30, 40, 60)
    small = block(3, "building", 30, 10, 45, 20)
    assert verdict(replace(claim, rank=1), edge, middle, small) == (1,)  # what is cut off may only be larger still


def test_the_largest_with_an_attribute() -> None:
    a, b = rows(400, 200)
    objects = [replace(a, attributes={"roof:material": "concrete"}), replace(b, attributes={"roof:material": "tin"})]
    third = block(5, "building", 50, 50, 60, 60, attributes={"roof:material": "tin"})
    assert verdict(replace(TIN, rank=1, one=True), *objects, third) == (2,)


# ---- neighbours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("near", "far_off", "ids"),
    [
        (10, 15, (1,)),  # 1.5 times as far, 5 px farther: 3.5 % of the diagonal
        (20, 28, (1,)),  # 1.4 times
        (20, 27, None),  # 1.35 times, 5 % of the diagonal
        (20, 25, None),  # 1.25 times
        (5, 8, None),  # 1.6 times, but 2 % of the diagonal
        (8, 12, None),  # 1.5 times, 4 px: 2.8 %
        (8, 13, (1,)),
        (15, 8, (2,)),
    ],
)
def test_closest_by_hand(near: int, far_off: int, ids: tuple[int, ...] | None) -> None:
    pool = block(3, "swimming pool", 45, 45, 55, 55)
    left = block(1, "building", 45 - near - 9, 45, 46 - near, 55)  # `near` px from the pool's nearest pixel to its own
    right = block(2, "building", 54 + far_off, 45, 54 + far_off + 10, 55)
    assert verdict(replace(BUILDING, relation="closest", one=True, anchor=POOL), left, right, pool) == ids


def test_closest_needs_a_second_and_an_anchor() -> None:
    pool = block(3, "swimming pool", 45, 45, 55, 55)
    claim = replace(BUILDING, relation="closest", one=True, anchor=POOL)
    assert verdict(claim, far(), pool) is None
    assert verdict(claim, far(), block(2, "building", 20, 20, 30, 30)) is None  # no pool
    two = block(4, "swimming pool", 5, 70, 15, 80)
    assert verdict(claim, far(), block(2, "building", 30, 45, 40, 55), pool, two) is None  # "the pool" of two


def test_the_closest_to_the_largest_of_its_own_kind() -> None:
    large, near, off = block(1, "building", 5, 5, 35, 35), block(2, "building", 45, 5, 55, 15), far(3)
    largest = replace(BUILDING, rank=1, one=True)
    assert verdict(replace(BUILDING, relation="closest", one=True, anchor=largest), large, near, off) == (2,)


@pytest.mark.parametrize(
    ("gap", "ids"),
    [(1, (1,)), (3, (1,)), (4, None), (8, None), (11, None), (12, ())],  # of a diagonal of 200 px: 3 px, 12 px
)
def test_beside_by_hand(gap: int, ids: tuple[int, ...] | None) -> None:
    pool = block(3, "swimming pool", 40, 40, 60, 60)
    house = block(1, "building", 59 + gap, 40, 75 + gap, 60)
    other = block(2, "building", 23, 40, 40, 60)  # touches the pool
    annotated = AnnotatedImage(160, 120, [house, other, pool], frozenset(("building", "swimming pool")))
    found = answer(replace(BUILDING, relation="beside", anchor=POOL), annotated)
    assert found == (None if ids is None else (*ids, 2))


@pytest.mark.parametrize("side", ["left", "right", "above", "below"])
@pytest.mark.parametrize(
    ("start", "end", "holds"),
    [
        (20, 40, True),  # ends where the anchor begins
        (20, 41, None),
        (30, 60, None),  # across the anchor's first half
        (35, 64, None),  # its centre at 49.5, the anchor's at 50
        (40, 60, False),  # its centre at the anchor's
        (61, 80, False),
    ],
)
def test_sides_by_hand(side: str, start: int, end: int, holds: bool | None) -> None:
    if side in ("right", "below"):
        start, end = 100 - end, 100 - start

    def at(number: int, category: str, low: int, high: int, across: int) -> AnnotatedObject:
        across_to = across + 12
        box = (low, across, high, across_to) if side in ("left", "right") else (across, low, across_to, high)
        return block(number, category, *box)

    sure = at(2, "building", 2, 12, 70) if side in ("left", "above") else at(2, "building", 88, 98, 70)
    objects = [at(1, "building", start, end, 10), sure, at(3, "swimming pool", 40, 60, 40)]
    expected = {True: (1, 2), False: (2,), None: None}[holds]
    assert verdict(replace(BUILDING, relation=side, anchor=POOL), *objects) == expected


def test_an_anchor_is_all_of_its_objects() -> None:
    road = [block(5, "road", 0, 90, 40, 96, is_thing=False), block(6, "road", 60, 4, 100, 10, is_thing=False)]
    near = [block(1, "building", 10, 74, 30, 88), block(2, "building", 70, 12, 80, 22)]
    houses = [*near, block(3, "building", 10, 30, 20, 40)]
    claim = replace(BUILDING, relation="beside", anchor=Claim(("road",)))
    assert verdict(claim, *houses, *road, size=150) == (1, 2)


# ---- what is large and whole enough ---------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "least"), [(100, 24), (200, 40)])  # 24 px, or 0.1 % of the frame
def test_a_single_object_is_large_enough(size: int, least: int) -> None:
    big = block(2, "building", size - 40, size - 40, size - 10, size - 10, attributes={"roof:material": "concrete"})
    corner = replace(BUILDING, region="upper left corner", one=True)
    for short in (0, 1):
        small = block(1, "building", 2, 2, 2 + least - short, 3, attributes={"roof:material": "tin"})
        for claim in (corner, replace(corner, one=False), TIN, replace(TIN, region="left half")):
            assert verdict(claim, small, big, size=size) == (None if short else (1,))
        assert verdict(BUILDING, small, big, size=size) == (1, 2)  # of the whole class it may be a small part


def test_counted_objects_are_half_as_large_at_least() -> None:
    big = block(2, "building", 50, 50, 80, 80)
    for length, ids in ((12, (1, 2)), (11, None)):
        assert verdict(replace(BUILDING, count=2), block(1, "building", 2, 2, 2 + length, 3), big) == ids
        assert verdict(replace(BUILDING, region="left half"), block(1, "building", 2, 2, 2 + length, 3), far(2)) is None


def test_a_class_is_large_enough() -> None:
    for size, least in ((100, 5), (200, 20)):  # 0.05 % of the frame
        assert verdict(BUILDING, block(1, "building", 2, 2, 2 + least, 3), size=size) == (1,)
        assert verdict(BUILDING, block(1, "building", 2, 2, 1 + least, 3), size=size) is None
    half = [block(k, "building", 20 * k, 2, 20 * k + 10, 3) for k in (1, 2)]
    assert verdict(BUILDING, *half, size=200) == (1, 2)  # together


@pytest.mark.parametrize("claim", [TIN, replace(TIN, region="left half"), replace(BUILDING, region="left half")])
def test_a_sliver_is_not_the_one_by_any_fact(claim: Claim) -> None:
    """A phrase in the singular asks for one object, though its claim does not say that there is only one."""
    whole = block(1, "building", 2, 2, 22, 22, attributes={"roof:material": "tin"})
    other = block(2, "building", 70, 70, 90, 90, attributes={"roof:material": "concrete"})
    third = block(3, "building", 2, 50, 22, 70, attributes={"roof:material": "tin"})
    assert verdict(claim, whole, other) == (1,)
    assert verdict(claim, replace(whole, truncated=True), other) is None
    assert verdict(claim, replace(whole, truncated=True), other, third) == (1, 3)


def test_margins_are_the_callers() -> None:
    annotated = frame_of(*rows(240, 200), size=120)
    largest = replace(BUILDING, rank=1, one=True)
    assert verify_claim(annotated, largest, TABLE) is None
    assert verify_claim(annotated, largest, TABLE, Margins(size_ratio=1.2)).ids == (1,)

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import ConfigError
from segearth.geo.tiling import UNSEEN, blended, plan_tiles, rows_of_tiles, tile_weights
from segearth.geo.windows import Window

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.floats(0, 0.5), st.integers(-50, 50))


def tiled(height, width, size, share, anchor):
    overlap = int(size * share)
    return plan_tiles(height, width, size, overlap, (anchor, 2 * anchor)), overlap


def cut(array, tiles):
    """What a model that sees each pixel alike in every tile would say."""
    for tile in tiles:
        yield tile, array[(slice(None), *tile.slices_in(Window(0, 0, 0, 0)))]


def joined(strips, area, questions=1):
    """Puts strips together; every pixel of the area must come once."""
    whole = np.full((questions, area.height, area.width), np.nan, np.float32)
    for strip in strips:
        rows, columns = strip.window.slices_in(area)
        assert np.isnan(whole[:, rows, columns]).all()
        whole[:, rows, columns] = strip.logits
    assert not np.isnan(whole).any()
    return whole


def test_tiles_of_a_row_by_hand():
    assert [t.left for t in plan_tiles(4, 10, 4, 1)] == [0, 3, 6]
    assert [t.left for t in plan_tiles(4, 11, 4, 1)] == [0, 3, 6, 7]  # the last is moved inwards
    assert plan_tiles(3, 2, 4, 1) == [Window(0, 0, 3, 2)]  # a small scene is one tile
    assert plan_tiles(5, 4, 4, 0) == [Window(0, 0, 4, 4), Window(1, 0, 4, 4)]


def test_a_cut_out_is_tiled_as_the_scene_is():
    scene = {(t.top, t.left) for t in plan_tiles(100, 100, 16, 4)}
    for top, left in [(0, 0), (5, 7), (12, 24), (30, 31)]:
        tiles = plan_tiles(60, 50, 16, 4, anchor=(top, left))
        inner = [t for t in tiles if 0 < t.top < 60 - 16 and 0 < t.left < 50 - 16]
        assert inner
        assert all((t.top + top, t.left + left) in scene for t in inner)


@given(SHAPES)
def test_tiles_cover_all_lie_inside_and_neighbours_overlap(shape):
    height, width, size, *_ = shape
    tiles, overlap = tiled(*shape)
    seen = np.zeros((height, width), int)
    for tile in tiles:
        assert tile.top >= 0 and tile.left >= 0 and tile.bottom <= height and tile.right <= width
        assert (tile.height, tile.width) == (min(size, height), min(size, width))
        seen[tile.slices_in(Window(0, 0, 0, 0))] += 1
    assert (seen > 0).all()
    assert tiles == sorted(set(tiles))
    for starts in ({t.top for t in tiles}, {t.left for t in tiles}):
        assert all(after - before <= size - overlap for before, after in itertools.pairwise(sorted(starts)))


def test_weights_by_hand():
    # Half a period of a cosine over two pixels, sampled at their centres: sin²(π/8) and sin²(3π/8).
    weights = tile_weights(Window(0, 4, 2, 6), (2, 20), overlap=2)
    np.testing.assert_allclose(weights, [[0.146447, 0.853553, 1, 1, 0.853553, 0.146447]] * 2, atol=1e-6)
    at_the_border = tile_weights(Window(0, 14, 1, 6), (1, 20), 2)  # nothing lies beyond that could take over
    np.testing.assert_allclose(at_the_border, [[0.146447, 0.853553, 1, 1, 1, 1]], atol=1e-6)


@given(SHAPES)
def test_weights_are_above_zero_and_add_up_to_one_where_tiles_lie_regularly(shape):
    height, width, size, *_ = shape
    tiles, overlap = tiled(*shape)
    for tile in tiles:
        weights = tile_weights(tile, (height, width), overlap)
        assert weights.min() > 0 and weights.max() <= 1
    stride, length = size - overlap, size + 3 * (size - overlap)
    total = np.zeros((size, length))
    for tile in plan_tiles(size, length, size, overlap):
        total[tile.slices_in(Window(0, 0, 0, 0))] += tile_weights(tile, (size, length), overlap)
    assert stride > 0
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(SHAPES, st.integers(1, 3))
def test_tiles_cut_from_one_array_give_it_back_and_constants_stay(shape, questions):
    height, width, *_ = shape
    tiles, overlap = tiled(*shape)
    array = np.random.default_rng(0).normal(0, 10, (questions, height, width)).astype(np.float32)
    array[0] = -3.25
    area = Window(0, 0, height, width)
    strips = list(blended(cut(array, tiles), area, (height, width), overlap, questions))
    assert all(strip.window.height <= tiles[0].height for strip in strips)  # never more rows than a tile has
    np.testing.assert_allclose(joined(strips, area, questions), array, rtol=1e-5, atol=1e-5)


def test_neighbours_fade_into_each_other_without_a_step():
    """Two tiles that disagree by 1: between neighbouring pixels the blend moves by at most the steepest of a cosine."""
    tiles = plan_tiles(8, 28, 16, 4)
    assert [t.left for t in tiles] == [0, 12]
    said = [(tile, np.full((1, 8, 16), float(number), np.float32)) for number, tile in enumerate(tiles)]
    area = Window(0, 0, 8, 28)
    blend = joined(blended(said, area, (8, 28), 4, 1), area)
    assert np.abs(np.diff(blend[0], axis=1)).max() < np.pi / 2 / 4
    assert (blend[0, :, :12] == 0).all() and (blend[0, :, 16:] == 1).all()


@given(SHAPES, st.data())
def test_a_scene_goes_on_where_it_stopped_with_the_same_bits(shape, data):
    height, width, *_ = shape
    tiles, overlap = tiled(*shape)
    rng = np.random.default_rng(1)
    said = {tile: rng.normal(size=(1, tile.height, tile.width)).astype(np.float32) for tile in tiles}
    whole = Window(0, 0, height, width)
    strips = list(blended(said.items(), whole, (height, width), overlap, 1))
    done = data.draw(st.integers(0, len(strips) - 1))
    first = strips[done].window.top
    rest = Window(first, 0, height - first, width)
    again = [(tile, said[tile]) for row in rows_of_tiles(tiles) for tile in row if tile.bottom > first]
    resumed = joined(blended(again, rest, (height, width), overlap, 1), rest)
    assert np.array_equal(resumed, joined(strips, whole)[:, first:])


def test_only_the_area_is_given_out_and_what_no_tile_covers_is_unseen():
    scene, area = (40, 40), Window(5, 10, 30, 20)
    tiles = [Window(0, 8, 8, 8), Window(24, 8, 8, 8), Window(38, 8, 8, 8)]  # between them nothing, the last is beyond
    array = np.ones((1, *scene), np.float32)
    whole = joined(blended(cut(array, tiles), area, scene, 2, 1), area)
    assert (whole[0, :3, :6] == 1).all() and (whole[0, 19:27, :6] == 1).all()
    whole[0, :3, :6] = whole[0, 19:27, :6] = UNSEEN
    assert (whole == UNSEEN).all()
    assert (joined(blended([], area, scene, 2, 1), area) == UNSEEN).all()


def test_tiles_are_taken_when_needed():
    tiles = plan_tiles(100, 10, 10, 0)
    taken = []
    said = ((taken.append(tile) or tile, np.zeros((1, 10, 10), np.float32)) for tile in tiles)
    next(blended(said, Window(0, 0, 100, 10), (100, 10), 0, 1))
    assert taken == tiles[:2]


@pytest.mark.parametrize("numbers", [(0, 4, 4, 1), (4, 4, 0, 0), (4, 4, 4, 3), (4, 4, 4, -1)])
def test_bad_plans(numbers):
    with pytest.raises(ConfigError, match="give"):
        plan_tiles(*numbers)


def test_bad_blends():
    area = Window(0, 0, 20, 8)
    for tiles in ([Window(8, 0, 8, 8), Window(0, 0, 8, 8)], [Window(0, 0, 8, 8), Window(8, 0, 9, 8)]):
        with pytest.raises(ConfigError, match="plan_tiles"):
            list(blended(cut(np.zeros((1, 20, 8), np.float32), tiles), area, (20, 8), 0, 1))
    with pytest.raises(ConfigError, match="need 7812 MiB"):
        wide = Window(0, 0, 1024, 1_000_000)
        list(blended([(Window(0, 0, 1024, 1024), np.zeros((1, 1024, 1024)))], wide, (1024, 1_000_000), 0, 1))

"""Sharing out the rows of a step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import ConfigError
from segearth.utils.step_batches import split_batch

NAMES = ("the.batch", "the.most")


@pytest.mark.parametrize(("batch", "most", "processes", "shared"), [
    (16, 8, 1, (8, 2)), (16, 2, 4, (2, 2)), (8, 8, 1, (8, 1)), (8, 8, 4, (2, 1)), (8, 8, 8, (1, 1)),
    (16, 128, 1, (16, 1)),
])  # fmt: skip
def test_one_setting_serves_any_number_of_processes(
    batch: int, most: int, processes: int, shared: tuple[int, int]
) -> None:
    assert split_batch(batch, most, processes, NAMES) == shared


def test_the_error_says_what_fits() -> None:
    with pytest.raises(ConfigError, match=r"the\.batch 12 is no multiple of the\.most 4 x 2 .*; set the\.most to 3$"):
        split_batch(12, 4, 2, NAMES)
    with pytest.raises(ConfigError, match=r"the\.batch 2 is no multiple of 4 processes; set it to 4, say"):
        split_batch(2, 4, 4, NAMES)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 16))
def test_what_is_shared_out_adds_up_and_what_an_error_proposes_works(batch: int, most: int, processes: int) -> None:
    for _ in range(3):
        try:
            rows, passes = split_batch(batch, most, processes, NAMES)
        except ConfigError as error:
            number = int(str(error).removesuffix(", say").split()[-1])
            batch, most = (batch, number) if "the.most to" in str(error) else (number, most)
        else:
            assert rows * passes * processes == batch and 1 <= rows <= most
            return
    raise AssertionError("what the errors propose does not lead anywhere")


@pytest.mark.parametrize(("batch", "most"), [(0, 8), (8, 0), (-8, 8)])
def test_nothing_to_share_out(batch: int, most: int) -> None:
    with pytest.raises(ConfigError, match=r"the\.batch is .* and the\.most .*; give numbers from 1"):
        split_batch(batch, most, 1, NAMES)

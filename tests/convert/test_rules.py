from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.convert.causal_lm import count_layers, join_interleaved, split_interleaved
from segearth.convert.rules import Rule, Unused, check_shapes, shorten, simple, to_ours, to_theirs
from segearth.errors import CheckpointError

RULES = [
    simple("body.{i}.fc.{p}", "layers.{i}.linear.{p}"),
    Rule("body.{i}.kv", ("layers.{i}.k", "layers.{i}.v"), lambda t: t.chunk(2), lambda parts: torch.cat(list(parts))),
]
STATE = {"body.11.fc.weight": torch.ones(2, 3), "body.11.fc.bias": torch.zeros(2), "body.0.kv": torch.arange(6.0)}


def test_there_and_back() -> None:
    ours = to_ours(STATE, RULES).state
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        "layers.11.linear.weight": (2, 3), "layers.11.linear.bias": (2,), "layers.0.k": (3,), "layers.0.v": (3,)
    }  # fmt: skip
    back = to_theirs(dict(reversed(ours.items())), RULES)
    assert back.keys() == STATE.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in STATE.items())


def test_what_happened_is_said() -> None:
    translation = to_ours({**STATE, "head.a.b": torch.ones(1)}, RULES, [Unused("head.{*}", "no head here")])
    assert translation.lines() == [
        "3 tensors matched, 4 under this library's names", "1 left out: no head here (head.a.b)"
    ]  # fmt: skip


def test_nothing_is_lost_in_silence() -> None:
    with pytest.raises(CheckpointError, match=r"file\.bin: 1 tensors are unknown here: body\.x\.kv"):
        to_ours({"body.x.kv": torch.ones(1)}, RULES, origin="file.bin")
    with pytest.raises(CheckpointError, match=r"layers\.0\.v missing"):
        to_theirs({"layers.0.k": torch.ones(1)}, RULES)
    with pytest.raises(CheckpointError, match=r"1 tensors have no name there: layers\.0\.v"):
        to_theirs({"layers.0.v": torch.ones(1)}, RULES)
    assert to_theirs({"layers.0.v": torch.ones(1)}, RULES, ["layers.{i}.v"]) == {}
    with pytest.raises(CheckpointError, match=r"body\.0\.kv of shape \(\) cannot be split"):
        to_ours({"body.0.kv": torch.ones(())}, RULES)


def test_two_tensors_for_one_place() -> None:
    rules = [*RULES, simple("other", "layers.0.k")]
    with pytest.raises(CheckpointError, match=r"other and another tensor both give layers\.0\.k"):
        to_ours({**STATE, "other": torch.ones(3)}, rules)


def test_shapes() -> None:
    state = {"a": torch.ones(2), "b": torch.ones(3)}
    check_shapes(state, {"a": (2,), "b": (3,), "c": (4,)}, "file", optional=["c"])
    for expected, message in (
        ({"a": (2,), "b": (3,), "c": (4,)}, "file: 1 tensors missing: c"),
        ({"a": (2,), "b": (1, 3)}, r"file: 1 tensors of another shape: b is \(3,\), not \(1, 3\)"),
        ({"a": (2,)}, "file: 1 tensors too many: b"),
    ):
        with pytest.raises(CheckpointError, match=message):
            check_shapes(state, expected, "file")
    with pytest.raises(CheckpointError, match=r"not of floating point: a is torch\.int64"):
        check_shapes({"a": torch.arange(2)}, {"a": (2,)}, "file")


def test_long_lists_are_cut() -> None:
    assert shorten("abc") == "a, b, c"
    assert shorten(map(str, range(10))) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_interleaved_heads() -> None:
    """Two heads of width one: rows are q0 k0 v0 q1 k1 v1."""
    q, k, v = split_interleaved(torch.arange(6.0), 2)
    assert (q.tolist(), k.tolist(), v.tolist()) == ([0, 3], [1, 4], [2, 5])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_interleaving_is_undone(heads: int, width: int, columns: int) -> None:
    fused = torch.randn(heads * 3 * width, *([columns] if columns else []))
    assert torch.equal(join_interleaved(split_interleaved(fused, heads), heads), fused)


def test_layers_are_counted() -> None:
    assert count_layers(["a.0.x", "a.0.y", "a.1.x", "b.30.x"], r"a\.(\d+)\.") == 2
    assert count_layers([], r"a\.(\d+)\.") == 0
    with pytest.raises(CheckpointError, match=r"there is no layer 1 but a\.99999\.x"):
        count_layers(["a.0.x", "a.99999.x"], r"a\.(\d+)\.")

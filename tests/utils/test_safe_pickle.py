from __future__ import annotations

import collections
import os
import pickle
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import DatasetError
from segearth.utils.safe_pickle import load_plain_pickle

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
PLAIN = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner)
)


@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(path) == value


@pytest.mark.parametrize(
    "value", [np.int64(7), np.float32(0.5), np.uint8(255), np.bool_(True), np.dtype(">i4").type(-3)]
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_scalars_become_numbers(tmp_path, value, protocol):
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps({"id": value}, protocol=protocol))
    loaded = load_plain_pickle(path)["id"]
    assert loaded == value and type(loaded) is type(value.item())


def test_containers(tmp_path):
    value = {"a": {1, 2}, "b": frozenset({3}), "c": collections.OrderedDict(x=1), "d": 1 + 2j}
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol=2))
    assert load_plain_pickle(tmp_path / "a.p") == value


class Call:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, subprocess.Popen, np.load, np.array])
def test_calls_are_refused_and_not_made(tmp_path, monkeypatch, protocol, function):
    monkeypatch.chdir(tmp_path)
    argument = "__import__('os').mkdir('ran')" if function is eval else "ran"
    (tmp_path / "a.p").write_bytes(pickle.dumps({"x": [Call(function, argument)]}, protocol=protocol))
    with pytest.raises(DatasetError, match="refused, it names"):
        load_plain_pickle(tmp_path / "a.p")
    assert not (tmp_path / "ran").exists()


def test_object_arrays_are_refused(tmp_path):
    (tmp_path / "a.p").write_bytes(b"cnumpy\ndtype\n(S'O'\nI0\nI1\ntR.")
    with pytest.raises(DatasetError, match="numpy dtype 'O'"):
        load_plain_pickle(tmp_path / "a.p")


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2, 3])[:-3], b"\x80\x04]q."])
def test_damage_is_named(tmp_path, content):
    (tmp_path / "a.p").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.p: damaged or not a pickle"):
        load_plain_pickle(tmp_path / "a.p")


def test_missing_file(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.p: cannot be read"):
        load_plain_pickle(tmp_path / "a.p")

from __future__ import annotations

import collections
import os
import pickle
import random
import struct
import subprocess
import time
import tracemalloc

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
    def __init__(self, function, *arguments, state=None):
        self.parts = function, arguments, state

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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_wherever_they_lie(tmp_path, protocol):
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    value = {"twice": [array, (array,)], "fortran": np.asfortranarray(array), "none": np.zeros((0, 5), np.uint8)}
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol=protocol))
    loaded = load_plain_pickle(tmp_path / "a.p")
    assert loaded["twice"][0] is loaded["twice"][1][0] and type(loaded["twice"][0]) is np.ndarray
    for name in ("fortran", "none"):
        np.testing.assert_array_equal(loaded[name], value[name])
    np.testing.assert_array_equal(loaded["twice"][0], array)
    loaded["fortran"][0, 0] = 9  # a fresh array, not a view of the file


ENCODE = b"c_codecs\nencode\n"
INT64 = b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR"
MEGABYTE = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
REFUSED = {
    "defaults of a stand-in": b"\x80\x02" + ENCODE + b"N}S'__defaults__'\n(S'x'\nS'y'\nts\x86b.",
    "attribute of a stand-in": ENCODE + b"}S'mark'\nI1\nsb.",
    "code of a stand-in": b"\x80\x02" + ENCODE + b"N}S'__code__'\nccollections\nOrderedDict\ns\x86b.",
    "attribute of a class": b"cnumpy\ndtype\n}S'real'\nI1\nsb.",
    "object without its maker": b"\x80\x02cnumpy\ndtype\n)\x81.",
    "call by another opcode": b"(c_codecs\nencode\nS'a'\nS'b'\no.",
    "nested tuple as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",  # its hash overflows the stack of C
    "key that hashes for ever": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "set that hashes for ever": b"\x80\x04\x8f()" + b"2\x86" * 60 + b"\x90.",
    "one string encoded 2000 times": b"\x80\x02]" + MEGABYTE + b"q\x000" + ENCODE + b"q\x010("
    + b"h\x01h\x00h\x00\x86R" * 2000 + b"e.",
}  # fmt: skip
DAMAGED = {
    "number as data": b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\n(I10000000\nt" + INT64 + b"I00\nI80000000\ntb.",
    "number as a buffer": b"cnumpy.core.numeric\n_frombuffer\n(I80000000\n" + INT64 + b"(I10000000\ntS'C'\ntR.",
    "shape beyond the data": b"cnumpy.core.numeric\n_frombuffer\n(S'12345678'\n" + INT64 + b"(I2\ntS'C'\ntR.",
    "negative shape": b"cnumpy.core.numeric\n_frombuffer\n(S'12345678'\n" + INT64 + b"(I-1\nI-1\ntS'C'\ntR.",
    "bytearray beyond the file": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".",
}


@pytest.mark.parametrize("name", [*REFUSED, *DAMAGED])
def test_hostile_files_end_at_once_and_change_nothing(tmp_path, name):
    (tmp_path / "bad.p").write_bytes((REFUSED | DAMAGED)[name])
    start = time.monotonic()
    with pytest.raises(DatasetError, match=r"bad\.p: " + ("refused" if name in REFUSED else "damaged")):
        load_plain_pickle(tmp_path / "bad.p")
    assert time.monotonic() - start < 5
    value = {"bytes": b"\xff\x00", "number": np.int16(3), "set": {1}}
    (tmp_path / "good.p").write_bytes(pickle.dumps(value, protocol=2))
    assert load_plain_pickle(tmp_path / "good.p") == value


def test_shared_and_self_holding_lists_are_read_as_they_are(tmp_path):
    (tmp_path / "a.p").write_bytes(b"]q\x00h\x00a.")
    loaded = load_plain_pickle(tmp_path / "a.p")
    assert loaded[0] is loaded
    doubled: list = []
    for _ in range(60):
        doubled = [doubled, doubled]
    (tmp_path / "a.p").write_bytes(pickle.dumps(doubled))
    loaded = load_plain_pickle(tmp_path / "a.p")
    assert loaded[0] is loaded[1] and loaded[1][1][0] is loaded[0][0][1]


def test_a_memo_index_costs_no_memory(tmp_path):
    (tmp_path / "a.p").write_bytes(b"\x80\x02I5\nr\x00\x00\x00\x04.")  # in C, a table of 1 GiB
    tracemalloc.start()
    try:
        assert load_plain_pickle(tmp_path / "a.p") == 5
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_attributes_of_an_ordered_dict_are_left_out(tmp_path):
    state = Call(collections.OrderedDict, [["a", 1]], state={"_metadata": {"version": 1}, "items": 7})
    (tmp_path / "a.p").write_bytes(pickle.dumps(state))
    loaded = load_plain_pickle(tmp_path / "a.p")
    assert list(loaded.items()) == [("a", 1)] and not vars(loaded)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_damage_anywhere_is_a_clear_error_or_plain_data(tmp_path, protocol):
    value = {"a": [1, 2.5, "x", b"y", (1, 2)], "b": np.arange(3.0), "c": np.int32(3), "d": {1, 2}, "e": 1 + 2j}
    whole = pickle.dumps(value, protocol=protocol)
    chance = random.Random(protocol)
    for _ in range(150):
        content = bytearray(whole)
        content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "a.p").write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        try:
            load_plain_pickle(tmp_path / "a.p")
        except DatasetError as error:
            assert "a.p: " in str(error)

from __future__ import annotations

import collections
import json
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segearth.convert.reading import read_file, read_folder, read_json_object
from segearth.errors import CheckpointError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(7)}


class Call:
    def __init__(self, function, *arguments, state=None):
        self.parts = function, arguments, state

    def __reduce__(self):
        return self.parts


def zip_file(path):
    torch.save(STATE, path)


def old_file(path):
    torch.save({"model": STATE}, path, _use_new_zipfile_serialization=False)


def safetensors_file(path):
    save_file(STATE, path)


def pickle_file(path):
    arrays = {name: tensor.float().numpy() for name, tensor in STATE.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=2))


FORMATS = {
    "zip.bin": zip_file,
    "old.bin": old_file,
    "a.safetensors": safetensors_file,
    "a.pkl": pickle_file,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_tensors(tmp_path, name):
    FORMATS[name](tmp_path / name)
    state = read_file(tmp_path / name)
    assert state.keys() == STATE.keys()
    for key, tensor in STATE.items():
        assert state[key].shape == tensor.shape and torch.equal(state[key].float(), tensor.float())


@pytest.mark.filterwarnings("ignore")  # torch's, on versions of pickle that the flipped byte names
@pytest.mark.parametrize("name", FORMATS)
def test_damage_anywhere_is_a_clear_error_or_tensors(tmp_path, name):
    FORMATS[name](tmp_path / name)
    whole, chance = (tmp_path / name).read_bytes(), random.Random(0)
    for _ in range(300):
        content = bytearray(whole)
        content[chance.randrange(len(content))] = chance.randrange(256)
        if chance.random() < 0.3:
            content = content[: chance.randrange(len(content))]
        (tmp_path / name).unlink()  # a new file: tensors of the last one may be mapped
        (tmp_path / name).write_bytes(content)
        try:
            state = read_file(tmp_path / name)
        except CheckpointError as error:
            assert str(error).startswith(str(tmp_path / name)) and len(str(error)) < 500
        else:
            assert all(tensor.float().sum() is not None for tensor in state.values())


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"<html>not found</html>\n", b"\x80\x02."])
@pytest.mark.parametrize("name", FORMATS)
def test_other_files_under_these_names(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*fetch it again"):
        read_file(tmp_path / name)


def test_torchs_advice_to_run_the_file_is_not_passed_on(tmp_path):
    torch.save({"a": Call(print, "ran")}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"a\.bin: refused, it names \S*print; .* nothing was run") as error:
        read_file(tmp_path / "a.bin")
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("method", ["keys", "items", "get", "__iter__"])
@pytest.mark.parametrize("nested", [True, False])
def test_attributes_in_place_of_methods_are_refused(tmp_path, method, nested):
    state = Call(collections.OrderedDict, state={method: {}, "_metadata": {}})
    torch.save({"model": state} if nested else state, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=rf"a\.bin: its OrderedDict has attributes in place of {method}"):
        read_file(tmp_path / "a.bin")


def test_metadata_of_a_state_dict_is_no_such_attribute(tmp_path):
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "a.bin")
    assert read_file(tmp_path / "a.bin").keys() == {"weight", "bias"}


@pytest.mark.parametrize("dtype", [">f4", ">i8", "<f8", "b1", ">f2"])
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_arrays_of_either_byte_order(tmp_path, dtype, shape):
    array = np.array(np.arange(np.prod(shape)).reshape(shape), dtype, order="F")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": array}))
    tensor = read_file(tmp_path / "a.pkl")["a"]
    assert tensor.shape == shape and tensor.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_arrays_that_no_tensor_holds(tmp_path, dtype):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"layer.weight": np.zeros(2, dtype)}))
    if np.dtype(dtype) in (np.dtype(np.float64), np.dtype(np.complex128)):
        pytest.skip("long doubles are doubles here")
    with pytest.raises(CheckpointError, match=r"a\.pkl: layer\.weight is an array of \w+, which no tensor holds"):
        read_file(tmp_path / "a.pkl")


@pytest.mark.parametrize("tensor", [torch.ones(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"])
def test_tensors_that_are_not_plain(tmp_path, tensor):
    torch.save({"layer.weight": tensor}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"a\.bin: layer\.weight is a sparse tensor or one without data"):
        read_file(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content", [{}, [], 3, {"model": {}}, {"a": 3}, {"model": [torch.ones(1)]}], ids=lambda content: repr(content)[:12]
)
def test_files_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"a\.bin(: .*not a tensor| holds no tensors by name)"):
        read_file(tmp_path / "a.bin")


def write_index(folder, place):
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))


@pytest.mark.parametrize(
    "place",
    ["../elsewhere.safetensors", "deeper/a.bin", "/etc/hosts.bin", "a.pkl", "a", "", "..", [], ["a.bin"], 3, None, {}],
)
def test_an_index_names_only_files_beside_it(tmp_path, place):
    save_file({"a": torch.ones(1)}, tmp_path / "elsewhere.safetensors")
    write_index(tmp_path / "folder", place)
    with pytest.raises(CheckpointError) as error:
        read_folder(tmp_path / "folder")
    assert "model.safetensors.index.json: its weight_map names " + repr(place) in str(error.value)


def test_an_index_names_no_absolute_path(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "elsewhere.safetensors")
    write_index(tmp_path / "folder", str(tmp_path / "elsewhere.safetensors"))
    with pytest.raises(CheckpointError, match="its weight_map names"):
        read_folder(tmp_path / "folder")


@pytest.mark.parametrize("place", ["x" * 300 + ".bin", "\0.bin", "\ud800.bin"])
def test_names_that_no_file_has_are_missing_shards(tmp_path, place):
    write_index(tmp_path, place)
    with pytest.raises(CheckpointError, match="fetch the missing shard"):
        read_folder(tmp_path)


def test_shards_may_be_links_as_in_the_hubs_cache(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "blob")
    write_index(tmp_path / "snapshot", "a.safetensors")
    (tmp_path / "snapshot" / "a.safetensors").symlink_to("../blob")
    assert read_folder(tmp_path / "snapshot")["a"].tolist() == [1]


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"a":' * 100_000, "\ufeff{}", "9" * 5000])
def test_what_is_not_json(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json (is not JSON|holds no JSON object)"):
        read_json_object(tmp_path / "config.json")

"""Models of the hub: taken as they are, or converted once, whatever happens meanwhile; or refused with the remedy."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_fakes import FakeHub

from segearth.convert import cache
from segearth.convert.driver import Conversion, convert
from segearth.errors import CheckpointError, OutputError
from segearth.models.segearth import SegEarth

ID = "somebody/segearth-r1"
FORK = multiprocessing.get_context("fork")  # the stand-in for the hub comes along


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Notes what is converted."""
    done: list[list[str]] = []

    def noted(sources: list[str], folder: Path) -> Conversion:
        done.append(sources)
        return convert(sources, folder)

    monkeypatch.setattr(cache, "convert", noted)
    return done


def test_a_published_model_is_converted_once(hub: FakeHub, published_files: Path, conversions: list[Any]) -> None:
    commit = hub.push(ID, published_files)
    folder = cache.fetch(ID)
    assert folder == cache.cache_folder() / "converted" / "somebody--segearth-r1" / f"{commit[:12]}-{cache.CONVERTER}"
    assert hub.asked == [(ID, None, False), (ID, commit, True)]  # what it is, before its weights
    model = SegEarth.from_pretrained(folder)
    assert (model.config.protocol, model.config.text.template) == ("segearth_r1", "segearth_r1")
    assert (model.config.image_transform.fit, model.config.image_transform.size) == ("letterbox", 128)
    assert cache.fetch(ID) == folder and len(conversions) == 1
    assert hub.asked[2:] == [(ID, None, False)]
    note = json.loads((folder / cache.NOTE).read_text())
    assert (note["source"], note["revision"], note["commit"]) == (ID, "main", commit)
    assert cache.converted(ID) == [folder]


def test_another_revision_and_another_converter_are_converted_anew(
    hub: FakeHub, published_files: Path, conversions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.push(ID, published_files)
    old = cache.fetch(ID)
    hub.push(ID, published_files)
    new = cache.fetch(ID)
    assert new != old and len(conversions) == 2
    assert cache.fetch(ID, revision=first) == old and len(conversions) == 2
    assert cache.converted(ID) == [old, new]
    monkeypatch.setattr(cache, "CONVERTER", cache.CONVERTER + 1)
    assert cache.converted(ID) == []
    assert cache.fetch(ID) not in (old, new) and len(conversions) == 3


def test_the_cache_is_where_it_is_said_to_be(
    hub: FakeHub, published_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(ID, published_files)
    assert cache.fetch(ID, cache=tmp_path / "mine").is_relative_to(tmp_path / "mine" / "converted")
    assert cache.converted(ID) == []
    monkeypatch.delenv("SEGEARTH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "segearth"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "segearth"


def test_a_cache_that_cannot_be_written_names_the_variable(hub: FakeHub, published_files: Path, tmp_path: Path) -> None:
    hub.push(ID, published_files)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"is no folder.*set SEGEARTH_CACHE"):
        cache.fetch(ID, cache=tmp_path / "file" / "cache")


def test_a_model_of_this_library_is_taken_as_it_is(
    hub: FakeHub, debug_model: SegEarth, tmp_path: Path, conversions: list[Any]
) -> None:
    debug_model.save_pretrained(tmp_path / "saved")
    commit = hub.push(ID, tmp_path / "saved")
    opened = SegEarth.from_pretrained(cache.fetch(ID)).state_dict()
    assert all(torch.equal(opened[name], value) for name, value in debug_model.state_dict().items())
    assert conversions == [] and not cache.cache_folder().exists()
    assert hub.asked == [(ID, None, False), (ID, commit, True)]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"model_type": "qwen2"}, None),
        ({"model_type": "qwen2"}, ["model.layers.0.mlp.fc1.weight"]),
        ({"model_type": "llava_phi"}, ["model.vision_tower.vision_tower.embeddings.weight"]),  # of another family
        (None, None),
    ],
)
def test_a_model_in_neither_form_is_refused_before_its_weights_are_fetched(
    hub: FakeHub, tmp_path: Path, config: dict[str, str] | None, names: list[str] | None
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").touch()
    if config:
        (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    if names:
        index = {"weight_map": dict.fromkeys(names, "model-1.safetensors")}
        (tmp_path / "other" / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.push(ID, tmp_path / "other")
    with pytest.raises(CheckpointError, match=f"{ID} is neither a model that segearth saved") as said:
        cache.fetch(ID)
    assert "a published SegEarth-R1" in str(said.value) and "segearth zoo convert" in str(said.value)
    assert "\n" not in str(said.value)
    assert not any(weights for _, _, weights in hub.asked)


def test_the_index_tells_a_published_model_of_any_type(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi"}))
    index = {"weight_map": {"model.vision_tower.layers.0.blocks.0.norm1.weight": "pytorch_model-1.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert cache._is_published(tmp_path)


def cut_note(folder: Path) -> None:
    (folder / cache.NOTE).write_text((folder / cache.NOTE).read_text()[:20])


def cut_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / cache.NOTE).unlink(),
        cut_note,
        cut_weights,
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    ],
    ids=["no note", "note cut", "weights cut", "no tokenizer", "empty"],
)
def test_a_folder_that_was_cut_off_is_made_again(
    hub: FakeHub, published_files: Path, conversions: list[Any], damage: Any
) -> None:
    hub.push(ID, published_files)
    folder = cache.fetch(ID)
    whole = cache._sizes(folder)
    damage(folder)
    assert cache.converted(ID) == [] and not cache.is_whole(folder)
    assert cache.fetch(ID) == folder and len(conversions) == 2
    assert cache._sizes(folder) == whole


def test_what_others_put_into_the_folder_harms_nothing(
    hub: FakeHub, published_files: Path, conversions: list[Any]
) -> None:
    hub.push(ID, published_files)
    (cache.fetch(ID) / "eval_test").mkdir()
    assert (cache.fetch(ID) / "eval_test").is_dir() and len(conversions) == 1


def test_a_conversion_that_was_killed_is_made_again(
    hub: FakeHub, published_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(ID, published_files)

    def dies() -> None:
        monkeypatch.setattr("segearth.convert.driver.save_folder", lambda model, folder, state: (
            (folder / "config.json").write_text("{}"), os.kill(os.getpid(), signal.SIGKILL),
        ))  # fmt: skip
        cache.fetch(ID)

    process = FORK.Process(target=dies)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    home = cache.cache_folder() / "converted" / "somebody--segearth-r1"
    assert [path for path in home.iterdir() if path.is_dir()] != []  # what it left
    folder = cache.fetch(ID)
    assert [path for path in home.iterdir() if path.is_dir()] == [folder]
    SegEarth.from_pretrained(folder)


def test_two_processes_at_once_convert_once(
    hub: FakeHub, published_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(ID, published_files)
    (tmp_path / "done").mkdir()

    def slow(sources: list[str], folder: Path) -> Conversion:
        (tmp_path / "done" / str(os.getpid())).touch()
        while not (tmp_path / "waiting").exists():  # until the other has met the lock
            time.sleep(0.01)
        return convert(sources, folder)

    def run() -> None:
        met = tmp_path / "waiting"
        monkeypatch.setattr(cache.logger, "warning", lambda text, *_: "waiting" in text and met.touch())
        assert cache.is_whole(cache.fetch(ID))

    monkeypatch.setattr(cache, "convert", slow)
    processes = [FORK.Process(target=run) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "done").iterdir())) == 1


def test_a_disk_that_keeps_something_else_is_noticed(
    hub: FakeHub, published_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(ID, published_files)

    def loses(sources: list[str], folder: Path) -> Conversion:
        conversion = convert(sources, folder)
        cut_weights(folder)
        return conversion

    monkeypatch.setattr(cache, "convert", loses)
    with pytest.raises(CheckpointError, match="the disk did not keep what was converted"):
        cache.fetch(ID)
    assert cache.converted(ID) == []


def test_what_was_converted_opens_without_the_hub(hub: FakeHub, published_files: Path) -> None:
    commit = hub.push(ID, published_files)
    folder = cache.fetch(ID)
    hub.reachable = False
    assert cache.fetch(ID) == cache.fetch(ID, revision="main") == cache.fetch(ID, revision=commit) == folder
    for hub_id, revision in ((ID, "other"), ("somebody/else", None)):
        with pytest.raises(CheckpointError, match="the hub does not answer"):
            cache.fetch(hub_id, revision=revision)

from __future__ import annotations

from pathlib import Path

import pytest

from segearth.errors import CheckpointError
from segearth.utils.hub import find_source, is_hub_id

PATHS = [
    "runs/aerial_mini", "Runs/aerial_mini", "output/segearth", "checkpoints/best", "./owner/name", "../name",
    "/owner/name", "~/name", "owner/name/model", "owner/", "owner//name", "/name", "owner\\name", "C:\\models\\name",
    "weights.safetensors", "owner/weights.bin", "owner/swin.pkl", "owner/config.YAML", "converted", "aerial_mini", "",
    "owner name/x", ".hidden/x", "owner/-name", "öwner/name", "timm:swin_tiny", "owner/name\n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", PATHS)
def test_what_looks_like_a_path_is_none_of_the_hubs(text: str) -> None:
    assert not is_hub_id(text)
    if text:  # the empty text is the working folder
        with pytest.raises(CheckpointError, match=r"no tokenizer at .*no such folder here; check its name"):
            find_source(text, "tokenizer")


@pytest.mark.parametrize("text", ["microsoft/phi-1_5", "Qwen/Qwen2.5-0.5B", "earth-insights/SegEarth-R1-EarthReason"])
def test_owner_and_name_are_the_hubs(text: str) -> None:
    assert find_source(text) == text
    assert find_source("hf:" + text) == text


def test_the_hub_is_said_outright_where_the_text_could_be_a_folder() -> None:
    with pytest.raises(CheckpointError, match="write hf:runs/aerial_mini if you mean the hub's model"):
        find_source("runs/aerial_mini")
    assert find_source("hf:runs/aerial_mini") == "runs/aerial_mini"
    assert find_source("hf:gpt2") == "gpt2"
    with pytest.raises(CheckpointError, match="write hf:OWNER/converted"):
        find_source("converted")
    for text in ("hf:", "hf:../name", "hf:a/b/c", "hf:/etc"):
        with pytest.raises(CheckpointError, match="belongs a hub id such as owner/name"):
            find_source(text)


def test_a_folder_comes_first() -> None:
    Path("microsoft/phi-1_5").mkdir(parents=True)
    assert find_source("microsoft/phi-1_5") == Path("microsoft/phi-1_5")
    with pytest.raises(CheckpointError, match="would be read instead"):
        find_source("hf:microsoft/phi-1_5")
    with pytest.raises(CheckpointError, match="no such folder here"):  # beside it: a name spelled wrongly
        find_source("microsoft/phi-2")


def test_a_path_is_a_folder_whatever_it_looks_like() -> None:
    with pytest.raises(CheckpointError, match="no such folder here"):
        find_source(Path("microsoft/phi-1_5"))


def test_a_file_is_no_folder() -> None:
    Path("weights").write_text("")
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        find_source("weights")


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert find_source("~/mine") == tmp_path / "mine"

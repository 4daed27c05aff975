"""Nothing but what the user typed as a hub id reaches the hub, and no saved file tells where it was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers
from typer.testing import CliRunner

import segearth
from segearth.cli import app
from segearth.config import LanguageModelConfig
from segearth.convert.driver import convert, export_segearth_r1
from segearth.errors import CheckpointError
from segearth.models.build import build_model
from segearth.models.language_model import build_language_model
from segearth.models.pretrained import save_folder
from segearth.models.segearth import SegEarth
from segearth.text.tokenizer import load_tokenizer
from segearth.utils.torchvision_mend import mend_torchvision
from segearth.zoo.lookup import build_from_spec, model_config
from segearth.zoo.opening import open_model

FOLDERS = ["runs/aerial_mini", "./owner/name", "owner/name/model", "~/owner/name", "converted", "owner/model.bin"]


class NoAnswer(Exception):
    """As HTTP libraries have for a proxy that refuses and a time that is up: no ``OSError``, often without words."""


@pytest.fixture
def refusal() -> Exception:
    """What every door to the hub raises."""
    return OSError("the hub was asked")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Exception) -> list[str]:
    """Replaces every door to the hub by one that only notes what was asked of it."""
    names: list[str] = []

    def ask(name: Any, *args: Any, **kwargs: Any) -> Any:
        names.append(str(name))
        raise refusal

    mend_torchvision()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", ask)
    monkeypatch.setattr("timm.create_model", ask)
    for auto in (transformers.AutoTokenizer, transformers.AutoConfig, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(auto, "from_pretrained", ask)
    return names


DOORS: dict[str, Callable[[str], Any]] = {
    "from_pretrained": SegEarth.from_pretrained,
    "load": segearth.load,
    "open_model": open_model,
    "model.pretrained": lambda name: build_from_spec({"pretrained": name}),
    "tokenizer": load_tokenizer,
    "language model": lambda name: build_language_model(LanguageModelConfig(pretrained=name), 8),
    "its shape": lambda name: build_language_model(LanguageModelConfig(pretrained=name), 8, load_weights=False),
    "convert": lambda name: convert([name], "new"),
    "export": lambda name: export_segearth_r1(name, "new"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_folder_that_is_missing_is_not_asked_of_the_hub(door: str, asked: list[str]) -> None:
    for name in FOLDERS:
        with pytest.raises(CheckpointError):
            DOORS[door](name)
    assert asked == []
    with pytest.raises(CheckpointError, match="the hub was asked"):
        DOORS[door]("owner/name")
    with pytest.raises(CheckpointError, match="the hub was asked"):
        DOORS[door]("hf:runs/aerial_mini")
    assert asked == ["owner/name", "runs/aerial_mini"]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (NoAnswer("the proxy refuses\nand says a lot"), "the proxy refuses"),
        (NoAnswer(), "NoAnswer"),
        (OSError(), "OSError"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_a_hub_that_cannot_be_reached_is_one_line(door: str, asked: list[str], reason: str) -> None:
    with pytest.raises(CheckpointError) as said:
        DOORS[door]("owner/name")
    assert str(said.value).endswith(f": {reason}") and asked == ["owner/name"]


@pytest.mark.parametrize("command", [
    ["predict", "a.png", "roads", "--model", "runs/aerial_mini"],
    ["eval", "aerial_mini"],
    ["eval", "aerial_mini", "train.output_dir=owner/name"],
    ["export", "runs/aerial_mini", "onnx"],
    ["info", "runs/aerial_mini"],
    ["bench", "runs/aerial_mini"],
])  # fmt: skip
def test_no_command_asks_for_what_is_not_trained_yet(command: list[str], asked: list[str], picture: Any) -> None:
    from PIL import Image

    Image.fromarray(picture).save("a.png")
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, asked) == (1, [])
    assert "nothing is trained at" in result.output or "no such folder here" in result.output


def test_a_saved_folder_sends_nobody_to_the_hub(debug_model: SegEarth, asked: list[str]) -> None:
    save_folder(debug_model, Path("saved"))
    facts = json.loads(Path("saved/config.json").read_text())
    facts["model"]["language_model"]["pretrained"] = "owner/name"
    Path("saved/config.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"language_model\.pretrained is 'owner/name'"):
        SegEarth.from_pretrained("saved")
    assert asked == []


def test_an_adapter_sends_nobody_to_the_hub(asked: list[str]) -> None:
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        build_language_model(LanguageModelConfig(pretrained="adapter"), 8)
    assert asked == []


def test_a_saved_model_names_no_place_of_the_machine_it_was_made_on(debug_model: SegEarth, tmp_path: Path) -> None:
    debug_model.prompt_encoder.tokenizer.save_pretrained(tmp_path / "words")
    config = model_config({"name": "segearth_debug", "text": {"tokenizer": str(tmp_path / "words")}})
    model = build_model(config)
    model.save_pretrained(tmp_path / "first")
    SegEarth.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for folder in ("first", "second"):
        files = sorted(path for path in (tmp_path / folder).iterdir() if path.suffix != ".safetensors")
        assert {"README.md", "config.json", "tokenizer.json"} <= {path.name for path in files}
        assert [path.name for path in files if str(tmp_path) in path.read_text(encoding="utf-8")] == []
    assert json.loads((tmp_path / "first/config.json").read_text())["model"]["text"]["tokenizer"] == "."
    (tmp_path / "first").rename(tmp_path / "moved")
    (tmp_path / "words").rename(tmp_path / "gone")
    assert SegEarth.from_pretrained(tmp_path / "moved").config.text.tokenizer == str(tmp_path / "moved")
    assert config.text.tokenizer == str(tmp_path / "words")  # saving changes nothing in the model


class TestReadme:
    def test_no_licence_is_claimed_for_weights(self, debug_model: SegEarth, tmp_path: Path) -> None:
        debug_model.save_pretrained(tmp_path)
        card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
        assert card.data.license is None
        assert card.data.library_name == "segearth"
        assert "Licence of the weights\n\nNot stated." in card.text
        assert "Training data\n\nNot stated." in card.text

    def test_what_is_told_is_written(self, debug_model: SegEarth, tmp_path: Path) -> None:
        facts = {"license": "cc-by-4.0", "trained_on": "A hundred roofs.", "source": "me/roofs"}
        debug_model.save_pretrained(tmp_path, model_card_kwargs=facts)
        card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
        assert card.data.license == "cc-by-4.0"
        assert "Licence of the weights\n\ncc-by-4.0" in card.text and "Not stated" not in card.text
        assert "A hundred roofs." in card.text and 'segearth.load("me/roofs")' in card.text

    def test_what_is_pushed_is_the_same(self, debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch) -> None:
        pushed: dict[str, str] = {}

        class Hub:
            def __init__(self, *args: Any, **kwargs: Any) -> None: ...

            def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
                return type("Repository", (), {"repo_id": repo_id})

            def upload_folder(self, folder_path: Path, **kwargs: Any) -> str:
                pushed["card"] = (Path(folder_path) / "README.md").read_text()
                return "done"

        monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
        debug_model.push_to_hub("me/roofs")
        assert "apache" not in pushed["card"].split("---")[1]
        assert "license" not in pushed["card"].split("---")[1]

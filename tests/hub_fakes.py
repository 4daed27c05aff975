"""A small model of the published SegEarth-R1's form, and a hub that is a folder."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from segearth.config import (
    DescriptionProjectorConfig,
    ImageTransformConfig,
    LanguageModelConfig,
    MaskDecoderConfig,
    ModelConfig,
    PixelDecoderConfig,
    TextConfig,
    TokenCompressorConfig,
    VisionEncoderConfig,
)
from segearth.convert.driver import published_state
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth

FACTS = {"model_type": "llava_phi", "num_attention_heads": 4}
PHI = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def published_model(tokenizer: Path) -> SegEarth:
    """A small random model of the published form."""
    config = ModelConfig(
        vision_encoder=VisionEncoderConfig(embed_dim=16, depths=[1] * 4, num_heads=[1, 2, 4, 8], window_size=4),
        token_compressor=TokenCompressorConfig(kind="sparse_conv", input_size=4),
        language_model=LanguageModelConfig(
            model_type="phi", config={**PHI, "max_position_embeddings": 2048}, head_bias=False
        ),
        description_projector=DescriptionProjectorConfig(dim=32, depth=1, num_heads=2, head_dim=64, ff_mult=2),
        pixel_decoder=PixelDecoderConfig(dim=32, num_layers=1, num_heads=4, num_points=4, ffn_dim=48),
        mask_decoder=MaskDecoderConfig(num_layers=3, num_heads=8, ffn_dim=48),
        image_transform=ImageTransformConfig(size=128, fit="letterbox"),
        text=TextConfig(template="segearth_r1", tokenizer=str(tokenizer)),
        presence_threshold=0.0,
        protocol="segearth_r1",
    )
    torch.manual_seed(0)
    return build_model(config).eval()


def write_published(model: SegEarth, folder: Path) -> Path:
    """Writes it in the published layout, in one file."""
    model.prompt_encoder.tokenizer.save_pretrained(folder)
    save_file(published_state(model.state_dict(), model.config), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(FACTS), encoding="utf-8")
    return folder


class FakeHub:
    """Stands in for the hub and its client: models are folders, and a download copies files of one commit.

    Attributes:
        asked: What was asked of it, in order: hub id, revision, and whether weights were wanted.
        reachable: Whether the hub answers; the client's cache does not then either.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits: dict[str, list[Path]] = {}
        self.asked: list[tuple[str, str | None, bool]] = []
        self.reachable = True

    def push(self, hub_id: str, folder: Path) -> str:
        """Adds a commit with a folder's files and returns its name."""
        commits = self.commits.setdefault(hub_id, [])
        commit = f"{len(commits):x}" * 40
        shutil.copytree(folder, self.root / "hub" / hub_id / commit)
        commits.append(self.root / "hub" / hub_id / commit)
        return commit

    def snapshot_download(
        self, hub_id: str, revision: str | None = None, allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None, **_: Any,
    ) -> str:  # fmt: skip
        wanted = [*(allow_patterns or ["*"])]
        self.asked.append((hub_id, revision, any(fnmatch("model.safetensors", pattern) for pattern in wanted)))
        if not self.reachable or hub_id not in self.commits:
            raise LocalEntryNotFoundError("the hub does not answer")
        commits = {path.name: path for path in self.commits[hub_id]}
        source = commits[revision] if revision in commits else self.commits[hub_id][-1]
        place = self.root / "client" / hub_id / "snapshots" / source.name
        for path in (path for path in source.rglob("*") if path.is_file()):
            name = path.relative_to(source).as_posix()
            if any(fnmatch(name, p) for p in wanted) and not any(fnmatch(name, p) for p in ignore_patterns or []):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / name)
        return str(place)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """In place of the hub, with a folder of converted models of its own."""
    fake = FakeHub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot_download)
    monkeypatch.setenv("SEGEARTH_CACHE", str(tmp_path / "cache"))
    return fake


@pytest.fixture(scope="session")
def published_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the published layout."""
    from transformers import PreTrainedTokenizerFast

    file = Path(__file__).parent / "convert/golden/tokenizer/tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token="<|endoftext|>", pad_token="[PAD]", clean_up_tokenization_spaces=False
    )
    tokenizer.add_tokens(["[SEG]"], special_tokens=True)
    words = tmp_path_factory.mktemp("words")
    tokenizer.save_pretrained(words)
    return write_published(published_model(words), tmp_path_factory.mktemp("published") / "files")

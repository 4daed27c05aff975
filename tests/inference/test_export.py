from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from segearth.cli import app
from segearth.errors import CheckpointError, ConfigError, MissingExtraError
from segearth.inference.export import ImageEncoderGraph, MaskDecoderGraph, describe, export_onnx, feature_names
from segearth.model_types import MaskOutput
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.models.word_heads import WORD_DIM
from segearth.structures import Question
from segearth.zoo.lookup import model_config

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'segearth[onnx]'")

QUESTIONS = [Question(text) for text in ("the road", "ships", "all roofs of tin", "water, left", "a field")]


@pytest.fixture(scope="module")
def full_model() -> SegEarth:
    """With all that a graph can hold: coordinates, boxes that hide something, and a shifted window on a padded map.

    Each block of the vision encoder takes the exporter two seconds, so only the third stage has a second one: its maps,
    of 8x6 cells, are padded to windows of 4x4.
    """
    config = model_config("segearth_debug")
    config.vision_encoder.depths = [1, 1, 2, 1]
    config.coordinates = config.mask_decoder.box_gate = True
    torch.manual_seed(1)
    model = build_model(config, load_weights=False).eval()
    assert model.mask_decoder.box_gate is not None
    torch.nn.init.normal_(model.mask_decoder.box_gate.mlp[-1].weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def exported(full_model: SegEarth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(full_model, tmp_path_factory.mktemp("export") / "onnx", (128, 96))


@pytest.fixture(scope="module")
def sessions(exported: Path) -> dict[str, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {
        name: onnxruntime.InferenceSession(exported / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder")
    }


def frame(model: SegEarth, content: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (128, 96, 3), dtype=np.uint8)
    fields = np.kron(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8), np.ones((32, 32, 1), np.uint8))
    return model.image_transform.apply({"noise": noise, "fields": fields}[content])[None].numpy()


def in_onnxruntime(
    sessions: dict[str, Any], model: SegEarth, images: np.ndarray, questions: list[Question]
) -> tuple[np.ndarray, np.ndarray]:
    features = dict(zip(feature_names(model), sessions["encoder"].run(None, {"images": images}), strict=True))
    descriptions = describe(model, features.pop("image_tokens"), questions)
    return tuple(
        sessions["decoder"].run(["mask_logits", "presence_logits"], {"descriptions": descriptions, **features})
    )


@torch.inference_mode()
def in_torch(model: SegEarth, images: np.ndarray, questions: list[Question]) -> MaskOutput:
    features = model.eval().encode_image(torch.from_numpy(images))
    text = model.prompt_encoder.encode(questions)
    queries = model.encode_text(features, text, torch.zeros(len(questions), dtype=torch.long))
    return model.decode_masks(features, queries)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("content", ["noise", "fields"])
def test_onnxruntime_gives_the_models_logits(
    full_model: SegEarth, sessions: dict[str, Any], content: str, count: int
) -> None:
    images, questions = frame(full_model, content), QUESTIONS[:count]
    masks, presence = in_onnxruntime(sessions, full_model, images, questions)
    expected = in_torch(full_model, images, questions)
    logits = expected.mask_logits.numpy()
    assert masks.shape == logits.shape == (count, 32, 24)
    assert np.abs(masks - logits).max() <= 1e-4 * np.abs(logits).max()
    assert np.abs(presence - expected.presence_logits.numpy()).max() <= 1e-4
    assert np.abs(logits[(masks > 0) != (logits > 0)]).max(initial=0) < 1e-3


@pytest.mark.parametrize("kind", ["debug_model", "placed_model"])
@torch.inference_mode()
def test_what_is_exported_is_the_model(kind: str, request: pytest.FixtureRequest) -> None:
    """Of the published shape too, which has neither coordinates nor boxes: what the exporter is given, run by torch."""
    model: SegEarth = request.getfixturevalue(kind)
    images = frame(model, "fields")
    outputs = ImageEncoderGraph(model)(torch.from_numpy(images))
    assert len(outputs) == len(feature_names(model))
    descriptions = torch.from_numpy(describe(model, outputs[0].numpy(), QUESTIONS))
    masks, presence = MaskDecoderGraph(model)(descriptions, list(outputs[1:]))
    expected = in_torch(model, images, QUESTIONS)
    logits = expected.mask_logits if model.region_chooser is None else expected.candidate_logits  # before the choice
    torch.testing.assert_close(masks, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(presence, expected.presence_logits, rtol=1e-4, atol=1e-4)


def test_the_graphs_depend_on_image_and_question(full_model: SegEarth, sessions: dict[str, Any]) -> None:
    noise, fields = (in_onnxruntime(sessions, full_model, frame(full_model, c), QUESTIONS) for c in ("noise", "fields"))
    assert np.abs(noise[0] - fields[0]).max() > 1e-2
    assert np.abs(noise[0][0] - noise[0][1]).max() > 1e-3


def test_the_facts_beside_the_graphs_are_theirs(full_model: SegEarth, exported: Path, sessions: dict[str, Any]) -> None:
    facts = json.loads((exported / "export.json").read_text())
    assert sorted(path.name for path in exported.iterdir()) == ["decoder.onnx", "encoder.onnx", "export.json"]
    for name, session in sessions.items():
        assert facts[name]["inputs"] == [i.name for i in session.get_inputs()]
        assert facts[name]["outputs"] == [o.name for o in session.get_outputs()]
    assert facts["input_size"] == sessions["encoder"].get_inputs()[0].shape[2:] == [128, 96]
    count, width = sessions["decoder"].get_inputs()[0].shape
    assert width == facts["language_width"] + WORD_DIM  # the box reads the words too
    # A number would be the only count it takes; torch 2.6 names the axis itself.
    assert isinstance(count, str) if torch.__version__.startswith("2.6.") else count == "questions"
    assert facts["image_transform"]["mean"] == full_model.config.image_transform.mean
    assert facts["versions"]["torch"] == torch.__version__


def test_a_frame_of_another_size_is_refused(full_model: SegEarth, sessions: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="invalid dimensions"):
        sessions["encoder"].run(None, {"images": frame(full_model, "noise")[..., :64]})


@pytest.fixture
def broken_exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("torch.onnx.export", stop)
    yield


def test_nothing_half_written_is_left(debug_model: SegEarth, tmp_path: Path, broken_exporter: None) -> None:
    with pytest.raises(RuntimeError, match="disk is full"):
        export_onnx(debug_model, tmp_path / "onnx", (64, 64))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(
    debug_model: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_exporter: None
) -> None:
    with pytest.raises(ConfigError, match="100x128 px cannot be exported; give multiples of 32"):
        export_onnx(debug_model, tmp_path / "onnx", (100, 128))
    (tmp_path / "taken").write_text("")
    with pytest.raises(CheckpointError, match="exists already"):
        export_onnx(debug_model, tmp_path / "taken")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segearth\[onnx\]'"):
        export_onnx(debug_model, tmp_path / "onnx")


def test_the_command(debug_model: SegEarth, tmp_path: Path, broken_exporter: None) -> None:
    debug_model.save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "model"), str(tmp_path / "onnx"), "--height", "100"])
    assert result.exit_code == 1
    assert "100x128 px" in result.output

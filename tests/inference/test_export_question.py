from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from segearth.cli import app
from segearth.errors import ConfigError, OutputError, QuestionError
from segearth.inference.export_question import AnswerGraph, deepness_metadata, export_question
from segearth.inference.predictor import Predictor
from segearth.models.segearth import SegEarth
from segearth.text.known_words import KnownWords

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'segearth[onnx]'")


@pytest.fixture(scope="module")
def session(debug_model: SegEarth, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import onnxruntime

    path = tmp_path_factory.mktemp("question") / "roofs.onnx"
    assert export_question(debug_model, "the roofs", path, size=64, resolution=0.13) == path
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def tile(seed: int) -> np.ndarray:
    fields = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.kron(fields, np.ones((16, 16, 1), np.uint8))


def as_input(image: np.ndarray) -> np.ndarray:
    return (image / np.float32(255)).transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_above_a_half_is_the_mask_that_predict_gives(session: Any, debug_model: SegEarth, seed: int) -> None:
    image = tile(seed)
    (probability,) = session.run(None, {"picture": as_input(image)})
    assert probability.shape == (1, 1, 64, 64)
    predictor = Predictor(debug_model)
    size = predictor.transform.size
    try:
        predictor.transform.size = 64  # the frame of the graph
        predictor.set_image(image)
        answer = predictor.predict("the roofs", return_logits=True)
    finally:
        predictor.transform.size = size
    assert answer.logits is not None
    expected = torch.from_numpy(answer.logits).sigmoid().minimum(torch.tensor(answer.presence))
    np.testing.assert_allclose(probability[0, 0], expected, atol=1e-5)


def test_words_that_the_model_never_met_are_left_out_of_the_graph(
    debug_model: SegEarth, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, other = (AnswerGraph(debug_model, text, "referring") for text in ("the roofs", "trace the roofs"))
    assert plain.question.shape != other.question.shape
    monkeypatch.setattr(debug_model, "known_words", KnownWords(["the", "roofs"]))
    assert torch.equal(AnswerGraph(debug_model, "trace the roofs", "referring").question, plain.question)


def test_what_presence_decides_is_in_the_graph(debug_model: SegEarth) -> None:
    graph = AnswerGraph(debug_model, "the roofs", "referring").eval()
    picture = torch.from_numpy(as_input(tile(3)))
    with torch.no_grad():
        plain = graph(picture)
        threshold, decides = graph.deciding.presence_threshold, type(graph.deciding)
        graph.deciding = decides(1 - 1e-9, False)
        assert graph(picture).max() < 0.5  # never present enough
        graph.deciding = decides(1e-9, True)
        lifted = graph(picture)
    assert threshold == 0.5 and lifted.max() > 0.7  # the highest logit lies 1 above where the mask is cut
    assert not torch.equal(plain, lifted)


def test_deepness_reads_the_metadata(session: Any) -> None:
    facts = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["model_type"] == "Segmentor" and facts["class_names"] == {"0": "the roofs"}
    assert (facts["tiles_size"], facts["seg_thresh"], facts["resolution"]) == (64, 0.5, 13)
    assert "resolution" not in deepness_metadata("ships", 64, None)


@pytest.mark.parametrize(("question", "size", "error"), [("", 64, QuestionError), ("roofs", 70, ConfigError)])
def test_bad_input(debug_model: SegEarth, tmp_path: Path, question: str, size: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        export_question(debug_model, question, tmp_path / "graph.onnx", size=size)
    with pytest.raises(OutputError):
        export_question(debug_model, "roofs", tmp_path, size=64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--question", "roofs", "--height", "64"], "tiles are square"),
        (["--resolution", "0.5"], "go with --question"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", "segearth_debug", str(tmp_path / "graph.onnx"), *options])
    assert result.exit_code == 1 and message in result.output


@pytest.mark.parametrize(("question", "warned"), [("the largest roof", True), ("the roofs", False)])
def test_that_a_graph_compares_nothing_is_told(
    placed_model: SegEarth, question: str, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    name = "segearth.inference.export_question"
    monkeypatch.setattr(f"{name}.write_graph", lambda graph, inputs, path, *names: Path(path).touch())
    monkeypatch.setattr(f"{name}._add_metadata", lambda *given: None)
    export_question(placed_model, question, tmp_path / "one.onnx", size=64)
    assert ("compares things, which a tile cannot" in caplog.text) is warned

"""The ONNX graphs in onnxruntime, beside the same modules in PyTorch."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segearth.benchmark.measure import alternate
from segearth.errors import ConfigError, MissingExtraError
from segearth.inference.export import (
    DECODER_FILE,
    ENCODER_FILE,
    ImageEncoderGraph,
    MaskDecoderGraph,
    describe,
    export_onnx,
    feature_names,
)
from segearth.models.segearth import SegEarth
from segearth.structures import Question


def check_onnx(model: SegEarth) -> None:
    """Says before anything is measured whether :func:`measure_onnx` can run.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ConfigError: The model is not in float32 on a CPU.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "onnx")
    if model.device.type != "cpu" or model.dtype != torch.float32:
        raise ConfigError(f"ONNX graphs are measured in float32 on a CPU, not in {model.dtype} on {model.device}")


@torch.no_grad()
def measure_onnx(model: SegEarth, image: Tensor, questions: Sequence[Question], repeats: int) -> dict[str, Any]:
    """Exports a model to a temporary folder and runs both graphs, with as many threads as PyTorch has.

    Args:
        model: As :func:`check_onnx` wants it.
        image: ``(1, 3, H, W)``, sides multiples of 32.
        questions: What the decoder is given: the first alone, then all of them.
        repeats: Counted rounds; medians are taken.

    Returns:
        ``"parts"``: for ``"encoder"`` and ``"decoder, N = ..."`` the seconds in ``"torch"`` and ``"onnxruntime"``;
        ``"difference"``: the largest of all mask logits, over the largest logit.
    """
    encoder, decoder = ImageEncoderGraph(model), MaskDecoderGraph(model)
    with tempfile.TemporaryDirectory() as parent:
        folder = export_onnx(model, Path(parent) / "onnx", (image.shape[2], image.shape[3]))
        encoder_session, decoder_session = (_session(folder / file) for file in (ENCODER_FILE, DECODER_FILE))
    tokens, *features = encoder(image)
    inputs = {"images": image.numpy()}
    arrays = dict(zip(feature_names(model), encoder_session.run(None, inputs), strict=True))
    arrays.pop("image_tokens")
    works: dict[tuple[str, str], Callable[[], Any]] = {
        ("encoder", "torch"): partial(encoder, image),
        ("encoder", "onnxruntime"): partial(encoder_session.run, None, inputs),
    }
    difference = 0.0
    for some in (questions[:1], questions):
        descriptions = describe(model, tokens.numpy(), some)
        name, given, feed = f"decoder, N = {len(some)}", torch.from_numpy(descriptions), arrays.copy()
        feed["descriptions"] = descriptions
        works[name, "torch"] = partial(decoder, given, features)
        works[name, "onnxruntime"] = partial(decoder_session.run, None, feed)
        ours, theirs = decoder(given, features)[0].numpy(), decoder_session.run(None, feed)[0]
        difference = max(difference, float(np.abs(ours - theirs).max() / np.abs(ours).max()))
    seconds = alternate(works, repeats, model.device)
    parts = {part: {way: median(seconds[part, way]) for way in ("torch", "onnxruntime")} for part, _ in works}
    return {"parts": parts, "difference": difference}


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

"""The image encoder and the mask decoder as ONNX graphs. The language model between them stays in transformers.

The frame's size is fixed in the graphs, the number of questions is not.

Shapes: ``N`` questions about one image, ``S`` image tokens, ``C`` channels, ``D`` width of the language model, ``H W``
the frame.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from segearth import __version__
from segearth.errors import ConfigError, MissingExtraError
from segearth.model_types import DecoderFeatures
from segearth.models.description_projector import pool_description
from segearth.models.pixel_decoder import NUM_LEVELS
from segearth.models.word_heads import WORD_DIM
from segearth.preprocessing.transform import MULTIPLE
from segearth.structures import Question
from segearth.text.known_words import read_question
from segearth.utils.files import atomic_folder, check_new_folder, write_text
from segearth.utils.versions import installed_versions

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

ENCODER_FILE, DECODER_FILE, FACTS_FILE = "encoder.onnx", "decoder.onnx", "export.json"
OPSET = 20


class ImageEncoderGraph(nn.Module):
    """All of :meth:`SegEarth.encode_image` but the language model's part."""

    def __init__(self, model: SegEarth) -> None:
        super().__init__()
        self.vision_encoder, self.pixel_decoder = model.vision_encoder, model.pixel_decoder
        self.token_compressor, self.coordinates = model.token_compressor, model.coordinates
        self.description_projector, self.mask_decoder = model.description_projector, model.mask_decoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps ``(1, 3, H, W)`` to the tensors that :func:`feature_names` names."""
        maps = self.vision_encoder(images)
        tokens = self.token_compressor(maps[-1])
        decoded = (*self.pixel_decoder(maps), maps[-1])
        mask_features, multi_scale_features, res5 = decoded if self.coordinates is None else self.coordinates(*decoded)
        features = self.mask_decoder.prepare_image(mask_features, multi_scale_features)
        for_projector = [part for pair in self.description_projector.keys_values(res5) for part in pair]
        for_decoder = [part for pair in features.keys_values for part in pair]
        return tokens, features.mask_features, *features.shrunk_mask_features, *for_projector, *for_decoder


class MaskDecoderGraph(nn.Module):
    """Description projector and mask decoder for one image, whose questions lie side by side already."""

    def __init__(self, model: SegEarth) -> None:
        super().__init__()
        self.projector, self.decoder = model.description_projector, model.mask_decoder
        self.dim = model.language_model.dim

    def forward(self, descriptions: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Decodes one mask a question.

        Args:
            descriptions: ``(N, D)``, and behind each the sum of its word vectors, if the mask decoder reads it.
            features: What :class:`ImageEncoderGraph` gives, without the image tokens.

        Returns:
            Mask logits ``(N, H/4, W/4)`` and presence logits ``(N,)``.
        """
        mask_features, *parts = features
        shrunk_mask_features, parts = parts[:NUM_LEVELS], parts[NUM_LEVELS:]
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        count = len(self.projector.layers)
        # split() and not slices: torch 2.6 would write a slice of the axis of questions, too, into the graph, which
        # would then take only as many questions as it was exported with.
        pooled, words = descriptions[None].split([self.dim, descriptions.shape[1] - self.dim], -1)
        query = self.projector.project(pooled, pairs[:count])
        decoder_features = DecoderFeatures(mask_features, shrunk_mask_features, pairs[count:])
        logits, presence, *_ = self.decoder.decode(query, decoder_features, words=words)
        return logits[0], presence[0]


def feature_names(model: SegEarth) -> list[str]:
    """Names of the encoder's outputs, in order; the decoder takes all but the first, ``image_tokens``."""
    names = ["image_tokens", "mask_features", *(f"shrunk_mask_features_{i}" for i in range(NUM_LEVELS))]
    for part, module in (("projector", model.description_projector), ("decoder", model.mask_decoder)):
        names += [f"{part}_{what}_{i}" for i in range(len(module.layers)) for what in ("keys", "values")]
    return names


def export_onnx(model: SegEarth, folder: str | Path, size: tuple[int, int] | None = None) -> Path:
    """Writes ``encoder.onnx``, ``decoder.onnx`` and ``export.json`` in float32.

    Args:
        model: Left as it is, on any device and of any precision.
        folder: Folder to make; it appears when all three files are whole.
        size: Frame ``(H, W)`` in pixels, multiples of 32; a square of the model's own size if left out.

    Returns:
        The folder.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ConfigError: A side is no multiple of 32.
        CheckpointError: ``folder`` cannot be made.
    """
    check_export_packages()
    transform = model.config.image_transform
    height, width = size or (transform.size, transform.size)
    if min(height, width) < MULTIPLE or height % MULTIPLE or width % MULTIPLE:
        raise ConfigError(f"a frame of {height}x{width} px cannot be exported; give multiples of {MULTIPLE}")
    check_new_folder(folder)
    names = feature_names(model)
    with torch.no_grad():
        encoder = plain_copy(ImageEncoderGraph(model))
        image = torch.zeros(1, 3, height, width)
        decoder = plain_copy(MaskDecoderGraph(model))
        features = list(encoder(image)[1:])
        descriptions = torch.zeros(2, model.language_model.dim + (WORD_DIM if model.bag_of_words is not None else 0))
        count: Any = ({0: torch.export.Dim("questions")}, [{}] * len(features))
        with atomic_folder(folder) as temporary:
            write_graph(encoder, (image,), temporary / ENCODER_FILE, ["images"], names)
            write_graph(
                decoder, (descriptions, features), temporary / DECODER_FILE, ["descriptions", *names[1:]],
                ["mask_logits", "presence_logits"], count,
            )  # fmt: skip
            facts = {
                "input_size": [height, width],
                "image_transform": asdict(transform),
                "presence_threshold": model.config.presence_threshold,
                "presence_decides": model.config.presence_decides,
                "mask_curve": model.config.mask_curve,
                "score_curve": model.config.score_curve,
                "language_width": model.language_model.dim,
                "encoder": {"file": ENCODER_FILE, "inputs": ["images"], "outputs": names},
                "decoder": {
                    "file": DECODER_FILE,
                    "inputs": ["descriptions", *names[1:]],
                    "outputs": ["mask_logits", "presence_logits"],
                },
                "opset": OPSET,
                "versions": {"segearth": __version__} | installed_versions(("torch", "onnx", "onnxscript")),
            }
            write_text(temporary / FACTS_FILE, json.dumps(facts, indent=2) + "\n")
    return Path(folder)


@torch.inference_mode()
def describe(model: SegEarth, image_tokens: np.ndarray, questions: Sequence[Question]) -> np.ndarray:
    """Reads questions with the language model: the step between the two graphs.

    Args:
        model: The model that was exported; only its language model and prompt encoder are used.
        image_tokens: ``(1, S, D)`` from the encoder.
        questions: ``N`` questions about the image.

    Returns:
        ``(N, D)`` float32 descriptions for the decoder, wider where the mask decoder reads the sums of word vectors.

    Raises:
        QuestionError: A question is empty or too long.
    """
    language_model = model.language_model
    known = [replace(question, text=read_question(question.text, model.known_words).text) for question in questions]
    text = model.prompt_encoder.encode(known).to(model.device)
    prefix = language_model.make_prefix(model.embed_prefix(torch.from_numpy(image_tokens).to(model.device)))
    about = torch.zeros(len(questions), dtype=torch.long)
    embeds = language_model.embed(text.input_ids)
    hidden = language_model.hidden_states(prefix, embeds, text.lengths, about, text.openings)
    parts = [pool_description(hidden, text.description_mask), model.sum_words(text)]
    return torch.cat([part.float() for part in parts if part is not None], -1).cpu().numpy()


def check_export_packages() -> None:
    """Checks that what torch exports with is installed.

    Raises:
        MissingExtraError: onnx or onnxscript is not.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "onnx")


def plain_copy(graph: Any) -> Any:
    """Returns a copy in float32 on the CPU, in eval mode."""
    return copy.deepcopy(graph).float().cpu().eval()


def write_graph(
    graph: nn.Module, arguments: tuple[Any, ...], path: Path, inputs: list[str], outputs: list[str],
    dynamic_shapes: Any = None,
) -> None:  # fmt: skip
    """Exports a module as one ONNX file.

    Args:
        graph: In eval mode, on the CPU.
        arguments: What it is called with; their shapes are fixed in the graph unless ``dynamic_shapes`` frees them.
        path: File to write.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        dynamic_shapes: As for ``torch.onnx.export``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter about torch
        torch.onnx.export(
            graph, arguments, path, input_names=inputs, output_names=outputs, dynamic_shapes=dynamic_shapes,
            dynamo=True, external_data=False, opset_version=OPSET, verbose=False,
        )  # fmt: skip

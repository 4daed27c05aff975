"""The whole answer to one fixed question as a single ONNX graph: a picture in, a map of probabilities out.

Programs that run a graph tile by tile and know nothing of language can ask the question then, such as QGIS's plugin
Deepness, whose metadata the file carries
(https://github.com/PUTvision/qgis-plugin-deepness/blob/devel/docs/source/creators/creators_add_metadata_to_model.rst).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segearth import __version__
from segearth.errors import ConfigError
from segearth.geo.scene_questions import understand
from segearth.inference.deciding import deciding_of, logit, threshold_of_tiles
from segearth.inference.export import (
    ImageEncoderGraph,
    MaskDecoderGraph,
    check_export_packages,
    plain_copy,
    write_graph,
)
from segearth.models.description_projector import pool_description
from segearth.models.language_model import additive
from segearth.preprocessing.transform import MULTIPLE
from segearth.structures import Question, Task
from segearth.text.known_words import read_question, warning_of
from segearth.utils.files import atomic_path, check_output_file

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)

OVERLAP = 25  # per cent of a tile that Deepness lets neighbours share


class AnswerGraph(nn.Module):
    """From a picture to the answer to one question.

    Presence and mask are one number here: a pixel belongs to the answer as far as both say so, and above a probability
    of 0.5 exactly where :func:`segearth.inference.deciding.decide` says it does.
    """

    mean: Tensor
    std: Tensor
    before: Tensor
    question: Tensor
    description_mask: Tensor
    words: Tensor

    def __init__(self, model: SegEarth, question: str, task: Task) -> None:
        super().__init__()
        self.encoder, self.decoder = ImageEncoderGraph(model), MaskDecoderGraph(model)
        self.reader = model.language_model.causal_lm.base_model
        config = model.config
        self.deciding = deciding_of(config)
        reading = read_question(question, model.known_words)
        if reading.unknown:
            logger.warning("%s", warning_of(reading.unknown))
        text = model.prompt_encoder.encode([Question(reading.text, task=task)]).to(model.device)
        words = model.sum_words(text)
        kept = {
            "mean": torch.tensor(config.image_transform.mean).view(1, 3, 1, 1),
            "std": torch.tensor(config.image_transform.std).view(1, 3, 1, 1),
            "before": model.embed_prefix(torch.zeros(1, 0, model.language_model.dim, device=model.device)),
            "question": model.language_model.embed(text.input_ids),
            "description_mask": text.description_mask,
            "words": text.input_ids.new_zeros(1, 0, dtype=torch.float32) if words is None else words,
        }
        for name, tensor in kept.items():
            self.register_buffer(name, tensor.detach())

    def forward(self, picture: Tensor) -> Tensor:
        """Maps a picture ``(1, 3, S, S)``, RGB in [0, 1], to probabilities ``(1, 1, S, S)``."""
        tokens, *features = self.encoder((picture * 255 - self.mean) / self.std)
        row = torch.cat([self.before, tokens, self.question], 1)
        length = row.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool).tril()
        states = self.reader(
            inputs_embeds=row,
            attention_mask=additive(visible, row.dtype)[None, None],
            position_ids=torch.arange(length)[None],
            use_cache=False,
        ).last_hidden_state
        asked = states[:, length - self.question.shape[1] :]
        description = torch.cat([pool_description(asked, self.description_mask), self.words], -1)
        coarse, presence = self.decoder(description, features)
        logits = F.interpolate(coarse[:, None], size=picture.shape[2:], mode="bilinear", align_corners=False)
        evidence = logits - threshold_of_tiles(logits, self.deciding)  # Deepness joins tiles
        sure = presence - logit(self.deciding.presence_threshold)
        return torch.minimum(evidence, sure.view(1, 1, 1, 1)).sigmoid()


def export_question(
    model: SegEarth,
    question: str,
    path: str | Path,
    *,
    task: Task = "referring",
    size: int | None = None,
    resolution: float | None = None,
) -> Path:
    """Writes the answer to one question as an ONNX file that QGIS's Deepness plugin opens.

    Args:
        model: Left as it is, on any device and of any precision.
        question: What the graph looks for.
        path: File to write, ending in ``.onnx``.
        task: How the question is meant.
        size: Side of a tile in pixels, a multiple of 32; the model's own if left out.
        resolution: Metres that a pixel should measure, for Deepness to offer; told to it only if given here.

    Returns:
        The file.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ConfigError: The side is no multiple of 32.
        OutputError: The file cannot be written.
        QuestionError: The question is empty or too long.
    """
    check_export_packages()
    side = size or model.config.image_transform.size
    if side < MULTIPLE or side % MULTIPLE:
        raise ConfigError(f"a tile of {side} px cannot be exported; give a multiple of {MULTIPLE}")
    target = Path(path)
    check_output_file(target)
    if model.region_chooser is not None and any(each.kind == "size" for each in understand(question).conditions):
        logger.warning(
            "%r compares things, which a tile cannot; the graph gives all that are compared. segearth scene settles it",
            question,
        )
    with torch.no_grad():
        graph = plain_copy(AnswerGraph(model, question, task))
        with atomic_path(target) as temporary:
            write_graph(graph, (torch.zeros(1, 3, side, side),), temporary, ["picture"], ["probability"])
            _add_metadata(temporary, deepness_metadata(question, side, resolution))
    return target


def deepness_metadata(question: str, side: int, resolution: float | None) -> dict[str, Any]:
    """Returns what Deepness reads of a graph: how to cut tiles for it, and what its output means.

    Args:
        question: Names the one class.
        side: Of a tile in pixels.
        resolution: Metres a pixel; Deepness is told centimetres.
    """
    known = {} if resolution is None else {"resolution": round(100 * resolution, 3)}
    return {
        "model_type": "Segmentor",
        "class_names": {0: question},
        "tiles_size": side,
        "tiles_overlap": OVERLAP,
        "seg_thresh": 0.5,
        **known,
        "segearth_version": __version__,
    }


def _add_metadata(path: Path, facts: dict[str, Any]) -> None:
    import onnx

    graph = onnx.load(path)
    for name, value in facts.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)  # Deepness reads every value as JSON
    onnx.save(graph, path)

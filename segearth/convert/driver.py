"""Converts checkpoints of other projects to folders that ``from_pretrained`` opens, and back."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from segearth.config import ModelConfig, to_dict
from segearth.convert.causal_lm import PREFIX, from_causal_lm
from segearth.convert.mask2former import from_mask2former
from segearth.convert.reading import read_file, read_folder, read_json_object
from segearth.convert.rules import Translation, check_shapes, shorten
from segearth.convert.segearth_r1 import SWIN, from_segearth_r1, infer_config, to_segearth_r1
from segearth.convert.swin import NOT_IN_TIMM, from_timm_swin
from segearth.errors import CheckpointError
from segearth.models.language_model import with_mean_rows
from segearth.models.pretrained import WEIGHTS_FILE, local_folder, read_config, save_folder, with_new_names
from segearth.text.encoding import SEG_TOKEN
from segearth.text.tokenizer import PAD_TOKEN, load_tokenizer
from segearth.utils.files import atomic_folder, check_new_folder, write_text
from segearth.utils.text import first_line

if TYPE_CHECKING:
    from segearth.models.segearth import SegEarth

logger = logging.getLogger(__name__)
TIMM = "timm:"
SHARD_BYTES = 5 << 30
# Fields that may differ when a model is exported to the published form, which cannot store them. They only matter for
# training, or say where the tokenizer is, and change no answer.
IGNORED_FIELDS = {
    "vision_encoder.drop_path_rate", "vision_encoder.frozen", "vision_encoder.pretrained", "text.tokenizer",
    "text.max_question_tokens",
}  # fmt: skip


@dataclass
class Conversion:
    """The result of a conversion.

    Attributes:
        folder: The folder that was written.
        lines: A report: which tensors matched, which were left out, and which keep their initial values.
    """

    folder: Path
    lines: list[str] = field(default_factory=list)


def convert(sources: Sequence[str], destination: str | Path, start: ModelConfig | None = None) -> Conversion:
    """Makes a folder that ``SegEarth.from_pretrained`` opens.

    Args:
        sources: One published SegEarth-R1 checkpoint; or parts to start training from, in any number: a Mask2Former
            ``.pkl`` with a Swin backbone, a causal language model, ``"timm:<swin name>"``. Folders, files or hub ids.
        destination: Folder to make. Nothing is left there if something fails.
        start: The configuration of the model that parts are put into. Weights that no source holds are initialised as
            in a new model. A whole checkpoint needs no ``start``, since its tensors tell its shape.

    Raises:
        CheckpointError: A source is missing, damaged, unknown, or does not fit; or ``destination`` exists; or parts are
            given without ``start``.
    """
    if not sources:
        raise CheckpointError("nothing to convert; name a checkpoint")
    with atomic_folder(destination) as folder:
        opened = [_open(source) for source in sources]
        whole = [o for o in opened if o.kind == "segearth_r1"]
        if whole and len(opened) > 1:
            raise CheckpointError(f"{whole[0].name} is a whole model; convert it alone")
        lines = _convert_whole(whole[0], folder) if whole else _convert_parts(opened, folder, start)
    return Conversion(Path(destination), lines)


def export_segearth_r1(source: str | Path, destination: str | Path) -> Conversion:
    """Writes a model of the published form under the published names: sharded ``.safetensors``, config, tokenizer.

    Args:
        source: A folder of this library, or a hub id.
        destination: Folder to make.

    Raises:
        CheckpointError: The model has settings that the published form cannot store, or ``destination`` exists.
    """
    from huggingface_hub import save_torch_state_dict

    check_new_folder(destination)
    source = local_folder(source)
    config = read_config(source)
    state = published_state(with_new_names(read_file(source / WEIGHTS_FILE), source), config)
    facts = _published_facts(config)
    differing = _differences(to_dict(config), to_dict(infer_config(state, facts, str(source), str(source))))
    if differing:
        raise CheckpointError(f"{source} has no published form: {shorten(differing)}")
    with atomic_folder(destination) as folder:
        save_torch_state_dict(state, folder, max_shard_size=SHARD_BYTES, shared_tensors_to_discard=[])
        write_text(folder / "config.json", json.dumps(facts, indent=2) + "\n")
        load_tokenizer(str(source)).save_pretrained(folder)
    return Conversion(Path(destination), [f"{len(state)} tensors under the published names"])


def published_state(state: Mapping[str, Tensor], config: ModelConfig, buffers: bool = True) -> dict[str, Tensor]:
    """Returns a model's weights under the published names.

    Args:
        state: Weights under this library's names, or other tensors with those names, such as gradients.
        config: The model's configuration.
        buffers: Whether to add the tensors that the published code has but does not use.

    Raises:
        CheckpointError: The model has parts that the published one does not have.
    """
    heads = config.language_model.config.get("num_attention_heads")
    if config.language_model.model_type != "phi" or not heads or config.language_model.head_bias:
        raise CheckpointError("only a Phi with an output head without bias has a published form")
    return to_segearth_r1(state, int(heads), config.vision_encoder.window_size, buffers)


def _published_facts(config: ModelConfig) -> dict[str, Any]:
    """Returns the content of ``config.json`` beside the published weights."""
    language = config.language_model.config
    flat = language | dict(language.get("rope_parameters") or {})
    facts = {key: value for key, value in flat.items() if isinstance(value, (int, float, str, bool))}
    return {**facts, "model_type": "llava_phi"}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lists the fields that decide an answer and that the published form would lose."""
    found = []
    for key, value in ours.items():
        name = prefix + key
        if isinstance(value, dict) and key != "language_model":
            found += _differences(value, theirs[key], name + ".")
        elif name not in IGNORED_FIELDS and key != "language_model" and value != theirs[key]:
            found.append(f"{name} is {value!r}, there {theirs[key]!r}")
    return found


@dataclass
class _Source:
    """A checkpoint that has been read."""

    name: str
    kind: str  # segearth_r1 | mask2former | causal_lm | timm
    state: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def _open(source: str) -> _Source:
    if source.startswith(TIMM):
        return _Source(source, "timm", _timm_state(source.removeprefix(TIMM)))
    path = Path(source)
    if path.is_file() or path.suffix in (".pkl", ".bin", ".pth", ".safetensors"):
        state = read_file(path)
        if any(name.startswith("sem_seg_head.") for name in state):
            return _Source(source, "mask2former", state)
        raise CheckpointError(
            f"{path}: neither Mask2Former's names nor a folder; its first tensors are {shorten(sorted(state)[:4])}"
        )
    folder = local_folder(source)
    facts = read_json_object(folder / "config.json")
    if facts.get("library") == "segearth":
        raise CheckpointError(f"{source} is a model of this library already; open it with segearth.load or --model")
    state = read_folder(folder)
    kind = "segearth_r1" if any(name.startswith(SWIN) for name in state) else "causal_lm"
    return _Source(str(folder), kind, state, facts)


def _timm_state(name: str) -> dict[str, Tensor]:
    from segearth.utils.torchvision_mend import mend_torchvision

    mend_torchvision()
    import timm

    if not name.startswith("swin_") or not timm.is_model(name):
        from segearth.errors import UnknownNameError

        raise UnknownNameError("timm Swin", name, timm.list_models("swin_*"))
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm, its hub client and the network raise unrelated classes
        raise CheckpointError(f"timm cannot fetch {name}: {first_line(error)}") from error


def _convert_whole(source: _Source, folder: Path) -> list[str]:
    from segearth.models.build import build_on_meta

    tokenizer = load_tokenizer(source.name)
    config = infer_config(source.state, source.facts, source.name, source.name)
    rows, tokens = source.state["model.embed_tokens.weight"].shape[0], len(tokenizer)
    if rows != tokens:
        raise CheckpointError(
            f"{source.name}: model.embed_tokens.weight has {rows} rows but the tokenizer beside it, with {SEG_TOKEN}, "
            f"{tokens} tokens; use the tokenizer that was saved with these weights"
        )
    model = build_on_meta(config)
    translation = from_segearth_r1(source.state, config.language_model.config["num_attention_heads"], source.name)
    # Shapes are compared under the published names, so that a user finds the names of an error in the checkpoint.
    expected = published_state(model.state_dict(), config, buffers=False)
    unused = {name for names in translation.unused.values() for name in names}
    used = {name: tensor for name, tensor in source.state.items() if name not in unused}
    check_shapes(used, {name: tensor.shape for name, tensor in expected.items()}, source.name)
    model.random_parts = set()
    save_folder(model, folder, translation.state)
    return [f"{source.name}: published SegEarth-R1", *translation.lines()]


def _convert_parts(sources: Sequence[_Source], folder: Path, start: ModelConfig | None) -> list[str]:
    from segearth.models.build import build_model

    if start is None:
        raise CheckpointError(f"{sources[0].name} is a part of a model; name the model to put it into")
    config = copy.deepcopy(start)
    lines: list[str] = []
    filled: set[str] = set()
    languages = [source for source in sources if source.kind == "causal_lm"]
    if languages:
        config.language_model.pretrained = config.text.tokenizer = languages[0].name
        config.language_model.config = {}
    by_transformers = len(languages) == 1 and not _is_fused(languages[0])
    model = build_model(config, load_weights=by_transformers)
    if languages:
        _check_vocabulary(languages[0], model)
    own = model.state_dict()
    for source in sources:
        if by_transformers and source is languages[0]:
            filled |= {name for name in own if name.startswith(PREFIX)}
            lines.append(f"{source.name}: {len(source.state)} tensors read by transformers")
            continue
        translation = _translate_part(source, model)
        expected = {name: own[name].shape for name in own if _room(name) in {_room(n) for n in translation.state}}
        check_shapes(translation.state, expected, source.name, optional=_may_be_missing(source, model))
        if twice := sorted(filled & translation.state.keys()):
            raise CheckpointError(f"{source.name} holds what another source gave already: {shorten(twice)}")
        with torch.no_grad():
            for name, tensor in translation.state.items():
                own[name].copy_(tensor)
        filled |= translation.state.keys()
        lines += [f"{source.name}: {source.kind}", *translation.lines()]
    model.random_parts -= {_room(name) for name in filled}
    left = sorted({_room(name) for name in own if name not in filled})
    lines.append(f"{sum(name not in filled for name in own)} tensors as a new model starts, in {', '.join(left)}")
    save_folder(model, folder)
    return lines


def _is_fused(source: _Source) -> bool:
    """Whether it is a Phi with query, key and value in one tensor, which today's transformers cannot read."""
    return source.facts.get("model_type") == "phi" and any(".query_key_value." in name for name in source.state)


def _check_vocabulary(source: _Source, model: SegEarth) -> None:
    known = {PREFIX + name for name in source.state}
    table = model.language_model.causal_lm.get_input_embeddings().weight
    (ours,) = [name for name, p in model.named_parameters(remove_duplicate=True) if p is table]
    if ours not in known:
        return
    rows, tokens = len(source.state[ours.removeprefix(PREFIX)]), len(model.prompt_encoder.tokenizer)
    if rows + len((PAD_TOKEN, SEG_TOKEN)) < tokens:  # load_tokenizer adds these two tokens if they are missing
        raise CheckpointError(
            f"{source.name}: {ours.removeprefix(PREFIX)} has {rows} rows but the tokenizer beside it {tokens} tokens; "
            "use the tokenizer that was saved with these weights"
        )


def _translate_part(source: _Source, model: SegEarth) -> Translation:
    if source.kind == "mask2former":
        return from_mask2former(source.state, source.name)
    if source.kind == "timm":
        return from_timm_swin(source.state, source.name)
    lm = model.language_model
    known = [name.removeprefix(PREFIX) for name in model.state_dict() if name.startswith(PREFIX)]
    translation = from_causal_lm(source.state, lm.causal_lm.config.num_attention_heads, source.name, known)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        if PREFIX + name in translation.state:
            translation.state[PREFIX + name] = with_mean_rows(translation.state[PREFIX + name], lm.vocab_size)
    return translation


def _may_be_missing(source: _Source, model: SegEarth) -> list[str]:
    if source.kind == "timm":
        return NOT_IN_TIMM
    if source.kind == "mask2former":
        own = tuple(f"mask_decoder.{part}." for part in ("presence_head", "box_gate", "presence_match"))
        return [name for name in model.state_dict() if name.startswith(own)]
    return []


def _room(name: str) -> str:
    return name.split(".")[0]

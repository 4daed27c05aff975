"""Checkpoints of others, whole or in parts, converted as a user would; and all that can be wrong with them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_fakes import FACTS, PHI, published_model, write_published
from published import Golden, published_tokenizer
from safetensors.torch import load_file, save_file
from torch import Tensor

from segearth.config import (
    ModelConfig,
    VisionEncoderConfig,
)
from segearth.convert.causal_lm import join_interleaved
from segearth.convert.driver import convert, export_segearth_r1, published_state
from segearth.convert.reading import read_folder
from segearth.convert.rules import to_theirs
from segearth.errors import CheckpointError, UnknownNameError
from segearth.inference.predictor import Predictor
from segearth.models import pretrained
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.models.vision_encoder import relative_position_index
from segearth.zoo.lookup import model_config


@pytest.fixture(scope="module")
def original(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> SegEarth:
    """A small random model of the published form."""
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    published_tokenizer(golden("tokenizer/tokenizer.json"), tokenizer)
    return published_model(tokenizer)


@pytest.fixture
def published(original: SegEarth, tmp_path: Path) -> Path:
    """The same in the published layout, in one file."""
    return write_published(original, tmp_path / "source")


def shard(folder: Path, kind: str) -> None:
    """Splits the one file in two, as transformers does."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names = sorted(state)
    places = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"{stem}-0000{i + 1}-of-00002.{suffix}"
        tensors = {name: state[name] for name in part}
        save_file(tensors, folder / file) if suffix == "safetensors" else torch.save(tensors, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def one_bin(folder: Path, _: str) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def old_bin(folder: Path, _: str) -> None:
    """The format of torch before 1.6."""
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("lay_out", "kind"),
    [(lambda *_: None, ""), (shard, "safetensors"), (shard, "bin"), (one_bin, ""), (old_bin, "")],
    ids=["one file", "sharded", "sharded bin", "bin", "old bin"],
)
def test_there_and_back(
    original: SegEarth, published: Path, tmp_path: Path, lay_out: Callable[..., None], kind: str
) -> None:
    lay_out(published, kind)
    result = convert([str(published)], tmp_path / "ours")
    assert "tensors matched" in "\n".join(result.lines)
    model = SegEarth.from_pretrained(tmp_path / "ours")
    own = original.state_dict()
    for name, tensor in model.state_dict().items():
        if "presence_head" in name:
            assert not tensor.any()
        elif "self_attn.rotary" not in name:
            assert torch.equal(tensor, own[name]), name
    export_segearth_r1(tmp_path / "ours", tmp_path / "theirs")
    back, there = read_folder(tmp_path / "theirs"), published_state(original.state_dict(), original.config)
    assert back.keys() == there.keys()
    assert all(torch.equal(back[name], there[name]) for name in there)
    convert([str(tmp_path / "theirs")], tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[n], t) for n, t in load_file(tmp_path / "ours" / "model.safetensors").items())


def test_a_model_of_an_earlier_version_is_exported_under_the_published_names(
    original: SegEarth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some version called the mask decoder otherwise; its folder still says so."""
    original.save_pretrained(tmp_path / "ours")
    path = tmp_path / "ours" / "model.safetensors"
    state = {re.sub("^mask_decoder", "former_name", name): tensor for name, tensor in load_file(path).items()}
    save_file(state, path, {"format": "pt"})
    facts = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(json.dumps(facts | {"format": 1}))
    monkeypatch.setitem(pretrained.RENAMED_PARTS, 1, {"former_name": "mask_decoder"})
    export_segearth_r1(tmp_path / "ours", tmp_path / "theirs")
    back, there = read_folder(tmp_path / "theirs"), published_state(original.state_dict(), original.config)
    assert back.keys() == there.keys()
    assert all(torch.equal(back[name], there[name]) for name in there)


def test_weights_that_share_memory(published: Path, tmp_path: Path) -> None:
    """One storage under two names, as torch may write them, becomes two tensors."""
    state = load_file(published / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    torch.save(state, published / "pytorch_model.bin")
    (published / "model.safetensors").unlink()
    model = SegEarth.from_pretrained(convert([str(published)], tmp_path / "ours").folder).language_model.causal_lm
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c.text, "template", "plain"), r"text\.template is 'plain', there 'segearth_r1'"),
        (lambda c: setattr(c.mask_decoder, "num_heads", 4), r"mask_decoder\.num_heads is 4, there 8"),
        (lambda c: setattr(c.image_transform, "fit", "resize"), r"image_transform\.fit is 'resize', there 'letterbox'"),
        (lambda c: c.language_model.config.update(hidden_act="relu"), "hidden_act 'relu', the published model"),
        (lambda c: c.language_model.config.update(rope_theta=100.0), "rope_theta 100.0, the published model 10000.0"),
    ],
    ids=["template", "heads", "fit", "activation", "rotary base"],
)
def test_what_the_published_form_cannot_say(
    original: SegEarth, tmp_path: Path, change: Callable[[ModelConfig], None], message: str
) -> None:
    """Exported it would answer differently when it is read back; so it is refused."""
    config = copy.deepcopy(original.config)
    change(config)
    build_model(config).save_pretrained(tmp_path / "ours")
    with pytest.raises(CheckpointError, match=message):
        export_segearth_r1(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_a_converted_model_answers(published: Path, tmp_path: Path, picture: np.ndarray) -> None:
    """A mask for images of any size, the words generated, and the published protocol on its card."""
    model = SegEarth.from_pretrained(convert([str(published)], tmp_path / "ours").folder)
    assert model.config.protocol == "segearth_r1"
    predictor = Predictor(model)
    for image in (picture, np.zeros((40, 333, 3), np.uint8)):
        predictor.set_image(image)
        answer = predictor.predict("where could one land?", task="reasoning", answer=True)
        assert answer.mask.shape == image.shape[:2]
        assert isinstance(answer.answer, str)


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 96), (128, 192), (256, 256)])
def test_images_of_other_sizes(original: SegEarth, size: tuple[int, int]) -> None:
    """The compressor's fixed-shape norms are interpolated; at the trained size they are untouched."""
    features = original.encode_image(torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert features.image_tokens.shape[1] == -(-size[0] // 128) * -(-size[1] // 128)
    assert features.image_tokens.isfinite().all()


# --- what can be wrong


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")


class RunsACommand:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def cut_safetensors(folder: Path) -> None:
    cut(folder / "model.safetensors")


def cut_bin(folder: Path) -> None:
    one_bin(folder, "")
    cut(folder / "pytorch_model.bin")


def cut_old_bin(folder: Path) -> None:
    old_bin(folder, "")
    cut(folder / "pytorch_model.bin")


def missing_shard(folder: Path) -> None:
    shard(folder, "safetensors")
    (folder / "model-00002-of-00002.safetensors").unlink()


def mixed_shards(folder: Path) -> None:
    shard(folder, "safetensors")
    file = folder / "model-00002-of-00002.safetensors"
    state = load_file(file)
    state["stranger"] = state.pop(next(iter(state)))
    save_file(state, file)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def wrong_shape(folder: Path) -> None:
    change(folder, lambda s: s.update({"model.mm_projector.fc.bias": torch.zeros(7)}))


def wrong_fused_shape(folder: Path) -> None:
    change(folder, lambda s: s.update({"model.layers.1.self_attn.query_key_value.bias": torch.zeros(7)}))


def key_too_many(folder: Path) -> None:
    change(folder, lambda s: s.update({"model.teapot.weight": torch.zeros(7)}))


def key_missing(folder: Path) -> None:
    change(folder, lambda s: s.pop("predictor.level_embed.weight"))


def key_missing_that_tells_the_shape(folder: Path) -> None:
    change(folder, lambda s: s.pop("text_projector.weight"))


def other_vocabulary(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["teapot"])
    tokenizer.save_pretrained(folder)


def other_heads(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**FACTS, "num_attention_heads": 5}), encoding="utf-8")


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


def stray_layer(folder: Path) -> None:
    change(folder, lambda s: s.update({"model.layers.99999.mlp.fc1.bias": torch.zeros(7)}))


def flat_embedding(folder: Path) -> None:
    change(folder, lambda s: s.update({"model.embed_tokens.weight": torch.zeros(7)}))


def empty_projector(folder: Path) -> None:
    change(folder, lambda s: s.update({"text_projector.weight": torch.zeros(0, 64)}))


def whole_numbers(folder: Path) -> None:
    change(folder, lambda s: s.update({"predictor.decoder_norm.weight": s["predictor.decoder_norm.weight"].long()}))


def other_activation(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**FACTS, "hidden_act": "relu"}), encoding="utf-8")


def heads_in_words(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**FACTS, "num_attention_heads": "four"}), encoding="utf-8")


def own_code(folder: Path) -> None:
    """A tokenizer that brings its own Python, which transformers would offer to run."""
    path = folder / "tokenizer_config.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts |= {"auto_map": {"AutoTokenizer": [None, "evil.Tok"]}, "tokenizer_class": "Tok"}
    path.write_text(json.dumps(facts), encoding="utf-8")
    (folder / "evil.py").write_text(f"open({str(folder / 'trace')!r}, 'w')\nclass Tok: pass\n", encoding="utf-8")


def malicious_bin(folder: Path) -> None:
    no_weights(folder)
    torch.save({"model.weight": RunsACommand(folder / "trace")}, folder / "pytorch_model.bin")


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (cut_safetensors, r"model\.safetensors is damaged or cut short"),
    (cut_bin, r"pytorch_model\.bin is damaged or cut short"),
    (cut_old_bin, r"pytorch_model\.bin is damaged or cut short"),
    (missing_shard, r"names model-00002-of-00002\.safetensors, which .* lacks; fetch the missing shard"),
    (mixed_shards, r"model-00002-of-00002\.safetensors and .*index\.json disagree about .*stranger"),
    (no_weights, r"holds no weights; expected one of model\.safetensors"),
    (wrong_shape, r"source: 1 tensors of another shape: model\.mm_projector\.fc\.bias is \(7,\), not \(64,\)"),
    (wrong_fused_shape, r"source: model\.layers\.1\.self_attn\.query_key_value\.bias of shape \(7,\)"),
    (flat_embedding, r"source: model\.embed_tokens\.weight has shape \(7,\); a tensor of 2 axes"),
    (empty_projector, r"source: text_projector\.weight has shape \(0, 64\)"),
    (whole_numbers, r"not of floating point: predictor\.decoder_norm\.weight is torch\.int64"),
    (stray_layer, r"source: there is no layer 2 but model\.layers\.99999\.mlp\.fc1\.bias"),
    (other_activation, r"source: config\.json has hidden_act 'relu', the published model 'gelu_new'"),
    (heads_in_words, r"source: config\.json has num_attention_heads 'four', which is no positive whole number"),
    (own_code, r"tokenizer .*source' cannot be loaded: .*custom code"),
    (key_too_many, r"source: 1 tensors are unknown here: model\.teapot\.weight"),
    (key_missing, r"source: 1 tensors missing: predictor\.level_embed\.weight"),
    (key_missing_that_tells_the_shape, r"source: no text_projector\.weight"),
    (other_vocabulary, r"source: model\.embed_tokens\.weight has 1202 rows but the tokenizer .* 1203 tokens"),
    (other_heads, r"source: num_attention_heads 5 does not divide the width 64"),
    (no_json, r"config\.json is not JSON"),
    (malicious_bin, r"pytorch_model\.bin: refused, it names \S*system"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN, ids=[damage.__name__ for damage, _ in BROKEN])
def test_a_bad_checkpoint_leaves_nothing(
    published: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(published)
    with pytest.raises(CheckpointError, match=message):
        convert([str(published)], tmp_path / "out" / "ours")
    assert list(tmp_path.glob("out/*")) == []
    assert not (published / "trace").exists()


def test_a_destination_is_never_overwritten(published: Path, tmp_path: Path) -> None:
    kept = tmp_path / "ours" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(CheckpointError, match="name a new folder"):
        convert([str(published)], kept.parent)
    assert [path.name for path in kept.parent.iterdir()] == ["notes.txt"]


def test_what_is_no_source(published: Path, tmp_path: Path, debug_model: SegEarth) -> None:
    debug_model.save_pretrained(tmp_path / "already")
    sources: dict[str, list[str]] = {
        "nothing to convert": [],
        "already": [str(tmp_path / "already")],
        "convert it alone": [str(published), str(published)],
        "neither Mask2Former's names": [str(published / "model.safetensors")],
        "no folder here and no model on the hub": ["nobody/nothing"],
    }
    for message, names in sources.items():
        with pytest.raises(CheckpointError, match=message):
            convert(names, tmp_path / "ours")
    with pytest.raises(UnknownNameError, match="timm Swin"):
        convert(["timm:resnet50"], tmp_path / "ours")
    with pytest.raises(CheckpointError, match="only a Phi"):
        export_segearth_r1(tmp_path / "already", tmp_path / "theirs")


# --- parts to start training from


@torch.no_grad()
@pytest.mark.parametrize("kind", ["phi", "fused phi", "qwen2", "llama"])
def test_a_causal_language_model(tmp_path: Path, golden: Golden, kind: str) -> None:
    """Its words have the same logits inside the converted model; tied embeddings stay tied."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model_type = kind.split()[-1]
    shape = {**PHI, "num_key_value_heads": 4 if model_type == "phi" else 2, "vocab_size": 1210}
    language: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **shape, tie_word_embeddings=kind == "qwen2")
    ).eval()
    source = tmp_path / "language"
    language.save_pretrained(source, max_shard_size="100KB" if kind == "llama" else "1GB")
    assert (source / "model.safetensors.index.json").exists() == (kind == "llama")
    published_tokenizer(golden("tokenizer/tokenizer.json"), source)
    if kind == "fused phi":
        fuse(source / "model.safetensors")
    ids = torch.randint(1190, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = language(input_ids=ids).logits

    convert([str(source)], tmp_path / "ours", start=model_config("segearth_debug"))
    converted = SegEarth.from_pretrained(tmp_path / "ours").language_model
    prompt = converted.make_prefix(converted.embed(ids[:, :4]))
    hidden = converted.hidden_states(prompt, converted.embed(ids[:, 4:]), [5, 5], torch.arange(2))
    assert torch.allclose(converted.token_logits(hidden), expected[:, 4:], atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "rows", "message"),
    [("phi", 1000, r"embed_tokens\.weight has 1000 rows but the tokenizer beside it 1202 tokens"), ("phi", 1200, None)],
)
def test_the_vocabulary_of_a_language_model(
    tmp_path: Path, golden: Golden, model_type: str, rows: int, message: str | None
) -> None:
    """Rows for padding and [SEG] may be lacking: they are added, as the mean of the others. More must not."""
    from transformers import AutoConfig, AutoModelForCausalLM

    source = tmp_path / "language"
    language: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **PHI, vocab_size=rows))
    language.save_pretrained(source)
    published_tokenizer(golden("tokenizer/tokenizer.json"), source)
    if message:
        with pytest.raises(CheckpointError, match=message):
            convert([str(source)], tmp_path / "ours", start=model_config("segearth_debug"))
        return
    convert([str(source)], tmp_path / "ours", start=model_config("segearth_debug"))
    table = SegEarth.from_pretrained(tmp_path / "ours").language_model.causal_lm.get_input_embeddings().weight
    old = language.get_input_embeddings().weight
    assert torch.equal(table[:rows], old)
    assert torch.allclose(table[rows:], old.mean(0))
    assert len(table) == 1202


def test_a_language_model_that_lacks_weights(tmp_path: Path, golden: Golden) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    source = tmp_path / "language"
    AutoModelForCausalLM.from_config(AutoConfig.for_model("phi", **PHI, vocab_size=1210)).save_pretrained(source)
    published_tokenizer(golden("tokenizer/tokenizer.json"), source)
    change(source, lambda s: s.pop("model.layers.1.mlp.fc1.weight"))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, model\.layers\.1\.mlp\.fc1\.weight"):
        convert([str(source)], tmp_path / "ours", start=model_config("segearth_debug"))
    assert not (tmp_path / "ours").exists()


def fuse(path: Path) -> None:
    """Writes a Phi's attention as its first release did."""
    state = load_file(path)
    for name in [name for name in state if ".q_proj." in name]:
        parts = [state.pop(name.replace(".q_proj.", f".{p}_proj.")) for p in "qkv"]
        state[name.replace("q_proj", "query_key_value")] = join_interleaved(parts, 4).contiguous()
    save_file(state, path)


@torch.no_grad()
def test_swin_by_its_timm_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last map equals timm's own, here with random weights in place of a download.

    At 448 px: where a map is no larger than a window timm leaves out the shift, and Mask2Former's Swin does not.
    """
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=448).eval()
    for parameter in theirs.parameters():
        parameter += 0.02 * torch.randn_like(parameter)  # norms and biases too
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: theirs)
    from segearth.convert.swin import from_timm_swin
    from segearth.models.vision_encoder import SwinEncoder

    config = VisionEncoderConfig(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)
    ours = SwinEncoder(config).eval()
    state = {n.removeprefix("vision_encoder."): t for n, t in from_timm_swin(theirs.state_dict()).state.items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(name.startswith(("norms.0", "norms.1", "norms.2")) for name in missing)
    images = torch.randn(1, 3, 448, 448)
    expected = theirs.forward_features(images).permute(0, 3, 1, 2)
    assert torch.allclose(ours(images)[-1], expected, atol=1e-4)

    with pytest.raises(CheckpointError, match=r"of another shape: .*patch_embed"):
        convert(["timm:swin_tiny_patch4_window7_224"], tmp_path / "ours", start=model_config("segearth_debug"))
    assert not (tmp_path / "ours").exists()


def mask2former_file(model: SegEarth, path: Path) -> dict[str, np.ndarray]:
    """Writes a model's encoder and decoders as detectron2 would."""
    from segearth.convert.mask2former import RULES

    rooms = ("vision_encoder.", "pixel_decoder.", "mask_decoder.")
    state = {n: t for n, t in model.state_dict().items() if n.startswith(rooms)}
    no_place = ["mask_decoder.presence_head.{*}", "pixel_decoder.lateral.0.bias", "pixel_decoder.output.0.bias"]
    arrays = {name: tensor.numpy() for name, tensor in to_theirs(state, RULES, no_place).items()}
    window = model.config.vision_encoder.window_size
    arrays["backbone.layers.0.blocks.0.attn.relative_position_index"] = relative_position_index(window).numpy()
    arrays["sem_seg_head.predictor.class_embed.weight"] = np.zeros((81, 4), np.float32)
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))
    return arrays


def test_mask2former(tmp_path: Path, debug_model: SegEarth) -> None:
    mask2former_file(debug_model, tmp_path / "m2f.pkl")
    result = convert([str(tmp_path / "m2f.pkl")], tmp_path / "ours", start=model_config("segearth_debug"))
    assert any("tensors as a new model starts, in" in line for line in result.lines)
    own = debug_model.state_dict()
    for name, tensor in SegEarth.from_pretrained(tmp_path / "ours").state_dict().items():
        if name in ("pixel_decoder.lateral.0.bias", "pixel_decoder.output.0.bias"):
            assert not tensor.any()
        elif name.startswith(("vision_encoder.", "pixel_decoder.", "mask_decoder.")) and "presence_head" not in name:
            assert torch.equal(tensor, own[name]), name


def test_a_malicious_mask2former_file(tmp_path: Path) -> None:
    file = tmp_path / "m2f.pkl"
    file.write_bytes(pickle.dumps({"model": {"sem_seg_head.x": RunsACommand(tmp_path / "trace")}}))
    with pytest.raises(CheckpointError, match=r"m2f\.pkl: refused, it names posix\.system"):
        convert([str(file)], tmp_path / "ours")
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "ours").exists()


def test_a_part_without_a_model_to_put_it_into(tmp_path: Path, debug_model: SegEarth) -> None:
    mask2former_file(debug_model, tmp_path / "a.pkl")
    with pytest.raises(CheckpointError, match=r"a\.pkl is a part of a model; name the model to put it into"):
        convert([str(tmp_path / "a.pkl")], tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_parts_that_say_the_same_thing_twice(tmp_path: Path, debug_model: SegEarth) -> None:
    mask2former_file(debug_model, tmp_path / "a.pkl")
    mask2former_file(debug_model, tmp_path / "b.pkl")
    with pytest.raises(CheckpointError, match=r"b\.pkl holds what another source gave already"):
        sources = [str(tmp_path / name) for name in ("a.pkl", "b.pkl")]
        convert(sources, tmp_path / "ours", start=model_config("segearth_debug"))

"""The whole model: what an answer may depend on, what is computed, what is saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segearth.config import LanguageModelConfig, LossConfig, from_dict
from segearth.data.feed.loading import Collator, TrainingExample
from segearth.errors import CheckpointError, ConfigError, UnknownNameError
from segearth.inference.predictor import Predictor
from segearth.losses.criterion import Criterion, Losses
from segearth.model_types import Batch
from segearth.models.build import build_model
from segearth.models.mask_decoder import MaskDecoder, attention_mask
from segearth.models.segearth import SegEarth
from segearth.models.vision_encoder import TimmEncoder
from segearth.structures import Question
from segearth.zoo.lookup import model_config

SIZE = 64


def question(text: str, answer: str | None = None) -> Question:
    rng = np.random.default_rng(len(text))
    return Question(text, mask=rng.random((SIZE, SIZE)) > 0.7, answer=answer)


def make_batch(model: SegEarth, questions: list[list[Question]], answers: bool = False, first_image: int = 0) -> Batch:
    seeds = [torch.Generator().manual_seed(first_image + i) for i in range(len(questions))]
    images = [torch.randn(3, SIZE, SIZE, generator=seed) for seed in seeds]
    examples = [TrainingExample(image, None, asked) for image, asked in zip(images, questions, strict=True)]
    return Collator(model.prompt_encoder, answers)(examples)


@torch.no_grad()
def logits_of(model: SegEarth, questions: list[list[Question]], **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    output = model(make_batch(model, questions, **options))
    return output.mask_logits, output.presence_logits


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-4)


def test_an_answer_depends_on_its_image_and_its_question_alone(debug_model: SegEarth) -> None:
    short, long = question("ships"), question("the buildings with a tin roof in the upper left corner of the image")
    together, presence = logits_of(debug_model, [[short, long, short], [long]])
    alone, presence_alone = logits_of(debug_model, [[short]])
    assert close(together[0], alone[0])
    assert close(together[2], alone[0])  # asked twice, answered alike
    assert close(presence[0], presence_alone[0])
    other_image, _ = logits_of(debug_model, [[long]], first_image=1)
    assert close(together[3], other_image[0])
    assert not close(together[1], together[3])  # the same question of another image
    assert not close(together[0], together[1])


def test_words_after_the_description_cannot_change_the_mask(debug_model: SegEarth) -> None:
    asked = [[question("the road", "The road."), question("ships", "There is no ship in this image.")]]
    without, _ = logits_of(debug_model, asked)
    with_answers, _ = logits_of(debug_model, asked, answers=True)
    assert close(without, with_answers)


def test_a_batch_without_a_question_costs_nothing_and_touches_what_others_touch(debug_model: SegEarth) -> None:
    """Processes sum the gradients of all parameters; one that touched fewer would leave the others waiting."""

    def gradients(asked: list[list[Question]]) -> tuple[Losses, dict[str, torch.Tensor]]:
        debug_model.zero_grad(set_to_none=True)
        batch = make_batch(debug_model, asked)
        losses = Criterion(LossConfig(num_points=16))(debug_model(batch), batch)
        losses.total.backward()
        return losses, {name: p.grad for name, p in debug_model.named_parameters() if p.grad is not None}

    ordinary, touched = gradients([[question("ships")], []])
    assert ordinary.total > 0
    empty, zeros = gradients([[], []])
    debug_model.zero_grad(set_to_none=True)
    assert [getattr(empty, name).item() for name in ("total", "bce", "dice", "presence", "text")] == [0.0] * 5
    assert zeros.keys() == touched.keys()
    assert not any(gradient.any() for gradient in zeros.values())  # NaN counts as any


def test_the_image_is_seen_once_however_many_questions(debug_model: SegEarth) -> None:
    calls: list[int] = []
    hook = debug_model.vision_encoder.register_forward_hook(lambda m, inputs, out: calls.append(inputs[0].shape[0]))
    logits_of(debug_model, [[question(t) for t in ("a", "b", "c", "d")], [question("e")]])
    hook.remove()
    assert calls == [2]


def test_vocabulary_logits_only_where_there_are_labels(debug_model: SegEarth) -> None:
    batch = make_batch(debug_model, [[question("the road", "The road."), question("ships")]], answers=True)
    rows: list[int] = []
    head = debug_model.language_model.causal_lm.get_output_embeddings()
    hook = head.register_forward_hook(lambda m, inputs, out: rows.append(inputs[0].shape[0]))
    output = debug_model(batch)
    hook.remove()
    labels = batch.text.labels
    assert rows == [len(output.token_logits)] == [int((labels != -100).sum())]
    # Each is read off the token before it, which says what comes next.
    features = debug_model.encode_image(batch.images, cache_prefix=False)
    hidden = debug_model.encode_text(features, batch.text, batch.image_index).hidden_states
    everywhere = debug_model.language_model.token_logits(hidden)
    assert torch.allclose(output.token_logits, everywhere[:, :-1][labels[:, 1:] != -100], atol=1e-6)


def test_the_language_model_head_runs_once_in_every_training_step(debug_model: SegEarth) -> None:
    """Also where a batch has no label: under ZeRO-3 a process that left it out would keep the others waiting."""
    batch = make_batch(debug_model, [[question("the road"), question("ships")]], answers=True)
    assert len(batch.text.labelled) == 0
    output = debug_model(batch)
    assert output.token_logits.shape == (1, debug_model.language_model.vocab_size)
    Criterion(LossConfig(num_points=16))(output, batch).total.backward()
    head = debug_model.language_model.causal_lm.get_output_embeddings().weight
    assert head.grad is not None
    debug_model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("phi", {}),
        ("qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 2}),
    ],
)
def test_any_causal_language_model_learns_and_answers(tmp_path: Path, family: str, extra: dict[str, object]) -> None:
    config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, **extra}
    spec = {"name": "segearth_debug", "language_model": {"model_type": family, "config": config}}
    model = build_model(model_config(spec)).train()
    batch = make_batch(model, [[question("the road", "The road."), question("ships")]], answers=True)
    losses = Criterion(LossConfig(num_points=32))(model(batch), batch)
    losses.total.backward()
    silent = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()
    with torch.no_grad():
        features = model.eval().encode_image(batch.images)
        words = model.generate_answers(features, [question("a b c"), question("ships")], torch.tensor([0, 0]), 4)
        alone = model.generate_answers(features, [question("ships")], torch.tensor([0]), 4)
    assert words[1] == alone[0]
    model.save_pretrained(tmp_path)
    again = SegEarth.from_pretrained(tmp_path)
    expected, _ = logits_of(model, [[question("ships")]])
    assert torch.equal(logits_of(again, [[question("ships")]])[0], expected)


def test_a_frozen_encoder_stays_in_eval_mode_and_gets_no_gradient() -> None:
    spec = {"name": "segearth_debug", "vision_encoder": {"frozen": True, "drop_path_rate": 0.5}}
    model = build_model(model_config(spec)).train()
    assert not any(m.training for m in model.vision_encoder.modules())
    assert model.pixel_decoder.training
    batch = make_batch(model, [[question("ships")]])
    model(batch).mask_logits.sum().backward()
    assert all(p.grad is None for p in model.vision_encoder.parameters())
    with torch.no_grad():
        first, second = model.vision_encoder(batch.images), model.vision_encoder(batch.images)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_which_parts_are_random_is_known_and_kept(tmp_path: Path) -> None:
    model = build_model(model_config("segearth_debug"))
    assert model.random_parts == {name for name, _ in model.named_children()}
    model.random_parts = {"vision_encoder", "mask_decoder"}
    model.save_pretrained(tmp_path)
    assert SegEarth.from_pretrained(tmp_path).random_parts == {"vision_encoder", "mask_decoder"}
    model.random_parts = set()
    model.save_pretrained(tmp_path)
    assert SegEarth.from_pretrained(tmp_path).random_parts == set()


def test_a_timm_backbone_by_name() -> None:
    spec = {"name": "segearth_debug", "vision_encoder": {"kind": "timm", "timm_name": "resnet10t", "pretrained": False}}
    model = build_model(model_config(spec)).eval()
    logits, _ = logits_of(model, [[question("ships"), question("roads")]])
    assert logits.shape == (2, SIZE // 4, SIZE // 4)
    assert model.vision_encoder.strides == (4, 8, 16, 32)
    spec["vision_encoder"]["timm_name"] = "resnet10"
    with pytest.raises(UnknownNameError, match="resnet10t"):
        build_model(model_config(spec))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_a_timm_swin_whose_maps_are_as_high_as_they_have_channels(name: str) -> None:
    """Its maps are channels last: at 384 px res2 is (96, W, 96)."""
    encoder = TimmEncoder(name).eval()
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 3, 384, 64))
    assert [tuple(level.shape[1:]) for level in maps] == [(96, 96, 16), (192, 48, 8), (384, 24, 4), (768, 12, 2)]


@pytest.mark.parametrize("kind", ["debug_model", "placed_model"])
def test_any_frame_size(kind: str, request: pytest.FixtureRequest) -> None:
    model: SegEarth = request.getfixturevalue(kind)
    for height, width in ((64, 64), (64, 160), (96, 32), (72, 100)):
        with torch.no_grad():
            features = model.encode_image(torch.randn(1, 3, height, width))
            queries = model.encode_text(
                features, model.prompt_encoder.encode([question("ships")]), torch.zeros(1, dtype=torch.long)
            )
            logits = model.decode_masks(features, queries).mask_logits
        assert features.prefix.embeds.shape[1] >= features.image_tokens.shape[1] > 0
        assert features.decoder.mask_features.shape[2:] == logits.shape[1:] == (height // 4, width // 4)


TIMM = {"kind": "timm", "timm_name": "convnext_atto", "pretrained": False}
DEEP = {  # parts deep enough that what their layers keep outweighs the rest
    "swin": {"vision_encoder": {"depths": [4, 4, 4, 4]}},
    "timm": {"vision_encoder": TIMM},
    "language_model": {"language_model": {"config": {"num_hidden_layers": 12}}},
    "frozen_language_model": {"language_model": {"config": {"num_hidden_layers": 12}, "frozen": True}},
    "gpt2": {"language_model": {"model_type": "gpt2", "config": {"n_layer": 12, "n_embd": 32, "n_head": 2},
                                "frozen": True}},
}  # fmt: skip


@pytest.mark.parametrize("part", DEEP)
def test_activation_checkpointing_keeps_less_and_changes_no_gradient(
    part: str, saved_bytes: Callable[..., Any]
) -> None:
    spec = {"name": "segearth_debug", **DEEP[part]}
    if part == "gpt2":  # another family has no use for the card's keywords
        config = model_config({"name": "segearth_debug"})
        config.language_model = from_dict(LanguageModelConfig, DEEP[part]["language_model"])
    else:
        config = model_config(spec)
    model = build_model(config).train()
    batch = make_batch(model, [[question("ships"), question("roads")]])
    kept, gradients = [], []
    for enabled in (False, True):
        model.set_checkpointing(enabled)
        model.zero_grad()
        output, count = saved_bytes(lambda: model(batch))
        output.mask_logits.square().mean().backward()
        kept.append(count)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert kept[1] < 0.6 * kept[0], kept
    assert gradients[0].keys() == gradients[1].keys()
    assert any(name.startswith("token_compressor") for name in gradients[0])  # reached through the language model
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-6, rtol=1e-5, msg=name)


def test_a_part_that_cannot_be_checkpointed_says_so() -> None:
    model = build_model(model_config("segearth_debug"))
    model.vision_encoder.stages = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match=r"this vision_encoder \(SwinEncoder\) has no layers"):
        model.set_checkpointing(True)
    model.set_checkpointing(False)
    model.vision_encoder.freeze()  # then no gradient goes through it, and it keeps nothing
    model.set_checkpointing(True)


def test_bf16_runs_and_stays_near() -> None:
    torch.manual_seed(0)  # of a few random models in a hundred an answer hangs on a rounding
    model = build_model(model_config("segearth_debug")).eval()
    expected, _ = logits_of(model, [[question("ships")]])
    found, _ = logits_of(model.bfloat16(), [[question("ships")]])
    assert found.isfinite().all()
    assert (found.float() - expected).abs().mean() < 0.1 * expected.abs().mean() + 0.05


def test_attention_mask() -> None:
    visible = attention_mask(torch.tensor([[[1.0, -1.0, -1.0, -1.0], [-1.0, -1.0, -1.0, -1.0]]]))
    assert visible[0].tolist() == [[True, False, False, False], [True, True, True, True]]  # nowhere becomes everywhere


@torch.no_grad()
def test_shrinking_features_is_shrinking_masks() -> None:
    torch.manual_seed(0)
    decoder, features = MaskDecoder(dim=8, num_layers=3, num_heads=2, ffn_dim=8), torch.randn(2, 8, 24, 40)
    levels = [torch.zeros(2, 8, 24 // step, 40 // step) for step in (8, 4, 2)]
    mask_embedding = torch.randn(2, 5, 8)
    masks = torch.einsum("bqc,bchw->bqhw", mask_embedding, features)
    for level, shrunk in zip(levels, decoder.prepare_image(features, levels).shrunk_mask_features, strict=True):
        expected = F.interpolate(masks, level.shape[2:], mode="bilinear", align_corners=False).flatten(2)
        assert torch.allclose(mask_embedding @ shrunk, expected, atol=1e-5)


class TestSavedFolders:
    @pytest.fixture
    def folder(self, debug_model: SegEarth, tmp_path: Path) -> Path:
        debug_model.save_pretrained(tmp_path)
        return tmp_path

    def test_a_run_folder_opens_too(self, debug_model: SegEarth, tmp_path: Path) -> None:
        debug_model.save_pretrained(tmp_path / "model")
        SegEarth.from_pretrained(tmp_path)

    def test_missing_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"holds no config\.json"):
            SegEarth.from_pretrained(folder)

    def test_cut_weights(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short"):
            SegEarth.from_pretrained(folder)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["model"]["pixel_decoder"]["ffn_dim"] = 32
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=r"does not fit this model.*linear1"):
            SegEarth.from_pretrained(folder)

    def test_a_key_too_many(self, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = folder / "model.safetensors"
        save_file({**load_file(weights), "surprise": torch.zeros(1)}, weights)
        with pytest.raises(CheckpointError, match="surprise"):
            SegEarth.from_pretrained(folder)

    def test_a_vocabulary_that_disagrees(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["model"]["language_model"]["config"]["vocab_size"] = 100
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="100 embedding rows but the tokenizer has"):
            SegEarth.from_pretrained(folder)

    def test_an_unknown_id(self) -> None:
        with pytest.raises(CheckpointError, match="no folder here and no model on the hub"):
            SegEarth.from_pretrained("nobody/nothing")


def test_preprocessing_is_built_once_with_the_model(debug_model: SegEarth) -> None:
    """Whoever made one of their own from the configuration could feed these weights frames they have never seen."""
    assert debug_model.image_transform.config is debug_model.config.image_transform
    assert Predictor(debug_model).transform is debug_model.image_transform
    with pytest.raises(UnknownNameError, match="leterbox"):
        build_model(model_config({"name": "segearth_debug", "image_transform": {"fit": "leterbox"}}))

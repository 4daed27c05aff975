"""The whole model on the device: answers, gradients, mixed precision, compiled parts, what the host waits for."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from segearth.config import LossConfig
from segearth.data.feed.loading import Collator, TrainingExample
from segearth.inference.precision import set_precision
from segearth.inference.predictor import Predictor
from segearth.layers.deformable_attention import DeformableAttention
from segearth.losses.criterion import Criterion
from segearth.model_types import Batch, MaskOutput
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.zoo.lookup import model_config

pytestmark = pytest.mark.gpu

SIDE = 128
ASKED = [("ships", "referring"), ("where could a helicopter land?", "reasoning"), ("the roads", "referring")]


def build(name: str = "segearth_debug", template: str = "segearth_r1") -> SegEarth:
    torch.manual_seed(0)
    model = build_model(model_config({"name": name, "text": {"template": template}}))
    for layer in model.modules():
        if isinstance(layer, DeformableAttention):
            with torch.no_grad():  # a fresh one reads at cells' centres, where the gradient jumps
                layer.sampling_offsets.bias += 0.3
    return model


def make_batch(model: SegEarth) -> Batch:
    """Two letterboxed images, with all questions and with one; two of four have an answer."""
    random = np.random.default_rng(0)
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    questions = [
        Question(text, random.random((SIDE, SIDE)) > 0.7, "There." if i else None, task)  # type: ignore[arg-type]
        for i, (text, task) in enumerate(ASKED)
    ]
    valid = torch.ones(SIDE, SIDE, dtype=torch.bool)
    valid[-32:] = False
    return Collator(model.prompt_encoder, True)(
        [TrainingExample(images[0], valid, questions), TrainingExample(images[1], valid, questions[:1])]
    )


def answer(model: SegEarth, device: torch.device) -> tuple[Tensor, Tensor]:
    """Queries and mask logits, on the host."""
    with torch.inference_mode():
        batch = make_batch(model).to(device)
        features = model.to(device).eval().encode_image(batch.images)
        queries = model.encode_text(features, batch.text, batch.image_index)
        output = model.decode_masks(features, queries)
    return queries.queries.float().cpu(), output.mask_logits.float().cpu()


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["segearth_debug", "segearth_tiny"])
@pytest.mark.parametrize("template", ["plain", "segearth_r1"])
def test_answers_are_those_of_a_cpu(device: torch.device, name: str, template: str) -> None:
    model = build(name, template)
    queries, logits = answer(model, torch.device("cpu"))
    found_queries, found_logits = answer(model, device)
    print(f"{name}, {template}: queries {error(found_queries, queries):.1e}, logits {error(found_logits, logits):.1e}")
    assert error(found_queries, queries) <= 1e-4
    assert error(found_logits, logits) <= 1e-3  # a cell that rounding hides from a layer changes more than rounding


def test_bf16_is_near(device: torch.device) -> None:
    model = build()
    queries, _ = answer(model, device)
    found, _ = answer(set_precision(model, "bf16"), device)
    assert found.isfinite().all()
    assert error(found, queries) <= 0.05


def test_kept_and_shared_is_the_long_way(device: torch.device) -> None:
    """What is kept of an image and shared by its questions against one row a question."""
    model = build().to(device)
    short, _ = answer(model, device)
    model.language_model.packs = False
    long, _ = answer(model, device)
    assert error(short, long) <= 1e-4


def test_a_predictor(device: torch.device) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
    masks = []
    for place in ("cpu", device):
        predictor = Predictor(build(), place)
        predictor.model.config.presence_threshold = 0.0
        predictor.set_image(picture)
        masks.append([found.mask for found in predictor.predict([text for text, _ in ASKED], answer=True)])
    different = np.mean([(ours != theirs).mean() for ours, theirs in zip(*masks, strict=True)])
    assert different <= 1e-2


def loss_of(output: MaskOutput) -> Tensor:
    """A number that every weight reaches and no random point decides: the criterion draws its own on each device."""
    assert output.token_logits is not None
    logits = torch.stack([*output.auxiliary, output.mask_logits])
    ramp = torch.linspace(-1, 1, logits.shape[-1], device=logits.device)
    return (logits.sigmoid() * ramp).mean() + output.presence_logits.mean() + output.token_logits.pow(3).mean()


def test_gradients_are_those_of_a_cpu(device: torch.device) -> None:
    gradients: list[dict[str, Tensor]] = []
    for place in (torch.device("cpu"), device):
        model = build().to(place)  # in eval mode nothing is dropped
        loss_of(model.eval()(make_batch(model).to(place))).backward()
        gradients.append({name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None})
    expected, found = gradients
    assert found.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in found.items():  # a bias of keys has a gradient of nothing but rounding
        assert (gradient - expected[name]).norm() <= 2e-3 * expected[name].norm() + 1e-5 * largest, name


def stepper(model: SegEarth, device: torch.device, autocast: torch.dtype | None = None) -> Callable[[], Tensor]:
    """One step from a batch on the host to new weights; returns the loss where it is."""
    model.to(device).train()
    criterion, batch = Criterion(LossConfig(num_points=256)), make_batch(model)
    batch = batch.pin_memory() if device.type == "cuda" and hasattr(batch, "pin_memory") else batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=autocast == torch.float16)

    def step() -> Tensor:
        there = batch.to(device)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            loss = criterion(model(there), there).total
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss.detach()

    return step


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_a_model_learns(device: torch.device, autocast: torch.dtype | None) -> None:
    """In float32, and by automatic mixed precision."""
    step = stepper(build(), device, autocast)
    losses = torch.stack([step() for _ in range(12)]).cpu()
    assert losses.isfinite().all()
    assert losses[-3:].mean() < losses[:3].mean()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_waits_for_nothing(device: torch.device, checkpointing: bool) -> None:
    """The host queues a step without asking the device for anything: PyTorch would raise an error."""
    model = build()
    model.set_checkpointing(checkpointing)
    step = stepper(model, device)
    for _ in range(2):  # what is made once (kernels, tables, moments) may wait
        step()
    if device.type != "cuda":
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()


@pytest.mark.compiles
@pytest.mark.parametrize("part", ["token_compressor", "pixel_decoder", "vision_encoder"])
def test_a_compiled_part_gives_the_same(device: torch.device, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    model = build().to(device).eval()
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        maps = model.vision_encoder(images)
    given = {"vision_encoder": images, "pixel_decoder": maps, "token_compressor": maps[-1]}[part]
    module = copy.deepcopy(getattr(model, part))
    compiled = torch.compile(module, fullgraph=True, backend="inductor" if device.type == "cuda" else "aot_eager")
    results = []
    for way in (module, compiled):
        module.zero_grad()
        out = tensors(way(given))
        sum(t.pow(3).mean() for t in out).backward()  # type: ignore[union-attr]
        results.append(out + [p.grad for p in module.parameters() if p.grad is not None])
    assert len(results[0]) == len(results[1]) > 1
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)


def tensors(result: Tensor | list[Tensor] | tuple[Tensor, list[Tensor]]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [tensor for part in result for tensor in tensors(part)]

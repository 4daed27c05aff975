from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from segearth.benchmark.flops import count_flops
from segearth.benchmark.graphs import measure_onnx
from segearth.benchmark.measure import alternate, peak_memory
from segearth.benchmark.naive import naive_answer, plain_operators
from segearth.benchmark.sampling import measure_sampling
from segearth.benchmark.suite import WORDINGS, BenchmarkConfig, _ratio, build_shape, run_benchmark
from segearth.benchmark.tables import as_markdown
from segearth.errors import ConfigError
from segearth.layers.deformable_attention import (
    DeformableAttention,
    multi_scale_sample,
    multi_scale_sample_definition,
)
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.zoo.opening import open_model

CPU = torch.device("cpu")


def test_works_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.5 if len(order) <= 2 else 0.02)

    seconds = alternate({"slow": slow, "quick": lambda: order.append("quick")}, 3, CPU)
    assert order == ["slow", "quick"] * 4
    assert [len(rounds) for rounds in seconds.values()] == [3, 3]
    assert all(0.02 <= second < 0.3 for second in seconds["slow"])
    assert max(seconds["quick"]) < 0.01


def test_peak_memory_is_what_a_work_needs_at_once() -> None:
    def work() -> None:
        for _ in range(3):  # one after the other: the peak is one of them
            torch.ones(16 << 20).sum()

    peak = peak_memory(work, CPU)
    if peak is None:
        pytest.skip("resident memory is read from Linux alone")
    assert 0.9 * (64 << 20) < peak < 1.5 * (64 << 20)


@pytest.mark.parametrize("kind", ["debug_model", "placed_model"])
def test_the_naive_way_gives_the_same_answer(kind: str, request: pytest.FixtureRequest) -> None:
    """And does what it says: the image twice, all of the prompt, logits of every position."""
    model: SegEarth = request.getfixturevalue(kind)
    seen: dict[str, list[int]] = {"images": [], "positions": []}
    head = model.language_model.causal_lm.get_output_embeddings()
    hooks = [
        model.vision_encoder.register_forward_hook(lambda m, args, out: seen["images"].append(len(args[0]))),
        head.register_forward_hook(lambda m, args, out: seen["positions"].append(len(args[0]))),
    ]
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    question = Question("the largest ship", answer="There.")
    with torch.no_grad():
        text = model.prompt_encoder.encode([question], whole=True)
        naive, _ = naive_answer(model, image, text)
        for hook in hooks:
            hook.remove()
        features = model.encode_image(image)
        queries = model.encode_text(features, model.prompt_encoder.encode([question]), torch.tensor([0]))
        ours = model.decode_masks(features, queries)
    assert (ours.mask_logits - naive.mask_logits).abs().max() <= 1e-4 * naive.mask_logits.abs().max()
    assert seen == {"images": [1, 1], "positions": [features.prefix.embeds.shape[1] + text.lengths[0]]}
    assert model.language_model.causal_lm.config._attn_implementation != "eager"  # as it was before
    assert model.pixel_decoder.recomputes


def test_the_naive_way_samples_by_the_definition(debug_model: SegEarth) -> None:
    attentions = [m for m in debug_model.pixel_decoder.modules() if isinstance(m, DeformableAttention)]
    assert attentions
    with pytest.raises(KeyError), plain_operators(debug_model):  # whatever happens inside
        assert {attention.sample for attention in attentions} == {multi_scale_sample_definition}
        assert not debug_model.pixel_decoder.recomputes
        raise KeyError
    assert {attention.sample for attention in attentions} == {multi_scale_sample}
    assert debug_model.pixel_decoder.recomputes


def test_a_report(debug_model: SegEarth, tmp_path: Path) -> None:
    config = BenchmarkConfig(size=64, questions=[1, 3], batches=[2], sizes=[64, 96], repeats=1)
    figures = run_benchmark(debug_model, "segearth_debug", config, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8")) == json.loads(json.dumps(figures))
    assert (tmp_path / "benchmark.md").read_text(encoding="utf-8") == as_markdown(figures)
    assert figures["agreement"] <= 1e-4
    ours, naive = figures["parts"]["ours"], figures["parts"]["naive"]
    assert naive["vision encoder"]["multiply-adds"] == pytest.approx(2 * ours["vision encoder"]["multiply-adds"])
    read = ours["prompt up to the image"]["multiply-adds"] + ours["question"]["multiply-adds"]
    assert naive["question"]["multiply-adds"] > read  # to the end, with the vocabulary
    assert all(part["multiply-adds"] > 0 < part["seconds"] for part in (*ours.values(), *naive.values()))
    rows = figures["prediction"]["questions"]
    assert rows["3"]["naive seconds"] == pytest.approx(3 * figures["prediction"]["naive seconds"])
    rounds = figures["prediction"]["rounds"]
    assert rows["3"]["ratio"]["median"] == pytest.approx(3 * rounds["naive"][0] / rounds["3"][0])
    assert list(figures["sizes"]) == ["64", "96"]
    batch = figures["batches"]["2"]
    assert batch["images per second"] == pytest.approx(2 / batch["seconds"])
    text = debug_model.prompt_encoder.encode([Question(words) for words in WORDINGS["sentences"][:3]])
    opening = text.openings[0][1]
    assert figures["tokens"] == {
        "before the image": len(debug_model.prompt_encoder.before_image),
        "of the image": 1,
        "shared by a task": opening,
        "of a question": {
            "least": min(text.lengths) - opening,
            "mean": pytest.approx(sum(text.lengths) / 3 - opening),
            "most": max(text.lengths) - opening,
        },
    }
    lines = as_markdown(figures).splitlines()
    sampling = figures["deformable attention"]
    assert all(seconds > 0 for way in sampling["seconds"].values() for seconds in way.values())
    rate = sampling["least bytes"]["forward"] / sampling["seconds"]["definition"]["forward"] / 1e9
    assert f"| {rate:.1f} |" in next(line for line in lines if line.startswith("| definition |"))
    assert sampling["copied bytes per second"] > 1e8
    assert set(figures["training"]["pairs per second"]) == {"naive", "1", "6"}
    given_back = figures["freed memory given back"]
    for name, kept in (("a first question", rounds), ("a training step, one question", figures["training"]["rounds"])):
        row = next(line for line in lines if line.startswith(f"| {name} | {kept['1'][0]:.4f} |"))
        assert f"| {given_back[name]['1'][0] / kept['1'][0]:.2f} |" in row
    whole = figures["peak bytes"]["process in a training step"]
    if whole["1"] is not None:  # read from Linux alone
        held = sum(p.nbytes for p in debug_model.parameters())
        assert whole["1"] > whole["weights and gradients"] > 1.5 * held
    assert all(p.grad is None for p in debug_model.parameters())
    assert not debug_model.training


def test_ratios_round_by_round_and_to_the_extremes() -> None:
    """Two questions at once in 2, 4 and 5 seconds; the naive way takes 10, 12 and 30 for one."""
    ratio = _ratio([10.0, 12.0, 30.0], [2.0, 4.0, 5.0], 2)
    assert ratio == {
        "median": 10.0, "least": 6.0, "most": 12.0, "to the fastest naive round": 5.0, "to the slowest": 15.0
    }  # fmt: skip


def test_bytes_that_sampling_has_to_move(debug_model: SegEarth) -> None:
    """64 px: levels of 4, 16 and 64 cells. 4 heads of 8 channels, 3 levels of 2 points; one layer, float32."""
    least = measure_sampling(debug_model, torch.zeros(1, 3, 64, 64), 1)["least bytes"]
    cells, read = 84 * 32, 84 * 4 * 3 * 2 * 3  # as many queries as cells: x, y and weight of each point
    assert least["forward"] == 4 * (cells + read + cells)
    assert least["both"] == least["forward"] + 4 * (cells + 2 * (cells + read))


def need_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'segearth[onnx]'")


@pytest.mark.slow  # half a minute; tests/inference/test_export.py makes the graphs of another model
def test_onnx_graphs_beside_the_model(debug_model: SegEarth) -> None:
    need_onnx()
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    figures = measure_onnx(debug_model, image, [Question("the largest ship"), Question("roads")], 1)
    assert list(figures["parts"]) == ["encoder", "decoder, N = 1", "decoder, N = 2"]
    assert all(seconds > 0 for part in figures["parts"].values() for seconds in part.values())
    assert 0 < figures["difference"] <= 1e-4


def test_onnx_of_bf16_is_refused_before_anything_is_measured() -> None:
    need_onnx()
    model = open_model("segearth_debug").bfloat16()
    with pytest.raises(ConfigError, match="float32 on a CPU"):
        run_benchmark(model, "segearth_debug", BenchmarkConfig(onnx=True))


def test_multiply_adds_of_a_known_work(debug_model: SegEarth) -> None:
    """A linear layer costs inputs times outputs a row."""
    rows, layer = torch.zeros(3, 5), torch.nn.Linear(5, 7).requires_grad_(False)
    assert count_flops(debug_model, lambda: layer(rows)) == pytest.approx(3 * 5 * 7 / 1e9)


def test_a_shape_alone_needs_no_hub() -> None:
    with torch.device("meta"):
        model = build_shape("segearth_swinb_phi1_5")
    assert model.language_model.vocab_size == 51200

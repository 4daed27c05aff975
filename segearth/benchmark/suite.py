"""``segearth bench``: latency of each part, questions and training pairs a second, memory, beside the naive way."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from segearth.benchmark.flops import count_flops
from segearth.benchmark.graphs import check_onnx, measure_onnx
from segearth.benchmark.measure import alternate, peak_memory, peak_resident
from segearth.benchmark.naive import naive_answer, naive_parts
from segearth.benchmark.sampling import measure_sampling
from segearth.benchmark.tables import as_markdown
from segearth.config import LossConfig
from segearth.errors import UnknownNameError
from segearth.losses.criterion import Criterion
from segearth.model_types import Batch, EncodedText, ImageFeatures
from segearth.models.build import build_model
from segearth.models.segearth import SegEarth
from segearth.structures import Question
from segearth.utils.files import write_text
from segearth.utils.memory import give_back_freed_memory, keep_freed_memory, release_memory
from segearth.zoo.lookup import shape_config

logger = logging.getLogger(__name__)
WORDINGS: dict[str, list[str]] = {
    "short": ["the buildings", "the largest ship near the pier", "the road to the airport", "flooded fields"],
    # As long as questions of reasoning data sets. The naive way is timed with the first one, which is of mean length.
    "sentences": [
        "Which of these roofs are large and flat enough to carry several rows of solar panels?",
        "Which area could serve as a landing place for a helicopter if all roads were blocked in an emergency?",
        "Where would large ships be moored so that goods can be loaded and unloaded quickly?",
        "the largest storage tank to the left of the harbour, close to the main road and the railway line",
        "Which part of the image would be under water first if the river rose by a metre after heavy rain?",
        "the bridge that crosses the river in the upper right part of the image, next to the sports field",
        "Where could several hundred people find open space and shelter after an earthquake?",
        "the two aeroplanes that stand closest to the terminal building, on the right of the runway",
    ],
}
TOGETHER = 32  # questions read and decoded in one go


@dataclass
class BenchmarkConfig:
    """What to measure.

    Attributes:
        size: Side of the square image in pixels.
        questions: How many are asked of one image, in turn.
        training: Also measure training steps, with one and with six questions an image.
        wording: ``"sentences"`` asks what data sets ask; ``"short"`` names things in a few words.
        batches: Also take in several images at once and ask one question of each.
        sizes: Also encode square images of these sides.
        multiply_adds: Also count them, which runs each part once more.
        onnx: Also run the ONNX graphs in onnxruntime (float32 on a CPU).
        repeats: Counted rounds; medians are taken.
        seed: Decides image and targets.
    """

    size: int = 1024
    questions: list[int] = field(default_factory=lambda: [1, 8, 32, 128])
    wording: str = "sentences"
    training: bool = True
    batches: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    multiply_adds: bool = True
    onnx: bool = False
    repeats: int = 3
    seed: int = 0


def run_benchmark(
    model: SegEarth, name: str, config: BenchmarkConfig, output_dir: Path | None = None
) -> dict[str, Any]:
    """Measures a model where it is and in the precision it has.

    Memory comes first, and what it is worth that the process keeps what it frees (see ``segearth.utils.memory``); then
    it keeps it.

    Args:
        model: On the device to measure.
        name: Named in the report.
        config: What to measure.
        output_dir: Folder for ``benchmark.json`` and ``benchmark.md``.

    Returns:
        All figures: seconds, bytes and ratios.

    Raises:
        MissingExtraError: ``config.onnx`` without onnx, onnxscript or onnxruntime.
        ConfigError: ``config.onnx`` and the model is not in float32 on a CPU.
        UnknownNameError: No such wording.
    """
    if config.onnx:
        check_onnx(model)
    if config.wording not in WORDINGS:
        raise UnknownNameError("wording", config.wording, WORDINGS)
    torch.manual_seed(config.seed)
    bench = _Bench(model, config)
    figures: dict[str, Any] = {
        "model": name,
        "size": config.size,
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": machine(model.device),
        "tokens": bench.tokens(),
        "agreement": bench.agreement(),
    }
    keep_freed_memory()
    resident = bench.resident() if config.training else {}
    give_back_freed_memory()
    figures["peak bytes"] = bench.memory() | resident
    given_back = bench.alternatives() if model.device.type == "cpu" else {}
    release_memory()  # else what follows would be placed in gaps that the training steps have left in memory
    keep_freed_memory()
    figures["parts"] = bench.parts()
    figures["prediction"] = bench.prediction()
    if config.batches:
        figures["batches"] = bench.batches()
    if config.sizes:
        figures["sizes"] = bench.sizes()
    if config.training:
        figures["training"] = bench.training()
    if given_back:
        figures["freed memory given back"] = given_back
    figures["deformable attention"] = measure_sampling(model, bench.image, config.repeats)
    if config.onnx:
        figures["onnx"] = measure_onnx(model, bench.image, bench.questions(5), config.repeats)
    if output_dir is not None:
        write_text(output_dir / "benchmark.json", json.dumps(figures, indent=2) + "\n")
        write_text(output_dir / "benchmark.md", as_markdown(figures))
    return figures


def build_shape(name: str, template: str | None = None) -> SegEarth:
    """Builds a model of the zoo with random weights and the packaged tokenizer; its speed is the real one's.

    Args:
        name: As in ``segearth zoo list``.
        template: Its prompt template, such as ``"segearth_r1"``, the published one; the model's own if left out.
    """
    config = shape_config(name)
    config.text.template = template or config.text.template
    return build_model(config, load_weights=False)


def machine(device: torch.device) -> dict[str, Any]:
    """Returns what the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    facts = {"device": device.type, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {**facts, "capability": torch.backends.cpu.get_cpu_capability()}


class _Bench:
    def __init__(self, model: SegEarth, config: BenchmarkConfig) -> None:
        self.model, self.config, self.device = model.eval(), config, model.device
        self.image = torch.randn(1, 3, config.size, config.size).to(model.device, model.dtype)

    def questions(self, count: int) -> list[Question]:
        words = WORDINGS[self.config.wording]
        return [Question(words[i % len(words)], answer="There it is.") for i in range(count)]

    def tokens(self) -> dict[str, Any]:
        """How many tokens a prompt has, part by part, up to and including ``[SEG]``."""
        encoder, questions = self.model.prompt_encoder, self.questions(max(self.config.questions))
        text = encoder.encode(questions)
        own = [length - opening for length, (_, opening) in zip(text.lengths, text.openings, strict=True)]
        features = self._features()
        return {
            "before the image": len(encoder.before_image),
            "of the image": features.image_tokens.shape[1],
            "shared by a task": text.openings[0][1],
            "of a question": {"least": min(own), "mean": sum(own) / len(own), "most": max(own)},
        }

    @torch.no_grad()
    def _features(self) -> ImageFeatures:
        return self.model.encode_image(self.image)

    def _text(self, questions: list[Question], **options: bool) -> EncodedText:
        return self.model.prompt_encoder.encode(questions, **options).to(self.device)

    @torch.no_grad()
    def _answer(self, count: int) -> Tensor:
        features = self.model.encode_image(self.image)
        return torch.cat([self._ask(features, some) for some in self._chunks(count)])

    def _ask(self, features: Any, questions: list[Question]) -> Tensor:
        index = torch.zeros(len(questions), dtype=torch.long)
        queries = self.model.encode_text(features, self._text(questions), index)
        return self.model.decode_masks(features, queries).mask_logits

    def _chunks(self, count: int) -> list[list[Question]]:
        questions = self.questions(count)
        return [questions[start : start + TOGETHER] for start in range(0, count, TOGETHER)]

    @torch.no_grad()
    def _naive(self) -> Tensor:
        output, _ = naive_answer(self.model, self.image, self._text(self.questions(1), whole=True))
        return output.mask_logits

    def agreement(self) -> float:
        """Largest difference of the two ways' logits over the largest logit."""
        ours, naive = self._answer(1).float(), self._naive().float()
        return float((ours - naive).abs().max() / naive.abs().max())

    @torch.no_grad()
    def parts(self) -> dict[str, dict[str, dict[str, float]]]:
        """Seconds and billions of multiply-adds of each part of a first question, both ways."""
        model = self.model
        maps = model.vision_encoder(self.image)
        features = model.encode_image(self.image)
        text, index = self._text(self.questions(1)), torch.zeros(1, dtype=torch.long)
        queries = model.encode_text(features, text, index)
        mask_features, multi_scale_features, res5 = model.decode_pixels(maps)
        ours: dict[str, Callable[[], Any]] = {
            "vision encoder": lambda: model.vision_encoder(self.image),
            "pixel decoder": lambda: model.decode_pixels(maps),
            "token compressor": lambda: model.token_compressor(maps[-1]),
            "prompt up to the image": lambda: model.language_model.make_prefix(features.prefix.embeds),
            "keys and values for the decoders": lambda: (
                model.mask_decoder.prepare_image(mask_features, multi_scale_features),
                model.description_projector.keys_values(res5),
            ),
            "question": lambda: model.encode_text(features, text, index),
            "mask": lambda: model.decode_masks(features, queries),
        }  # fmt: skip
        naive = naive_parts(model, self.image, self._text(self.questions(1), whole=True))
        works = {(way, name): work for way, all_ in (("ours", ours), ("naive", naive)) for name, work in all_.items()}
        seconds = alternate(works, self.config.repeats, self.device)
        figures: dict[str, dict[str, dict[str, float]]] = {"ours": {}, "naive": {}}
        for (way, name), work in works.items():
            figures[way][name] = {"seconds": median(seconds[way, name])}
            if self.config.multiply_adds:
                figures[way][name]["multiply-adds"] = count_flops(model, work)
        return figures

    def prediction(self) -> dict[str, Any]:
        """Seconds for some questions about one image; the naive way asks one at a time, so its time is a multiple."""
        counts = self.config.questions
        works: dict[str, Callable[[], Any]] = {"naive": self._naive}
        works |= {str(count): partial(self._answer, count) for count in counts}
        seconds = alternate(works, self.config.repeats, self.device)
        naive, first = median(seconds["naive"]), median(seconds[str(counts[0])])
        rows = {}
        for count in counts:
            rounds = seconds[str(count)]
            ours = median(rounds)
            further = (ours - first) / (count - counts[0]) / first if count > counts[0] else None
            rows[str(count)] = {
                "seconds": ours,
                "naive seconds": naive * count,
                "ratio": _ratio(seconds["naive"], rounds, count),
                "questions per second": count / ours,
                "a further question's share of the first": further,
            }
        return {"naive seconds": naive, "questions": rows, "rounds": seconds}

    def batches(self) -> dict[str, dict[str, float]]:
        """Seconds for several images taken in at once, and one question of each."""
        works = {str(count): partial(self._ask_each, count) for count in self.config.batches}
        seconds = {name: median(rounds) for name, rounds in alternate(works, self.config.repeats, self.device).items()}
        return {name: {"seconds": s, "images per second": int(name) / s} for name, s in seconds.items()}

    @torch.no_grad()
    def _ask_each(self, count: int) -> Any:
        features = self.model.encode_image(self.image.expand(count, -1, -1, -1))
        queries = self.model.encode_text(features, self._text(self.questions(count)), torch.arange(count))
        return self.model.decode_masks(features, queries)

    def sizes(self) -> dict[str, dict[str, float]]:
        """Seconds for taking in larger and larger images."""
        rows = {}
        for side in self.config.sizes:
            seconds = median(alternate({"": partial(self._take_in, side)}, self.config.repeats, self.device)[""])
            rows[str(side)] = {"seconds": seconds, "seconds per megapixel": seconds / side**2 * 1e6}
        return rows

    @torch.no_grad()
    def _take_in(self, side: int) -> Any:
        return self.model.encode_image(torch.zeros(1, 3, side, side, device=self.device, dtype=self.model.dtype))

    def training(self) -> dict[str, Any]:
        """Forward and backward of one image with one and with six questions, against one naive pair a time."""
        with self._steps() as works:
            rounds = alternate(works, self.config.repeats, self.device)
        seconds = {name: median(values) for name, values in rounds.items()}
        return {
            "seconds": seconds,
            "pairs per second": {"naive": 1 / seconds["naive"], "1": 1 / seconds["1"], "6": 6 / seconds["6"]},
            "step ratio": _ratio(rounds["naive"], rounds["1"]),
            "pairs ratio": _ratio(rounds["naive"], rounds["6"], 6),
            "rounds": rounds,
        }

    def alternatives(self) -> dict[str, dict[str, list[float]]]:
        """Rounds of a first question and of a training step, both ways, under the memory policy of the moment."""
        rounds = max(1, self.config.repeats // 2)
        first: dict[str, Callable[[], Any]] = {"1": partial(self._answer, 1), "naive": self._naive}
        figures = {"a first question": alternate(first, rounds, self.device)}
        if self.config.training:
            with self._steps() as works:
                steps = {name: works[name] for name in first}
                figures["a training step, one question"] = alternate(steps, rounds, self.device)
        return figures

    def resident(self) -> dict[str, dict[str, int | None]]:
        """Bytes of the whole process at the peak of a training step, and of the weights and gradients in it."""
        with self._steps() as works:
            figures = {name: peak_resident(works[name], self.device) for name in ("1", "6", "naive")}
            held = [tensor for p in self.model.parameters() for tensor in (p, p.grad) if tensor is not None]
            figures["weights and gradients"] = sum(tensor.nbytes for tensor in held)
        return {"process in a training step": figures}

    def memory(self) -> dict[str, dict[str, int | None]]:
        """Bytes that are needed at the peak, beyond weights and, in a training step, gradients."""
        first: dict[str, Callable[[], Any]] = {"ours": partial(self._answer, 1), "naive": self._naive}
        for work in first.values():
            work()  # a first run, so that buffers which are made once and kept are not counted
        figures = {
            "first question": {name: peak_memory(work, self.device) for name, work in first.items()},
            "sizes": {str(side): peak_memory(partial(self._take_in, side), self.device) for side in self.config.sizes},
        }
        if self.config.training:
            with self._steps() as works:
                figures["training step"] = {name: peak_memory(work, self.device) for name, work in works.items()}
        return figures

    @contextmanager
    def _steps(self) -> Iterator[dict[str, Callable[[], None]]]:
        """Training steps, of the naive way and of one and of six questions; gradients are held from the start."""
        side = self.config.size
        targets = torch.rand(6, side // 8, side // 8).round()
        masks = torch.nn.functional.interpolate(targets[None], size=(side, side))[0].to(self.device)
        criterion = Criterion(LossConfig())

        def batch(count: int, whole: bool) -> Batch:
            text = self._text(self.questions(count), with_answers=True, whole=whole)
            present = torch.ones(count, dtype=torch.bool, device=self.device)
            return Batch(self.image, text, torch.zeros(count, dtype=torch.long), masks[:count], present, None, [])

        def step(count: int) -> None:
            given = batch(count, False)
            criterion(self.model(given), given).total.backward()

        def naive_step() -> None:
            given = batch(1, True)
            output, queries = naive_answer(self.model, self.image, given.text)
            output.token_logits = self.model.predict_labels(queries, given.text)
            criterion(output, given).total.backward()

        self.model.train()
        step(1)
        yield {"naive": naive_step, "1": partial(step, 1), "6": partial(step, 6)}
        self.model.zero_grad()
        self.model.eval()


def _ratio(naive: list[float], ours: list[float], times: int = 1) -> dict[str, float]:
    """How many times faster than ``times`` naive works: in each round, since a machine slows down between rounds."""
    ratios = [times * long / short for long, short in zip(naive, ours, strict=True)]
    usual = median(ours)
    return {
        "median": median(ratios), "least": min(ratios), "most": max(ratios),
        "to the fastest naive round": times * min(naive) / usual, "to the slowest": times * max(naive) / usual,
    }  # fmt: skip

"""The figures of a benchmark as tables."""

from __future__ import annotations

from statistics import median
from typing import Any


def as_markdown(figures: dict[str, Any]) -> str:
    """Returns the figures of :func:`segearth.benchmark.suite.run_benchmark` as tables."""
    box, parts = figures["machine"], figures["parts"]
    lines = [
        f"`{figures['model']}`, {figures['size']} px, {figures['dtype']}, {box['device']} ({box['name']}, "
        f"{box['capability']}, {box['threads']} threads), torch {box['torch']}; logits of both ways agree to "
        f"{figures['agreement']:.1e}.", "",
        *_tokens(figures["tokens"]), "",
        "| part of a first question | seconds | naive | billion multiply-adds | naive |", "|---|---:|---:|---:|---:|",
        *(_part(name, *(parts[way].get(name) for way in ("ours", "naive"))) for name in parts["ours"]),
        "| multiply-adds in all | | | " + " | ".join(_multiply_adds(parts[way]) for way in ("ours", "naive")) + " |",
        "",
        "| questions on one image | seconds | naive | ratio (rounds) | to its fastest and slowest round | questions/s "
        "| a further question, of first |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for count, row in figures["prediction"]["questions"].items():
        share = row["a further question's share of the first"]
        lines.append(
            f"| {count} | {_seconds(row['seconds'])} | {_seconds(row['naive seconds'])} | {_times(row['ratio'])} | "
            f"{_extremes(row['ratio'])} | "
            f"{row['questions per second']:.3f} | {'' if share is None else f'{share:.1%}'} |"
        )
    if "batches" in figures:
        naive = 1 / figures["prediction"]["naive seconds"]
        lines += ["", "| images at once, a question each | seconds | images/s | naive, one by one |"]
        lines += ["|---:|---:|---:|---:|"]
        for count, row in figures["batches"].items():
            lines.append(f"| {count} | {_seconds(row['seconds'])} | {row['images per second']:.3f} | {naive:.3f} |")
    if "sizes" in figures:
        lines += ["", "| image side | seconds | seconds a megapixel | GiB |", "|---:|---:|---:|---:|"]
        for side, row in figures["sizes"].items():
            peak = _gib(figures["peak bytes"]["sizes"][side])
            lines.append(f"| {side} | {row['seconds']:.2f} | {row['seconds per megapixel']:.2f} | {peak} |")
    if "training" in figures:
        training = figures["training"]
        lines += [
            "", "| training step | seconds | pairs/s | ratio (rounds) | to its fastest and slowest round |",
            "|---|---:|---:|---:|---:|",
        ]  # fmt: skip
        of = {"1": training["step ratio"], "6": training["pairs ratio"]}
        ratios = {"naive": " | "} | {key: f"{_times(ratio)} | {_extremes(ratio)}" for key, ratio in of.items()}
        names = {"naive": "naive, one question", "1": "one question", "6": "six questions of one image"}
        for key, label in names.items():
            seconds, pairs = training["seconds"][key], training["pairs per second"][key]
            lines.append(f"| {label} | {_seconds(seconds)} | {pairs:.3f} | {ratios[key]} |")
    lines += ["", *_memory(figures["peak bytes"]), ""]
    if "freed memory given back" in figures:
        lines += [*_freed(figures), ""]
    lines += _sampling(figures)
    if "onnx" in figures:
        lines += ["", *_onnx(figures["onnx"])]
    return "\n".join(lines) + "\n"


def _sampling(figures: dict[str, Any]) -> list[str]:
    questions, training = figures["prediction"], figures.get("training")
    first = {"definition": questions["naive seconds"], "here": questions["questions"].get("1", {}).get("seconds")}
    step = {"definition": training["seconds"]["naive"], "here": training["seconds"]["1"]} if training else None
    lines = [
        "| deformable sampling, all layers | forward, s | of a first question | GB/s | with backward, s | of a step "
        "| GB/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    sampling = figures["deformable attention"]
    for way, seconds in sampling["seconds"].items():
        shares = {
            "forward": f"{seconds['forward'] / first[way]:.0%}" if first[way] else "",
            "both": f"{seconds['both'] / step[way]:.0%}" if step else "",
        }
        rates = {part: sampling["least bytes"][part] / seconds[part] / 1e9 for part in shares}
        cells = (f"{_seconds(seconds[part])} | {shares[part]} | {rates[part]:.1f}" for part in shares)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    copied = sampling["copied bytes per second"] / 1e9
    return [*lines, "", f"GB/s as if nothing were read twice; a plain copy moves {copied:.1f} GB/s on this device."]


def _tokens(tokens: dict[str, Any]) -> list[str]:
    own = tokens["of a question"]
    return [
        "| tokens of a prompt | before the image | of the image | shared by a task | of a question |",
        "|---|---:|---:|---:|---:|",
        f"| | {tokens['before the image']} | {tokens['of the image']} | {tokens['shared by a task']} | "
        f"{own['mean']:.0f} ({own['least']}-{own['most']}) |",
    ]


def _freed(figures: dict[str, Any]) -> list[str]:
    """Returns the table of how much time is saved by keeping freed memory: medians of rounds with and without."""
    kept = {"a first question": figures["prediction"]["rounds"]}
    if "training" in figures:
        kept["a training step, one question"] = figures["training"]["rounds"]
    lines = [
        "| freed memory | kept, s | given back, s | worth | naive, kept | given back | ratio, kept | given back |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, back in figures["freed memory given back"].items():
        ours, naive = ([median(rounds[way]) for rounds in (kept[name], back)] for way in ("1", "naive"))
        ratios = " | ".join(f"{long / short:.2f}" for long, short in zip(naive, ours, strict=True))
        cells = [*map(_seconds, ours), f"{ours[1] / ours[0]:.2f}", *map(_seconds, naive), ratios]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _onnx(figures: dict[str, Any]) -> list[str]:
    lines = ["| ONNX graph | PyTorch, s | onnxruntime, s | ratio |", "|---|---:|---:|---:|"]
    for part, seconds in figures["parts"].items():
        torch_s, runtime_s = seconds["torch"], seconds["onnxruntime"]
        lines.append(f"| {part} | {torch_s:.4f} | {runtime_s:.4f} | {torch_s / runtime_s:.2f} |")
    return [*lines, "", f"Mask logits of both differ by {figures['difference']:.1e} of the largest."]


def _part(name: str, ours: dict[str, float] | None, naive: dict[str, float] | None) -> str:
    write = {"seconds": _seconds, "multiply-adds": lambda count: f"{count:.2f}"}
    figures = [write[key](way[key]) if way and key in way else "" for key in write for way in (ours, naive)]
    return f"| {name} | {' | '.join(figures)} |"


def _seconds(seconds: float) -> str:
    return f"{seconds:.{1 if seconds >= 100 else 2 if seconds >= 1 else 4}f}"


def _times(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})"


def _extremes(ratio: dict[str, float]) -> str:
    return f"{ratio['to the fastest naive round']:.2f}-{ratio['to the slowest']:.2f}"


def _multiply_adds(parts: dict[str, dict[str, float]]) -> str:
    counts = [part["multiply-adds"] for part in parts.values() if "multiply-adds" in part]
    return f"{sum(counts):.2f}" if counts else ""


def _memory(peaks: dict[str, dict[str, int | None]]) -> list[str]:
    first, steps = peaks["first question"], peaks.get("training step", {})
    rows = {"a first question": (first["ours"], first["naive"])}
    if steps:
        rows["a training step, one question"] = steps["1"], steps["naive"]
        rows["a training step, six questions"] = steps["6"], steps["naive"]
    lines = ["| memory beyond weights and gradients, at its peak | GiB | naive | of it |", "|---|---:|---:|---:|"]
    for name, (ours, naive) in rows.items():
        share = f"{ours / naive:.0%}" if ours and naive else ""
        lines.append(f"| {name} | {_gib(ours)} | {_gib(naive)} | {share} |")
    whole = peaks.get("process in a training step", {})
    if whole.get("1"):
        held, ways = whole["weights and gradients"], [_gib(whole[way]) for way in ("1", "6", "naive")]
        lines += [
            "", "| the whole process at its peak, freed memory kept, GiB | one question | six | naive |",
            "|---|---:|---:|---:|",
            f"| a training step; {_gib(held)} are weights and gradients | {' | '.join(ways)} |",
        ]  # fmt: skip
    return lines


def _gib(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**30:.2f}"

"""Commands on models: ``zoo``, ``export``, ``info`` and ``bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segearth.cli.common import SOURCES, whole_numbers


def export(
    model: Annotated[str, typer.Argument(help=f"{SOURCES}.")],
    destination: Annotated[Path, typer.Argument(help="Folder to make; with --question the .onnx file.")],
    height: Annotated[int | None, typer.Option(help="Frame's height in pixels; the model's own if left out.")] = None,
    width: Annotated[int | None, typer.Option(help="Frame's width in pixels; the model's own if left out.")] = None,
    question: Annotated[str | None, typer.Option(help="One graph of the answer to it, for QGIS's Deepness.")]
    = None,
    reasoning: Annotated[bool, typer.Option(help="The question names a need, not a thing.")] = False,
    resolution: Annotated[float | None, typer.Option(help="With --question: metres a pixel, for Deepness.")] = None,
) -> None:
    """Writes image encoder and mask decoder as ONNX graphs, or one graph that answers one question."""
    from segearth.errors import ConfigError
    from segearth.inference.export import export_onnx
    from segearth.inference.export_question import export_question
    from segearth.zoo.opening import open_model

    if question is None and (reasoning or resolution is not None):
        raise ConfigError("--reasoning and --resolution go with --question")
    if question is not None and height != width:
        raise ConfigError("with --question tiles are square: give --height and --width the same number, or neither")
    if question is None and destination.suffix == ".onnx":
        raise ConfigError(f"{destination} is one file, for one question: add --question, or name a folder")
    opened = open_model(model)
    own = opened.config.image_transform.size
    if question is not None:
        task = "reasoning" if reasoning else "referring"
        paths = [export_question(opened, question, destination, task=task, size=height, resolution=resolution)]
    else:
        paths = sorted(export_onnx(opened, destination, (height or own, width or own)).iterdir())
    for path in paths:
        typer.echo(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")


def info(
    model: Annotated[str, typer.Argument(help=f"{SOURCES}.")] = "segearth_tiny",
    overrides: Annotated[
        list[str] | None, typer.Argument(help="With --training: how it is trained, such as train.lora.enabled=true.")
    ] = None,
    training: Annotated[bool, typer.Option("--training", help="Also compute a GPU's memory in training.")] = False,
    gpus: Annotated[str, typer.Option(help="With --training: on how many, in turn.")] = "1,2,4,8",
) -> None:
    """Shows a model's parts and their parameters, and the versions in use."""
    import platform

    import torch
    import transformers

    from segearth import __version__
    from segearth.config import load_experiment
    from segearth.errors import ConfigError
    from segearth.zoo.cards import is_named
    from segearth.zoo.opening import open_model

    if overrides and not training:
        raise ConfigError(f"{overrides[0]} goes with --training: it says how the model is trained")
    if training:
        from segearth.training.state_memory import memory_table, shape_in_training
        from segearth.zoo.lookup import shape_config

        experiment, counts = load_experiment(None, overrides or []), whole_numbers(gpus)
        source = {"name" if is_named(model) else "pretrained": model}
        opened = shape_in_training(shape_config({**experiment.model, **source}), experiment.train)
    else:
        opened = open_model(model)
    for name, part in opened.named_children():
        typer.echo(f"{name:24} {sum(p.numel() for p in part.parameters()) / 1e6:9.2f} M")
    typer.echo(f"{'all':24} {sum(p.numel() for p in opened.parameters()) / 1e6:9.2f} M")
    typer.echo(
        f"segearth {__version__}, python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, cuda {torch.cuda.is_available()}"
    )
    if training:
        typer.echo(f"\n{memory_table(opened, experiment.train, counts)}")


def bench(
    model: Annotated[str, typer.Argument(help=f"{SOURCES}.")] = "segearth_tiny",
    size: Annotated[int, typer.Option(min=32, help="Side of the image in pixels.")] = 1024,
    questions: Annotated[str, typer.Option(help="How many to ask of one image, in turn.")] = "1,8,32,128",
    training: Annotated[bool, typer.Option(help="Also measure training steps.")] = True,
    wording: Annotated[str, typer.Option(help="Questions: sentences as in data sets, or short.")] = "sentences",
    batches: Annotated[str, typer.Option(help="Also so many images at once, such as 1,4,16.")] = "",
    sizes: Annotated[str, typer.Option(help="Also take in images of these sides, such as 512,1024,2048.")] = "",
    shape_only: Annotated[bool, typer.Option(help="Random weights, packaged tokenizer: no hub is asked.")] = False,
    template: Annotated[
        str | None, typer.Option(help="With --shape-only: another prompt, such as segearth_r1, the published one.")
    ] = None,
    multiply_adds: Annotated[bool, typer.Option(help="Also count them (fvcore).")] = True,
    onnx: Annotated[bool, typer.Option(help="Also run the ONNX graphs in onnxruntime.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Counted rounds; medians are taken.")] = 3,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    device: Annotated[str | None, typer.Option(help="cuda or cpu; cuda where there is one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for benchmark.json and benchmark.md.")] = None,
) -> None:
    """Measures a model beside the naive way of using the same weights."""
    import torch

    from segearth.benchmark.suite import BenchmarkConfig, build_shape, run_benchmark
    from segearth.benchmark.tables import as_markdown
    from segearth.errors import ConfigError, UnknownNameError
    from segearth.inference.precision import set_precision
    from segearth.utils.files import check_output_folder
    from segearth.utils.processes import own_device
    from segearth.zoo.opening import open_model

    if out is not None:
        check_output_folder(out)
    if precision not in ("fp32", "bf16"):  # whole numbers cannot be trained
        raise UnknownNameError("precision", precision, ["fp32", "bf16"])
    if template and not shape_only:
        raise ConfigError("--template goes with --shape-only: weights keep the prompt that they were trained with")
    counts, several, sides = whole_numbers(questions), whole_numbers(batches), whole_numbers(sizes)
    place = own_device(device, apple=False)  # the clock would not wait for Apple's GPU
    if shape_only:
        with torch.device(place):  # a GPU draws random weights in a moment
            opened = set_precision(build_shape(model, template), precision)
    else:
        opened = set_precision(open_model(model).to(place), precision)
    config = BenchmarkConfig(
        size=size, questions=counts, wording=wording, training=training, batches=several, sizes=sides,
        multiply_adds=multiply_adds, onnx=onnx, repeats=repeats,
    )  # fmt: skip
    typer.echo(as_markdown(run_benchmark(opened, model, config, out)))


def zoo_list() -> None:
    """Lists the models: which can be used at once, which are fetched first, and which must be trained."""
    from segearth.zoo.cards import CARDS
    from segearth.zoo.opening import availability

    for name, card in sorted(CARDS.items()):
        typer.echo(f"{name:28} {card.parameters:8.1f} M  {availability(name):36}  {card.summary}")


def zoo_convert(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="A SegEarth-R1 checkpoint, or parts: a Mask2Former .pkl, a language model, timm:NAME; then the folder "
            "to make.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Zoo model that parts are put into.")] = "segearth_swinb_phi1_5",
) -> None:
    """Makes a folder of this library from a published checkpoint, or from pretrained parts."""
    from segearth.convert.driver import convert
    from segearth.zoo.lookup import model_config

    if len(paths) < 2:
        raise typer.BadParameter("give at least one source, and the folder to make last")
    conversion = convert(paths[:-1], paths[-1], model_config(model))
    for line in conversion.lines:
        typer.echo(line)
    typer.echo(f"written: {conversion.folder}")


def zoo_export(
    source: Annotated[str, typer.Argument(help="Folder of this library, or hub id, of the published shape.")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Writes a model of the published shape under the published names."""
    from segearth.convert.driver import export_segearth_r1

    conversion = export_segearth_r1(source, destination)
    typer.echo(f"written: {conversion.folder}, {conversion.lines[0]}")

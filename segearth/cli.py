"""The command line: ``segearth predict``, ``scene``, ``train``, ``eval`` and so on; ``segearth --help`` lists them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from segearth.config import DECOUPLED, FAMILIES, ExperimentConfig
from segearth.errors import SegEarthError, UnknownNameError
from segearth.utils.memory import keep_freed_memory
from segearth.zoo.opening import DEFAULT_NAME, DEFAULT_RUN

app = typer.Typer(no_args_is_help=True, add_completion=False)
data_app = typer.Typer(help="Data sets: list and verify.", no_args_is_help=True)
zoo_app = typer.Typer(help="Models by name.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(zoo_app, name="zoo")

SOURCES = "Training run, saved folder, hub id, or a name of `segearth zoo list`"
ModelOption = Annotated[
    str | None, typer.Option(help=f"{SOURCES}; {DEFAULT_RUN} if left out, or {DEFAULT_NAME}.", show_default=False)
]

HostOption = Annotated[str, typer.Option(help="Address to listen at; 127.0.0.1 is reached from this machine alone.")]
MegabytesOption = Annotated[float, typer.Option(min=0.001, help="Largest file that is taken, in millions of bytes.")]
MegapixelsOption = Annotated[float, typer.Option(min=0.001, help="Largest picture, in millions of pixels.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="fp32, bf16, or the language model's weights as int8 or int4 (needs segearth[quant]); fp32 if left out.",
        show_default=False,
    ),
]


def shows_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns this library's errors and the system's into one message and exit code 1; others keep their traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SegEarthError as error:
            _fail(_own_words(error), error)
        except OSError as error:
            if error.errno is None:  # not the system's own, such as no permission, a full disk, a folder for a file
                raise
            _fail(f"{error.filename or 'the system says'}: {error.strerror}", error)

    return wrapped


def _own_words(error: SegEarthError) -> str:
    """An error's message; one from a worker that loads data arrives behind that worker's traceback."""
    kind = type(error)
    text = str(error)
    return text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip() if "Traceback" in text else text


def _fail(message: str, error: Exception) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise typer.Exit(1) from error


@app.callback()
def main(context: typer.Context) -> None:
    """Ask an overhead image a question and get a mask."""
    if context.invoked_subcommand != "bench":  # it measures memory first
        keep_freed_memory()


@app.command()
@shows_errors
def predict(
    image: Annotated[Path, typer.Argument(help="Picture to ask about.")],
    question: Annotated[str, typer.Argument(help="What to look for.")],
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Mask to write, .png, .tif or .bmp: 0 and 255, of the picture's size.")]
    = Path("mask.png"),
    overlay: Annotated[Path | None, typer.Option(help="Also write the picture with the mask drawn on it.")] = None,
    doubt: Annotated[bool, typer.Option(help="Let the overlay show how sure the model is of each pixel.")] = False,
    reasoning: Annotated[bool, typer.Option(help="The question names a need, not a thing.")] = False,
    answer: Annotated[bool, typer.Option(help="Also answer in words.")] = False,
    tiles: Annotated[str, typer.Option(help="auto: look at a large picture tile by tile; off: shrink it.")] = "off",
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; the best there is if left out.")] = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers one question about one picture."""
    from segearth.errors import ConfigError, UnknownNameError
    from segearth.inference.summary import summary_of
    from segearth.inference.tiled import for_picture
    from segearth.inference.visualize import check_mask_path, check_picture_path, overlay_doubt, save_mask, save_picture
    from segearth.inference.visualize import overlay as draw
    from segearth.utils.files import check_apart, read_image
    from segearth.utils.image_headers import has_place
    from segearth.zoo.opening import load

    if doubt and overlay is None:
        raise ConfigError("--doubt changes the overlay; name a file for it with --overlay")
    picture = read_image(image)
    check_mask_path(out)
    if overlay is not None:
        check_picture_path(overlay)
    check_apart(image, out, *([overlay] if overlay else []))
    if tiles not in ("auto", "off"):
        raise UnknownNameError("choice of tiles", tiles, ["auto", "off"])
    segmenter, note = for_picture(load(model, device, precision), picture, question, tiles == "auto")
    if note:
        typer.secho(note, err=True)
    if has_place(image):
        typer.secho("note: the mask will not say where on the map it lies; segearth scene keeps that", err=True)
    segmenter.set_image(picture)
    (result,) = segmenter.predict(
        [question], task="reasoning" if reasoning else "referring", answer=answer, return_logits=doubt
    )
    save_mask(out, result.mask)
    if overlay is not None:
        logits = result.logits  # asked for only where doubt is to be drawn
        drawn = draw(picture, result.mask) if logits is None else overlay_doubt(picture, result.mask, logits)
        save_picture(overlay, drawn)
    typer.echo(f"{out}: {summary_of(result)}")
    if result.answer is not None:
        typer.echo(result.answer)


@app.command()
@shows_errors
def scene(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE QUESTION OUTPUT",
            help="Raster to ask, what to look for, and the GeoTIFF to write; with --questions no QUESTION.",
        ),
    ],
    vector: Annotated[Path | None, typer.Option(help="Also write polygons: .geojson, .gpkg or .fgb.")] = None,
    questions: Annotated[Path | None, typer.Option(help="File with a question a line, in place of QUESTION.")] = None,
    model: ModelOption = None,
    mode: Annotated[str, typer.Option(help="auto, tile or whole: who can answer, see docs/geo.md.")] = "auto",
    bands: Annotated[str | None, typer.Option(help="Bands shown as red, green, blue, such as 4,3,2, or one.")] = None,
    resolution: Annotated[str, typer.Option(help="Metres a pixel to look at it, auto, or native.")] = "auto",
    aoi: Annotated[str | None, typer.Option(help="Area of interest: a vector file, or WKT.")] = None,
    tile_size: Annotated[int | None, typer.Option(min=32, help="Side of a tile; the model's own if left out.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Pixels that tiles share; a quarter if left out.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Tiles at a time.")] = None,
    min_area: Annotated[float, typer.Option(min=0, help="Leave out smaller polygons: m2, or pixels without a CRS.")]
    = 0.0,
    simplify: Annotated[float, typer.Option(min=0, help="Simplify outlines by so many pixels.")] = 0.0,
    right_angles: Annotated[bool, typer.Option(help="Draw outlines at right angles where that fits.")] = False,
    cog: Annotated[bool, typer.Option(help="Write a cloud-optimised GeoTIFF.")] = False,
    restart: Annotated[bool, typer.Option(help="Forget what an interrupted run left.")] = False,
    reasoning: Annotated[bool, typer.Option(help="The question names a need, not a thing.")] = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; the best there is if left out.")] = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers questions about a georeferenced raster of any size, on its own grid."""
    from segearth.inference.scene import read_questions, segment_scene
    from segearth.inference.scene_types import SceneOptions
    from segearth.inference.summary import summary_of_scene
    from segearth.zoo.opening import load, name_of

    wanted = 2 if questions is not None else 3
    if len(arguments) != wanted:
        raise typer.BadParameter(f"give {wanted} of them, here are {len(arguments)}; put a question between quotes")
    source, output = arguments[0], arguments[-1]
    texts = [arguments[1]] if questions is None else read_questions(questions)
    options = SceneOptions(
        mode=mode, bands=_bands(bands), resolution=_resolution(resolution), aoi=aoi, tile_size=tile_size,
        overlap=overlap, batch_size=batch_size, min_area=min_area, simplify=simplify, right_angles=right_angles,
        cog=cog, restart=restart,
    )  # fmt: skip
    result = segment_scene(
        load(model, device, precision), source, texts, output, vector=vector,
        task="reasoning" if reasoning else "referring", model=name_of(model), options=options,
    )  # fmt: skip
    typer.echo(summary_of_scene(result))


@app.command()
@shows_errors
def serve(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen at.")] = 8000,
    model: ModelOption = None,
    max_megabytes: MegabytesOption = 64,
    max_megapixels: MegapixelsOption = 50,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; the best there is if left out.")] = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers over HTTP: pictures and questions in, GeoJSON or masks out."""
    from segearth.web.addresses import address_of, check_free
    from segearth.web.asking import Asker
    from segearth.web.service import models_known
    from segearth.web.service import serve as listen
    from segearth.web.uploads import Limits
    from segearth.zoo.opening import default_source, load

    check_free(host, port)
    source = model or default_source()
    segmenter = load(source, device, precision)
    typer.echo(f"{source} at {address_of(host, port)}/segment, described at /docs; Ctrl+C ends it")
    known = models_known(segmenter, str(source))
    listen(Asker(segmenter, str(source)), host, port, Limits(max_megabytes, max_megapixels), known)


@app.command()
@shows_errors
def scenes(
    sources: Annotated[list[str], typer.Argument(help="Rasters, such as *.tif.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, polygons and manifest.jsonl.")],
    ask: Annotated[list[str] | None, typer.Option(help="What to look for; may be given again.")] = None,
    questions: Annotated[Path | None, typer.Option(help="File with a question a line, in place of --ask.")] = None,
    vector: Annotated[str | None, typer.Option(help="Also write polygons: .geojson, .gpkg or .fgb.")] = None,
    model: ModelOption = None,
    mode: Annotated[str, typer.Option(help="auto, tile or whole: who can answer, see docs/geo.md.")] = "auto",
    bands: Annotated[str | None, typer.Option(help="Bands shown as red, green, blue, such as 4,3,2, or one.")] = None,
    resolution: Annotated[str, typer.Option(help="Metres a pixel to look at them, auto, or native.")] = "auto",
    restart: Annotated[bool, typer.Option(help="Forget what interrupted runs left.")] = False,
    reasoning: Annotated[bool, typer.Option(help="The questions name needs, not things.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Scenes at a time; one a GPU if left out.")] = None,
    address: Annotated[str, typer.Option(help="Of a Ray cluster; local: this machine alone.")] = "local",
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; the best there is if left out.")] = None,
    precision: PrecisionOption = None,
) -> None:
    """Answers the same questions about many rasters; a second start skips what is done."""
    from segearth.archives import FAILED, ArchiveJob, run_archive
    from segearth.inference.scene import read_questions
    from segearth.inference.scene_types import SceneOptions

    texts = [*(ask or []), *(read_questions(questions) if questions is not None else [])]
    if not texts:
        raise typer.BadParameter("give at least one question with --ask, or a file of them with --questions")
    options = SceneOptions(mode=mode, bands=_bands(bands), resolution=_resolution(resolution), restart=restart)
    job = ArchiveJob(
        tuple(texts), out, model, "reasoning" if reasoning else "referring", vector, options, device, precision
    )  # fmt: skip
    result = run_archive(
        sources, job, workers=workers, address=address,
        on_line=lambda line: typer.echo(f"{line['source']}: {line.get('error') or line['state']}"),
    )  # fmt: skip
    typer.echo(", ".join(f"{number} {state}" for state, number in sorted(result.counts.items())))
    if result.counts[FAILED]:
        raise typer.Exit(1)


@app.command()
@shows_errors
def demo(
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen at.")] = 7860,
    model: ModelOption = None,
    max_megabytes: MegabytesOption = 64,
    max_megapixels: MegapixelsOption = 50,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; the best there is if left out.")] = None,
    precision: PrecisionOption = None,
) -> None:
    """Shows a web page on which pictures can be asked."""
    from segearth.web.addresses import address_of, check_free
    from segearth.web.asking import Asker
    from segearth.web.page import run_page
    from segearth.web.uploads import Limits
    from segearth.zoo.opening import default_source, load

    check_free(host, port)
    source = model or default_source()
    asker = Asker(load(source, device, precision), str(source))
    typer.echo(f"{source} at {address_of(host, port)}; Ctrl+C ends it")
    run_page(asker, host, port, Limits(max_megabytes, max_megapixels))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
@shows_errors
def train(
    config: Annotated[str, typer.Argument(help="Experiment: a YAML file, or a name under configs/experiment.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Such as train.max_steps=200.")] = None,
) -> None:
    """Trains an experiment; run again after an interruption, it goes on where it stopped."""
    from segearth.config import load_experiment
    from segearth.models.pretrained import BEST, LAST
    from segearth.training.distributed import start_process
    from segearth.training.trainer import Trainer
    from segearth.utils.files import check_output_folder
    from segearth.utils.logging import configure_logging

    experiment = load_experiment(experiment_path(config), overrides or [])
    check_output_folder(experiment.train.output_dir)
    if experiment.family not in FAMILIES:
        raise UnknownNameError("family", experiment.family, FAMILIES)
    if experiment.family == DECOUPLED:
        typer.echo(f"trained: {_train_policy(experiment)}")
        return
    process = start_process()
    configure_logging(process.is_main)
    folder = Trainer(experiment, process).run()
    if process.is_main:
        best = folder / BEST
        typer.echo(f"trained: {folder / LAST}{f', best in validation: {best}' if best.is_dir() else ''}")


def _train_policy(experiment: ExperimentConfig) -> Path:
    """Trains the decoupled family; of several processes each does its part."""
    from segearth.rl.experiment import train_decoupled
    from segearth.rl.stages import NO_DEEPSPEED, processes
    from segearth.training.distributed import start_process
    from segearth.utils.logging import configure_logging

    alone = experiment.train.deepspeed == NO_DEEPSPEED and processes() == 1
    is_main = True if alone else start_process().is_main
    configure_logging(is_main)
    return train_decoupled(experiment, is_main)


@app.command(name="eval")
@shows_errors
def evaluate_model(
    config: Annotated[str, typer.Argument(help="Experiment: a YAML file, or a name under configs/experiment.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Such as eval.protocol=segearth_r1.")] = None,
    model: Annotated[str | None, typer.Option(help=f"{SOURCES}; the experiment's own run if left out.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test of the experiment's data.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report; MODEL/eval_SPLIT if left out, and eval_SPLIT_NAME in the experiment's run for "
            "a MODEL that is no folder."
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another model to set beside it by each protocol; may be given again."),
    ] = None,
    precision: PrecisionOption = None,
) -> None:
    """Scores a model on a split, beside its controls, and writes a report."""
    from functools import partial

    from segearth.config import load_experiment
    from segearth.evaluation.run import evaluate_experiment, report_folder
    from segearth.evaluation.side_by_side import PROTOCOLS, Candidate, evaluate_side_by_side
    from segearth.utils.files import check_output_folder
    from segearth.utils.logging import configure_logging
    from segearth.utils.processes import join_processes
    from segearth.zoo.opening import load, training_of

    experiment = load_experiment(experiment_path(config), overrides or [])
    source = model or Path(experiment.train.output_dir)
    folder = out or report_folder(experiment, source, split)
    process = join_processes()
    configure_logging(process.is_main)
    check_output_folder(folder)
    if beside:
        names = [str(source), *beside]
        candidates = [
            Candidate(name, partial(load, name, process.device, precision), training_of(name)) for name in names
        ]
        place = folder / "side_by_side"
        page = evaluate_side_by_side(experiment, candidates, split, place, PROTOCOLS, process.rank, process.world_size)
        if process.is_main:
            typer.echo(f"{page.read_text(encoding='utf-8')}\nwritten: {page}")
        return
    opened = load(source, process.device, precision)
    result = evaluate_experiment(
        experiment, opened, str(source), split, folder, process.rank, process.world_size,
        training_of(source),
    )  # fmt: skip
    if process.is_main:
        typer.echo(result)
        typer.echo(f"report: {folder / 'report.md'}")


@app.command()
@shows_errors
def calibrate(
    config: Annotated[str, typer.Argument(help="Experiment: a YAML file, or a name under configs/experiment.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Such as data.val=[{name: coco, root: …}].")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Run or saved folder, which is changed; the experiment's run if left out.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test of the experiment's data.")] = "val",
) -> None:
    """Sets from which presence on a model answers, and makes its score the IoU to expect; choose a split of its own."""
    from segearth.config import load_experiment
    from segearth.evaluation.run import calibrate_experiment
    from segearth.utils.logging import configure_logging
    from segearth.utils.processes import own_device

    configure_logging(True)
    experiment = load_experiment(experiment_path(config), overrides or [])
    source = model or Path(experiment.train.output_dir)
    typer.echo(calibrate_experiment(experiment, source, split, str(own_device())))


@app.command()
@shows_errors
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a report, as `segearth eval` names it, or a run with one.")],
    second: Annotated[Path, typer.Argument(help="Folder of another report on the same questions.")],
    other_words: Annotated[
        bool, typer.Option(help="Let the questions be worded differently in the two, as aerial_mini's unseen and seen.")
    ] = False,
) -> None:
    """Tells whether one run is really better than another: both scored on the same questions, paired."""
    from segearth.evaluation.compare import as_markdown, compare_records, read_records

    rows = compare_records(read_records(first), read_records(second), other_words=other_words)
    typer.echo(as_markdown(rows, str(first), str(second)))


@app.command()
@shows_errors
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
    opened = open_model(model)
    own = opened.config.image_transform.size
    if question is not None:
        task = "reasoning" if reasoning else "referring"
        paths = [export_question(opened, question, destination, task=task, size=height, resolution=resolution)]
    else:
        paths = sorted(export_onnx(opened, destination, (height or own, width or own)).iterdir())
    for path in paths:
        typer.echo(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB")


@app.command()
@shows_errors
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

        experiment, counts = load_experiment(None, overrides or []), _numbers(gpus)
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


@app.command()
@shows_errors
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
    counts, several, sides = _numbers(questions), _numbers(batches), _numbers(sizes)
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


@zoo_app.command("list")
@shows_errors
def zoo_list() -> None:
    """Lists the models: which can be used at once, which are fetched first, and which must be trained."""
    from segearth.zoo.cards import CARDS
    from segearth.zoo.opening import availability

    for name, card in sorted(CARDS.items()):
        typer.echo(f"{name:28} {card.parameters:8.1f} M  {availability(name):36}  {card.summary}")


@zoo_app.command("convert")
@shows_errors
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


@zoo_app.command("export")
@shows_errors
def zoo_export(
    source: Annotated[str, typer.Argument(help="Folder of this library, or hub id, of the published shape.")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Writes a model of the published shape under the published names."""
    from segearth.convert.driver import export_segearth_r1

    conversion = export_segearth_r1(source, destination)
    typer.echo(f"written: {conversion.folder}, {conversion.lines[0]}")


@data_app.command("list")
@shows_errors
def data_list() -> None:
    """Lists the data sets."""
    from segearth.data.registry import list_datasets

    for name in list_datasets():
        typer.echo(name)


@data_app.command("verify")
@shows_errors
def data_verify(
    name: Annotated[str, typer.Argument(help="A name of `segearth data list`.")],
    root: Annotated[Path | None, typer.Argument(help="Its folder; embedded sets need none.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be given again.")] = None,
) -> None:
    """Reads every sample and reports what is wrong."""
    from segearth.data.verify import verify_dataset

    reports = verify_dataset(name, root, split)
    for report in reports:
        for line in report.lines():
            typer.echo(line)
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _bands(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    numbers = _numbers(text)
    return numbers[0] if len(numbers) == 1 else numbers


def _resolution(text: str) -> float | str | None:
    if text in ("auto", "native"):
        return "auto" if text == "auto" else None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no resolution; give metres a pixel, auto or native") from None


def _numbers(text: str) -> list[int]:
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 1,8,32")
    return [int(number) for number in numbers]


def experiment_path(name: str) -> Path:
    """Returns the file of an experiment given by path or by name."""
    from segearth.utils.files import configs_dir

    path = Path(name)
    return path if path.suffix in (".yaml", ".yml") else configs_dir() / "experiment" / f"{name}.yaml"


if __name__ == "__main__":
    sys.exit(app())

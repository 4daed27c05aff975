"""Commands on an experiment and its models: ``train``, ``eval``, ``calibrate`` and ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segearth.cli.common import SOURCES, PrecisionOption
from segearth.config import DECOUPLED, FAMILIES, ExperimentConfig
from segearth.errors import UnknownNameError

ConfigArgument = Annotated[str, typer.Argument(help="Experiment: a YAML file, or a name under configs/experiment.")]


def train(
    config: ConfigArgument,
    overrides: Annotated[list[str] | None, typer.Argument(help="Such as train.max_steps=200.")] = None,
) -> None:
    """Trains an experiment; run again after an interruption, it goes on where it stopped."""
    from segearth.config import load_experiment
    from segearth.data.registry import split_configs
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
    if process.is_main and len(tests := split_configs(experiment.data, "test")) > 1:
        names = ", ".join(each.name for each in tests)
        typer.secho(f"note: eval.sh scores one data set, and data.test names {names}; choose one of them", err=True)
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


def evaluate_model(
    config: ConfigArgument,
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
        list[str] | None, typer.Option(help="Another model to set beside it by each protocol; may be given again.")
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


def calibrate(
    config: ConfigArgument,
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


def experiment_path(name: str) -> Path:
    """Returns the file of an experiment given by path or by name."""
    from segearth.utils.files import configs_dir

    path = Path(name)
    return path if path.suffix in (".yaml", ".yml") else configs_dir() / "experiment" / f"{name}.yaml"

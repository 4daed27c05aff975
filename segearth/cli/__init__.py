"""The command line: ``segearth predict``, ``scene``, ``train``, ``eval`` and so on; ``segearth --help`` lists them.

Each command is a function that reads what was typed, calls the library and prints; the files sort them by what a user
does. What a command needs is imported when it runs, so that ``segearth --help`` need not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from segearth.cli.asking import demo, predict, scene, scenes, serve
from segearth.cli.common import end_cleanly, shows_errors
from segearth.cli.data import data_list, data_verify
from segearth.cli.experiments import calibrate, compare, evaluate_model, train
from segearth.cli.models import bench, export, info, zoo_convert, zoo_export, zoo_list
from segearth.utils.memory import keep_freed_memory

Commands = dict[str, Callable[..., None]]

# In the order in which --help lists them.
ASKING: Commands = {"predict": predict, "scene": scene, "scenes": scenes, "serve": serve, "demo": demo}
EXPERIMENTS: Commands = {"train": train, "eval": evaluate_model, "calibrate": calibrate, "compare": compare}
MODELS: Commands = {"export": export, "info": info, "bench": bench}
ZOO: Commands = {"list": zoo_list, "convert": zoo_convert, "export": zoo_export}
# Commands that write for a while. Not training, whose processes are ended together by what started them, and not the
# servers, which have ways of their own.
WRITING = ("predict", "scene", "scenes", "export")
DATA: Commands = {"list": data_list, "verify": data_verify}


def _group(commands: Commands, help: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, add_completion=False, help=help)
    for name, command in commands.items():
        group.command(name)(shows_errors(command))
    return group


app = _group(ASKING | EXPERIMENTS | MODELS, "Ask an overhead image a question and get a mask.")
app.add_typer(_group(DATA, "Data sets: list and verify."), name="data")
app.add_typer(_group(ZOO, "Models by name."), name="zoo")


@app.callback()
def main(context: typer.Context) -> None:
    """Runs before each command."""
    if context.invoked_subcommand in WRITING:
        end_cleanly()
    if context.invoked_subcommand != "bench":  # it measures memory first
        keep_freed_memory()

"""Commands on data sets: ``data list`` and ``data verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def data_list() -> None:
    """Lists the data sets."""
    from segearth.data.registry import list_datasets

    for name in list_datasets():
        typer.echo(name)


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

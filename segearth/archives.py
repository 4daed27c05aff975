"""Asks the same questions of many scenes, on all GPUs of a machine or of a cluster.

The work is handed out by Ray Data (https://docs.ray.io/en/latest/data/data.html). By default Ray runs on this machine
alone, for as long as the command does: it starts its own processes and needs no cluster, no server and no settings, and
yet the same command uses a cluster where an address is given. One model is opened for each worker and kept.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from segearth.errors import ConfigError, MissingExtraError, SegEarthError
from segearth.inference.scene import check_request, segment_scene
from segearth.inference.scene_types import SceneOptions
from segearth.structures import Task
from segearth.utils.files import check_output_folder, exists, file_state
from segearth.zoo.opening import default_source, load, model_state, name_of

logger = logging.getLogger(__name__)
MANIFEST = "manifest.jsonl"
# Read when Ray is imported: nothing is sent anywhere unless the user wants it, and its plans and advice, which mean
# nothing to who asks scenes a question, stay in its own log files.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "ERROR"}
DONE, FAILED, SKIPPED = "done", "failed", "skipped"


@dataclass(frozen=True, slots=True)
class ArchiveJob:
    """What is done with every scene of an archive.

    Attributes:
        questions: Asked of each.
        folder: Where masks, polygons and the manifest go.
        model: As for :func:`segearth.load`.
        task: ``"referring"`` or ``"reasoning"``.
        vector: Suffix of polygon files, such as ``".gpkg"``; ``None``: none are written.
        options: See :func:`segearth.inference.scene.segment_scene`.
        device: As for :func:`segearth.load`.
        precision: As for :func:`segearth.load`.
        weights: State of the model's files, which :func:`run_archive` fills in: see
            :func:`segearth.zoo.opening.model_state`.
    """

    questions: tuple[str, ...]
    folder: Path
    model: str | None = None
    task: Task = "referring"
    vector: str | None = None
    options: SceneOptions = field(default_factory=SceneOptions)
    device: str | None = None
    precision: str | None = None
    weights: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Returns what a result depends on beside its source; a second start does again what was made with others."""
        kept = asdict(replace(self.options, restart=False, progress=False))
        asked = {
            "questions": self.questions, "model": name_of(self.model), "weights": self.weights, "task": self.task,
            "vector": self.vector,
        }  # fmt: skip
        if self.options.aoi is not None:
            asked["aoi_state"] = file_state(self.options.aoi)
        stated: dict[str, Any] = json.loads(json.dumps({**asked, **kept}, default=str))  # as a manifest is read
        return stated


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """How a run over an archive ended.

    Attributes:
        lines: One for each scene, as in the manifest; those that were skipped have the state ``"skipped"``.
    """

    lines: tuple[dict[str, Any], ...]

    @property
    def counts(self) -> Counter[str]:
        """How many scenes are done, failed and skipped."""
        return Counter(line["state"] for line in self.lines)


class SceneWorker:
    """Opens the model once and works on one scene after the other; an error is a result like any other."""

    def __init__(self, job: ArchiveJob) -> None:
        """Opens the model."""
        self.job = job
        self.segmenter = load(job.model, job.device, job.precision)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Works on one scene.

        Args:
            row: ``source``, the scene.

        Returns:
            ``line``: JSON, the scene's line of the manifest.
        """
        job, source = self.job, str(row["source"])
        output = output_of(source, job.folder)
        vector = None if job.vector is None else output.with_suffix(job.vector)
        line = _line_of(source, job)
        try:
            result = segment_scene(
                self.segmenter, source, list(job.questions), output, vector=vector, task=job.task,
                model=name_of(job.model), weights=job.weights, options=replace(job.options, progress=False),
            )  # fmt: skip
            line |= {"state": DONE, "answers": [asdict(answer) for answer in result.answers]}
        except Exception as error:  # whatever is wrong with one scene, the others are worked on
            known = isinstance(error, (SegEarthError, OSError, MemoryError))
            line |= {"state": FAILED, "error": str(error) if known else f"{type(error).__name__}: {error}"}
        return {"line": json.dumps(line)}


def run_archive(
    sources: Sequence[str | Path],
    job: ArchiveJob,
    *,
    workers: int | None = None,
    address: str = "local",
    on_line: Callable[[dict[str, Any]], None] | None = None,
) -> ArchiveResult:
    """Works on many scenes. One that fails never stops the rest, and a second start skips what is done.

    That holds too for a scene that ends its worker's process, as one for which the memory is too small may.

    Args:
        sources: Files; their names without suffix must differ, since masks are named after them. They are handed on,
            and stated in the manifest, as absolute paths: a cluster's workers may have been started in another folder.
        job: What to do.
        workers: Scenes at a time; a GPU each where there are GPUs, else one, which uses all cores.
        address: Of a Ray cluster, such as ``"auto"``; ``"local"`` starts Ray on this machine.
        on_line: Called with each line of the manifest as it is written.

    Returns:
        What became of each scene.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: Two sources would have the same output, or an option is none of those that there are.
        QuestionError: There is no question, or one is empty.
        OutputError: The folder cannot be written.
    """
    names = [_absolute(source) for source in sources]
    aoi = None if job.options.aoi is None else _absolute(job.options.aoi)
    model = job.model or default_source()
    job = replace(
        job, folder=job.folder.absolute(), options=replace(job.options, aoi=aoi),
        model=_absolute(model) if Path(model).is_dir() else str(model),
    )  # fmt: skip
    twice = [name for name, count in Counter(output_of(name, job.folder).name for name in names).items() if count > 1]
    if twice:
        raise ConfigError(f"two scenes would be written to {twice[0]}; rename one, or work on them in separate folders")
    check_output_folder(job.folder)
    check_request(job.questions, job.options, None if job.vector is None else job.folder / f"scene{job.vector}")
    job.folder.mkdir(parents=True, exist_ok=True)
    job = replace(job, weights=model_state(job.model))
    known = {line["source"]: line for line in read_manifest(job.folder)}
    skipped = [known[name] | {"state": SKIPPED} for name in names if _is_done(name, known.get(name), job)]
    waiting = [name for name in names if name not in {line["source"] for line in skipped}]
    lines = list(skipped)
    with (job.folder / MANIFEST).open("a", encoding="utf-8") as manifest:
        if _is_cut_off(job.folder / MANIFEST):
            manifest.write("\n")
        for text in _with_the_lost(_in_ray(waiting, job, workers, address), waiting, job) if waiting else ():
            manifest.write(text + "\n")
            manifest.flush()  # what is done is known even if the next moment ends everything
            lines.append(json.loads(text))
            if on_line is not None:
                on_line(lines[-1])
    order = {name: number for number, name in enumerate(names)}
    return ArchiveResult(tuple(sorted(lines, key=lambda line: order[line["source"]])))


def _with_the_lost(texts: Iterator[str], sources: Sequence[str], job: ArchiveJob) -> Iterator[str]:
    """Yields the lines, and at the end one for each scene that has none, since its worker's process ended."""
    lost = dict.fromkeys(sources)
    for text in texts:
        lost.pop(json.loads(text)["source"])
        yield text
    for source in lost:
        error = (
            "the process that worked on it ended, as it does if the memory is too small; free some or take fewer "
            "--workers, and start again, or ask this scene by itself with `segearth scene`"
        )
        yield json.dumps({**_line_of(source, job), "state": FAILED, "error": error})


def _in_ray(sources: Sequence[str], job: ArchiveJob, workers: int | None, address: str) -> Iterator[str]:
    """Yields a line of the manifest for each source, as soon as it is finished."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "archive", error) from error

    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a block is a scene; without a limit, a lost one does not stop the rest
        gpus = int(ray.cluster_resources().get("GPU", 0)) if job.device in (None, "cuda") else 0
        count = max(1, min(workers or gpus or 1, len(sources)))
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)) // count) if address == "local" else 1
        logger.info("%d scenes, %d at a time", len(sources), count)
        rows = ray.data.from_items([{"source": source} for source in sources], override_num_blocks=len(sources))
        worker: Any = SceneWorker  # a class: Ray makes one for each process
        # A worker whose process ended is started anew, but not on the same scene, which would end it again without end.
        # It holds one scene at a time, so that no other is lost with it.
        done = rows.map(
            worker, fn_constructor_args=(job,), num_cpus=cores, num_gpus=1 if gpus else 0, max_task_retries=0,
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
        )  # fmt: skip
        for row in done.iter_rows():
            yield str(row["line"])
    finally:
        if started:
            ray.shutdown()


def _absolute(name: str | Path) -> str:
    """Returns the absolute path of what is there; addresses, ``/vsi…`` paths and outlines as WKT stay as they are."""
    return str(Path(name).absolute()) if exists(name) else str(name)


def output_of(source: str, folder: Path) -> Path:
    """Returns the mask's file of a scene."""
    return folder / f"{Path(source).stem}.tif"


def _line_of(source: str, job: ArchiveJob) -> dict[str, Any]:
    """Returns what a scene's line begins with."""
    output = str(output_of(source, job.folder))
    return {"source": source, **file_state(source), "settings": job.settings(), "output": output}


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of a folder's manifest; of a scene that was worked on twice the later counts.

    A last line that was cut off in the middle is passed over: that scene is worked on again.
    """
    path = folder / MANIFEST
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            logger.warning("%s: a line is cut off; that scene is worked on again", path)
    return lines


def _is_cut_off(path: Path) -> bool:
    """Whether a file's last line does not end; what is appended would become part of it."""
    return not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0


def _is_done(source: str, line: dict[str, Any] | None, job: ArchiveJob) -> bool:
    if line is None or line["state"] != DONE or line["settings"] != job.settings():
        return False
    output = Path(line["output"])
    wanted = [output] if job.vector is None else [output, output.with_suffix(job.vector)]
    return all(path.exists() for path in wanted) and {**line, **file_state(source)} == line

"""Several processes on this CPU, joined over gloo, for tests of what ranks do together.

They are forked from a server that has imported everything once, so a test of two ranks takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ranks_preload"])
HERE = Path(__file__).parent


def run_on_ranks(function: Callable[..., Any], *arguments: Any, world_size: int = 2, timeout: float = 240) -> list[Any]:
    """Calls ``function(*arguments)`` on every rank; returns what each returned, in the order of ranks.

    Raises:
        AssertionError: A rank raised, or did not end in time; the others are ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), kept])  # for the server
    forkserver.ensure_running()
    os.environ["PYTHONPATH"] = kept
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            CONTEXT.Process(target=_rank, args=(rank, world_size, port, folder, function, arguments), daemon=False)
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        try:
            for process in ranks:
                process.join(timeout)
            codes = [process.exitcode for process in ranks]
        finally:
            for process in ranks:
                process.kill()
                process.join()
        told = {path.name: path.read_text() for path in sorted(Path(folder).glob("error-*"))}
        assert codes == [0] * world_size, f"exit codes {codes} (None: did not end in {timeout} s)\n{told}"
        return [pickle.loads((Path(folder) / f"result-{rank}").read_bytes()) for rank in range(world_size)]


def _rank(
    rank: int, world_size: int, port: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    try:
        result = function(*arguments)
        (Path(folder) / f"result-{rank}").write_bytes(pickle.dumps(result))
    except BaseException:
        (Path(folder) / f"error-{rank}").write_text(traceback.format_exc()[-3000:])
        os._exit(1)  # at once: the others wait for this rank and would keep it from ending
    os._exit(0)

"""Processes and devices: a single process, or several that torchrun or DeepSpeed's launcher started.

This is the only place where a process group is made, for training and evaluation alike.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from segearth.errors import ConfigError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# How long processes wait for the slowest one. It can be long, since the launcher ends all processes when one dies.
LONGEST_WAIT = timedelta(days=1)
# In training the others wait while rank 0 writes the model. NCCL's default of 10 minutes is too short for a large one.
LONGEST_SAVE = timedelta(hours=1)
SINGLE_PROCESS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


@dataclass(frozen=True)
class Process:
    """This process among its peers.

    Attributes:
        rank: From 0 to ``world_size - 1``.
        world_size: Number of processes.
        device: Where this process computes. Each process of a machine has a GPU of its own, if there are GPUs.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


def own_device(name: str | torch.device | None = None, apple: bool = True) -> torch.device:
    """Returns the device of this process: the one asked for, or else the best that there is.

    Args:
        name: Such as ``"cpu"`` or ``"cuda:1"``. If left out: the GPU that the launcher meant for this process, or the
            first one; else Apple's (``"mps"``); else the CPU.
        apple: Whether Apple's GPU may be taken where none is asked for.

    Raises:
        ConfigError: There is no such device, or more processes were started on this machine than it has GPUs.
    """
    import torch

    if name is not None:
        return _named_device(name)
    if not torch.cuda.is_available():
        return torch.device("mps" if apple and torch.backends.mps.is_available() else "cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"process {index} of this machine has no GPU, since it has {count}; start with NGPU={count}")
    return torch.device("cuda", index)


def _named_device(name: str | torch.device) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no common class for these cases
        reason = str(error).partition("\n")[0]
        if "device type" in reason:  # torch would name all that it has ever been built for
            reason = "torch knows no such kind"
        raise ConfigError(
            f"no device {str(name)!r} here ({reason}); use cpu, or cuda or mps where there is one"
        ) from error
    return device


def join_processes(training: bool = False) -> Process:
    """Joins the process group that a launcher describes in the environment variables.

    The CUDA device is set first, because NCCL uses the current one. If the first GPU were the current device of all
    processes, their first exchange would fail.

    Args:
        training: ``True`` makes a group that exchanges gradients: over NCCL if there are GPUs, and even for a single
            process, because DeepSpeed requires a group. ``False`` makes a group that exchanges Python objects in host
            memory, and none for a single process.

    Raises:
        ConfigError: More processes were started on this machine than it has GPUs.
    """
    import torch
    import torch.distributed as dist

    # DeepSpeed trains on NVIDIA's GPUs or on the CPU (train.sh tells it which), never on Apple's.
    device = own_device(apple=not training)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if _in_a_group():
        return Process(dist.get_rank(), dist.get_world_size(), device)
    if training and "RANK" not in os.environ:
        os.environ.update({key: os.environ.get(key, value) for key, value in SINGLE_PROCESS.items()})
        os.environ.setdefault("MASTER_PORT", str(_free_port()))
        # A HashStore needs no network port. If two runs started at once, both could choose the same free port.
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    elif training:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_SAVE)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    else:
        return Process(0, 1, device)
    return Process(dist.get_rank(), dist.get_world_size(), device)


def wait_for_all() -> None:
    """Waits until every process has come to this point; a single process goes on at once."""
    import torch.distributed as dist

    if _in_a_group() and dist.get_world_size() > 1:
        dist.barrier()


def is_joined(world_size: int) -> bool:
    """Whether this process is in a process group of ``world_size`` processes, and not alone in it."""
    import torch.distributed as dist

    return world_size > 1 and _in_a_group() and dist.get_world_size() == world_size


def gather_objects(own: T, world_size: int) -> list[T]:
    """Returns the objects of all processes, in the order of ranks.

    Args:
        own: This process's object; anything that can be pickled.
        world_size: Number of processes. If there is no process group of this size, the list holds ``own`` alone.
    """
    import torch.distributed as dist

    if not is_joined(world_size):
        return [own]
    parts: list[T] = [own] * world_size
    dist.all_gather_object(parts, own)
    return parts


def _in_a_group() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Processes and devices: one process alone, or several that torchrun or DeepSpeed's launcher started.

Training and evaluation join their peers here and nowhere else.
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
LONGEST_WAIT = timedelta(days=1)  # for the slowest process; if one dies, the launcher ends the others
LONGEST_SAVE = timedelta(hours=1)  # while rank 0 writes a large model; NCCL alone would end the run after 10 minutes
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}


@dataclass(frozen=True)
class Process:
    """This process among its peers.

    Attributes:
        rank: From 0 to ``world_size - 1``.
        world_size: Number of processes.
        device: Where this process computes; no other process of this machine has the same GPU.
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
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # one for each way of not being there
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"no device {str(name)!r} here ({reason}); use cpu, or cuda or mps where there is one"
        ) from error
    return device


def join_processes(training: bool = False) -> Process:
    """Joins the process group that a launcher describes in the environment.

    The device is chosen first: NCCL works on the current one, and with the first GPU as everybody's current device the
    first exchange would end the run.

    Args:
        training: Make a group for gradients: on the GPUs where there are any, and also for a process alone, as
            DeepSpeed needs one. Left out, the group is for what is gathered on the host, and a process alone has none.

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
        os.environ.update({key: os.environ.get(key, value) for key, value in ALONE.items()})
        os.environ.setdefault("MASTER_PORT", str(_free_port()))
        # A group of one meets in its own memory: of two runs that start at once one could find its port taken.
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
    """Barrier; nothing where there is a single process."""
    import torch.distributed as dist

    if _in_a_group() and dist.get_world_size() > 1:
        dist.barrier()


def is_joined(world_size: int) -> bool:
    """Whether this process and ``world_size - 1`` others, at least one, have joined a process group of just them."""
    import torch.distributed as dist

    return world_size > 1 and _in_a_group() and dist.get_world_size() == world_size


def gather_objects(own: T, world_size: int) -> list[T]:
    """Returns what every process gave, in the order of ranks.

    Args:
        own: Anything that can be pickled.
        world_size: Number of processes that gather. Where no process group of this size was joined, ``own`` comes back
            alone.
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

"""What DeepSpeed needs before the processes of a training run are joined."""

from __future__ import annotations

import os

import torch

from segearth.errors import MissingExtraError
from segearth.utils.processes import Process, join_processes


def start_process() -> Process:
    """Joins the processes of a training run, or makes a group of this one alone.

    Raises:
        MissingExtraError: deepspeed is not installed.
        ConfigError: More processes were started on this machine than it has GPUs.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise MissingExtraError("deepspeed", "train", error) from error
    # On CPUs DeepSpeed would compile a faster way to exchange tensors on first use, which takes minutes and needs a
    # compiler. gloo does the same without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    process = join_processes(training=True)
    # DeepSpeed takes over the process group that exists. It must know of it before a model is opened under ZeRO-3,
    # which transformers shares out while it reads it: else each process takes itself for the only one.
    deepspeed.init_distributed(auto_mpi_discovery=False)
    return process

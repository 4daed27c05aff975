"""Imported once by the server that ranks are forked from: all that a training run imports, some of it only when a model
is built."""

import os

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["DEEPSPEED_LOG_LEVEL"] = "warning"

import deepspeed  # noqa: F401
import torch

import segearth.training.trainer  # noqa: F401
from segearth.zoo.lookup import build_from_spec

torch.set_num_threads(1)  # a pool of threads would not come along into a fork
build_from_spec({"name": "segearth_debug"})

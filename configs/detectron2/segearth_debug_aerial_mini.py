"""The debug model on the packaged images, driven by detectron2: a few minutes on a CPU. See docs/detectron2.md."""

import torch
from detectron2.config import LazyCall
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import CosineParamScheduler

from segearth.config import LossConfig
from segearth.integrations.detectron2.catalog import QuestionMapper, register_dataset
from segearth.integrations.detectron2.evaluator import QuestionEvaluator
from segearth.integrations.detectron2.meta_arch import SegEarthMetaArch
from segearth.zoo.lookup import build_from_spec

register_dataset("aerial_mini")

model = LazyCall(SegEarthMetaArch)(
    model=LazyCall(build_from_spec)(  # spec: as an experiment's model section; pretrained: what segearth.load takes
        spec={"name": "segearth_debug", "pretrained": None}
    ),
    loss=LazyCall(LossConfig)(),
)

dataloader = {
    "train": LazyCall(build_detection_train_loader)(
        dataset=LazyCall(get_detection_dataset_dicts)(names="segearth_aerial_mini_train", filter_empty=False),
        mapper=LazyCall(QuestionMapper)(),
        total_batch_size=8,
        num_workers=2,
    ),
    "test": LazyCall(build_detection_test_loader)(
        dataset=LazyCall(get_detection_dataset_dicts)(names="segearth_aerial_mini_test", filter_empty=False),
        mapper=LazyCall(QuestionMapper)(),
        batch_size=8,  # questions of an image follow each other and then share its vision pass
        num_workers=2,
    ),
    "evaluator": LazyCall(QuestionEvaluator)(protocol="native"),
}

optimizer = LazyCall(torch.optim.AdamW)(
    params=LazyCall(get_default_optimizer_params)(base_lr="${..lr}"),  # the tool sets params.model
    lr=1e-3,
    weight_decay=0.0,
)

lr_multiplier = LazyCall(WarmupParamScheduler)(
    scheduler=LazyCall(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=0.05,
    warmup_factor=0.01,
)

# The keys that tools/lazyconfig_train_net.py reads; detectron2's model_zoo has them too, but needs an old setuptools.
train = {
    "output_dir": "runs/detectron2_debug",
    "init_checkpoint": "",
    "device": "cuda" if torch.cuda.is_available() else "cpu",
    "max_iter": 200,
    "eval_period": 200,
    "log_period": 20,
    "checkpointer": {"period": 100, "max_to_keep": 2},
    "amp": {"enabled": False},
    # Every step gives each weight of this model a gradient; another model put in its place may leave some out.
    "ddp": {"broadcast_buffers": False, "find_unused_parameters": True, "fp16_compression": False},
}

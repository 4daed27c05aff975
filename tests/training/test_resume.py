"""What may change between the start of a run and its resumption."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segearth.config import ExperimentConfig, from_dict, to_dict
from segearth.errors import ConfigError
from segearth.training.resume import FREE_TO_CHANGE, as_yaml, check_same_run

FREE = {
    "data.num_workers": 7,
    "data.val": [{"name": "synthetic", "split": "val"}],
    "data.test": [{"name": "synthetic", "split": "test"}],
    "eval.protocol": "segearth_r1",
    "eval.limit": 3,
    "train.output_dir": "elsewhere",
    "train.activation_checkpointing": True,
    "train.val_every": 7,
    "train.val_images": 7,
    "train.early_stop_patience": 7,
    "train.log_every": 7,
    "train.save_every": 7,
    "train.keep_checkpoints": 7,
    "train.tensorboard": True,
}
DECISIVE = {
    "data.train": [{"name": "synthetic", "split": "train"}],
    "data.questions_per_image": 7,
    "data.train_size": 96,
    "data.augment.min_scale": 0.9,
    "loss.dice": 7.0,
    "model.name": "segearth_debug",
    "train.seed": 7,
    "train.max_steps": 7,
    "train.micro_batch_size": 4,
    "train.learning_rate": 7.0,
    "train.ema_decay": 0.7,
    "train.deepspeed": "zero3",
    "train.freeze": ["vision_encoder"],
    "train.lora.enabled": True,
}


def changed(key: str, value: object) -> ExperimentConfig:
    tree = OmegaConf.create(to_dict(ExperimentConfig()))
    OmegaConf.update(tree, key, value)
    plain = OmegaConf.to_container(tree)
    assert isinstance(plain, dict)
    return from_dict(ExperimentConfig, plain)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(as_yaml(ExperimentConfig()), encoding="utf-8")
    return path


@pytest.mark.parametrize("key", FREE)
def test_what_changes_nothing_that_is_learned_may_change(started: Path, key: str) -> None:
    lines = check_same_run(started, changed(key, FREE[key]))
    assert len(lines) == 1 and lines[0].startswith(f"{key}: ")


@pytest.mark.parametrize("key", DECISIVE)
def test_what_is_learned_from_may_not(started: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"another configuration \({key.replace('.', '[.]')}: .* then, .* now"):
        check_same_run(started, changed(key, DECISIVE[key]))


def test_a_free_change_hides_no_decisive_one(started: Path) -> None:
    config = changed("train.learning_rate", 0.5)
    config.train.log_every = 3
    with pytest.raises(ConfigError, match=r"\(train\.learning_rate: 0\.0001 then, 0\.5 now\)"):
        check_same_run(started, config)


def test_the_same_configuration_differs_in_nothing(started: Path) -> None:
    assert check_same_run(started, ExperimentConfig()) == []


def test_options_that_were_none_and_are_some_now_are_seen(started: Path) -> None:
    with pytest.raises(ConfigError, match="language_model"):
        check_same_run(started, changed("model.language_model", {"frozen": True}))


def test_every_free_key_exists() -> None:
    tree = OmegaConf.create(to_dict(ExperimentConfig()))
    for key in FREE_TO_CHANGE:
        assert OmegaConf.select(tree, key, default="missing") != "missing", key


def test_a_run_is_resumed_with_other_workers_and_log_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("deepspeed", reason="training needs deepspeed")
    from segearth.training.trainer import Trainer

    values = {
        "model": {"name": "segearth_debug", "image_transform": {"size": 64}},
        "data": {"train": [{"name": "synthetic"}], "val": [], "questions_per_image": 1, "num_workers": 0},
        "loss": {"num_points": 64},
        "train": {"output_dir": str(tmp_path), "max_steps": 2, "global_batch_size": 1, "micro_batch_size": 1},
    }
    Trainer(from_dict(ExperimentConfig, values)).run()
    caplog.set_level(logging.INFO, "segearth")
    config = from_dict(ExperimentConfig, values)
    config.data.num_workers, config.train.log_every = 1, 5
    Trainer(config).run()
    assert "going on with data.num_workers: 0 then, 1 now, train.log_every: 10 then, 5 now" in caplog.messages
    assert any(message.endswith("is trained already; choose another train.output_dir for a new run")
               for message in caplog.messages)  # fmt: skip
    assert OmegaConf.load(tmp_path / "config.yaml").data.num_workers == 1


def test_settings_that_came_with_a_later_version_had_their_defaults(tmp_path: Path) -> None:
    stored = to_dict(ExperimentConfig())
    del stored["data"]["twins"]
    del stored["loss"]["classes"]
    path = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create(stored), path)
    assert check_same_run(path, ExperimentConfig()) == []
    with pytest.raises(ConfigError, match=r"data\.twins: 0\.0 then, 0\.5 now"):
        check_same_run(path, changed("data.twins", 0.5))
    stored["data"]["gone"] = 1  # and one that is gone is named
    OmegaConf.save(OmegaConf.create(stored), path)
    with pytest.raises(ConfigError, match=r"data\.gone: 1 then, None now"):
        check_same_run(path, ExperimentConfig())

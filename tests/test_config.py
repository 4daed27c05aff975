from __future__ import annotations

from pathlib import Path

import pytest

from segearth.config import ExperimentConfig, from_dict, load_experiment
from segearth.errors import ConfigError
from segearth.utils.files import configs_dir


def test_an_experiment_is_a_diff_from_its_bases(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("train: {max_steps: 5, seed: 3}\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\ntrain: {max_steps: 7}\n")
    (tmp_path / "three.yaml").write_text("base: [two.yaml]\ndata: {questions_per_image: 2}\n")
    config = load_experiment(tmp_path / "three.yaml", ["train.learning_rate=0.5"])
    assert (config.train.max_steps, config.train.seed, config.data.questions_per_image) == (7, 3, 2)
    assert config.train.learning_rate == 0.5


@pytest.mark.parametrize("path", sorted((configs_dir() / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_of_the_repository_loads(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from segearth.zoo.lookup import load_model, model_config

    load_model("segearth_debug").save_folder(tmp_path)
    for name in ("SEGEARTH_START", "EARTHREASON_ROOT", "RRSIS_D_ROOT", "REFSEGRS_ROOT", "RISBENCH_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    model_config(load_experiment(path).model)


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NO_SUCH_ROOT", raising=False)
    (tmp_path / "one.yaml").write_text("train: {output_dir: '${oc.env:NO_SUCH_ROOT}'}\n")
    with pytest.raises(ConfigError, match=r"one\.yaml: environment variable NO_SUCH_ROOT is not set; .*export NO_"):
        load_experiment(tmp_path / "one.yaml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"max_stesp": 3}}, r"unknown key 'train\.max_stesp'; did you mean 'max_steps'"),
        ({"train": {"max_steps": "many"}}, r"train\.max_steps: Value 'many'"),
        ({"trian": {}}, "did you mean 'train'"),
        ({"train": 3}, "train must hold keys and values"),
        ({"data": {"augment": {"flip": True}}}, r"data\.augment\.flip"),
        ({"data": {"train": [{"nmae": "coco"}]}}, "nmae"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(ExperimentConfig, values)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    (tmp_path / "broken.yaml").write_text("train: [1, 2\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="lead back to itself"):
        load_experiment(tmp_path / "loop.yaml")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_experiment(tmp_path / "broken.yaml")
    with pytest.raises(ConfigError, match="expected keys and values"):
        load_experiment(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match=r"no config file .*did you mean 'loop\.yaml'"):
        load_experiment(tmp_path / "lop.yaml")

from __future__ import annotations

from pathlib import Path

import pytest

from segearth.config import ExperimentConfig, from_dict, load_experiment, to_dict
from segearth.errors import ConfigError
from segearth.models.pretrained import save_folder
from segearth.utils.files import configs_dir
from segearth.zoo.lookup import model_config


def test_an_experiment_is_a_diff_from_its_bases(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("train: {max_steps: 5, seed: 3}\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\ntrain: {max_steps: 7}\n")
    (tmp_path / "three.yaml").write_text("base: [two.yaml]\ndata: {questions_per_image: 2}\n")
    config = load_experiment(tmp_path / "three.yaml", ["train.learning_rate=0.5"])
    assert (config.train.max_steps, config.train.seed, config.data.questions_per_image) == (7, 3, 2)
    assert config.train.learning_rate == 0.5


# Of the packaged weights.
STAGES = ("1_mixed", "2_fine", "3_boxes", "4_settle", "5_together", "6_regions", "7_choice")


@pytest.mark.parametrize("path", sorted((configs_dir() / "experiment").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_of_the_repository_loads(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from segearth.zoo.opening import open_model

    save_folder(open_model("segearth_debug"), tmp_path)
    for name in ("SEGEARTH_START", "EARTHREASON_ROOT", "RRSIS_D_ROOT", "REFSEGRS_ROOT", "RISBENCH_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    model = load_experiment(path).model
    if str(model.get("pretrained", "")).startswith("runs/"):  # of a stage before, which is not trained here
        del model["pretrained"]
    model_config(model)


def test_each_stage_of_the_packaged_weights_starts_from_the_one_before_with_parts_added(tmp_path: Path) -> None:
    """Which are described without: what an experiment does not say is as it was saved."""
    from segearth.zoo.opening import open_model

    save_folder(open_model("segearth_debug"), tmp_path)
    stages = [load_experiment(configs_dir() / f"experiment/segearth_tiny/{name}.yaml") for name in STAGES]
    specs = [stage.model | ({"pretrained": str(tmp_path)} if "pretrained" in stage.model else {}) for stage in stages]
    configs = [model_config(spec) for spec in specs]
    assert [config.mask_decoder.box_gate for config in configs] == [False] * 2 + [True] * 5
    assert [config.mask_decoder.presence_match for config in configs] == [False] * 4 + [True] * 3
    assert [config.region_chooser for config in configs] == [False] * 5 + [True] * 2
    assert [stage.loss.boxes for stage in stages] == [0.0, 0.0, 5.0, 2.5, 4.0, 4.0, 4.0]
    assert [stage.loss.choice for stage in stages] == [0.0] * 5 + [2.0, 5.0]
    before = [stage.model.get("pretrained") for stage in stages[1:]]
    assert before == [f"{stage.train.output_dir}/model" for stage in stages[:-1]]


def flat(tree: object, name: str = "") -> dict[str, object]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {key: value for k, part in tree.items() for key, value in flat(part, f"{name}.{k}" if name else k).items()}


def settings(name: str) -> dict[str, object]:
    """All that decides an experiment, its model's configuration included, by dotted names."""
    experiment = load_experiment(configs_dir() / "experiment" / f"{name}.yaml")
    return flat({**to_dict(experiment), "model": to_dict(model_config(experiment.model))})


def test_the_published_recipe_differs_from_ours_as_meant_and_in_nothing_else() -> None:
    """Above all not in size, images and steps."""
    ours, published = settings("aerial_mini"), settings("published_recipe")
    assert ours.keys() == published.keys()
    assert {key: (ours[key], published[key]) for key in ours if ours[key] != published[key]} == {
        "model.vision_encoder.stem": ("conv", "patch"),
        "model.vision_encoder.local_conv": (True, False),
        "model.token_compressor.stride": (1, 4),
        "model.coordinates": (True, False),
        "model.presence_decides": (True, False),
        "model.presence_threshold": (0.8, 0.0),
        "model.mask_decoder.box_gate": (True, False),
        "model.mask_decoder.presence_match": (True, False),
        "loss.boxes": (5.0, 0.0),
        "train.learning_rate": (2e-3, 1e-3),
        "train.optimizer": ("muon", "adamw"),
        "data.questions_per_image": (10, 1),
        "data.first_question_only": (False, True),
        "data.augment.enabled": (True, False),
        "loss.sampling": ("dense", "points"),
        "loss.absent_masks": (False, True),
        "loss.small_targets": (0.05, 0.0),
        "loss.presence": (8.0, 0.0),
        "train.output_dir": ("runs/aerial_mini", "runs/published_recipe"),
    }


def test_an_override_that_would_change_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("data: {mix: {class: 0.5}}\n")
    with pytest.raises(ConfigError, match=r"data\.mix=\{\} would change nothing.* data\.mix=null"):
        load_experiment(tmp_path / "one.yaml", ["data.mix={}"])
    assert load_experiment(tmp_path / "one.yaml").data.mix == {"class": 0.5}
    assert load_experiment(tmp_path / "one.yaml", ["data.mix=null"]).data.mix is None


def test_without_a_file_there_are_the_defaults_and_overrides() -> None:
    assert load_experiment(None) == ExperimentConfig()
    assert load_experiment(None, ["train.lora.rank=4"]).train.lora.rank == 4
    with pytest.raises(ConfigError, match=r"overrides: unknown key 'train\.lora\.rnk'"):
        load_experiment(None, ["train.lora.rnk=4"])


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

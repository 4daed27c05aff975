"""Runs of a few steps: what is learned, what is saved, what survives an interruption."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from segearth.config import ExperimentConfig
from segearth.errors import CheckpointError, ConfigError, TrainingError

pytest.importorskip("deepspeed", reason="training needs deepspeed")
import experiments
from experiments import weights
from ranks import run_on_ranks

from segearth.model_types import EncodedText
from segearth.models.build import build_model
from segearth.structures import Question
from segearth.text.known_words import KnownWords, load_known_words, words_of
from segearth.training.checkpoint import latest_checkpoint
from segearth.training.trainer import Trainer, count_images
from segearth.utils.torchvision_mend import mend_torchvision
from segearth.zoo.lookup import build_from_spec, shape_config

REPO = Path(__file__).parents[2]


def experiment(folder: Path, **train: object) -> ExperimentConfig:
    return experiments.experiment(folder, **{"ema_decay": 0.9, **train})


def interrupt_at(trainer: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trainer._step

    def step_or_stop(number: int, *args: object) -> None:
        if number == step:
            raise KeyboardInterrupt
        original(number, *args)

    monkeypatch.setattr(trainer, "_step", step_or_stop)


@pytest.mark.parametrize("change", [{}, {"optimizer": "muon", "deepspeed": "zero0"}], ids=["adamw", "muon"])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    whole = Trainer(experiment(tmp_path / "whole", **change)).run()
    cut = Trainer(experiment(tmp_path / "cut", **change))
    interrupt_at(cut, 4, monkeypatch)  # one step beyond the checkpoint is lost and done again
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed = Trainer(experiment(tmp_path / "cut", **change)).run()
    ours, theirs = weights(resumed), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    losses = [
        [json.loads(line)["total"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, resumed)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


@pytest.mark.parametrize("change", [{}, {"optimizer": "muon", "deepspeed": "zero0"}], ids=["adamw", "muon"])
def test_bf16_and_averaged_weights(tmp_path: Path, change: dict[str, str]) -> None:
    trainer = Trainer(experiment(tmp_path, max_steps=2, precision="bf16", **change))
    trainer.run()
    assert trainer.model.dtype == torch.bfloat16
    frequencies = [b for name, b in trainer.model.language_model.named_buffers() if "inv_freq" in name]
    assert frequencies and not any(torch.equal(b, b.bfloat16().float()) for b in frequencies)  # not rounded
    saved = weights(tmp_path)
    assert all(value.isfinite().all() for value in saved.values())
    averaged, last = trainer.average.state_dict(), trainer.masters.learned()
    assert all(torch.equal(saved[name], value) for name, value in averaged.items())
    apart = [name for name, value in averaged.items() if not torch.equal(value, last[name])]
    assert len(apart) > 0.9 * len(averaged)
    assert any(not torch.equal(value, value.bfloat16().float()) for value in averaged.values())


def test_the_words_of_all_steps_are_kept_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Trainer(experiment(tmp_path / "whole"))
    seen: set[str] = set()
    encode = whole.model.prompt_encoder.encode

    def note(questions: list[Question], *options: bool) -> EncodedText:
        seen.update(word for question in questions for word in words_of(question.text))
        return encode(questions, *options)

    monkeypatch.setattr(whole.model.prompt_encoder, "encode", note)
    whole.run()
    assert load_known_words(tmp_path / "whole" / "model") == seen and len(seen) > 5
    cut = Trainer(experiment(tmp_path / "cut"))
    interrupt_at(cut, 4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    notes = tmp_path / "cut" / "checkpoints" / "step-000003" / "complete.json"
    facts = json.loads(notes.read_text())
    notes.write_text(json.dumps({**facts, "known_words": [*facts["known_words"], "yurt"]}))
    Trainer(experiment(tmp_path / "cut")).run()
    assert load_known_words(tmp_path / "cut" / "model") == {*seen, "yurt"}


def test_a_checkpoint_without_words_gives_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(experiment(tmp_path))
    interrupt_at(trainer, 4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    notes = tmp_path / "checkpoints" / "step-000003" / "complete.json"
    facts = json.loads(notes.read_text())
    notes.write_text(json.dumps({key: value for key, value in facts.items() if key != "known_words"}))
    assert load_known_words(Trainer(experiment(tmp_path)).run() / "model") is None


def test_words_are_not_learned_where_their_vectors_are_frozen(tmp_path: Path) -> None:
    start = build_model(shape_config("segearth_debug"))
    start.random_parts, start.known_words = set(), KnownWords(["yurt"])
    start.save_pretrained(tmp_path / "start")
    values = experiment(tmp_path / "run", max_steps=1, freeze=["language_model"])
    values.model = {"pretrained": str(tmp_path / "start"), "image_transform": {"size": 64}}
    assert load_known_words(Trainer(values).run() / "model") == {"yurt"}


def test_what_a_start_knew_stays_known_and_a_start_without_a_list_gets_none(tmp_path: Path) -> None:
    for name, words in (("listed", KnownWords(["yurt"])), ("unlisted", None)):
        start = build_model(shape_config("segearth_debug"))
        start.random_parts, start.known_words = set(), words
        start.save_pretrained(tmp_path / name)
        values = experiment(tmp_path / f"from_{name}", max_steps=1)
        values.model = {"pretrained": str(tmp_path / name), "image_transform": {"size": 64}}
        found = load_known_words(Trainer(values).run() / "model")
        assert (found is None) == (words is None)
        assert found is None or ("yurt" in found and len(found) > 1)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    folder = Trainer(experiment(tmp_path, max_steps=2)).run()
    before = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert Trainer(experiment(tmp_path, max_steps=2)).run() == folder
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    Trainer(experiment(tmp_path, max_steps=2)).run()
    with pytest.raises(ConfigError, match=r"train\.learning_rate: 0\.001 then, 0\.1 now"):
        Trainer(experiment(tmp_path, max_steps=2, learning_rate=0.1)).run()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(experiment(tmp_path))
    original, calls = trainer.criterion.__class__.__call__, []

    def sometimes_nan(self: object, *args: object) -> object:
        losses = original(self, *args)
        calls.append(1)
        if len(calls) > 8:  # step 4: two micro-batches a step
            losses.total = losses.total * float("nan")
        return losses

    monkeypatch.setattr(trainer.criterion.__class__, "__call__", sometimes_nan)
    with pytest.raises(TrainingError, match=r"the loss is nan within the steps up to 4 .*step-000003 is kept"):
        trainer.run()
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(experiment(tmp_path))
    original = trainer.engine.save_checkpoint

    def full(root: str, tag: str, **kwargs: object) -> None:
        original(root, tag=tag, **kwargs)
        if "000006" in tag:
            (Path(root) / tag / "mp_rank_00_model_states.pt").write_bytes(b"cut")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.engine, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match=r"No space left on device; .*step-000003 is untouched"):
        trainer.run()
    assert [p.name for p in (tmp_path / "checkpoints").glob("step-*")] == ["step-000003"]
    assert len(weights(tmp_path)) > 0
    Trainer(experiment(tmp_path)).run()  # space was freed: the same command goes on
    assert [p.name for p in (tmp_path / "checkpoints").glob("step-*")] == ["step-000006"]


def test_leftovers_of_a_kill_are_no_checkpoints_and_are_cleaned(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    for name in ("step-000004.partial", "step-000099.partial"):
        (root / name).mkdir(parents=True)
        (root / name / "complete.json").write_text(json.dumps({"step": 99, "world_size": 1}))  # killed before renaming
    (root / "step-000001").mkdir()  # never whole
    Trainer(experiment(tmp_path, keep_checkpoints=2)).run()
    assert sorted(p.name for p in root.iterdir() if p.is_dir()) == ["step-000003", "step-000006"]
    assert latest_checkpoint(tmp_path) == root / "step-000006"


def test_the_newest_checkpoint_is_that_of_the_most_steps(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "complete.json").write_text(json.dumps({"step": step, "world_size": 1}))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-1000000"


def test_a_checkpoint_of_other_processes_is_refused(tmp_path: Path) -> None:
    Trainer(experiment(tmp_path)).run()
    marker = tmp_path / "checkpoints" / "step-000006" / "complete.json"
    marker.write_text(json.dumps({"step": 3, "world_size": 2}))
    with pytest.raises(CheckpointError, match="resume with NGPU=2") as told:
        Trainer(experiment(tmp_path)).run()
    (way_out,) = re.findall(r"model\.pretrained=(\S+)", str(told.value))
    begun_anew = build_from_spec({"pretrained": way_out}).state_dict()
    assert all(torch.equal(begun_anew[name], value) for name, value in weights(tmp_path).items())


def test_lora_is_merged_into_what_is_saved(tmp_path: Path) -> None:
    mend_torchvision()  # peft imports it
    pytest.importorskip("peft")
    config = experiment(tmp_path, max_steps=2, ema_decay=0.0, lora={"enabled": True, "rank": 2})
    trainer = Trainer(config)
    learning = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert any("lora_A" in name for name in learning)
    assert not any("embed_tokens" in name for name in learning)
    trainer.run()
    saved = weights(tmp_path)
    layer = trainer.model.language_model.causal_lm.model.layers[0].self_attn.q_proj
    merged = layer.base_layer.weight + layer.get_delta_weight("default")
    assert torch.allclose(saved["language_model.causal_lm.model.layers.0.self_attn.q_proj.weight"], merged)
    assert not torch.equal(merged, layer.base_layer.weight)


def test_accumulation_is_derived_and_checked(tmp_path: Path) -> None:
    assert Trainer(experiment(tmp_path, global_batch_size=6)).accumulation == 6
    with pytest.raises(ConfigError, match=r"no multiple of .* 4 x 1 processes; set train\.micro_batch_size to 3"):
        Trainer(experiment(tmp_path, global_batch_size=6, micro_batch_size=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deepspeed": "zero5"}, "zero2"),
        ({"precision": "fp17"}, "auto, fp32 or bf16"),
        ({"freeze": ["vision_encodr"]}, "did you mean 'vision_encoder'"),
        ({"freeze": ["vision_encoder"]}, "vision_encoder is frozen with random weights"),
        ({"freeze": ["language_model"], "lora": {"enabled": True}}, "adapts a frozen language model"),
        ({"ema_decay": 0.9, "deepspeed": "zero3"}, "train.ema_decay"),
        ({"optimizer": "muon"}, r"zero2 is ZeRO stage 2, which lays them end to end; set train\.deepspeed=zero0"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Trainer(experiment(tmp_path, **change))


@pytest.mark.parametrize("decoder", [{}, {"presence_match": True}])
def test_a_loss_of_boxes_needs_boxes(tmp_path: Path, decoder: dict[str, bool]) -> None:
    """A model that compares words for presence alone reads them too, and draws no box."""
    config = experiment(tmp_path)
    config.model["mask_decoder"] = decoder
    config.loss.boxes = 5.0
    with pytest.raises(ConfigError, match=r"set model\.mask_decoder\.box_gate to true, or loss\.boxes to 0"):
        Trainer(config)


def test_a_loss_of_the_choice_needs_a_model_that_chooses(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    config.loss.choice = 1.0
    with pytest.raises(ConfigError, match=r"set model\.region_chooser to true"):
        Trainer(config)


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """The same images meet the same random numbers, so only the order of sums could differ.

    Not quite all weights can be equal: where a gradient is only what rounding leaves, as that of the keys' bias before
    a softmax, AdamW makes whole steps of such remainders.
    """
    said, _ = run_on_ranks(run_script, *as_command(tmp_path, "zero2"))
    assert "1 a pass x 2 processes x 1 accumulated" in said
    Trainer(experiment(tmp_path / "one", max_steps=2, ema_decay=0.0)).run()
    two, one = weights(tmp_path / "run"), weights(tmp_path / "one")
    assert two.keys() == one.keys()
    apart = torch.cat([(two[name] - expected).abs().flatten() for name, expected in one.items()])
    assert (apart > 1e-6).float().mean() < 1e-3  # a step moves a weight by 1e-3
    met = [load_known_words(tmp_path / run / "model") for run in ("run", "one")]
    assert met[0] == met[1] and met[0]  # each process met the words of its own images alone


def test_two_processes_take_the_same_steps_with_muon(tmp_path: Path) -> None:
    """What rounding leaves of a gradient is enlarged where it is all that there is in a direction."""
    run_on_ranks(run_script, *as_command(tmp_path, "zero0", "muon"))
    Trainer(experiment(tmp_path / "one", max_steps=2, ema_decay=0.0, deepspeed="zero0", optimizer="muon")).run()
    two, one = weights(tmp_path / "run"), weights(tmp_path / "one")
    apart = torch.cat([(two[name] - expected).abs().flatten() for name, expected in one.items()])
    assert (apart > 1e-5).float().mean() < 1e-2  # a step moves a weight by some 1e-3


def weights_and_moments(plain: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    trainer = experiments.train(plain)
    return weights(Path(plain["train"]["output_dir"])), experiments.moments(trainer)


def test_zero3_trains_what_zero2_trains(tmp_path: Path) -> None:
    """With every parameter cut in two: the models of the tests are too small to be cut by the default.

    Gradients are what the two must share, at every place; those of a step tell of all weights before it. Of the weights
    not quite all can be the same: where a gradient is only what rounding leaves, as for a bias before a norm that
    subtracts its one channel's mean, or that of keys before a softmax, AdamW makes whole steps of such remainders.
    """
    cut = experiments.cut_everything(tmp_path)
    plain = [experiments.values(tmp_path / name, max_steps=2, deepspeed=name) for name in ("zero2", "cut")]
    plain[1]["train"]["deepspeed"] = cut
    (whole, whole_moments), (parts, parts_moments) = (run_on_ranks(weights_and_moments, each)[0] for each in plain)
    assert parts.keys() == whole.keys() and parts_moments.keys() == whole_moments.keys()
    largest = max(float(moment.abs().max()) for moment in whole_moments.values())
    for name, expected in whole_moments.items():
        torch.testing.assert_close(parts_moments[name], expected, rtol=1e-3, atol=5e-5 * largest, msg=name)
    apart = torch.cat([(parts[name] - expected).abs().flatten() for name, expected in whole.items()])
    assert (apart > 1e-5).float().mean() < 2e-3  # a step moves a weight by 1e-3


@pytest.mark.slow  # three processes import torch; the test above is the same without the launcher
def test_the_launcher_starts_two_processes(tmp_path: Path) -> None:
    errors = launched(*as_command(tmp_path, "zero2"))
    assert "1 a pass x 2 processes x 1 accumulated" in errors
    assert len(weights(tmp_path / "run")) > 0


def as_command(folder: Path, deepspeed: str, optimizer: str = "adamw") -> list[str]:
    """The command that trains two steps in ``folder / "run"``."""
    from omegaconf import OmegaConf

    from segearth.config import to_dict

    config = to_dict(experiment(folder / "run", max_steps=2, deepspeed=deepspeed, ema_decay=0.0, optimizer=optimizer))
    folder.mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create(config), folder / "experiment.yaml")
    return [str(REPO / "tools/train.py"), str(folder / "experiment.yaml")]


def run_script(*command: str) -> str:
    """Does what ``python`` does with a command; returns what is written to standard error."""
    sys.argv, sys.stderr = list(command), io.StringIO()
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, sys.stderr.getvalue()
    return sys.stderr.getvalue()


def launched(*command: str) -> str:
    """Has two processes started with a command; returns what they write to standard error."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)  # a trainer of this process may have set them
    run = subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stderr


def test_images_and_their_repeats_are_told_apart() -> None:
    class View:
        def __init__(self, repeats: list[int]) -> None:
            self.datasets, self.repeats = [range(3), range(5)], repeats

        def __len__(self) -> int:
            return sum(times * len(dataset) for times, dataset in zip(self.repeats, self.datasets, strict=True))

    assert count_images(View([1, 1])) == "8 images"
    assert count_images(View([4, 1])) == "8 images, with repeats 17 views an epoch"

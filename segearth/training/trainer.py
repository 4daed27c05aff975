"""The training loop on DeepSpeed.

The random numbers of a micro-batch depend only on the seed, the step and the micro-batch's number in that step; its
data depend only on the seed and the step. So a run that was interrupted and resumed gives the same model as one that
was not, and two processes give the same as one.
"""

from __future__ import annotations

import logging
import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from segearth.config import UNKNOWN_SPLITS, ExperimentConfig
from segearth.data.feed.loading import Collator, TrainingView, build_loader
from segearth.data.feed.sampling import StepSampler
from segearth.data.registry import build_dataset, split_label
from segearth.errors import ConfigError, TrainingError
from segearth.inference.predictor import Predictor
from segearth.losses.criterion import Criterion
from segearth.model_types import Batch
from segearth.models.pretrained import BEST, LAST
from segearth.models.segearth import SegEarth
from segearth.text.known_words import KnownWords, words_of
from segearth.training import checkpoint as ckpt
from segearth.training.distributed import start_process
from segearth.training.freezing import check_frozen, choose_what_learns
from segearth.training.journal import Journal
from segearth.training.masters import MasterWeights, WeightAverage, frozen_weights
from segearth.training.optimisation import (
    MUON,
    build_optimizer,
    deepspeed_settings,
    learning_rate_factor,
    passes_of,
    zero_stage,
)
from segearth.training.resume import as_yaml, check_same_run
from segearth.training.validation import Validation, weights_of
from segearth.training.window import Window
from segearth.utils.files import write_text
from segearth.utils.processes import Process, gather_objects, wait_for_all
from segearth.utils.seeds import seed_everything
from segearth.zoo.lookup import build_from_spec
from segearth.zoo.opening import training_of

logger = logging.getLogger(__name__)
WORDS = "known_words"  # in what a checkpoint keeps beside its tensors


class Trainer:
    """One experiment: model, data, engine and the folder it writes."""

    def __init__(self, config: ExperimentConfig, process: Process | None = None) -> None:
        """Builds everything; nothing is written yet.

        Args:
            config: The experiment.
            process: This process; joined from the environment if left out.

        Raises:
            ConfigError: The settings do not fit together.
            DatasetError: A data set is missing or incomplete.
        """
        self.config, train = config, config.train
        self.process = process or start_process()
        self.folder = Path(train.output_dir)
        seed_everything(train.seed)
        self.bf16 = self._wants_bf16()
        self.settings = deepspeed_settings(train, self.process.world_size, self.bf16)
        if train.optimizer == MUON and zero_stage(self.settings):
            raise ConfigError(
                f"train.optimizer=muon needs whole weight matrices, and train.deepspeed {train.deepspeed} is ZeRO "
                f"stage {zero_stage(self.settings)}, which lays them end to end; set train.deepspeed=zero0, or "
                "train.optimizer=adamw"
            )
        if train.ema_decay and zero_stage(self.settings) == 3:
            raise ConfigError(
                f"train.ema_decay needs whole parameters on each rank, and train.deepspeed {train.deepspeed} is ZeRO "
                "stage 3; set train.ema_decay to 0, or take a stage below"
            )
        self.words: set[str] | None = None
        self.splits_seen = self._splits_seen()  # read now: at the end the folder of the first weights may be gone
        self.model = self._build_model()
        self.criterion = Criterion(config.loss)
        self.images_of_pass, self.accumulation = passes_of(train, self.process.world_size)
        self.validation = Validation(config, self.process, in_step=zero_stage(self.settings) == 3)
        datasets = [build_dataset(d.name, d.root, d.split, **d.options) for d in config.data.train]
        with_classes = config.loss.classes > 0
        if with_classes and self.model.class_head is None:
            raise ConfigError("loss.classes needs the head that reads classes; set model.class_head to true")
        if config.loss.boxes > 0 and self.model.mask_decoder.box_gate is None:
            raise ConfigError(
                "loss.boxes needs a model that draws boxes; set model.mask_decoder.box_gate to true, or loss.boxes to 0"
            )
        if config.loss.choice > 0 and self.model.region_chooser is None:
            raise ConfigError("loss.choice needs a model that chooses among regions; set model.region_chooser to true")
        repeats = [d.repeat for d in config.data.train]
        self.view = TrainingView(datasets, self.model.image_transform, config.data, train.seed, with_classes, repeats)
        chooses = self.model.region_chooser is not None
        self.collator = Collator(self.model.prompt_encoder, config.loss.text > 0, with_classes, chooses)
        frozen = frozen_weights(self.model, keep=self.process.is_main) if self.bf16 else None
        self.engine = self._build_engine()
        self.masters = MasterWeights(self.engine, frozen)
        self.average = WeightAverage(self.masters, train.ema_decay) if train.ema_decay else None

    @cached_property
    def predictor(self) -> Predictor:
        """Asks the model where it is validated; one for all validations, so that it tells an unknown word once."""
        return Predictor(self.model)

    def run(self) -> Path:
        """Trains to ``max_steps``, going on from the newest whole checkpoint of the folder.

        Returns:
            The folder with the model.

        Raises:
            ConfigError: The folder holds a run of another configuration.
            TrainingError: The loss is no longer finite; the last good checkpoint stays.
            CheckpointError: A checkpoint cannot be read or written.
        """
        train, process = self.config.train, self.process
        first = self._resume()
        self.skipped = self.engine.skipped_steps
        if first >= train.max_steps or self.validation.should_stop:
            if ckpt.exported_step(self.folder / LAST) == first:
                logger.info("%s is trained already; choose another train.output_dir for a new run", self.folder)
            else:  # the disk was full when it was to be written
                logger.info("training is done; writing %s", self.folder / LAST)
                self._export(LAST, first)
            return self.folder
        self._describe(first)
        journal = Journal(self.folder, train, first, process)
        sampler = StepSampler(
            self.view.frames, train.global_batch_size, self.images_of_pass, first, train.max_steps,
            process.rank, process.world_size, train.seed,
        )  # fmt: skip
        batches = iter(build_loader(self.view, self.collator, sampler, self.config.data.num_workers))
        window = Window(process.device)
        for step in range(first, train.max_steps):
            self._step(step, batches, window)
            done = step + 1
            due, last = self.validation.is_due(done), done == train.max_steps
            if due or last or done % train.log_every == 0 or done % train.save_every == 0:
                journal.note_losses(step, self._facts(window, step))
            with window.paused():
                if due:
                    self._validate(done, journal)
                    last = last or self.validation.should_stop
                if last or done % train.save_every == 0:
                    self._save(done)
            if last:
                break
        journal.close()
        window.log_wait()
        return self.folder

    def _facts(self, window: Window, step: int) -> dict[str, Any]:
        """Returns what the log says of the steps up to ``step``; all processes call it together."""
        facts = window.flush(self.process.world_size)
        self._check_finite(facts["total"], step, window.ids)
        facts |= {"learning_rate": self.engine.get_lr()[0], **self._grad_norm()}
        facts["skipped_steps"] = self._newly_skipped(step + 1)
        facts["images_per_second"] = round(facts.pop("steps_per_second") * self.config.train.global_batch_size, 3)
        return facts

    def _validate(self, done: int, journal: Journal) -> None:
        """Scores the weights that would be saved now, and keeps them if none before were better."""
        self._check_weights(done)
        self._share_words()
        began = time.perf_counter()
        average = None if self.average is None else self.average.state_dict()
        self.model.eval()
        score, is_best = self.validation.run(self.predictor, done, weights_of(self.model, average))
        assert self.validation.best is not None  # there is one now
        if is_best:
            self._export(BEST, done, score.facts())
        seconds = time.perf_counter() - began
        journal.note_score(done - 1, score, is_best, self.validation.best, seconds)
        if self.validation.should_stop:
            logger.info(
                "stopping early: %d validations without a better one than that of step %d",
                self.validation.stale, self.validation.best.step,
            )  # fmt: skip

    def _step(self, step: int, batches: Any, window: Window) -> None:
        """One optimiser step: ``accumulation`` micro-batches forward and backward, then the update."""
        self.model.train()
        for turn in range(self.accumulation):
            number = turn * self.process.world_size + self.process.rank  # of this micro-batch among the step's
            torch.manual_seed(hash((self.config.train.seed, step, number)) % 2**63)
            waited = time.perf_counter()
            batch: Batch = next(batches)
            window.waited += time.perf_counter() - waited
            if self.words is not None and self.learns_words:
                self.words.update(*map(words_of, self.model.prompt_encoder.descriptions(batch.text)))
            batch = batch.to(self.process.device)
            losses = self.criterion(self.engine(batch), batch)
            self.engine.backward(losses.total)
            self.engine.step()
            window.add(losses, self.accumulation, batch.question_ids)
        window.steps += 1
        if self.average is not None:
            self.average.update(step)

    def _save(self, done: int) -> None:
        """Writes checkpoint and model after ``done`` steps, unless the weights are no longer finite."""
        self._check_weights(done)
        self._share_words()
        keep = max(1, self.config.train.keep_checkpoints)
        words = None if self.words is None else sorted(self.words)
        facts = {"validation": self.validation.state_dict(), WORDS: words}
        ckpt.save_checkpoint(self.engine, self.average, self.folder, done, keep, self.process, facts)
        self._export(LAST, done)

    def _check_weights(self, done: int) -> None:
        if not self.masters.are_finite():  # the loss would not show it: it was computed before the last update
            raise TrainingError(f"weights are infinite or undefined after step {done}; {self._advice()}")

    def _share_words(self) -> None:
        """Gives the model the words that any process has met so far; all processes call it together."""
        if self.words is None:
            return
        self.words = set().union(*gather_objects(self.words, self.process.world_size))
        self.model.known_words = KnownWords(self.words)

    def _export(self, name: str, done: int, facts: dict[str, Any] | None = None) -> None:
        facts = {"trained_on": self.splits_seen, **(facts or {})}
        ckpt.export_model(self.masters, self.average, self.model, self.folder / name, done, self.process, facts)

    def _splits_seen(self) -> list[str]:
        """Returns the splits that the weights were trained on: this run's, and those noted with its first weights."""
        before = self.config.model.get("pretrained")
        seen = training_of(str(before)).get("trained_on", [UNKNOWN_SPLITS]) if before else []
        return list(dict.fromkeys([*seen, *map(split_label, self.config.data.train)]))

    def _newly_skipped(self, done: int) -> int:
        """Returns how many steps DeepSpeed skipped since the last log line, since their gradients were not finite."""
        count, self.skipped = self.engine.skipped_steps - self.skipped, self.engine.skipped_steps
        if count:
            logger.warning(
                "%d of the steps up to %d changed nothing, since their gradients were not finite (%d since the start); "
                "if this goes on, lower train.learning_rate or check the data", count, done, self.skipped,
            )  # fmt: skip
        return count

    def _build_model(self) -> SegEarth:
        train = self.config.train
        model = build_from_spec(self.config.model)
        # The words that the language model has met. One with pretrained weights has met more than anyone can list.
        from_nothing = "language_model" in model.random_parts or model.known_words is not None
        self.words = set(model.known_words or ()) if from_nothing else None
        choose_what_learns(model, train)
        vectors = model.language_model.causal_lm.get_input_embeddings()
        self.learns_words = any(p.requires_grad for p in vectors.parameters())
        check_frozen(model, train.lora.enabled)
        if train.activation_checkpointing:
            model.set_checkpointing(True)
        return model

    def _build_engine(self) -> Any:
        import deepspeed

        train = self.config.train
        optimizer = build_optimizer(self.model, train)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, train))
        with self.model.language_model.exact_buffers():
            engine, *_ = deepspeed.initialize(
                model=self.model,
                optimizer=optimizer,
                lr_scheduler=schedule,
                model_parameters=[p for p in self.model.parameters() if p.requires_grad],
                config=self.settings,
            )
        if hasattr(engine.optimizer, "check_grad_overflow"):
            # Under ZeRO-1 and 2 older DeepSpeeds skip a step with an infinite gradient only in fp16. In other
            # precisions one bad batch would make all weights infinite.
            engine.optimizer.check_grad_overflow = True
        return engine

    def _wants_bf16(self) -> bool:
        precision = self.config.train.precision
        if precision not in ("auto", "fp32", "bf16"):
            raise ConfigError(f"train.precision {precision!r}: use auto, fp32 or bf16")
        if precision == "auto":  # without units for bf16 a device only emulates it, which is slower than fp32
            return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return precision == "bf16"

    def _resume(self) -> int:
        path = self.folder / "config.yaml"
        newest = ckpt.latest_checkpoint(self.folder)
        if newest is not None and path.is_file() and (changed := check_same_run(path, self.config)):
            logger.info("going on with %s", ", ".join(changed))
        step = 0
        if newest is not None:
            ckpt.load_checkpoint(self.engine, self.average, newest, self.process)
            step = ckpt.checkpoint_step(newest)
            facts = ckpt.checkpoint_facts(newest)
            self.validation.load_state_dict(facts.get("validation", {}))
            if self.words is not None:  # a checkpoint by a version that kept no words does not tell which were met
                self.words = set(facts[WORDS]) if facts.get(WORDS) is not None else None
                self.model.known_words = None
                self._share_words()
            logger.info("resuming from %s", newest)
        wait_for_all()
        if self.process.is_main:
            write_text(path, as_yaml(self.config))
            self._remove_stale_best(resumed=newest is not None)
        return step

    def _remove_stale_best(self, resumed: bool) -> None:
        """Removes the best model of an earlier run in this folder, which would be taken for this run's."""
        best = self.folder / BEST
        if best.is_dir() and not resumed:
            logger.warning("removing %s: it belongs to a run whose checkpoints are gone", best)
            shutil.rmtree(best)
        elif best.is_dir() and not self.validation.is_on:
            last = self.folder / LAST
            logger.warning("nothing is validated now, so %s stays that of earlier steps; the last is %s", best, last)

    def _describe(self, first: int) -> None:
        train, world = self.config.train, self.process.world_size
        sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in self.model.parameters()]
        total, learning = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
        logger.info(
            "%s: %.1f M parameters, %.1f M learn; %s; steps %d to %d; "
            "global batch %d = %d a pass x %d processes x %d accumulated; %s on %s, %s",
            self.config.model.get("pretrained") or self.config.model.get("name"),
            total / 1e6, learning / 1e6, count_images(self.view), first, train.max_steps,
            train.global_batch_size, self.images_of_pass, world, self.accumulation,
            "bf16" if self.bf16 else "fp32", self.process.device, train.deepspeed,
        )  # fmt: skip

    def _check_finite(self, loss: float, step: int, ids: list[str]) -> None:
        if loss == loss and abs(loss) != float("inf"):
            return
        raise TrainingError(
            f"the loss is {loss} within the steps up to {step} (last batch: {', '.join(ids[:3])} …); {self._advice()}"
        )

    def _advice(self) -> str:
        good = ckpt.latest_checkpoint(self.folder)
        return f"{good or 'no checkpoint yet'} is kept: lower {self._rates()} or check the data, then run again"

    def _rates(self) -> str:
        with_muon = self.config.train.optimizer == MUON
        return "train.learning_rate and train.matrix_learning_rate" if with_muon else "train.learning_rate"

    def _grad_norm(self) -> dict[str, float]:
        """Returns the gradient's norm before it was clipped, or nothing: DeepSpeed has none in fp32 without ZeRO."""
        norm = self.engine.get_global_grad_norm()
        return {} if norm is None else {"grad_norm": round(float(norm), 4)}


def count_images(view: TrainingView) -> str:
    """Says how many images there are, and how many views an epoch has where some images are repeated in it."""
    images, views = sum(len(dataset) for dataset in view.datasets), len(view)
    return f"{images} images" if views == images else f"{images} images, with repeats {views} views an epoch"

"""verl on Ray (https://github.com/volcengine/verl), for clusters: the data set that it reads, and its scoring function.

In verl's configuration (until verl 0.6 without ``reward.``, and with the path of this file in place of ``pkg://…``)::

    reward.custom_reward_function.path=pkg://segearth.rl.verl  reward.custom_reward_function.name=compute_score

Where masks or sentence embeddings are scored, a file of one's own makes the function, once a worker::

    from segearth.rl.verl import VerlScorer
    compute_score = VerlScorer(masks_of=…)

Nothing here imports verl or Ray.
"""

# Without `from __future__ import annotations`: verl may load this file by its path, as a module that is in no table of
# modules, and there dataclasses cannot look up annotations that are texts.
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segearth.errors import DatasetError, MissingExtraError, RewardError, UnknownNameError
from segearth.preprocessing.resampling import resized
from segearth.prompting.templates import AnswerTemplate
from segearth.rl.completions import RowFacts, row_of_completion
from segearth.rl.ground_truth import ground_truth_text
from segearth.rl.rewards.presets import TERM_NAMES, reward_preset
from segearth.rl.rewards.scoring import score_batch
from segearth.rl.rewards.settings import DEFAULT_REWARDS, RewardSettings
from segearth.rl.rewards.terms import MasksOf
from segearth.rl.rewards.wording import Embed
from segearth.structures import Sample, Target
from segearth.utils.files import atomic_path

ROWS_AT_A_TIME = 64  # held in memory with their images while a file is written
PLACEHOLDERS = ("<image>", "<video>")  # verl puts an image where one stands in a prompt


@dataclass(frozen=True, slots=True)
class VerlExample:
    """One question about one image, or about several, as it is exported.

    Attributes:
        prompt: What the model is asked, template included, without images: they are put before it.
        images: ``uint8`` ``(H, W, 3)`` each, at the size at which the model is to see it.
        target: What a right answer is, in pixels of the image that ``facts`` has the size of.
        facts: Of the row.
        preset: Which reward it is scored by.
        data_source: Name of the data set, by which verl groups its figures.
        ability: The task, in verl's word.
        wording: See :class:`segearth.rl.rewards.terms.RewardRow`.
        system: A message before the prompt; ``None``: there is none.
    """

    prompt: str
    images: tuple[np.ndarray, ...]
    target: Target | None
    facts: RowFacts
    preset: str
    data_source: str
    ability: str = "grounding"
    wording: str | None = None
    system: str | None = None


def examples_of(
    samples: Iterable[Sample], template: AnswerTemplate, preset: str, data_source: str, ability: str | None = None
) -> Iterator[VerlExample]:
    """Makes an example of each question that has a target.

    Args:
        samples: With their images; ``image_id`` becomes the image's key.
        template: Asks the questions; an image is resized to its frame where that counts pixels. One that asks about
            two images is shown both of a pair, the earlier one first.
        preset: Which reward they are scored by.
        data_source: Name of the data set.
        ability: See :class:`VerlExample`; ``None``: each question's task.

    Raises:
        DatasetError: The template asks about two images, and a sample has one.
        UnknownNameError: The template is not in the table, by whose name the answers will be read.
    """
    for sample in samples:
        height, width = sample.image.shape[:2]
        frame = template.frame
        images = [sample.image] if template.images == 1 else [sample.before, sample.image]
        if any(image is None for image in images):
            raise DatasetError(
                f"template {template.id} asks about 2 images, and sample {sample.image_id} has one; give its before"
            )
        shown = tuple(
            resized(image, *frame.size_for(height, width)) if frame.in_pixels else image
            for image in images
            if image is not None
        )
        facts = RowFacts.of(template, height, width, sample.image_id)
        for question in sample.questions:
            if question.target is not None:
                yield VerlExample(
                    template.ask(question.text, template.region(question.box, height, width)), shown,
                    question.target, facts, preset, data_source,
                    ability or question.task, question.answer,
                )  # fmt: skip


@dataclass(frozen=True, slots=True)
class VerlScorer:
    """verl's scoring function with what it scores by.

    Attributes:
        masks_of: Segments what answers point at; needed by presets that score masks.
        embed: Turns texts into sentence embeddings; needed by presets that compare them.
        settings: The constants of the formulas.
        weights: Of terms, where others than the preset's are wanted.
    """

    masks_of: MasksOf | None = None
    embed: Embed | None = None
    settings: RewardSettings = DEFAULT_REWARDS
    weights: Mapping[str, float] = field(default_factory=dict)

    def __call__(
        self, data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """Scores one completion.

        Args:
            data_source: Name of the data set; it decides nothing.
            solution_str: The completion.
            ground_truth: See :mod:`segearth.rl.ground_truth`.
            extra_info: The row's facts and its ``preset``.

        Returns:
            ``score``, the weighted sum; ``failed``, 1 where a term or the row could not be scored and has its floor;
            and every term of every preset, NaN where it is not in this preset or does not apply. verl wants the same
            keys of every row, and a number: where no term applies at all, the score is 0.

        Raises:
            RewardError: ``extra_info`` lacks what was exported with it.
            UnknownNameError: There is no such preset or template.
            ConfigError: The preset needs a tool that was not passed. All three would hit every row.
        """
        if not extra_info or "preset" not in extra_info:
            raise RewardError("the row's extra_info has no preset; export the data set with segearth.rl.verl")
        preset = reward_preset(str(extra_info["preset"]), self.settings).with_weights(self.weights)
        row = row_of_completion(solution_str, ground_truth, RowFacts.read(extra_info))
        [one] = score_batch(preset, [row], masks_of=self.masks_of, embed=self.embed)
        values = {name: one.terms.get(name) for name in TERM_NAMES}
        return {
            "score": 0.0 if one.total is None else one.total,
            "failed": float(bool(one.errors)),
            **{name: math.nan if value is None else value for name, value in values.items()},
        }


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **constants: Any,
) -> dict[str, float]:
    """Scores one completion by a preset that needs neither masks nor embeddings; see :class:`VerlScorer`.

    Args:
        data_source: See :meth:`VerlScorer.__call__`, as for the next three.
        solution_str: The completion.
        ground_truth: What it is held against.
        extra_info: The row's facts and its preset.
        **constants: Fields of :class:`segearth.rl.rewards.settings.RewardSettings`, which verl passes from
            ``custom_reward_function.reward_kwargs``.
    """
    names = [each.name for each in fields(RewardSettings)]
    for name in constants:
        if name not in names:
            raise UnknownNameError("constant of the rewards", name, names)
    return VerlScorer(settings=RewardSettings(**constants))(data_source, solution_str, ground_truth, extra_info)


def export_parquet(examples: Iterable[VerlExample], path: str | Path, split: str = "train") -> int:
    """Writes a data set as verl's ``RLHFDataset`` reads it.

    Columns: ``data_source``, ``prompt`` (chat messages), ``images`` (PNG), ``ability``, ``reward_model`` (``style``,
    ``ground_truth``) and ``extra_info`` (``index``, ``split``, ``preset`` and the fields of
    :class:`segearth.rl.completions.RowFacts`).

    Args:
        examples: Read once, a few at a time.
        path: The file, which appears when it is whole.
        split: Recorded in each row.

    Returns:
        Number of rows.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        UnknownNameError: An example names a preset that does not exist.
        DatasetError: A prompt has ``<image>`` in it.
        OutputError: The file cannot be written.
    """
    try:
        import pyarrow
        from datasets import Features, Image, Value
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("datasets", "rl", error) from error

    text, whole = Value("string"), Value("int64")
    schema = Features(
        {
            "data_source": text,
            "prompt": [{"role": text, "content": text}],
            "images": [Image()],
            "ability": text,
            "reward_model": {"style": text, "ground_truth": text},
            "extra_info": {
                "index": whole, "split": text, "preset": text, "template": text, "height": whole, "width": whole,
                "frame_height": whole, "frame_width": whole, "image_key": text,
            },
        }
    ).arrow_schema  # fmt: skip
    rows = (_row(example, index, split) for index, example in enumerate(examples))
    count = 0
    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for portion in _portions(rows):
            writer.write_table(pyarrow.Table.from_pylist(portion, schema=schema))
            count += len(portion)
    return count


def _row(example: VerlExample, index: int, split: str) -> dict[str, Any]:
    reward_preset(example.preset)  # an unknown one is told here, not by every worker of a cluster
    prompt = example.prompt
    if any(placeholder in prompt for placeholder in PLACEHOLDERS):  # verl would look for an image that is not there
        raise DatasetError(f"a prompt has {' or '.join(PLACEHOLDERS)} in it: {prompt[:80]!r}; make it by template.ask")
    messages = [{"role": "user", "content": "<image>" * len(example.images) + prompt}]
    if example.system is not None:
        messages.insert(0, {"role": "system", "content": example.system})
    return {
        "data_source": example.data_source,
        "prompt": messages,
        "images": [{"bytes": _png(image), "path": None} for image in example.images],
        "ability": example.ability,
        "reward_model": {"style": "rule", "ground_truth": ground_truth_text(example.target, example.wording)},
        "extra_info": {"index": index, "split": split, "preset": example.preset, **example.facts.as_dict()},
    }


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _portions(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while portion := list(islice(rows, ROWS_AT_A_TIME)):
        yield portion

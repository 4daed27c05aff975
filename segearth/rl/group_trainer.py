"""trl's GRPO with what it lacks: groups whose answers scatter are trusted less. Imported only where trl is there.

https://github.com/huggingface/trl, ``GRPOTrainer``. Three methods are extended and none is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer

from segearth.errors import RewardError
from segearth.rl.completions import RowFacts, row_of_completion
from segearth.rl.groups import agreement, consistency_weight
from segearth.rl.masks import GroupMasks
from segearth.rl.rewards.places import boxes_of_answer
from segearth.rl.rewards.settings import ConsistencySettings


class GroupTrainer(GRPOTrainer):
    """``GRPOTrainer`` that weights advantages by how far the answers of a group agree, and logs what rewards cost."""

    def __init__(
        self, *arguments: Any, consistency: ConsistencySettings | None = None, masks: GroupMasks | None = None,
        **others: Any,
    ) -> None:  # fmt: skip
        """Takes what ``GRPOTrainer`` takes, and two things more.

        Args:
            arguments: Of ``GRPOTrainer``.
            consistency: How groups are weighted; ``None``: all alike.
            masks: What the mask reward uses, whose number of encoded images is logged.
            others: Of ``GRPOTrainer``.
        """
        self.consistency, self.masks = consistency, masks
        self._trust = torch.ones(0)
        super().__init__(*arguments, **others)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        began, images = time.perf_counter(), self.masks.images if self.masks else 0
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.consistency is not None:
            self._trust = self._trust_in(inputs, completions)
        self._note("seconds/rewards", time.perf_counter() - began)
        if self.masks is not None:
            self._note("encodings", self.masks.images - images)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        made = super()._generate_and_score_completions(inputs)
        if self.consistency is not None:
            # Here and not on the rewards: a factor on a whole group's rewards is cancelled by their standardisation.
            made["advantages"] = made["advantages"] * self._trust.to(made["advantages"])
            self._note("trust", float(self._trust.mean()))
        return made

    def _trust_in(self, inputs: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        """Weights of this process's answers; their groups may lie on several processes."""
        assert self.consistency is not None
        own = [_pointed_at(row, completion) for row, completion in zip(inputs, completions, strict=True)]
        everyone = gather_object(own)
        size = int((self.num_generations if self._mode() == "train" else self.num_generations_eval) or 1)
        weights = []
        for start in range(0, len(everyone), size):
            group = everyone[start : start + size]
            agreed = agreement([boxes for boxes, _ in group], group[0][1], self.consistency)
            weights += [consistency_weight(agreed, self.consistency)] * len(group)
        first = self.accelerator.process_index * len(own)
        return torch.tensor(weights[first : first + len(own)])

    def _note(self, name: str, value: float) -> None:
        self._metrics[self._mode()][name].append(value)

    def _mode(self) -> str:
        return "train" if self.model is not None and self.model.training else "eval"


def _pointed_at(row: Any, completion: Any) -> tuple[Any, tuple[int, int]]:
    """Boxes of an answer in pixels, ``None`` where it has none that count, and its image's size."""
    facts = RowFacts.read(row["extra_info"])
    try:
        boxes = boxes_of_answer(row_of_completion(completion, row["ground_truth"], facts).answer)
    except RewardError:  # it lists thousands; its reward is the floor
        boxes = None
    return boxes, (facts.height, facts.width)

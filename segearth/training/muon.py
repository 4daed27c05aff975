"""Muon for weight matrices and AdamW for everything else, in one optimizer, since DeepSpeed takes one.

AdamW scales each number of a gradient by itself. Muon takes the gradient of a layer's weights as the matrix that it is,
and steps along the nearest matrix that stretches nothing: a few strong directions no longer drown the many weak ones.
A model that starts at random learns faster with it, most of all in its first steps (docs/training.md has the figures).

By Keller Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segearth.errors import ConfigError

SMALLEST = 9  # sides of the matrices that Muon takes; a layer with one output has no directions to balance
# Of the quintic a x + b x^3 + c x^5, which brings singular values in (0, 1] near 1. Jordan chose what makes small ones
# grow fastest. They end near 1 and not at it, which does not matter for a step.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """Returns about the nearest matrix whose singular values are all 1, by Newton-Schulz iterations.

    Args:
        matrix: ``(rows, columns)``, in fp32. Its scale does not matter; zeros give zeros.

    Returns:
        The same shape, with the same singular vectors and singular values between 0.6 and 1.3, but for those that are
        less than a thousandth of the largest.
    """
    a, b, c = QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # the products below are smaller that way
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def weight_matrices(model: nn.Module) -> list[Tensor]:
    """Returns the parameters that Muon is for: what learns of linear layers and convolutions.

    Left to AdamW are tables of vectors (embeddings, also those that predict words, and relative positions), filters of
    a single channel, small layers, low-rank adapters, norms and biases.
    """
    heads = {id(head) for head in map(_head_of_words, model.modules()) if head is not None}
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)) or id(module) in heads or "lora_" in name:
            continue
        weight = module.weight
        one_channel = isinstance(module, nn.Conv2d) and module.in_channels == module.groups
        if weight.requires_grad and not one_channel and min(len(weight), weight[0].numel()) >= SMALLEST:
            found.append(weight)
    return found


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps groups with ``matrices: True`` by Muon, the others by AdamW. Schedules set each group's ``lr`` as usual."""

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], momentum: float = 0.95) -> None:
        """Takes the parameters.

        Args:
            groups: Each with ``params``, ``lr``, ``weight_decay`` and ``matrices``. Where that is ``True``, parameters
                have two axes or more; what follows the first is taken as one.
            betas: AdamW's.
            momentum: Muon's.
        """
        by_adamw = [group for group in groups if not group["matrices"]]
        # It adds its own settings to these groups. Without any it would refuse to be made.
        self._adamw = torch.optim.AdamW(by_adamw, betas=betas) if by_adamw else None
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Changes every parameter that has a gradient.

        Args:
            closure: Not used, but part of every optimizer's signature.

        Raises:
            ConfigError: DeepSpeed has laid the weights end to end, so that they are no matrices any more.
        """
        # Set each time: loading a checkpoint, and DeepSpeed in bf16, put other groups and another state in place.
        if self._adamw is not None:
            self._adamw.param_groups = [group for group in self.param_groups if not group["matrices"]]
            self._adamw.state = self.state
            self._adamw.step()
        for group in self.param_groups:
            if group["matrices"]:
                for parameter in group["params"]:
                    self._step_matrix(parameter, group)

    def _step_matrix(self, parameter: Tensor, group: dict[str, Any]) -> None:
        if parameter.grad is None:
            return
        if parameter.ndim < 2:
            raise ConfigError(
                "train.optimizer=muon needs whole weight matrices, and these DeepSpeed settings lay them end to end; "
                "use train.deepspeed=zero0, or train.optimizer=adamw"
            )
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(average, group["momentum"])  # Nesterov's: where the average will be next
        direction = orthogonalised(ahead.flatten(1).float())
        # A matrix with more rows than columns changes its outputs less, each being a sum over fewer inputs.
        rate = group["lr"] * max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction.view_as(parameter), alpha=-rate)


def _head_of_words(module: nn.Module) -> nn.Module | None:
    """The layer of a language model that predicts words, by transformers' name for it."""
    getter: Any = getattr(module, "get_output_embeddings", None)
    head = getter() if getter is not None else None
    return head if isinstance(head, nn.Module) else None

from __future__ import annotations

import pytest
import torch
from torch import nn

from segearth.config import TrainConfig
from segearth.errors import ConfigError
from segearth.models.build import build_model
from segearth.training.muon import MuonWithAdamW, orthogonalised, weight_matrices
from segearth.training.optimisation import build_optimizer
from segearth.zoo.lookup import shape_config

BETAS = (0.9, 0.99)


def groups_of(matrix: nn.Parameter, vector: nn.Parameter, decay: float = 0.0) -> list[dict]:
    return [
        {"params": [matrix], "lr": 0.02, "weight_decay": decay, "matrices": True},
        {"params": [vector], "lr": 0.001, "weight_decay": 0.0, "matrices": False},
    ]


def pair(rows: int, columns: int, seed: int = 0) -> tuple[nn.Parameter, nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(rows, columns, generator=rng)), nn.Parameter(torch.randn(rows, generator=rng))


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16)])
def test_all_directions_become_about_equally_strong_and_stay_what_they_are(shape: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(1)
    u, _ = torch.linalg.qr(torch.randn(shape[0], 16, generator=rng))
    v, _ = torch.linalg.qr(torch.randn(shape[1], 16, generator=rng))
    strengths = torch.logspace(0, -2, 16)  # the strongest direction is a hundred times as strong as the weakest
    result = orthogonalised(u * strengths @ v.T)
    turned = u.T @ result @ v
    assert turned.diag().min() > 0.6 and turned.diag().max() < 1.3
    torch.testing.assert_close(turned - turned.diag().diag(), torch.zeros(16, 16), atol=1e-4, rtol=0)
    assert float(result.norm() ** 2) == pytest.approx(float((turned.diag() ** 2).sum()), rel=1e-3)  # and nothing else


def test_the_scale_of_a_gradient_does_not_matter_and_zeros_stay_zeros() -> None:
    matrix = torch.randn(12, 20, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(orthogonalised(matrix * 1e-3), orthogonalised(matrix), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(orthogonalised(matrix.T), orthogonalised(matrix).T)
    assert not orthogonalised(torch.zeros(12, 20)).any()


@pytest.mark.parametrize(("rows", "columns", "factor"), [(16, 16, 1.0), (12, 48, 1.0), (48, 12, 2.0)])
def test_a_first_step_goes_along_the_orthogonalised_gradient(rows: int, columns: int, factor: float) -> None:
    matrix, vector = pair(rows, columns)
    before, gradient = matrix.detach().clone(), torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))
    matrix.grad = gradient.clone()
    MuonWithAdamW(groups_of(matrix, vector, decay=0.5), BETAS).step()
    expected = before * (1 - 0.02 * 0.5) - 0.02 * factor * orthogonalised(gradient)
    torch.testing.assert_close(matrix.detach(), expected, atol=1e-5, rtol=0)


def test_later_steps_go_where_the_average_will_be_next() -> None:
    matrix, vector = pair(16, 16)
    optimizer = MuonWithAdamW(groups_of(matrix, vector), BETAS)
    first, second = torch.eye(16), torch.eye(16).flip(0)
    matrix.grad = first.clone()
    optimizer.step()
    before = matrix.detach().clone()
    matrix.grad = second.clone()
    optimizer.step()
    average = 0.95 * 0.05 * first + 0.05 * second
    expected = before - 0.02 * orthogonalised(0.05 * second + 0.95 * average)
    torch.testing.assert_close(matrix.detach(), expected, atol=1e-6, rtol=0)


def test_everything_else_is_stepped_by_adamw_itself() -> None:
    (matrix, vector), (_, alone) = pair(16, 16), pair(16, 16)
    ours, plain = MuonWithAdamW(groups_of(matrix, vector), BETAS), torch.optim.AdamW([alone], lr=0.001, betas=BETAS)
    for group in plain.param_groups:
        group["weight_decay"] = 0.0
    for step in range(3):
        for parameter, optimizer in ((vector, ours), (alone, plain)):
            parameter.grad = torch.full((16,), float(step - 1))
            optimizer.step()
    assert torch.equal(vector, alone)


def test_a_schedule_reaches_both_halves() -> None:
    matrix, vector = pair(16, 16)
    optimizer = MuonWithAdamW(groups_of(matrix, vector), BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = [p.detach().clone() for p in (matrix, vector)]
    matrix.grad, vector.grad = torch.ones_like(matrix), torch.ones_like(vector)
    optimizer.step()
    schedule.step()
    assert torch.equal(matrix, before[0]) and torch.equal(vector, before[1])


def test_a_loaded_state_goes_on_as_if_nothing_had_happened() -> None:
    whole, halves = pair(16, 20), pair(16, 20)
    one = MuonWithAdamW(groups_of(*whole), BETAS)
    other = MuonWithAdamW(groups_of(*halves), BETAS)
    for step in range(4):
        if step == 2:
            state = other.state_dict()
            other = MuonWithAdamW(groups_of(*halves), BETAS)
            other.load_state_dict(state)
        for parameters, optimizer in ((whole, one), (halves, other)):
            rng = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=rng)
            optimizer.step()
    assert torch.equal(whole[0], halves[0]) and torch.equal(whole[1], halves[1])


def test_weights_that_lie_end_to_end_are_refused() -> None:
    flat, vector = nn.Parameter(torch.zeros(256)), nn.Parameter(torch.zeros(4))
    flat.grad = torch.ones(256)
    with pytest.raises(ConfigError, match=r"needs whole weight matrices.*train\.deepspeed=zero0"):
        MuonWithAdamW(groups_of(flat, vector), BETAS).step()


def test_tables_heads_single_channels_and_small_layers_are_left_to_adamw() -> None:
    model = build_model(shape_config("segearth_tiny"), load_weights=False)
    model.language_model.causal_lm.model.layers[0].requires_grad_(False)
    taken = {id(p) for p in weight_matrices(model)}
    names = {name for name, p in model.named_parameters() if id(p) in taken}
    assert {
        "vision_encoder.stages.2.1.attn.qkv.weight", "language_model.causal_lm.model.layers.1.mlp.fc1.weight",
        "pixel_decoder.mask_features.weight",
    } <= names  # fmt: skip
    assert not any("layers.0." in name for name in names if name.startswith("language_model"))  # what does not learn
    others = {name for name, p in model.named_parameters() if p.ndim > 1 and p.requires_grad} - names
    assert {
        "language_model.causal_lm.model.embed_tokens.weight", "language_model.causal_lm.lm_head.weight",
        "vision_encoder.stages.0.0.attn.relative_position_bias_table", "vision_encoder.stages.0.0.local_conv.weight",
        "mask_decoder.presence_head.2.weight",
    } <= others  # fmt: skip
    assert all(p.ndim > 1 for p in weight_matrices(model))


def test_every_parameter_that_learns_is_stepped_once() -> None:
    model = build_model(shape_config("segearth_debug"), load_weights=False)
    optimizer = build_optimizer(model, TrainConfig(optimizer="muon", learning_rate=3e-4, weight_decay=0.1))
    assert isinstance(optimizer, MuonWithAdamW)
    stepped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(stepped) == sorted({id(p) for p in model.parameters() if p.requires_grad})
    facts = [(group["matrices"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert facts == [(False, 3e-4, 0.1), (False, 3e-4, 0.0), (True, 0.02, 0.1)]


def test_matrices_alone_are_stepped_too() -> None:
    matrix, vector = pair(16, 16)
    optimizer = MuonWithAdamW(groups_of(matrix, vector)[:1], BETAS)
    before = matrix.detach().clone()
    matrix.grad = torch.eye(16)
    optimizer.step()
    assert not torch.equal(matrix, before)


def test_adapters_are_left_to_adamw() -> None:
    layer = nn.ModuleDict({"base_layer": nn.Linear(16, 16), "lora_A": nn.ModuleDict({"default": nn.Linear(16, 16)})})
    assert [id(p) for p in weight_matrices(layer)] == [id(layer["base_layer"].weight)]


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.optimizer 'lion': use adamw or muon"):
        build_optimizer(nn.Linear(2, 2), TrainConfig(optimizer="lion"))

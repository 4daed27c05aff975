from __future__ import annotations

import numpy as np
import pytest
import torch

from segearth.config import DataConfig, LossConfig
from segearth.data.feed.loading import Collator, TrainingView
from segearth.data.readers.synthetic import SyntheticDataset
from segearth.losses.criterion import Criterion, class_loss
from segearth.model_types import ClassMaps
from segearth.models.class_head import ClassHead
from segearth.models.segearth import SegEarth
from segearth.zoo.lookup import build_from_spec


@pytest.fixture(scope="module")
def model() -> SegEarth:
    torch.manual_seed(0)
    return build_from_spec({"name": "segearth_debug", "class_head": True, "image_transform": {"size": 64}})


@pytest.fixture(scope="module")
def view(model: SegEarth) -> TrainingView:
    transform = model.image_transform
    return TrainingView([SyntheticDataset(length=6, size=96)], transform, DataConfig(), 0, with_classes=True)


def test_logits_by_hand() -> None:
    """One name of two words, another of one; the padding does not count, and each is compared with its own image."""
    head = ClassHead(2, 2)
    with torch.no_grad():
        head.direction.weight.copy_(torch.eye(2))
        head.direction.bias.zero_()
        head.bias.weight.copy_(torch.tensor([[1.0, 0.0]]))
        head.bias.bias.fill_(0.5)
    words = torch.tensor([[[2.0, 0.0], [0.0, 4.0]], [[3.0, 1.0], [100.0, 100.0]]])
    features = torch.tensor([[[[1.0]], [[10.0]]], [[[2.0]], [[20.0]]]])
    maps = ClassMaps(
        torch.zeros(2, 2, dtype=torch.long), torch.tensor([[True, True], [True, False]]), torch.tensor([1, 0]),
        torch.zeros(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool),
    )  # fmt: skip
    logits = head(words, maps, features)
    assert logits.flatten().tolist() == [1 * 2 + 2 * 20 + 1 + 0.5, 3 * 1 + 1 * 10 + 3 + 0.5]


def test_views_show_what_is_there_and_some_of_what_is_not(view: TrainingView) -> None:
    there, missing = 0, 0
    for index in range(6):
        example = view[0, index]
        names = [shown.text for shown in example.classes]
        assert len(names) == len(set(names)) and sum(not shown.present for shown in example.classes) <= 4
        for shown in example.classes:
            assert shown.mask is not None and shown.mask.shape == (64, 64)
            assert shown.mask.any() == (shown.kind == "class") == shown.present
            asked = [q for q in example.questions if q.kind == "class" and shown.text in q.text]
            assert all(np.array_equal(q.mask, shown.mask) for q in asked if q.mask is not None)
            there, missing = there + bool(shown.present), missing + (not shown.present)
    assert there >= 6 and missing >= 6


def test_a_step_teaches_features_and_words(model: SegEarth, view: TrainingView) -> None:
    batch = Collator(model.prompt_encoder, False, with_classes=True)([view[0, i] for i in range(3)])
    assert batch.classes is not None and set(batch.classes.image_index.tolist()) == {0, 1, 2}
    output = model.train()(batch)
    assert output.class_logits is not None
    assert output.class_logits.shape == (len(batch.classes.masks), 16, 16)
    losses = Criterion(LossConfig(sampling="dense", classes=2.0))(output, batch)
    plain = Criterion(LossConfig(sampling="dense"))(output, batch)
    assert float((losses.total - plain.total).detach()) == pytest.approx(2 * float(losses.classes.detach()), rel=1e-4)
    losses.classes.backward()
    assert model.class_head is not None and model.class_head.direction.weight.grad is not None
    moved = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    for part in ("class_head", "pixel_decoder.mask_features", "vision_encoder", "language_model"):
        assert any(name.startswith(part) for name in moved), part
    assert not any(name.startswith("mask_decoder") for name in moved)  # its questions are another matter


def test_where_no_class_is_known_the_loss_is_zero_and_keeps_its_graph(model: SegEarth, view: TrainingView) -> None:
    """Another process may have some, and waits for this one's gradients."""
    examples = [view[0, 0]]
    examples[0].classes = []
    batch = Collator(model.prompt_encoder, False, with_classes=True)(examples)
    assert batch.classes is not None and not batch.classes.known.any()
    output = model.train()(batch)
    assert output.class_logits is not None
    loss = class_loss(output.class_logits, batch.classes, 0.05)
    assert float(loss.detach()) == 0 and loss.requires_grad


def test_only_known_cells_count() -> None:
    logits = torch.tensor([[[4.0, -4.0], [0.0, 0.0]]])
    masks = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    known = torch.tensor([[[True, True], [False, False]]])
    maps = ClassMaps(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, dtype=torch.long), masks, known)
    assert float(class_loss(logits, maps, 0.0)) == pytest.approx(np.log1p(np.exp(-4.0)), rel=1e-5)


def test_without_the_head_nothing_is_drawn(debug_model: SegEarth) -> None:
    transform = debug_model.image_transform
    plain = TrainingView([SyntheticDataset(length=1, size=96)], transform, DataConfig(), 0)
    assert plain[0, 0].classes == []
    batch = Collator(debug_model.prompt_encoder, False)([plain[0, 0]])
    assert batch.classes is None and debug_model(batch).class_logits is None

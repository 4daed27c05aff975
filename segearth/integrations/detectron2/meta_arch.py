"""SegEarth as a meta-architecture of detectron2.

Shapes: ``H W`` an image's own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

from segearth.config import LossConfig
from segearth.data.feed.loading import Collator, frame_example, group_by_frame
from segearth.errors import DatasetError
from segearth.inference.predictor import Predictor
from segearth.losses.criterion import LOSS_NAMES, Criterion
from segearth.models.segearth import SegEarth
from segearth.segmenter import Segmenter
from segearth.structures import Question, Segmentation
from segearth.zoo.lookup import build_from_spec
from segearth.zoo.opening import open_model

TRAINED = tuple(name for name in LOSS_NAMES if name != "classes")  # entries are single questions, without class maps


@META_ARCH_REGISTRY.register()
class SegEarthMetaArch(nn.Module):
    """SegEarth with detectron2's interface: it takes a list of dicts, one for each question.

    Questions about the same image share one pass of the vision encoder.

    Attributes:
        model: The model; ``model.save_pretrained(folder)`` writes it for use without detectron2.
    """

    @configurable
    def __init__(self, model: SegEarth, loss: LossConfig | None = None) -> None:
        """Wraps a model.

        Args:
            model: From ``open_model``, or from ``build_from_spec`` for one that is to be trained.
            loss: Weights of the losses.
        """
        super().__init__()
        self.model = model
        self.criterion = Criterion(loss or LossConfig())
        self.collator = Collator(
            model.prompt_encoder,
            with_answers=self.criterion.config.text > 0,
            with_candidates=model.region_chooser is not None,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``cfg.MODEL.SEGEARTH``; see :func:`add_segearth_config`."""
        node = cfg.MODEL.SEGEARTH
        if node.WEIGHTS == "auto":
            return {"model": open_model(node.NAME)}
        return {"model": build_from_spec({"name": node.NAME, "pretrained": node.WEIGHTS})}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def forward(self, entries: Sequence[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Returns losses in training mode and masks in eval mode.

        Args:
            entries: Each with ``image``, a ``uint8`` RGB tensor ``(3, H, W)``, and ``question``; ``task`` is
                ``"referring"`` if left out. In training also ``mask``, a boolean tensor ``(H, W)``.

        Returns:
            In training the weighted losses by name; their sum is what this library's own trainer minimises. In
            evaluation one dict for each entry: ``instances``, with masks at the size of the entry's ``image`` (no
            instance if the thing is judged absent), and ``presence`` and ``frame_mask`` as in
            :class:`segearth.structures.Segmentation`.

        Raises:
            DatasetError: A training entry has no mask.
            QuestionError: A question is empty or too long.
        """
        return self._losses(entries) if self.training else answer_entries(Predictor(self.model), entries)

    def _losses(self, entries: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        if any("mask" not in entry for entry in entries):
            raise DatasetError("a training entry has no 'mask'; give the loader a QuestionMapper as its mapper")
        self.model.known_words = None  # what is learned here is not kept in a list, so from now on every word is taken
        examples = [
            frame_example(_image(entries[group[0]]), [_question(entries[i]) for i in group], self.model.image_transform)
            for group in group_by_image(entries)
        ]
        # detectron2's loaders mix image sizes, and a tensor holds one size only, so each frame size is a separate pass.
        total: dict[str, Tensor] = {}
        for alike in group_by_frame(examples):
            batch = self.collator(alike).to(self.device)
            losses = self.criterion(self.model(batch), batch)
            for name in TRAINED:
                weight = getattr(self.criterion.config, name) * len(batch.question_ids) / len(entries)
                total[f"loss_{name}"] = total.get(f"loss_{name}", 0) + weight * getattr(losses, name)
        return total


def answer_entries(segmenter: Segmenter, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Asks any segmenter what detectron2's loaders give, and answers in detectron2's form.

    Args:
        segmenter: Is given each image once.
        entries: As for :meth:`SegEarthMetaArch.forward`.

    Returns:
        One dict an entry, as there.
    """
    answers: dict[int, Segmentation] = {}
    for group in group_by_image(entries):
        segmenter.set_image(_image(entries[group[0]]))
        asked = [_question(entries[i]) for i in group]
        found = segmenter.predict([q.text for q in asked], task=[q.task for q in asked])
        answers |= zip(group, found, strict=True)
    return [as_output(answers[i]) for i in range(len(entries))]


def add_segearth_config(cfg: CfgNode) -> None:
    """Adds this model's settings to a yacs configuration and selects it as the meta-architecture.

    ``MODEL.SEGEARTH.NAME`` is a model of the zoo. ``MODEL.SEGEARTH.WEIGHTS`` is ``"auto"`` for the zoo's weights,
    ``""`` for random ones, or what :func:`segearth.load` takes, such as a folder, whose configuration is then used too.
    Checkpoints of detectron2 are named by ``MODEL.WEIGHTS``, as usual.
    """
    cfg.MODEL.META_ARCHITECTURE = "SegEarthMetaArch"
    cfg.MODEL.SEGEARTH = CfgNode({"NAME": "segearth_tiny", "WEIGHTS": "auto"})
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False  # keep questions about absent things, whose masks are empty
    cfg.INPUT.FORMAT = "RGB"


def group_by_image(entries: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Returns the indices of the entries in groups with equal ``image`` tensors, in the order of the list."""
    groups: list[list[int]] = []
    for i, entry in enumerate(entries):
        for group in groups:
            if torch.equal(entries[group[0]]["image"], entry["image"]):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def as_output(answer: Segmentation) -> dict[str, Any]:
    """Returns an answer in the form of detectron2's model outputs."""
    return {"instances": to_instances(answer), "presence": answer.presence, "frame_mask": answer.frame_mask}


def to_instances(answer: Segmentation) -> Instances:
    """Returns an answer as one instance of class 0 at the image's size, or as no instance if its mask is empty."""
    masks = torch.from_numpy(answer.mask)[None][: int(answer.mask.any())]  # (1, H, W) or (0, H, W)
    return Instances(
        answer.mask.shape,
        pred_masks=masks,
        pred_boxes=BitMasks(masks).get_bounding_boxes(),
        scores=torch.full((len(masks),), answer.score),
        pred_classes=torch.zeros(len(masks), dtype=torch.long),
    )


def _image(entry: dict[str, Any]) -> np.ndarray:
    return entry["image"].permute(1, 2, 0).cpu().numpy()


def _question(entry: dict[str, Any]) -> Question:
    mask = entry["mask"].cpu().numpy() if "mask" in entry else None
    return Question(
        text=entry["question"],
        mask=mask,
        answer=entry.get("answer"),
        task=entry.get("task", "referring"),
        id=entry.get("question_id", ""),
    )

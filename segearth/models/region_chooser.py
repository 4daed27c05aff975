"""Choosing among the regions of a mask by comparing them, as "the second largest building" asks for.

A cell's logit tells what is there. Whether its building is the *largest* depends on every other building in the image,
and no product of a cell's features with one vector can tell that. :class:`RegionChooser` therefore takes the connected
regions of the mask that the decoder drew, which shows all candidates, and keeps those that the words ask for.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from segearth.layers.blocks import MLP
from segearth.model_types import Choice
from segearth.models.word_heads import WORD_DIM, soft_maximum
from segearth.utils.devices import to_device

HIDDEN = 64
START = 4.0  # the logit by which regions are kept at the start
# A region is in or out as a whole. Without a factor, one that is left out with a logit of -1 would leave a quarter of
# its probability in each of its cells, and a large one would count for more than a small one that is kept.
SHARPNESS = 8.0
RANKS = 3  # a region learns whether it is the first, second or third by size; those after have no rank of their own
FACTS = RANKS + 8
LEAST = 0.02  # regions with less than this share of the largest one's area are specks, not the "smallest building"


class FoundRegions(NamedTuple):
    """The connected regions of ``N`` masks; ``K`` is the largest number of one mask's regions, at least 1.

    Attributes:
        labels: ``(N, h, w)`` long: the region that each cell belongs to or, between regions, is nearest to. Region 0 is
            the largest of its mask, 1 the next, and so on.
        facts: ``(N, K, FACTS)`` float, what is known of each region; see :func:`describe`.
        real: ``(N, K)`` bool: whether the mask has so many regions.
    """

    labels: Tensor
    facts: Tensor
    real: Tensor


def find_regions(logits: Tensor) -> FoundRegions:
    """Finds the regions where logits are positive.

    It is computed on the host: a GPU is waited for once, and the logits of a batch are small.

    Args:
        logits: ``(N, h, w)``; no gradient goes through what is found.

    Returns:
        The regions, on the device of ``logits``.
    """
    maps = logits.detach().float().cpu().numpy()
    found = [_regions_of(each) for each in maps]
    most = max((len(each) for _, each in found), default=1)
    facts, real = np.zeros((len(maps), max(most, 1), FACTS), np.float32), np.zeros((len(maps), max(most, 1)), bool)
    for number, (_, each) in enumerate(found):
        facts[number, : len(each)], real[number, : len(each)] = each, True
    labels = np.stack([each for each, _ in found]) if found else np.zeros(maps.shape, np.int64)
    tensors = (torch.from_numpy(each) for each in (labels, facts, real))
    return FoundRegions(*(to_device(each, logits.device) for each in tensors))


def _regions_of(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels ``(h, w)`` and facts ``(K, FACTS)`` of one map; ``K`` is 0 where no logit is positive."""
    positive = logits > 0
    count, marked, boxes, centroids = cv2.connectedComponentsWithStats(positive.astype(np.uint8))  # 0 is no region
    if count == 1:
        return np.zeros(logits.shape, np.int64), np.zeros((0, FACTS), np.float32)
    numbers = marked[positive]
    order = np.argsort(-boxes[1:, cv2.CC_STAT_AREA], kind="stable") + 1
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count - 1)
    # Of a distance transform with labels, every cell has the label of the nearest region; its labels are its own.
    _, nearest = cv2.distanceTransformWithLabels((~positive).astype(np.uint8), cv2.DIST_L2, 3)
    rank_of = np.empty(nearest.max() + 1, np.int64)
    rank_of[nearest[positive]] = rank[numbers]
    sums = np.bincount(numbers, logits[positive])
    return rank_of[nearest], describe(boxes[order], centroids[order], sums[order], logits.shape)


def describe(boxes: np.ndarray, centroids: np.ndarray, sums: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns what is known of each region of a map, ``(K, FACTS)`` float32, each number small.

    Whether it is the first, second, third by size (1 or 0 each), and the last but for specks; the logarithms of its
    share of the frame, and of its size beside the largest one's; its mean logit; where it lies across and down; whether
    it reaches the frame's edge, where it may be cut off; and how many regions there are, as one over their number.

    Args:
        boxes: ``(K, 5)`` left, top, width, height and area in cells, the largest area first.
        centroids: ``(K, 2)`` column and row.
        sums: ``(K,)`` sum of the logits in each.
        shape: Height and width of the map.
    """
    height, width = shape
    left, top, wide, high, areas = boxes.T
    count = len(areas)
    facts = np.zeros((count, FACTS), np.float32)
    facts[:RANKS, :RANKS] = np.eye(RANKS)[:count]
    facts[(areas >= LEAST * areas[0]).sum() - 1, RANKS] = 1
    facts[:, RANKS + 1] = np.log(areas / (height * width)) / 5 + 1
    facts[:, RANKS + 2] = np.log(areas / areas[0]) / 2
    facts[:, RANKS + 3] = sums / areas / 5
    facts[:, RANKS + 4 : RANKS + 6] = (centroids + 0.5) / (width, height) * 2 - 1
    facts[:, RANKS + 6] = (left == 0) | (top == 0) | (left + wide == width) | (top + high == height)
    facts[:, RANKS + 7] = 1 / count
    return facts


class RegionChooser(nn.Module):
    """Keeps the regions of each mask that its words ask for.

    The words give each fact of a region a weight. Where the weighted facts add up to less than zero, the region is
    taken out of the mask, but for the likeliest one: something is always kept.
    """

    def __init__(self) -> None:
        """Makes a chooser that keeps everything at first."""
        super().__init__()
        self.mlp = MLP([WORD_DIM, HIDDEN, FACTS + 1])
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, logits: Tensor, words: Tensor) -> tuple[Tensor, Choice]:
        """Lowers the logits of regions that are not asked for.

        Args:
            logits: ``(N, h, w)``: where the candidates are.
            words: ``(N, WORD_DIM)`` from :class:`~segearth.models.word_heads.BagOfWords`.

        Returns:
            ``(N, h, w)``, nowhere larger than ``logits``, and what was chosen. A mask of one region stays as it is.
        """
        regions = find_regions(logits)
        # In fp32: in half precision the many cells of a region would add up to a wrong gradient of its number.
        weights, start = self.mlp(words).float().split([FACTS, 1], -1)
        keep = (regions.facts @ weights[:, :, None])[:, :, 0] + start + START  # (N, K)
        # If no region is what the words ask for, the likeliest is: whether there is one at all is left to presence.
        best = keep.masked_fill(~regions.real, -torch.inf).argmax(1, keepdim=True)
        gates = (SHARPNESS * keep).scatter(1, best, SHARPNESS * START)
        kept = gates.gather(1, regions.labels.flatten(1)).view_as(logits)
        chosen = -soft_maximum(-logits, -kept.to(logits.dtype))  # a soft minimum, as of a box's edges
        several = regions.real.sum(1) > 1
        return torch.where(several[:, None, None], chosen, logits), Choice(keep, regions.labels, regions.real)

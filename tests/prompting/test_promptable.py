"""Boxes and points in, masks out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segearth.errors import CheckpointError, ImageError, SegEarthError, UnknownNameError
from segearth.prompting.answers import Instance
from segearth.prompting.promptable import (
    BoxFill,
    PromptableSegmenter,
    PromptedMask,
    filled_box,
    joined,
    level_box,
    without_doubles,
)
from segearth.prompting.sam import PromptableSam
from segearth.prompting.tiny import tiny_sam3_vision

BOTH = Instance(box=(10, 12, 60, 70), points=((20, 30), (40, 50)))
BOX = Instance(box=(5, 5, 100, 40))
POINTS = Instance(points=((20, 30), (100, 90)), point_labels=(1, 0))


@pytest.fixture(params=["boxes", "sam2"])
def segmenter(request: pytest.FixtureRequest, sam2: Any) -> PromptableSegmenter:
    return BoxFill() if request.param == "boxes" else PromptableSam(sam2)


def test_each_answers_alone_as_it_does_among_others(segmenter: PromptableSegmenter, picture: np.ndarray) -> None:
    assert isinstance(segmenter, PromptableSegmenter)
    asked = [BOTH, BOX, POINTS, Instance(), Instance(box=(40, 40, 41, 43)), BOTH]
    segmenter.set_image(picture)
    together = segmenter.masks(asked)
    assert len(together) == 6 and segmenter.masks([]) == []
    for instance, found in zip(asked, together, strict=True):
        (alone,) = segmenter.masks([instance])
        assert found.mask.shape == picture.shape[:2] and found.mask.dtype == bool
        assert np.array_equal(found.mask, alone.mask)
        assert found.score == pytest.approx(alone.score, abs=1e-5) and 0 <= found.score <= 1
    assert not together[3].mask.any() and together[3].score == 0


def test_without_an_image_there_is_no_answer(segmenter: PromptableSegmenter, picture: np.ndarray) -> None:
    with pytest.raises(SegEarthError, match="no image is set"):
        segmenter.masks([BOX])
    segmenter.set_image(picture)
    with pytest.raises(ImageError):
        segmenter.set_image("nowhere.png")
    with pytest.raises(SegEarthError, match="no image is set"):
        segmenter.masks([BOX])


def test_the_completions_of_a_group_share_one_encoding(sam2: Any, picture: np.ndarray) -> None:
    passes: list[int] = []
    handle = sam2.vision_encoder.register_forward_hook(lambda *_: passes.append(1))
    segmenter = PromptableSam(sam2, keep=2)
    images = [picture, picture[::-1].copy(), picture[:, ::-1].copy()]
    for image in images[:2]:
        for _ in range(8):  # the completions of a group, each with its own copy of the image
            segmenter.set_image(image.copy())
            segmenter.masks([BOTH, BOX])
    assert segmenter.encodings == len(passes) == 2
    segmenter.set_image(images[0])  # still kept, and now the one asked last
    segmenter.set_image(images[2])
    segmenter.set_image(images[0])
    assert segmenter.encodings == 3
    segmenter.set_image(images[1])  # which had to go
    assert segmenter.encodings == len(passes) == 4
    handle.remove()


def test_equal_bytes_of_another_shape_are_another_image(sam2: Any, picture: np.ndarray) -> None:
    segmenter = PromptableSam(sam2)
    segmenter.set_image(picture)
    segmenter.set_image(picture.reshape(120, 96, 3))
    assert segmenter.encodings == 2 and segmenter.masks([BOX])[0].mask.shape == (120, 96)


def test_kept_images_answer_as_they_did(sam2: Any, picture: np.ndarray) -> None:
    segmenter = PromptableSam(sam2)
    segmenter.set_image(picture)
    before = segmenter.masks([BOTH])[0].mask
    segmenter.set_image(picture[::-1])
    segmenter.masks([BOTH])
    segmenter.set_image(picture)
    assert np.array_equal(segmenter.masks([BOTH])[0].mask, before)


def test_what_sam_is_asked(sam2: Any, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 x 96 px become 64 x 64: x * 64 / 120, y * 64 / 96, and half a pixel less, which SAM adds itself."""
    asked: list[dict[str, Any]] = []
    forward = sam2.forward

    def listening(**inputs: Any) -> Any:
        asked.append(inputs)
        return forward(**inputs)

    monkeypatch.setattr(sam2, "forward", listening)
    segmenter = PromptableSam(sam2)
    segmenter.set_image(picture)
    far = Instance(box=(-1e300, 0, 30, 1e300), points=((60, 48), (math.inf, 0)), point_labels=(1, 0))
    segmenter.masks([Instance(box=(30, 24, 60, 96), points=((15, 12), (0, 0))), far])
    (inputs,) = asked
    assert inputs["input_boxes"].tolist() == [[[15.5, 15.5, 31.5, 63.5], [-0.5, -0.5, 15.5, 63.5]]]
    assert inputs["input_points"].tolist() == [[[[7.5, 7.5], [-0.5, -0.5]], [[31.5, 31.5], [63.5, -0.5]]]]
    assert inputs["input_labels"].tolist() == [[[1, 1], [1, 0]]]
    assert inputs["multimask_output"] is False


def test_nothing_is_expected_of_an_empty_mask(sam2: Any, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = sam2.forward

    def seeing_nothing(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.pred_masks = output.pred_masks.clone()
        output.pred_masks[0, 0] = -1.0
        return output

    segmenter = PromptableSam(sam2)
    segmenter.set_image(picture)
    monkeypatch.setattr(sam2, "forward", seeing_nothing)
    empty, other = segmenter.masks([BOTH, BOTH])
    assert not empty.mask.any() and empty.score == 0 and other.score > 0


def test_many_prompts_are_asked_a_few_at_a_time(
    sam2: Any, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segearth.prompting.sam.PROMPTS_AT_ONCE", 3)
    calls: list[int] = []
    handle = sam2.mask_decoder.register_forward_hook(lambda *_: calls.append(1))
    segmenter = PromptableSam(sam2)
    segmenter.set_image(picture)
    found = segmenter.masks([Instance(box=(0, 0, 10 + i, 20)) for i in range(7)])
    handle.remove()
    assert len(calls) == 3 and len(found) == 7


def test_the_frame_of_sam_is_normalised(sam2: Any) -> None:
    grey = np.full((20, 40, 3), 255, np.uint8)
    pixels, content = PromptableSam(sam2)._frame(grey)
    assert pixels.shape == (1, 3, 64, 64) and content == (64, 64)
    white = [(1 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert torch.allclose(pixels[0].amin((1, 2)), torch.tensor(white))
    assert torch.equal(pixels[0].amin((1, 2)), pixels[0].amax((1, 2)))


@pytest.mark.parametrize("shape", [(48, 96), (96, 48)])
def test_the_first_sam_pads_its_frame(shape: tuple[int, int]) -> None:
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    config = SamConfig(
        vision_config=dict(
            hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8,
            window_size=4, global_attn_indexes=[0], mlp_dim=32, num_pos_feats=8,
        ),
        prompt_encoder_config=dict(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4),
        mask_decoder_config=dict(hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16),
    )  # fmt: skip
    segmenter = PromptableSam(SamModel(config))
    image = np.full((*shape, 3), 200, np.uint8)
    pixels, content = segmenter._frame(image)
    assert content == (shape[0] * 2 // 3, shape[1] * 2 // 3)
    assert (pixels[0, :, content[0] :] == 0).all() and (pixels[0, :, :, content[1] :] == 0).all()
    assert (pixels[0, :, : content[0], : content[1]] != 0).all()
    segmenter.set_image(image)
    for found in segmenter.masks([BOTH, POINTS, BOX]):
        assert found.mask.shape == shape and 0 <= found.score <= 1
    assert segmenter._image is not None
    inside = torch.full((1, 16, 16), -1.0)
    inside[:, : content[0] // 4, : content[1] // 4] = 1  # all of the image and nothing of the padding
    mask = segmenter._at_image_size(inside, segmenter._image)[0]
    assert mask[:-2, :-2].all()


def test_the_tracker_of_sam3(picture: np.ndarray) -> None:
    from transformers import Sam3TrackerConfig, Sam3TrackerModel

    torch.manual_seed(0)
    config = Sam3TrackerConfig(
        vision_config=tiny_sam3_vision(64),
        prompt_encoder_config=dict(hidden_size=32, image_size=64, patch_size=8),
        mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
    )
    segmenter = PromptableSam(Sam3TrackerModel(config))
    pixels, _ = segmenter._frame(np.full((20, 40, 3), 255, np.uint8))
    assert torch.equal(pixels, torch.ones(1, 3, 64, 64))  # from -1 to 1
    segmenter.set_image(picture)
    assert [found.mask.shape for found in segmenter.masks([BOTH, POINTS, BOX])] == [(96, 120)] * 3


def test_edgetam_is_asked_saved_and_opened(picture: np.ndarray, tmp_path: Path) -> None:
    """Its encoder is one of timm's, here a narrow one."""
    from transformers import EdgeTamConfig, EdgeTamModel

    torch.manual_seed(0)
    narrow = dict(in_chans=3, features_only=True, out_indices=[0, 1, 2, 3], embed_dim=(8, 16, 32, 64), depth=(1,) * 4)
    config = EdgeTamConfig(
        vision_config=dict(
            backbone_config=dict(
                model_type="timm_wrapper", architecture="repvit_m1", num_classes=2, model_args=narrow
            ),
            backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=64),
        mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
    )  # fmt: skip
    model = EdgeTamModel(config).eval()
    model.save_pretrained(tmp_path / "edgetam")
    found = []
    for segmenter in (PromptableSam(model), PromptableSam.from_pretrained(tmp_path / "edgetam")):
        segmenter.set_image(picture)
        found.append([answer.mask for answer in segmenter.masks([BOTH, POINTS, BOX])])
        assert segmenter.encodings == 1
    assert np.array_equal(*found) and found[0][0].shape == picture.shape[:2]


def test_sam_is_saved_and_opened(sam2: Any, picture: np.ndarray, tmp_path: Path) -> None:
    sam2.save_pretrained(tmp_path / "sam")
    found = []
    for segmenter in (PromptableSam(sam2), PromptableSam.from_pretrained(tmp_path / "sam")):
        segmenter.set_image(picture)
        found.append(segmenter.masks([BOTH])[0].mask)
    assert np.array_equal(*found)


def test_what_is_no_sam(tiny_vlm: tuple[Any, Any], tmp_path: Path) -> None:
    tiny_vlm[0].save_pretrained(tmp_path / "vlm")
    with pytest.raises(CheckpointError, match="is a 'qwen2_5_vl', which takes no boxes or points; give one of"):
        PromptableSam.from_pretrained(tmp_path / "vlm")
    with pytest.raises(CheckpointError, match="no promptable segmenter at 'runs/nowhere'"):
        PromptableSam.from_pretrained("runs/nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="cannot be opened") as said:
        PromptableSam.from_pretrained(tmp_path / "empty")
    assert "\n" not in str(said.value)
    with pytest.raises(UnknownNameError, match="unknown promptable segmenter 'qwen2_5_vl'"):
        PromptableSam(tiny_vlm[0])


def test_a_box_is_filled_to_the_pixel() -> None:
    assert np.argwhere(filled_box(Instance(box=(1, 0, 3, 2)), 4, 5)).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert np.argwhere(filled_box(Instance(box=(0.6, 0.4, 1.4, 1.6)), 4, 5)).tolist() == []  # holds no centre
    assert np.argwhere(filled_box(Instance(box=(0.4, 0.4, 1.6, 0.6)), 4, 5)).tolist() == [[0, 0], [0, 1]]
    assert filled_box(Instance(box=(-9, -9, 1e300, 99)), 4, 5).all()
    assert not filled_box(Instance(box=(9, 9, 12, 12)), 4, 5).any()
    assert not filled_box(POINTS, 40, 50).any()


def test_a_rotated_box_is_filled() -> None:
    level = filled_box(Instance(rotated_box=(5, 4, 6, 2, 0)), 8, 10)
    assert np.array_equal(level, filled_box(Instance(box=(2, 3, 8, 5)), 8, 10))
    upright = filled_box(Instance(rotated_box=(5, 4, 6, 2, 90)), 8, 10)
    assert np.array_equal(upright, filled_box(Instance(box=(4, 1, 6, 7)), 8, 10))
    # 45 degrees clockwise, rows counted downwards: the long side runs from the upper left to the lower right.
    slanted = filled_box(Instance(rotated_box=(5, 5, 10, 2, 45)), 10, 10)
    assert slanted[2, 2] and slanted[7, 7] and not slanted[2, 7] and not slanted[7, 2]


@given(st.floats(-180, 180), st.floats(1, 20), st.floats(1, 20))
def test_the_level_box_encloses_the_rotated_one(degrees: float, width: float, height: float) -> None:
    rotated = Instance(rotated_box=(30, 25, width, height, degrees))
    inner = filled_box(rotated, 50, 60)
    x0, y0, x1, y1 = level_box(rotated) or (0, 0, 0, 0)
    assert not (inner & ~filled_box(Instance(box=(x0 - 1e-6, y0 - 1e-6, x1 + 1e-6, y1 + 1e-6)), 50, 60)).any()
    assert (x1 - x0) * (y1 - y0) >= width * height - 1e-6
    assert level_box(Instance(box=(1, 2, 3, 4), rotated_box=(9, 9, 1, 1, 0))) == (1, 2, 3, 4)
    assert level_box(POINTS) is None


def test_of_two_boxes_for_one_thing_the_smaller_goes() -> None:
    large, small = Instance(box=(0, 0, 10, 10)), Instance(box=(0, 0, 10, 6))  # IoU 0.6
    half = Instance(box=(0, 0, 10, 5))  # IoU 0.5 with the large one, which is not more than 0.5
    assert without_doubles([small, large]) == [large]
    assert without_doubles([large, half]) == [large, half]
    assert without_doubles([half, small, POINTS, large]) == [half, POINTS, large]  # what drops `half` is dropped itself
    first, second = Instance(box=(1, 1, 5, 5), label="a"), Instance(box=(1, 1, 5, 5), label="b")
    assert without_doubles([first, second]) == [first]
    rotated = Instance(rotated_box=(5, 5, 10, 10, 0))
    assert without_doubles([rotated, small]) == [rotated]
    assert without_doubles([]) == []


boxes = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda b: Instance(box=(b[0], b[1], b[0] + b[2], b[1] + b[3]))
)


@given(st.lists(boxes, max_size=12))
def test_what_stays_does_not_overlap_and_nothing_else_goes(given_boxes: list[Instance]) -> None:
    from segearth.metrics.boxes import box_area, box_iou

    kept = without_doubles(given_boxes)
    values = [one.box for one in kept]
    if kept:
        assert (np.triu(box_iou(values, values), 1) <= 0.5).all()
    for gone in [one for one in given_boxes if one not in kept]:
        iou = box_iou([gone.box], values)[0]
        assert any(i > 0.5 and box_area([k])[0] >= box_area([gone.box])[0] for i, k in zip(iou, values, strict=True))
    assert without_doubles(kept) == kept


def test_masks_are_joined_by_or() -> None:
    masks = [filled_box(Instance(box=box), 8, 10) for box in [(0, 0, 4, 4), (2, 2, 6, 6), (9, 9, 9, 9)]]
    found = joined([PromptedMask(mask, score) for mask, score in zip(masks, (0.9, 0.4, 0.0), strict=True)], 8, 10)
    assert np.array_equal(found.mask, masks[0] | masks[1]) and found.regions is not None
    assert [(region.box, region.score) for region in found.regions] == [((0, 0, 4, 4), 0.9), ((2, 2, 6, 6), 0.4)]
    nothing = joined([], 8, 10)
    assert nothing.mask.shape == (8, 10) and not nothing.mask.any() and nothing.regions == ()

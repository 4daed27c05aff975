"""Every name and shape of the published files, both ways."""

from __future__ import annotations

import json
import resource
import time

import pytest
import torch
from published import Golden

from segearth.config import ModelConfig, from_dict, to_dict
from segearth.convert import mask2former, segearth_r1
from segearth.convert.driver import published_state
from segearth.convert.rules import check_shapes, to_ours
from segearth.errors import CheckpointError
from segearth.models.build import build_on_meta
from segearth.zoo.cards import CARDS
from segearth.zoo.lookup import model_config


@pytest.fixture
def full_size(golden: Golden) -> dict[str, torch.Tensor]:
    shapes = json.loads(golden("refkeys_full.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        return {name: torch.empty(facts["shape"]) for name, facts in shapes.items()}


def test_full_size_both_ways(full_size: dict[str, torch.Tensor]) -> None:
    """935 keys in, 935 keys out, within 20 s of one processor and without the weights' 6 GB."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    language = {"pretrained": None, "head_bias": False, "config": {"vocab_size": 50297}}
    changes = {"language_model": language, "text": {"tokenizer": "aerial"}}  # the hub is not asked
    model = build_on_meta(model_config({"name": "segearth_swinb_phi1_5", **changes}))
    with torch.device("meta"):
        back = published_state(model.state_dict(), model.config)
    translation = segearth_r1.from_segearth_r1(full_size, num_heads=32)
    check_shapes(translation.state, {k: v.shape for k, v in model.state_dict().items()}, "in")
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in full_size.items()}
    unused = sum(map(len, translation.unused.values()))
    assert (translation.matched + unused, len(back)) == (935, 935)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    assert time.process_time() - start < 20  # not the clock's time: other tests share the processors


def test_the_card_is_what_the_shapes_tell(full_size: dict[str, torch.Tensor]) -> None:
    tokenizer = CARDS["segearth_r1_rrsisd"].config.text.tokenizer
    config = segearth_r1.infer_config(full_size, {"num_attention_heads": 32}, tokenizer)
    card = to_dict(CARDS["segearth_r1_rrsisd"].config)
    assert to_dict(from_dict(ModelConfig, to_dict(config), origin="inferred")) == card


def test_what_is_not_used_has_a_reason(full_size: dict[str, torch.Tensor]) -> None:
    unused = segearth_r1.from_segearth_r1(full_size, 32).unused
    assert sum(len(names) for reason, names in unused.items() if "class head" in reason) == 8
    assert sum(len(names) for reason, names in unused.items() if "window size" in reason) == 24
    assert all(len(reason.split()) > 4 for reason in unused)


def test_mask2former_goes_where_the_public_code_puts_it(golden: Golden) -> None:
    naming = json.loads(golden("mask2former_naming.json").read_text(encoding="utf-8"))
    assert len(naming["mapping"]) == 647
    rules = segearth_r1.published_rules(num_heads=32)
    for name, facts in naming["mapping"].items():
        tensor = torch.empty(facts["shape"], device="meta")
        ours = mask2former.from_mask2former({name: tensor})
        theirs = to_ours({facts["model_key"]: tensor}, rules, segearth_r1.UNUSED)
        added = {bias + ".bias" for bias in mask2former.CONVOLUTIONS_WITHOUT_BIAS}
        assert ours.state.keys() - added == theirs.state.keys() - added, name
        assert ours.matched == theirs.matched, name
    for name in ("sem_seg_head.predictor.class_embed.weight", "criterion.empty_weight"):  # dropped there, and here
        assert mask2former.from_mask2former({name: torch.zeros(1)}).matched == 0


@pytest.mark.parametrize("adapt", [lambda s: segearth_r1.from_segearth_r1(s, 4, "a.bin"),
                                   lambda s: mask2former.from_mask2former(s, "a.bin")])  # fmt: skip
def test_an_unknown_key_is_printed(adapt) -> None:
    with pytest.raises(CheckpointError, match=r"a\.bin: 1 tensors are unknown here: teapot\.weight"):
        adapt({"teapot.weight": torch.zeros(1)})

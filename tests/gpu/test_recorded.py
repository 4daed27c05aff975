"""The recorded answers of the public code, on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from published import published_folder, recorded_questions, relative_error
from safetensors.torch import load_file

from segearth.convert.driver import convert
from segearth.models.segearth import SegEarth
from segearth.structures import Task

pytestmark = pytest.mark.gpu
BOUND = 1e-3  # another device sums in another order than the recording's


@pytest.mark.parametrize(("kind", "task"), [("refer_seg", "referring"), ("reason_seg", "reasoning")])
def test_answers(device: torch.device, golden: Callable[[str], Path], tmp_path: Path, kind: str, task: Task) -> None:
    weights, tokenizer = golden("tiny_state_dict.safetensors"), golden("tokenizer/tokenizer.json")
    recorded = {name: value.to(device) for name, value in load_file(golden(f"e2e_eval_{kind}.safetensors")).items()}
    source = published_folder(weights, tokenizer, tmp_path / "source")
    model = SegEarth.from_pretrained(convert([str(source)], tmp_path / "ours").folder).to(device)
    on_the_host = {name: value.cpu() for name, value in recorded.items()}
    questions = recorded_questions(model.prompt_encoder.tokenizer, on_the_host, task)
    index = torch.arange(2)
    for learning in (False, True):  # what is kept of the prompt, and all of it in one row
        with torch.set_grad_enabled(learning):
            features = model.encode_image(recorded["in.images"], cache_prefix=not learning)
            text = model.prompt_encoder.encode(questions, whole=True).to(device)
            queries = model.encode_text(features, text, index)
            output = model.decode_masks(features, queries)
        before = features.prefix.embeds.shape[1]
        real = recorded["prep.attention_mask"][:, before:].bool()
        large = F.interpolate(output.mask_logits[None], size=256, mode="bilinear", align_corners=False)[0]
        errors = {
            "hidden states": relative_error(
                queries.hidden_states[real], recorded["llm.last_hidden_state"][:, before:][real]
            ),
            "query": relative_error(queries.queries, recorded["SEG_embedding"][:, 0]),
            "mask logits": relative_error(large, recorded["upsampled_logits"][:, 0]),
            "pixels": float(((large > 0) != recorded["pred_masks_bool"].bool()).float().mean()),
        }
        print(f"{task}: {', '.join(f'{name} {value:.1e}' for name, value in errors.items())}")
        assert max(errors.values()) <= BOUND

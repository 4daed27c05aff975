"""Prompter and promptable segmenter together answer like any other segmenter."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_fakes import FakeHub

import segearth
from segearth.config import UNKNOWN_SPLITS
from segearth.errors import CheckpointError, ConfigError, ImageError, SegEarthError, UnknownNameError
from segearth.models.segearth import SegEarth
from segearth.prompting.concepts import ConceptSegmenter
from segearth.prompting.promptable import BoxFill
from segearth.prompting.prompted import PromptedSegmenter
from segearth.prompting.prompter import Prompter
from segearth.prompting.sam import PromptableSam
from segearth.prompting.saved import CARD_FILE, ConceptCard, read_card, save_prompted, write_card
from segearth.prompting.templates import answer_template
from segearth.segmenter import Segmenter, facts_of
from segearth.zoo import opening


def written(*boxes: Sequence[float]) -> str:
    things = [{"bbox_2d": list(box), "positive_points": [[box[0] + 1, box[1] + 1], [box[2] - 1, box[3] - 1]]}
              for box in boxes]  # fmt: skip
    return f"<think>so</think><answer>```json\n{json.dumps(things)}\n```</answer>"


class Canned(Prompter):
    """Writes what it was told to, question by question; its frame is 64 x 64."""

    said: dict[str, str]

    def generate(self, conversations: Sequence[Any]) -> list[str]:
        texts = [str(turns) for turns in conversations]
        return [next(said for question, said in self.said.items() if question in text) for text in texts]


@pytest.fixture
def canned(tiny_vlm: tuple[Any, Any]) -> PromptedSegmenter:
    prompter = Canned(*tiny_vlm, side=64)
    prompter.said = {
        "two houses": written((0, 0, 32, 32), (32, 32, 64, 64)),
        "one house": written((16, 16, 48, 48)),
        "twice the same": written((0, 0, 32, 32), (0, 0, 32, 30)),
        "no house": written(),
        "prose": "There are several houses.",
        "far outside": written((70, 70, 90, 90)),
        "half outside": written((32, 32, 640, 640)),
        "hundreds": written(*[(i % 60, i // 60, i % 60 + 3, i // 60 + 3) for i in range(300)]),
    }
    return PromptedSegmenter(prompter, BoxFill())


def test_boxes_become_the_answer(canned: PromptedSegmenter, picture: np.ndarray) -> None:
    assert isinstance(canned, Segmenter) and facts_of(canned).side == 64
    canned.set_image(picture)  # 96 x 120 px
    two, none, one = canned.predict(["two houses", "no house", "one house"])
    assert [region.box for region in two.regions] == [(0, 0, 60, 48), (60, 48, 120, 96)]
    assert (two.present, two.presence, two.score) == (True, 1.0, 1.0) and two.mask.sum() == 2 * 60 * 48
    assert two.question == "two houses" and two.answer is None and two.logits is None
    assert (none.present, none.presence, none.score, none.regions) == (False, 0.0, 0.0, ()) and not none.mask.any()
    assert one.regions[0].box == (30, 24, 90, 72)
    assert (canned.failures, canned.answered) == (0, 3)


def test_an_unreadable_answer_is_empty_counted_and_said_once(
    canned: PromptedSegmenter, picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    canned.set_image(picture)
    with caplog.at_level(logging.WARNING, logger="segearth"):
        first, right, last = canned.predict(["prose", "two houses", "prose"], answer=True)
    assert canned.failures == 2 and canned.answered == 3 and right.present
    assert caplog.text.count("cannot be read") == 1
    for answer in (first, last):
        assert not answer.mask.any() and (answer.present, answer.presence, answer.score) == (False, 0.0, 0.0)
        assert answer.answer == "There are several houses." and answer.regions == ()


def test_boxes_are_cut_at_the_image_and_doubles_left_out(canned: PromptedSegmenter, picture: np.ndarray) -> None:
    canned.set_image(picture)
    far, half, twice = canned.predict(["far outside", "half outside", "twice the same"])
    assert not far.mask.any() and far.presence == 1 and not far.present and canned.failures == 0
    assert [region.box for region in half.regions] == [(60, 48, 120, 96)]
    asked: list[Any] = []
    canned.segmenter.masks = lambda instances: asked.extend(instances) or []  # type: ignore[method-assign]
    canned.predict("half outside")
    assert [(thing.box, thing.points) for thing in asked] == [((60, 48, 120, 96), ((61.875, 49.5),))]
    del canned.segmenter.masks  # type: ignore[method-assign]
    assert [region.box for region in twice.regions] == [(0, 0, 60, 48)]


def test_of_hundreds_of_things_the_first_are_looked_at(canned: PromptedSegmenter, picture: np.ndarray) -> None:
    canned.set_image(picture)
    canned.most_instances = 5
    assert 0 < len(canned.predict("hundreds").regions) <= 5


def test_questions_about_several_images(canned: PromptedSegmenter, picture: np.ndarray) -> None:
    canned.set_images([picture, picture[:48, :60]])
    questions = ["two houses", "two houses", "one house", "no house"]
    answers = canned.predict(questions, about=[0, 1, 1, 0])
    assert [answer.mask.shape for answer in answers] == [(96, 120), (48, 60), (48, 60), (96, 120)]
    assert [answer.mask.sum() for answer in answers] == [2 * 60 * 48, 2 * 30 * 24, 30 * 24, 0]
    with pytest.raises(SegEarthError, match="2 images are set; say which one"):
        canned.predict(questions)


def test_each_image_is_encoded_once_by_the_segmenter(canned: PromptedSegmenter, picture: np.ndarray, sam2: Any) -> None:
    sam = PromptableSam(sam2, keep=1)
    segmenter = PromptedSegmenter(canned.prompter, sam)
    segmenter.set_images([picture, picture[::-1]])
    answers = segmenter.predict(["two houses", "one house"] * 4, about=[0, 1, 1, 0] * 2)
    assert sam.encodings == 2  # eight questions in mixed order, and room for one image only
    for answer in answers:
        scores = [region.score for region in answer.regions]
        assert answer.score == pytest.approx(np.mean(scores)) if scores else answer.score == 0
    segmenter.predict("no house", about=0)
    assert sam.encodings == 2  # nothing to ask it


def test_what_was_written_is_the_answer_in_words(canned: PromptedSegmenter, picture: np.ndarray) -> None:
    canned.set_image(picture)
    assert canned.predict("one house", answer=True).answer == written((16, 16, 48, 48))
    canned.prompter.by_task["caption"] = answer_template("geovlm_caption@1")
    canned.prompter.said["say what"] = "<think>hm</think>\n<answer>A house.</answer>"
    caption = canned.predict("say what", task="caption", answer=True)
    assert caption.answer == "A house." and not caption.mask.any() and canned.failures == 0


def test_without_an_image(canned: PromptedSegmenter, picture: np.ndarray) -> None:
    canned.set_image(picture)
    with pytest.raises(ImageError):
        canned.set_image("nowhere.png")
    with pytest.raises(SegEarthError, match="no image is set"):
        canned.predict("two houses")


@pytest.fixture
def saved(tiny_vlm: tuple[Any, Any], sam2: Any, tmp_path: Path) -> Path:
    prompter = Prompter(*tiny_vlm, side=64, max_new_tokens=4)
    save_prompted(prompter, PromptableSam(sam2), tmp_path / "saved", trained_on=["synthetic train"])
    return tmp_path / "saved"


def test_a_saved_folder_is_opened_by_load(saved: Path, picture: np.ndarray) -> None:
    opened = segearth.load(saved, "cpu")
    assert isinstance(opened, PromptedSegmenter) and isinstance(opened.segmenter, PromptableSam)
    assert opened.prompter.template.id == "think2seg@1" and opened.prompter.max_new_tokens == 4
    opened.set_image(picture)
    assert opened.predict("the roofs").mask.shape == picture.shape[:2]
    assert opening.training_of(saved) == {"trained_on": ["synthetic train"]}
    with pytest.raises(CheckpointError, match="is a prompted segmenter, no SegEarth model; open it with"):
        opening.open_model(saved)
    with pytest.raises(ConfigError, match="are opened in fp32 or bf16, not in int8"):
        segearth.load(saved, "cpu", "int8")
    with pytest.raises(ConfigError, match="revision 'main' goes with a hub id"):
        segearth.load(saved, revision="main")


def test_a_model_of_the_hub_with_a_card_is_opened(
    saved: Path, hub: FakeHub, debug_model: SegEarth, tmp_path: Path
) -> None:
    first = hub.push("somebody/pointer", saved)
    opened = segearth.load("somebody/pointer", "cpu", "bf16")
    assert isinstance(opened, PromptedSegmenter) and isinstance(opened.segmenter, PromptableSam)
    assert opening.training_of("hf:somebody/pointer") == {"trained_on": ["synthetic train"]}
    debug_model.save_pretrained(tmp_path / "other")
    hub.push("somebody/pointer", tmp_path / "other")  # a later commit is another model
    assert isinstance(segearth.load("somebody/pointer", "cpu"), segearth.Predictor)
    assert isinstance(segearth.load("somebody/pointer", "cpu", revision=first), PromptedSegmenter)


def test_a_named_segmenter_is_made_of_models_of_the_hub(
    sam3: tuple[Any, Any], hub: FakeHub, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | Path] = []

    def kept(hub_id: str | Path, what: str = "model") -> Path:
        asked.append(hub_id)
        return tmp_path / "sam3"

    for part in sam3:
        part.save_pretrained(tmp_path / "sam3")
    for room in ("opening", "concepts"):
        monkeypatch.setattr(f"segearth.prompting.{room}.find_source", kept)
    opened = segearth.load("sam3", "cpu")
    assert isinstance(opened, ConceptSegmenter) and opened.phrase_of is None and set(asked) == {"facebook/sam3"}
    opened.set_image(picture)
    assert opened.predict("the roofs").mask.shape == picture.shape[:2]
    assert opening.training_of("sam3") == {"trained_on": [UNKNOWN_SPLITS]}
    assert opening.training_of("think2seg_rs_3b") == {"trained_on": ["earthreason train"]}
    assert hub.asked == []  # what a name means is known without asking
    with pytest.raises(ConfigError, match="revision 'main' goes with a hub id"):
        segearth.load("sam3", revision="main")


def test_its_precision_is_the_cards_unless_another_is_asked_for(saved: Path) -> None:
    card = json.loads((saved / CARD_FILE).read_text())
    (saved / CARD_FILE).write_text(json.dumps({**card, "precision": "bf16", "promptable_segmenter": "boxes"}))
    for precision, expected in ((None, "torch.bfloat16"), ("fp32", "torch.float32")):
        opened = segearth.load(saved, "cpu", precision)
        assert str(opened.prompter.model.dtype) == expected and isinstance(opened.segmenter, BoxFill)


def test_boxes_alone_have_no_weights(tiny_vlm: tuple[Any, Any], tmp_path: Path) -> None:
    save_prompted(Prompter(*tiny_vlm, side=64), BoxFill(), tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [CARD_FILE, "vlm"]
    with pytest.raises(ConfigError, match="a object cannot be saved"):
        save_prompted(Prompter(*tiny_vlm), object(), tmp_path / "other")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError):
        save_prompted(Prompter(*tiny_vlm), BoxFill(), tmp_path / "saved")


def test_a_card_of_a_concept_segmenter(sam3: tuple[Any, Any], picture: np.ndarray, tmp_path: Path) -> None:
    for part in sam3:
        part.save_pretrained(tmp_path / "weights")
    (tmp_path / "card").mkdir()
    write_card(tmp_path / "card", ConceptCard(model=str(tmp_path / "weights"), threshold=0.125))
    opened = segearth.load(tmp_path / "card", "cpu")
    assert isinstance(opened, ConceptSegmenter) and opened.threshold == 0.125 and opened.phrase_of is None
    opened.set_image(picture)
    assert opened.predict(["the roofs"])[0].mask.shape == picture.shape[:2]
    assert opening.training_of(tmp_path / "card") == {}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", CheckpointError, "cannot be read"),
        ("[]", CheckpointError, "names no family"),
        ('{"family": "promted"}', UnknownNameError, "unknown family 'promted'; did you mean 'prompted'"),
        ('{"family": "prompted", "vision_language_model": "a/b"}', CheckpointError, "does not say promptable_seg"),
        ('{"family": "concept", "modl": "a/b"}', ConfigError, "unknown key 'modl'; did you mean 'model'"),
        ('{"family": "concept", "model": "a/b", "precision": "fp8"}', UnknownNameError, "unknown precision"),
    ],
)
def test_cards_that_cannot_be_read(tmp_path: Path, text: str, error: type, message: str) -> None:
    (tmp_path / CARD_FILE).write_text(text)
    with pytest.raises(error, match=message):
        read_card(tmp_path)
    with pytest.raises(error, match=message):
        segearth.load(tmp_path, "cpu")

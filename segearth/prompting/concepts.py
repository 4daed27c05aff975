"""SAM 3 as a :class:`~segearth.segmenter.Segmenter`: asked with words, it finds every instance of a concept.

It was trained on short noun phrases. It can be asked with the question as typed, or with the phrase that something else
makes of it, such as a language model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segearth.errors import CheckpointError, QuestionError, SegEarthError, UnknownNameError
from segearth.preprocessing.images import as_rgb
from segearth.preprocessing.resampling import resized
from segearth.prompting.opening import explained, open_pretrained, quiet
from segearth.prompting.promptable import PromptedMask, joined
from segearth.segmenter import DecidingSettings, ImageInput, SegmenterFacts, numbers_of_images, one_each
from segearth.structures import Segmentation, Task
from segearth.utils.hub import find_source

logger = logging.getLogger(__name__)
TASKS = ("referring", "reasoning")
WORDS = 32  # tokens of a phrase that SAM 3 was trained with; shorter ones are padded to it
QUESTIONS_AT_ONCE = 8
NOTHING = -20.0  # a logit as good as minus infinity that can be averaged with others where tiles are joined


@dataclass(frozen=True, slots=True)
class _Image:
    features: Any
    size: tuple[int, int]


class ConceptSegmenter:
    """Asks SAM 3 (arXiv 2511.16719) for all instances of what the question says.

    An instance counts where its score, its own probability times that of the concept being in the image at all, reaches
    a threshold. The mask is the union of the instances that count.
    """

    def __init__(
        self, model: Any, tokenizer: Any, phrase_of: Callable[[str], str] | None = None, threshold: float = 0.5
    ) -> None:
        """Takes a model.

        Args:
            model: ``Sam3Model``, where it shall run.
            tokenizer: Its tokenizer.
            phrase_of: Makes the phrase to ask of a question; the question itself if left out.
            threshold: Of an instance's score, in [0, 1].
        """
        self.model, self.tokenizer, self.phrase_of, self.threshold = model.eval(), tokenizer, phrase_of, threshold
        side = model.config.image_size
        self.side: int = side if isinstance(side, int) else side[0]
        self._images: list[_Image] = []
        self._has_cut = False

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: torch.device | str = "cpu", phrase_of: Callable[[str], str] | None = None,
        threshold: float = 0.5, dtype: torch.dtype = torch.float32,
    ) -> ConceptSegmenter:  # fmt: skip
        """Opens model and tokenizer from a folder or a hub id.

        Args:
            source: As for :func:`segearth.utils.hub.find_source`, such as ``"facebook/sam3"``.
            device: Where to run.
            phrase_of: See the class.
            threshold: See the class.
            dtype: Of the weights.

        Raises:
            CheckpointError: Nothing is there, or no SAM 3.
        """

        def class_of(config: Any) -> str:
            if config.model_type not in ("sam3", "sam3_video"):
                raise CheckpointError(f"{source} is a {config.model_type!r}; give a SAM 3, such as facebook/sam3")
            return "Sam3Model"

        model = open_pretrained(source, class_of, "concept segmenter", dtype=dtype).to(device)
        from transformers import AutoTokenizer

        with explained(source, "tokenizer"), quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(find_source(source, "tokenizer")))
        return cls(model, tokenizer, phrase_of, threshold)

    @property
    def facts(self) -> SegmenterFacts:
        """What others need to know. The instances are decided one by one, so presence decides nothing a second time."""
        return SegmenterFacts(side=self.side, device=self.model.device.type, deciding=DecidingSettings(0.0))

    def set_image(self, image: ImageInput) -> None:
        """See :meth:`segearth.segmenter.Segmenter.set_image`."""
        self.set_images([image])

    @torch.inference_mode()
    def set_images(self, images: Sequence[ImageInput]) -> None:
        """See :meth:`segearth.segmenter.Segmenter.set_images`; images of all sizes can be set together."""
        self._images = []
        self._images = [self._encoded(as_rgb(image)) for image in images]

    def predict(
        self,
        questions: str | Sequence[str],
        *,
        task: Task | Sequence[Task] = "referring",
        about: int | Sequence[int] | None = None,
        answer: bool = False,
        return_logits: bool = False,
    ) -> Any:
        """See :meth:`segearth.segmenter.Segmenter.predict`. It has no words: ``answer`` changes nothing.

        Returns:
            One :class:`~segearth.structures.Segmentation` for a question that is a text, else a list. Its regions are
            the instances with their scores, its score their mean. With ``return_logits`` the highest mask logit of the
            instances that count.

        Raises:
            SegEarthError: No image is set, or tasks or numbers of images do not fit the questions.
            UnknownNameError: A task that is not answered by a mask.
            QuestionError: A question is empty.
        """
        texts = [questions] if isinstance(questions, str) else list(questions)
        if not self._images:
            raise SegEarthError("no image is set (a set_image that fails leaves none); call set_image first")
        for own in one_each(task, len(texts), "tasks"):
            if own not in TASKS:
                raise UnknownNameError("task of a concept segmenter", own, TASKS)
        if empty := [text for text in texts if not text.strip()]:
            raise QuestionError(f"question {empty[0]!r} is empty; say what to look for")
        numbers = numbers_of_images(about, len(texts), len(self._images))
        found: dict[int, Segmentation] = {}
        for number, image in enumerate(self._images):
            places = [place for place, own in enumerate(numbers) if own == number]
            for start in range(0, len(places), QUESTIONS_AT_ONCE):
                some = places[start : start + QUESTIONS_AT_ONCE]
                answers = self._ask(image, [texts[place] for place in some], return_logits)
                found.update(zip(some, answers, strict=True))
        return found[0] if isinstance(questions, str) else [found[place] for place in range(len(texts))]

    def _encoded(self, array: np.ndarray) -> _Image:
        # SAM 3 stretches an image to its square and wants values from -1 to 1.
        pixels = resized(array, self.side, self.side).astype(np.float32) / 127.5 - 1
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1))[None].to(self.model.device, self.model.dtype)
        return _Image(self.model.get_vision_features(tensor), (array.shape[0], array.shape[1]))

    @torch.inference_mode()
    def _ask(self, image: _Image, questions: list[str], with_logits: bool) -> list[Segmentation]:
        tokens = self._tokens([self.phrase_of(text) if self.phrase_of else text for text in questions])
        whole = image.features
        # Views of one image's features: nothing is encoded or copied for each question.
        features = type(whole)(
            fpn_hidden_states=tuple(level.expand(len(questions), -1, -1, -1) for level in whole.fpn_hidden_states),
            fpn_position_encoding=tuple(p.expand(len(questions), -1, -1, -1) for p in whole.fpn_position_encoding),
        )
        output = self.model(vision_embeds=features, **tokens)
        presence = output.presence_logits.float().sigmoid().flatten()
        scores = output.pred_logits.float().sigmoid() * presence[:, None]  # (N, queries)
        return [
            self._decided(text, image.size, masks, own, float(there), with_logits)
            for text, masks, own, there in zip(questions, output.pred_masks, scores, presence, strict=True)
        ]

    def _decided(
        self, question: str, size: tuple[int, int], masks: Tensor, scores: Tensor, presence: float, with_logits: bool
    ) -> Segmentation:
        """Makes an answer of the mask logits ``(queries, a, b)`` and scores ``(queries,)`` of one question."""
        counts = torch.nonzero(scores >= self.threshold).flatten()
        counts = counts[scores[counts].argsort(descending=True, stable=True)]
        highest = torch.full(size, NOTHING)
        found = []
        for place in counts.tolist():  # one by one: two hundred masks of a large image would not fit into memory
            logits = masks[place].float()[None, None]
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0, 0].cpu()
            highest = torch.maximum(highest, logits)
            found.append(PromptedMask((logits > 0).numpy(), float(scores[place])))
        seen = joined(found, *size)
        regions = seen.regions or ()
        return Segmentation(
            question,
            seen.mask,
            float(np.mean([region.score for region in regions])) if regions else 0.0,
            bool(regions),
            presence,
            logits=highest.numpy() if with_logits else None,
            given_regions=regions,
        )

    def _tokens(self, phrases: list[str]) -> dict[str, Tensor]:
        tokens = self.tokenizer(phrases, padding="max_length", max_length=WORDS, truncation=True, return_tensors="pt")
        if not self._has_cut and any(len(ids) > WORDS for ids in self.tokenizer(phrases)["input_ids"]):
            self._has_cut = True
            logger.warning("a question has more than %d tokens: SAM 3 reads its beginning; ask with phrase_of", WORDS)
        return {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

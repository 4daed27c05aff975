"""SegEarth: an image and questions become mask logits in one pass.

Shapes: ``B`` images, ``N`` questions of all images together, ``L`` text tokens, ``S`` image tokens, ``C`` query
channels, ``D`` width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from segearth.errors import ConfigError
from segearth.layers.blocks import Freezable
from segearth.layers.checkpointing import set_recomputed
from segearth.layers.position import Coordinates
from segearth.model_types import Batch, EncodedText, ImageFeatures, MaskOutput, PromptPrefix, QueryEmbeddings
from segearth.models.description_projector import pool_description
from segearth.models.parts import build_parts
from segearth.models.pretrained import (
    WithoutRandomStart,
    load_folder,
    local_folder,
    read_config,
    save_folder,
    saved_known_words,
)
from segearth.models.readme import write_readme
from segearth.models.word_heads import BagOfWords
from segearth.structures import Question
from segearth.text.known_words import KnownWords
from segearth.utils.devices import to_device

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from segearth.config import ModelConfig
    from segearth.models.class_head import ClassHead
    from segearth.models.description_projector import DescriptionProjector
    from segearth.models.language_model import LanguageModel
    from segearth.models.mask_decoder import MaskDecoder
    from segearth.models.pixel_decoder import PixelDecoder
    from segearth.models.region_chooser import RegionChooser
    from segearth.models.vision_encoder import VisionEncoder
    from segearth.preprocessing.transform import ImageTransform
    from segearth.text.encoding import PromptEncoder


class SegEarth(Freezable, ModelHubMixin):
    """Three verbs, in training, evaluation and use alike: encode the image, encode the questions, decode the masks.

    The description's embedding *is* the mask decoder's query. So there is no bank of object queries as in Mask2Former,
    and no matching of queries with targets.

    Attributes:
        config: What it was built from.
        prompt_encoder: Turns questions into the tokens that these weights were trained with.
        image_transform: Turns pictures into the frames that these weights were trained with, and masks back.
        random_parts: Names of the parts whose weights were neither loaded nor trained; kept with the saved weights.
        known_words: The words that it has met in training, where its language model started at random; ``None``: it
            takes every word.
    """

    known_words: KnownWords | None = None

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        token_compressor: nn.Module,
        language_model: LanguageModel,
        description_projector: DescriptionProjector,
        pixel_decoder: PixelDecoder,
        mask_decoder: MaskDecoder,
        prompt_encoder: PromptEncoder,
        image_transform: ImageTransform,
        config: ModelConfig,
        coordinates: Coordinates | None = None,
        class_head: ClassHead | None = None,
        bag_of_words: BagOfWords | None = None,
        region_chooser: RegionChooser | None = None,
    ) -> None:
        """Composes finished parts; :func:`segearth.models.parts.build_parts` makes them from ``config``."""
        super().__init__()
        self.vision_encoder = vision_encoder
        self.token_compressor = token_compressor
        self.language_model = language_model
        self.description_projector = description_projector
        self.pixel_decoder = pixel_decoder
        self.mask_decoder = mask_decoder
        self.prompt_encoder = prompt_encoder
        self.image_transform = image_transform
        self.coordinates = coordinates
        self.class_head = class_head
        self.bag_of_words = bag_of_words
        self.region_chooser = region_chooser
        self.config = config
        self.random_parts = {name for name, part in self.named_children() if not getattr(part, "pretrained", False)}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    def encode_image(self, images: Tensor, cache_prefix: bool = True) -> ImageFeatures:
        """Computes all that depends on the images alone.

        Args:
            images: ``(B, 3, H, W)``, normalised.
            cache_prefix: Let the language model read the image now and keep its keys and values for every question
                that follows. ``False`` lets it read the image together with the questions, as a training step needs
                it: no gradient goes through the part of the cache that questions add.
        """
        maps = self.vision_encoder(images.to(self.dtype))
        mask_features, multi_scale_features, res5 = self.decode_pixels(maps)
        tokens = self.token_compressor(maps[-1])
        return ImageFeatures(
            image_tokens=tokens,
            prefix=self.language_model.make_prefix(self.embed_prefix(tokens), cache_prefix),
            projector_keys_values=self.description_projector.keys_values(res5),
            decoder=self.mask_decoder.prepare_image(mask_features, multi_scale_features),
        )

    def decode_pixels(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """Runs the pixel decoder, and adds each cell's position to its features if the model has coordinates.

        Args:
            maps: From the vision encoder.

        Returns:
            Mask features ``(B, C, H/4, W/4)``; multi-scale features of three levels ``(B, C, h, w)``, coarse to fine;
            and res5 for the description projector, ``(B, C5, H/32, W/32)``.
        """
        mask_features, multi_scale_features = self.pixel_decoder(maps)
        if self.coordinates is None:
            return mask_features, multi_scale_features, maps[-1]
        return self.coordinates(mask_features, multi_scale_features, maps[-1])

    def embed_prefix(self, image_tokens: Tensor) -> Tensor:
        """Puts the words that every prompt begins with before ``(B, S, D)`` image tokens: ``(B, P, D)``."""
        # Without words nothing is looked up: the gradient of a look-up is as large as the embedding table, even if no
        # row of it was asked for.
        if not self.prompt_encoder.before_image:
            return image_tokens.to(self.language_model.dtype)
        return _after(self.language_model.embed(self._words_before(image_tokens.device)), image_tokens)

    def _words_before(self, device: torch.device) -> Tensor:
        return to_device(torch.tensor(self.prompt_encoder.before_image, dtype=torch.long), device)

    def _embed_all(self, features: ImageFeatures, text: EncodedText) -> tuple[PromptPrefix, Tensor]:
        """Embeds the words after the image, and with them those before it where they are not in the cache.

        Both take one look-up: the gradient of each look-up is as large as the whole embedding table, 0.4 GiB in the
        published shape.
        """
        if features.prefix.kv_cache is not None or not self.prompt_encoder.before_image:
            return features.prefix, self.language_model.embed(text.input_ids)
        before = self._words_before(text.input_ids.device)
        embeds = self.language_model.embed(torch.cat([before, text.input_ids.flatten()]))
        words, after = embeds.split([len(before), text.input_ids.numel()])
        return PromptPrefix(_after(words, features.image_tokens)), after.unflatten(0, text.input_ids.shape)

    def encode_text(self, features: ImageFeatures, text: EncodedText, image_index: Tensor) -> QueryEmbeddings:
        """Reads prompts with the language model and projects each description to a query.

        Args:
            features: From :meth:`encode_image`.
            text: ``N`` encoded prompts.
            image_index: ``(N,)`` ascending, on the host; which image each prompt is about.
        """
        prefix, embeds = self._embed_all(features, text)
        hidden = self.language_model.hidden_states(prefix, embeds, text.lengths, image_index, text.openings)
        pooled = pool_description(hidden, text.description_mask)
        queries = self.description_projector(pooled, features.projector_keys_values, image_index)
        return QueryEmbeddings(queries, image_index, hidden, self.sum_words(text))

    def sum_words(self, text: EncodedText) -> Tensor | None:
        """Returns the summed word vectors of each of ``N`` descriptions, ``(N, W)``, if some part reads them.

        These vectors are :class:`~segearth.models.word_heads.BagOfWords`, not the language model's.
        """
        return None if self.bag_of_words is None else self.bag_of_words.add_up(text.input_ids, text.description_mask)

    def predict_labels(self, queries: QueryEmbeddings, text: EncodedText) -> Tensor:
        """Returns vocabulary logits where a token is labelled, and nowhere else: each position has fifty thousand.

        Args:
            queries: From :meth:`encode_text`.
            text: The prompts that it read; the first token of a prompt is never labelled.

        Returns:
            ``(T, V)``, one row for each of ``text.labelled``. Where no token is labelled, the logits of the first
            position take their place: under ZeRO-3 all processes bring the output head's weights together, so one that
            did not use it would keep those that have labels waiting for ever.
        """
        rows, columns = text.labelled.unbind(1)
        states = queries.hidden_states[rows, columns - 1] if len(rows) else queries.hidden_states[:1, 0]
        return self.language_model.token_logits(states)

    def decode_masks(self, features: ImageFeatures, queries: QueryEmbeddings, auxiliary: bool = False) -> MaskOutput:
        """Decodes one mask a query; see :class:`segearth.models.mask_decoder.MaskDecoder`.

        Args:
            features: From :meth:`encode_image`.
            queries: From :meth:`encode_text`.
            auxiliary: Also return what the decoder predicts before its last layer, which the loss supervises too.
        """
        output = self.mask_decoder(queries.queries, queries.image_index, features.decoder, auxiliary, queries.words)
        if self.region_chooser is not None:
            assert queries.words is not None  # a model that chooses has word vectors
            output.candidate_logits = output.mask_logits
            output.mask_logits, output.choice = self.region_chooser(output.mask_logits, queries.words)
        return output

    def forward(self, batch: Batch) -> MaskOutput:
        """Computes what a loss compares with a batch's targets: the three verbs, and all logits that are supervised.

        Each image is seen once, however many questions it has.
        """
        features = self.encode_image(batch.images, cache_prefix=False)
        queries = self.encode_text(features, batch.text, batch.image_index)
        output = self.decode_masks(features, queries, auxiliary=True)
        output.token_logits = self.predict_labels(queries, batch.text)
        if self.class_head is not None and batch.classes is not None:
            names = self.language_model.embed(batch.classes.input_ids)
            output.class_logits = self.class_head(names, batch.classes, features.decoder.mask_features)
        return output

    @torch.no_grad()
    def generate_answers(
        self, features: ImageFeatures, questions: Sequence[Question], image_index: Tensor, max_new_tokens: int = 64
    ) -> list[str]:
        """Lets the language model answer in words.

        Args:
            features: From :meth:`encode_image`.
            questions: ``N`` questions.
            image_index: ``(N,)``.
            max_new_tokens: Longest answer.
        """
        encoder = self.prompt_encoder
        text = encoder.encode_for_generation(questions).to(self.device)
        ids = self.language_model.generate(
            features.prefix.embeds[image_index],
            self.language_model.embed(text.input_ids),
            text.lengths,
            max_new_tokens=max_new_tokens,
            eos_token_id=encoder.stop_ids,
            pad_token_id=encoder.tokenizer.pad_token_id,
        )
        return [encoder.decode(row) for row in ids.tolist()]

    def set_checkpointing(self, enabled: bool) -> None:
        """Switches activation checkpointing, which takes more time and less memory.

        Layers of vision encoder, language model and pixel decoder then keep only their inputs and run again in the
        backward pass.

        Raises:
            ConfigError: A part that gradients go through has no such layers.
        """
        parts: dict[str, Any] = {
            "vision_encoder": self.vision_encoder,
            "language_model": self.language_model,
            "pixel_decoder": self.pixel_decoder,
        }
        if self.vision_encoder.frozen:  # no gradient goes through it, so it keeps nothing anyway
            del parts["vision_encoder"]
        for name, part in parts.items():
            if not set_recomputed(part.blocks(), enabled) and enabled:
                raise ConfigError(
                    f"train.activation_checkpointing: this {name} ({type(part).__name__}) has no layers that could be "
                    "computed again; set it to false, or take another one"
                )

    def _save_pretrained(self, save_directory: Path) -> None:
        save_folder(self, save_directory)

    def generate_model_card(self, *args: Any, **facts: Any) -> ModelCard:
        """Returns the ``README.md`` that ``save_pretrained`` and ``push_to_hub`` put beside the weights.

        Args:
            args: None; for the signature of ``ModelHubMixin``.
            facts: What their ``model_card_kwargs`` say, such as ``license``: see
                :func:`segearth.models.readme.write_readme`.
        """
        return write_readme(self, *args, **facts)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> SegEarth:  # type: ignore[override]
        """Opens a saved model, strictly: every weight must match.

        Args:
            pretrained_model_name_or_path: A folder written by ``save_pretrained``, or, as a string, a hub id: see
                :func:`segearth.utils.hub.find_source`. Of a training run's folder, which holds two, the model that was
                best in validation, or the last where nothing was validated.
            options: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` for the hub.

        Returns:
            The model in eval mode.

        Raises:
            CheckpointError: Nothing is there, or it is damaged or of another model.
        """
        folder = local_folder(pretrained_model_name_or_path, **options)
        return cls._from_pretrained(model_id=str(folder))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> SegEarth:
        """Opens a folder written by ``save_pretrained``, or the same from the hub."""
        folder = local_folder(model_id, **options)
        config = read_config(folder)
        with WithoutRandomStart():
            model = cls(**build_parts(config, load_weights=False))
        model.random_parts = load_folder(model, folder)
        model.known_words = saved_known_words(folder)
        return model.eval()


def _after(words: Tensor, image_tokens: Tensor) -> Tensor:
    """Puts ``(B, S, D)`` image tokens after ``(P0, D)`` words: ``(B, P0 + S, D)``."""
    return torch.cat([words.expand(len(image_tokens), -1, -1), image_tokens.to(words.dtype)], 1)

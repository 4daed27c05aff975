"""The ``README.md`` beside saved weights: what the Hugging Face hub shows as a model's card."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from segearth.models.segearth import SegEarth

TAGS = ["remote-sensing", "reasoning-segmentation"]
USE = """```python
import segearth

predictor = segearth.load("{source}")
predictor.set_image("picture.jpg")
mask = predictor.predict("the buildings").mask
```"""
UNSTATED = (
    "Not stated. It depends on the images, annotations and pretrained parts that these weights were trained with; ask "
    "whoever trained them. That the code of `segearth` is under Apache-2.0 says nothing about weights."
)


def write_readme(
    model: SegEarth,
    source: str | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    trained_on: str | None = None,
) -> ModelCard:
    """Describes a model by what is known of it; what nobody said is said to be unknown.

    Args:
        model: The model.
        source: The folder or hub id that others will open it from.
        license: The weights' licence as the hub writes it, such as ``"cc-by-4.0"``; ``"other"`` for one of its own.
        license_name: With ``"other"``: its name.
        license_link: With ``"other"``: where its text is.
        trained_on: The data that the weights were trained on, in a sentence.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        library_name="segearth",
        pipeline_tag="image-segmentation",
        tags=TAGS,
        license=license,
        license_name=license_name,
        license_link=license_link,
    )
    config = model.config
    encoder = config.vision_encoder.timm_name or config.vision_encoder.kind
    size, language = config.image_transform.size, model.language_model.causal_lm.config.model_type
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    text = f"""# A segearth model

An overhead image and a question become a mask. {millions:.1f} million parameters: a {encoder} encoder and a {language}
language model, for images of {size} pixels.

{USE.format(source=source or "FOLDER")}

## Training data

{trained_on or "Not stated."}

## Licence of the weights

{license_name or license or UNSTATED}
"""
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")

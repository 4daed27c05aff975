"""Chat messages, in the form that the processors of transformers and trl take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from segearth.errors import QuestionError
from segearth.prompting.templates import AnswerTemplate

Message = dict[str, Any]


def messages_for(
    template: AnswerTemplate, question: str, images: Sequence[Any] | None = None, reply: str | None = None,
    box: Sequence[float] | None = None,
) -> list[Message]:  # fmt: skip
    """Returns the conversation that asks one question about an image, or about the two of a pair.

    Args:
        template: What form the answer is asked for in.
        question: As typed; see :func:`segearth.prompting.templates.as_data`.
        images: As many as the template asks about, the earlier one of a pair first, in any form that the processor
            takes. ``None``: only their places are marked, for a processor that is given the images apart.
        reply: The answer to learn from; it follows as the assistant's turn.
        box: Of the region that is asked about, in the template's frame.

    Returns:
        Each message has a ``role`` and, as ``content``, a list of parts with the ``type`` ``"image"`` or ``"text"``.

    Raises:
        QuestionError: The question is empty or no text, or there are not as many images as the template asks about.
    """
    if images is None:
        places: list[dict[str, Any]] = [{"type": "image"} for _ in range(template.images)]
    elif len(images) == template.images:
        places = [{"type": "image", "image": image} for image in images]
    else:
        raise QuestionError(f"template {template.id} asks about {template.images} image(s); {len(images)} given")
    messages = [{"role": "user", "content": [*places, _text(template.ask(question, box))]}]
    if reply is not None:
        messages.append({"role": "assistant", "content": [_text(reply)]})
    return messages


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}

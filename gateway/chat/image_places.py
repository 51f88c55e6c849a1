"""Where a conversation's images stand in its prompt.

Chat templates come in three kinds: those that take content as text only, those that take it as
text or as a list of parts, and those that take lists only. One that takes lists writes the text
that stands for an image; for the others the model's own text for it goes before the message's
text, as vLLM does it. Which kind a template is, and what it writes, is found out by rendering
small conversations with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from engine.base import ImageSupport
from gateway.chat.template import ChatTemplate
from gateway.errors import InvalidRequest, PromptTimeout
from gateway.protocol.content_parts import ImagePart
from gateway.protocol.messages import Message

MARK = "probe7f3a"
IMAGE = {"type": "image"}
MAX_SHOWN = 64


class ImagePlaces:
    """How one model's chat template takes content.

    Args:
        template: the model's.
        support: how the model takes images, or None for one that takes none.
        tokenizer: the model's ``tokenizers.Tokenizer``.

    Attributes:
        wants_lists: it shows no content but lists of parts.
        written: what the template itself writes for an image; empty when it writes nothing.
    """

    def __init__(
        self, template: ChatTemplate, support: ImageSupport | None, tokenizer: Any
    ) -> None:
        self._support = support or ImageSupport("", frozenset())
        self._tokenizer = tokenizer
        added_tokens = tokenizer.get_added_tokens_decoder()
        self._names: dict[int, str] = {i: token.content for i, token in added_tokens.items()}
        parts = [text_part(MARK)]
        as_parts = probe(template, parts)
        self.wants_lists = as_parts is not None and probe(template, MARK) is None
        self.written = ""
        if as_parts is not None:
            with_image = probe(template, [*parts, IMAGE])
            self.written = added(as_parts, with_image) if with_image is not None else ""

    def shaped(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with their content as the template takes it."""
        found: list[Message] = []
        number = 0
        for message in messages:
            content = message["content"]
            if type(content) is str:
                found.append(
                    {**message, "content": listed(content)} if self.wants_lists else message
                )
                continue
            if self.written:
                shown: Any = [
                    IMAGE if isinstance(part, ImagePart) else text_part(part) for part in content
                ]
            else:
                images = [part for part in content if isinstance(part, ImagePart)]
                places = [self.placeholder(number + index) for index in range(len(images))]
                number += len(images)
                texts = [part for part in content if type(part) is str]
                joined = "\n".join([place for place in places if place] + texts)
                shown = listed(joined) if self.wants_lists else joined
            found.append({**message, "content": shown})
        return found

    def placeholder(self, index: int) -> str:
        """The text for image ``index`` of the conversation where the template writes none."""
        return self._support.placeholder.replace("{}", str(index + 1))

    def check(self, text: str, ids: Sequence[int], images: int) -> None:
        """Raise InvalidRequest unless exactly the images have places in the prompt.

        What somebody writes must not be taken for the place of an image: the image would be
        seen there, and tokens that wait for pixels be left over.
        """
        texts = [self.written.strip() or self.placeholder(index) for index in range(images)]
        for place, wanted in Counter(texts).items():
            if place and text.count(place) != wanted:
                raise misplaced(place, text.count(place), wanted)
        watched: Counter[int] = Counter()
        for place in texts:
            encoding = self._tokenizer.encode(place, add_special_tokens=False)
            watched.update(token for token in encoding.ids if token in self._names)
        counted = Counter(ids)
        for token in self._support.token_ids | watched.keys():
            if counted[token] != watched[token]:
                name = self._names.get(token, f"token {token}")
                raise misplaced(name, counted[token], watched[token])


def probe(template: ChatTemplate, content: Any) -> str | None:
    """A short conversation as the template shows it; None when it does not show the text."""
    try:
        shown = template.render(
            [{"role": "user", "content": content}],
            tools=[],
            add_generation_prompt=False,
            continue_final_message=False,
            variables={},
        )
    except (InvalidRequest, PromptTimeout):
        return None
    # A list that is treated as a text is shown with its brackets and quotes.
    as_it_is = shown.count(MARK) == 1 and "'type'" not in shown and '"type"' not in shown
    return shown if as_it_is else None


def added(without: str, with_image: str) -> str:
    """What an image after the text adds to a prompt, wherever the template writes it."""
    head, _, tail = without.partition(MARK)
    new_head, _, new_tail = with_image.partition(MARK)
    if new_head == head and new_tail.endswith(tail):
        return new_tail[: len(new_tail) - len(tail)]
    if new_tail == tail and new_head.startswith(head):
        return new_head[len(head) :]
    return ""


def text_part(text: str) -> dict[str, str]:
    """A text as a content part."""
    return {"type": "text", "text": text}


def listed(text: str) -> list[dict[str, str]]:
    """A whole content as a list of parts."""
    return [text_part(text)] if text else []


def misplaced(place: str, found: int, wanted: int) -> InvalidRequest:
    """The error for a prompt in which images and their places do not match."""
    shown = place[:MAX_SHOWN]
    if found > wanted:
        message = (
            f"Invalid 'messages': they hold the text '{shown}', which stands for an image in "
            "prompts of this model. Write it in another way."
        )
    else:
        message = (
            f"Invalid 'messages': the model's chat template has a place for {found} of the "
            f"{wanted} images. Send images in messages of the user."
        )
    return InvalidRequest(message, param="messages")

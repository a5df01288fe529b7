"""Prompts around an item's text, each with a version: its words are part of the embedding space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys.embeddings.windows import special_tokens
from recsys.errors import ConfigError

_MARK = "\ue0a5"
"""Stands for the text while the chat template is rendered; of Unicode's private use, so in no template."""
_DAY = "01 Jan 2024"
_FIXED_DAY = "{%- macro strftime_now(format) -%}" + _DAY + "{%- endmacro -%}"
"""What templates that write today's date are told: vectors must not change over night."""


@dataclass(frozen=True)
class Prompt:
    """A chat of one turn whose answer has begun. The text stands between `before` and `after`, inside the quotation marks."""

    name: str
    system: str
    before: str
    after: str
    answer: str

    def ids_around(self, tokenizer: Any) -> tuple[list[int], list[int]]:
        """Token ids before and after the text, by the tokenizer's chat template; where it has none, as plain paragraphs.

        Raises:
            ConfigError: the template changes or drops the text.
        """
        user = f"{self.before}{_MARK}{self.after}"
        if tokenizer.chat_template:
            first, second = _split(_chat(tokenizer, self.system, user) + self.answer, self.name)
            return _ids(tokenizer, first), _ids(tokenizer, second)
        first, second = _split(f"{self.system}\n\n{user}\n{self.answer}", self.name)
        return [*special_tokens(tokenizer)[0], *_ids(tokenizer, first)], _ids(tokenizer, second)


def quoted(text: str) -> str:
    """The text without the mark that would end its quotation."""
    return text.replace('"', "'")


PROMPTREPS = {
    "1": Prompt(
        name="promptreps-1",
        system="You are an AI assistant that can understand human language.",
        before='Passage: "',
        after='". Use one word to represent the passage in a retrieval task. Make sure your word is in lowercase.',
        answer='The word is: "',
    )
}
"""Version -> prompt of PromptReps (Zhuang et al., EMNLP 2024, section 3)."""


def _chat(tokenizer: Any, system: str, user: str) -> str:
    from jinja2.exceptions import TemplateError

    options = {"chat_template": _FIXED_DAY + tokenizer.get_chat_template(), "date_string": _DAY, "enable_thinking": False}
    turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    # Some templates (Gemma's) know no system turn and raise: its words then begin the user's.
    for chat in (turns, [{"role": "user", "content": f"{system}\n\n{user}"}]):
        try:
            return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options))
        except TemplateError as error:
            failed = error
    raise ConfigError(f"the tokenizer's chat template takes no user turn: {failed}")


def _split(rendered: str, name: str) -> tuple[str, str]:
    first, *rest = rendered.split(_MARK)
    if len(rest) != 1:
        raise ConfigError(f"prompt {name!r}: the tokenizer's chat template wrote the text {len(rest)} times, expected once")
    return first, rest[0]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids

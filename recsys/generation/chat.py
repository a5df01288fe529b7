"""Prompts to token ids, by the model's own chat template, with nothing inside a text read as a special token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from recsys.errors import ConfigError
from recsys.generation.prompt import Prompt

Template = Literal["chat", "plain"]
_SYSTEM, _USER = "\x02system\x02", "\x02user\x02"
"""Stand for the texts while the template is rendered: no template trims, splits or repeats them."""
_DATE = {"%d": "01", "%-d": "1", "%b": "Jan", "%B": "January", "%m": "01", "%y": "25", "%Y": "2025", "%A": "Wednesday", "%H": "00", "%M": "00", "%S": "00"}
_STANDING = "{%- macro strftime_now(f) -%}{{ f" + "".join(f" | replace('{mark}', '{value}')" for mark, value in _DATE.items()) + " }}{%- endmacro -%}"
"""What a template learns that asks for the date: the same prompt has the same ids every day."""


class ChatTokens:
    """`encode` one tokenizer's prompts.

    template: "chat" is the tokenizer's own template, "plain" the system text, an empty line and the user text.
    White space at both ends of a text is dropped. Where a model knows no system role, its text stands before the user's.
    Ids equal those of the official rendering as long as no text holds a special token; where one does, it is split into plain characters.
    options: variables that the template knows, such as enable_thinking.

    Raises:
        ConfigError: a template "chat" that the tokenizer does not have.
    """

    def __init__(self, tokenizer: Any, template: Template, options: Mapping[str, str | bool | int] | None = None) -> None:
        self._tokenizer = tokenizer
        self._options = dict(options or {})
        if template == "chat" and not tokenizer.chat_template:
            raise ConfigError(f"{type(tokenizer).__name__} has no chat template (a base model?): set template: plain")
        self._frames = {both: self._frame(template, with_system=both) for both in (False, True)}
        self._begins = self._special_start() if template == "plain" else []
        added = sorted((token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, added))) if added else None
        self._forbidden = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self._of_frame = {both: self._count(self._ids(["".join(frame)])[0]) for both, frame in self._frames.items()}

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of each prompt, ready for the answer to begin. Empty only where a plain prompt is empty."""
        texts = [(prompt.system.strip(), prompt.user.strip()) for prompt in prompts]
        harmless = [number for number, pair in enumerate(texts) if not self._holds_special(pair)]
        ids: list[list[int]] = [[] for _ in prompts]
        if harmless:
            whole = ["".join(self._filled(*texts[number])) for number in harmless]
            for number, tokens in zip(harmless, self._ids(whole), strict=True):
                # A tokenizer that normalises may find a special token where its plain spelling is not.
                if self._count(tokens) == self._of_frame[bool(texts[number][0])]:
                    ids[number] = [*self._begins, *tokens]
        return [tokens or [*self._begins, *self._piecewise(*pair)] for tokens, pair in zip(ids, texts, strict=True)]

    def _count(self, tokens: Sequence[int]) -> int:
        return sum(token in self._forbidden for token in tokens)

    def _filled(self, system: str, user: str) -> list[str]:
        return [{_SYSTEM: system, _USER: user}.get(part, part) for part in self._frames[bool(system)]]

    def _piecewise(self, system: str, user: str) -> list[int]:
        ids: list[int] = []
        for part in self._frames[bool(system)]:
            if part in (_SYSTEM, _USER):
                for piece in self._defused(system if part == _SYSTEM else user):
                    # Twice for certain: no piece holds the whole of a special token, and what still came out as one is dropped.
                    ids += [token for token in self._ids([piece])[0] if token not in self._forbidden]
            elif part:
                ids += self._ids([part])[0]
        return ids

    def _defused(self, text: str) -> list[str]:
        """The text in pieces, cut after the first character of every special token in it."""
        assert self._special is not None
        pieces, start, place = [], 0, 0
        while found := self._special.search(text, place):
            # A special token of one character (none is known) would come through: it is left out.
            stop = found.start() + (1 if len(found.group()) > 1 else 0)
            pieces.append(text[start:stop])
            start = place = stop if len(found.group()) > 1 else found.end()
        return [piece for piece in (*pieces, text[start:]) if piece]

    def _holds_special(self, texts: tuple[str, str]) -> bool:
        return self._special is not None and any(self._special.search(text) for text in texts)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return found

    def _frame(self, template: Template, *, with_system: bool) -> list[str]:
        """The rendered template in parts, the texts as their stand-ins."""
        if template == "plain":
            return [_SYSTEM, "\n\n", _USER] if with_system else [_USER]
        system = [{"role": "system", "content": _SYSTEM}] if with_system else []
        user = {"role": "user", "content": _USER}
        rendered = self._rendered([*system, user])
        if with_system and (rendered is None or _SYSTEM not in rendered):
            rendered = self._rendered([{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}])
        parts = re.split(f"({_SYSTEM}|{_USER})", rendered or "")
        if parts.count(_USER) != 1 or parts.count(_SYSTEM) != int(with_system):
            raise ConfigError(f"the chat template of {type(self._tokenizer).__name__} does not show each message once; set template: plain")
        return parts

    def _rendered(self, messages: list[dict[str, str]]) -> str | None:
        from jinja2.exceptions import TemplateError

        template = _STANDING + self._tokenizer.get_chat_template()
        try:
            return str(self._tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True, **self._options))
        except TemplateError:  # how a template says that it knows no system role
            return None

    def _special_start(self) -> list[int]:
        """What the tokenizer puts before a text."""
        bare, full = self._ids(["a"])[0], list(self._tokenizer("a", add_special_tokens=True)["input_ids"])
        return full[: next(start for start in range(len(full)) if full[start : start + len(bare)] == bare)]

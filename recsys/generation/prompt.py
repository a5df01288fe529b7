"""`Prompt`: what a generator is asked, and `quoted`, by which untrusted text enters it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from recsys.config import digest_of
from recsys.data.text import clean_text

_SQUARE = re.compile(r"\[(/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]+))\]", re.IGNORECASE)
_ANGLES = str.maketrans("<>", "‹›")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request. The chat roles come from the fields alone: special tokens written inside either text stay plain text."""

    user: str
    system: str = ""
    sample: int = 0
    """Number of the answer, where several are drawn for one text at a temperature above 0: another number, another draw."""

    @property
    def digest(self) -> str:
        """sha256 in hex of all fields: the key of the answer, beside the generator's id."""
        return digest_of([self.system, self.user, self.sample])

    def reminded(self, reminder: str) -> Prompt:
        """The same request with one more sentence at its end."""
        return replace(self, user=f"{self.user}\n\n{reminder}")


def quoted(text: str, tag: str = "item", *, max_chars: int = 4000) -> str:
    """`<tag>text</tag>` that the text cannot leave: it is cleaned to one line, angle brackets become ‹ and ›, role marks
    lose their square brackets, and what exceeds `max_chars` is cut with an ellipsis.

    This holds for an endpoint too, whose server may read special tokens inside a message. What the words themselves ask for
    ("ignore the above") cannot be taken away: say before the quotation that it is data, and check the answer.

    Raises:
        ValueError: a tag of other characters than a-z and _.
    """
    if not re.fullmatch(r"[a-z_]+", tag):
        raise ValueError(f"tag {tag!r}: expected letters a-z and _")
    inner = _SQUARE.sub(r"(\1)", clean_text(text).translate(_ANGLES))
    return f"<{tag}>{inner if len(inner) <= max_chars else inner[: max_chars - 1] + '…'}</{tag}>"

"""What no encoder is given: empty, huge or broken texts."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from recsys.config import Config

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\ud800-\udfff\ufffe\uffff]")
"""C0 but tab, line feed and carriage return; DEL; C1; lone surrogates and non-characters, which are no text."""


class LimitsConfig(Config):
    """An item beyond a limit stands in quarantine with the reason."""

    max_text_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """A rendered text of so many bytes of UTF-8 or more is not encoded. A book is about as long; what is longer is a mistake of the export."""

    max_refused_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A job ends with an error where the encoder itself refuses more than this share of what it is given, 256 at least: the fault is then hardly
    the contents'."""

    def refusal(self, text: str) -> str | None:
        """The reason why this text is not encoded; None: it is fine. An empty one is fine: whether there is a picture is not known here."""
        # A character has one to four bytes: most texts need no encoding to be judged.
        if len(text) * 4 >= self.max_text_bytes and (size := len(text.encode("utf-8", "surrogatepass"))) >= self.max_text_bytes:
            return f"text too long: {size:,} bytes of UTF-8, the limit is {self.max_text_bytes:,}"
        if found := _CONTROL.search(text):
            return f"control character: U+{ord(found[0]):04X} in the text at position {found.start():,}"
        return None

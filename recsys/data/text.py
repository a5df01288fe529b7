"""Cleaning of item text. Text is data: nothing in it is ever interpreted."""

import html
import re
import unicodedata

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_TAG = re.compile(r"</?(?:a|b|br|div|em|h[1-6]|i|img|li|ol|p|script|span|strong|style|table|td|tr|u|ul)\b[^<>]{0,500}>", re.IGNORECASE)


def clean_text(text: str) -> str:
    """Unescape HTML entities (twice: shops escape twice), drop tags, control and bidirectional-override characters,
    normalise to NFC, collapse white space."""
    unescaped = html.unescape(html.unescape(text))
    stripped = _CONTROL.sub(" ", _TAG.sub(" ", unescaped))
    return " ".join(unicodedata.normalize("NFC", stripped).split())

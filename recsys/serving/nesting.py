"""How deep a JSON body is nested, told before it is parsed: a parser that recurses must not meet a million brackets."""

from __future__ import annotations

import re

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[{]|[\]}]")


def deeper_than(body: bytes | bytearray, limit: int) -> bool:
    """Brackets within strings do not count. Of what is no JSON any answer will do: the parser refuses it."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        depth += 1 if bracket[0] in (b"[", b"{") else -1
        if depth > limit:
            return True
    return False

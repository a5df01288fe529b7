"""Stop strings found across token borders."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class StopStrings:
    """Looks at the last tokens only, so that a long answer costs no more a token than a short one."""

    def __init__(self, stop: Sequence[str], decode: Callable[[Sequence[int]], str]) -> None:
        self._stop = tuple(stop)
        self._decode = decode
        # A token is at least one byte, but a special token is none, and the first characters of a window may be half of one.
        self._window = max((len(text.encode()) for text in stop), default=0) + 8

    def hit(self, tokens: Sequence[int]) -> bool:
        """Whether the text of these tokens now holds a stop string; to be asked after each token."""
        if not self._stop:
            return False
        tail = self._decode(tokens[-self._window :])
        return any(text in tail for text in self._stop)

    def cut(self, text: str) -> str:
        """The text before the first stop string."""
        return text[: min((place for place in map(text.find, self._stop) if place >= 0), default=len(text))]

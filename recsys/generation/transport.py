"""`Connection`: requests to one address of a server of the OpenAI protocol. Its answers are bounded in time and size, and its key is shown nowhere."""

from __future__ import annotations

import ipaddress
import os
import time

import httpx

from recsys.errors import ConfigError

TRY_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
"""Statuses that are no fault of the request."""
_SHOWN = 200
"""Characters of a server's message that an error repeats."""


class UnreadableError(Exception):
    """A 200 whose body is not the protocol's."""


class Connection:
    """POST to `address`, by at most `concurrency` threads at a time.

    key_env: name of the environment variable that holds the key; None: a server without keys.
    connect_seconds, answer_seconds: together the most that a whole answer may take.  answer_bytes: of its body, at most.
    """

    def __init__(self, address: str, *, key_env: str | None, connect_seconds: float, answer_seconds: float, answer_bytes: int, concurrency: int) -> None:
        """Raises ConfigError: the environment variable of the key is not set."""
        self._address, self._key = address, _key(key_env)
        self._connect_seconds, self._answer_seconds, self._answer_bytes = connect_seconds, answer_seconds, answer_bytes
        # Redirects are not followed: the key would go along. Nor are a proxy's settings, for what stays on this machine.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(answer_seconds, connect=connect_seconds),
            limits=httpx.Limits(max_connections=concurrency),
            trust_env=not is_loopback(httpx.URL(address).host),
        )

    def close(self) -> None:
        self._client.close()

    def post(self, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body of the answer to a JSON document. A server that drips is cut off: httpx's time-outs are by
        the read, this one is for the whole.

        Raises:
            httpx.TransportError, httpx.DecodingError: no whole answer.  UnreadableError: more than `answer_bytes`.
        """
        ends = time.monotonic() + self._connect_seconds + self._answer_seconds
        with self._client.stream("POST", self._address, content=content, headers={"Content-Type": "application/json"}) as response:
            parts, size = list[bytes](), 0
            for part in response.iter_bytes():
                size += len(part)
                if size > self._answer_bytes:
                    raise UnreadableError(f"an answer of more than {self._answer_bytes} bytes")
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout(f"no whole answer in {self._answer_seconds:g} s")
                parts.append(part)
            return response.status_code, response.headers, b"".join(parts)

    def quoted(self, body: bytes) -> str:
        """The beginning of what the server said, on one line, without the key."""
        text = body[:2000].decode("utf-8", "replace")
        if self._key:
            text = text.replace(self._key, "***")
        line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
        return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."

    def described(self, error: Exception) -> str:
        """A failed request in words, without the key."""
        return f"{type(error).__name__}: {self.quoted(str(error).encode())}"


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(name: str | None) -> str:
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"api_key_env: the environment variable {name} is not set; export it, or leave api_key_env out for a server without keys")
    return key

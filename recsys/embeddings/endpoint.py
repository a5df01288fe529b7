"""`EndpointEncoder`: vectors from any server of the OpenAI protocol (/v1/embeddings): vLLM, llama.cpp, text-embeddings-inference, hosted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Annotated, Any, ClassVar, Literal, Self

import httpx
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from recsys.config import Config
from recsys.embeddings.content import Content
from recsys.embeddings.encoder import require_finite
from recsys.embeddings.space import EmbeddingSpace
from recsys.errors import ConfigError, DataError, RetryableError
from recsys.generation.retries import RetryConfig, back_off, retry_after
from recsys.generation.transport import TRY_AGAIN, Connection, UnreadableError, is_loopback
from recsys.types import FloatArray


class EndpointEncoderConfig(Config):
    """A model behind a server. All but `NOT_IN_SPACE` decides the embedding space: the address does not, for a server may move."""

    NOT_IN_SPACE: ClassVar[frozenset[str]] = frozenset(
        {
            "kind",
            "name",
            "url",
            "ask_dim",
            "batch",
            "concurrency",
            "connect_seconds",
            "answer_seconds",
            "answer_bytes",
            "retry",
            "api_key_env",
            "allow_insecure",
        }
    )

    kind: Literal["endpoint"] = "endpoint"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    """Name of the signal."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    """Up to and with the version: "https://api.example.com/v1". Loopback or https, unless `allow_insecure`."""
    model: Annotated[str, Field(min_length=1)]
    """As the server calls it."""
    revision: Annotated[str, Field(min_length=1)]
    """Yours to state, and to change when the server has other weights under the same name: the stored vectors are then not mixed."""
    dim: Annotated[int, Field(ge=1)]
    """Numbers a vector; another answer is an error."""
    ask_dim: bool = False
    """Send `dim` along, for models that shorten their vectors on request."""
    template: str = "{title}| ({year})|. Genres: {categories}."
    """Which fields of the item, in which words: see `recsys.data.catalog.render`."""
    instruction: str = ""
    """Put before the text, for models that want one."""
    max_chars: Annotated[int, Field(ge=16)] = 8000
    """A longer text is split between words, and its vectors averaged by their characters: servers cut silently, or refuse. Choose it below the
    model's window: of English some 4 characters make a token."""
    normalise: bool = True
    batch: Annotated[int, Field(ge=1, le=2048)] = 64
    """Texts a request."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    """Requests under way at once."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    answer_seconds: Annotated[float, Field(gt=0)] = 120.0
    """From the connection to the last byte of an answer."""
    answer_bytes: Annotated[int, Field(ge=1)] = 256_000_000
    retry: RetryConfig = RetryConfig()
    """Of time-outs, 408, 409, 425, 429, 5xx and answers that are not the protocol's."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is in no file, message or space."""
    allow_insecure: bool = False
    """Send texts and key over http to another machine."""

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        address = httpx.URL(self.url)
        if address.scheme == "http" and not is_loopback(address.host) and not self.allow_insecure:
            raise ValueError(f"url {self.url!r} sends texts and key readable over the network; use https, or set allow_insecure: true")
        return self

    def space(self) -> EmbeddingSpace:
        """The space, from the configuration alone: no request is made."""
        return EmbeddingSpace(
            model=self.model, revision=self.revision, tokenizer="server", template=self.template, prompt=self.instruction, max_length=self.max_chars,
            layer=-1, pooling="server", attention="server", normalise=self.normalise, dtype="server", dim=self.dim,
        )  # fmt: skip


class EndpointEncoder:
    """Nothing that the server says is trusted: number, order, size and finiteness of its vectors are checked, its answers bounded in time and size.

    `chunked` counts the texts that were split so far. A 429 or 503 pauses all requests, not only its own.
    """

    def __init__(self, config: EndpointEncoderConfig) -> None:
        """Raises ConfigError: the environment variable of the key is not set."""
        self.config = config
        self.chunked = 0
        self._space = config.space()
        self._not_before = 0.0
        self._connection = Connection(
            f"{config.url.rstrip('/')}/embeddings",
            key_env=config.api_key_env,
            connect_seconds=config.connect_seconds,
            answer_seconds=config.answer_seconds,
            answer_bytes=config.answer_bytes,
            concurrency=config.concurrency,
        )

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    @property
    def dim(self) -> int:
        return self._space.dim

    def close(self) -> None:
        self._connection.close()

    def encode(self, contents: Sequence[Content]) -> FloatArray:
        """float32 (n, dim); pictures are not looked at.

        Raises:
            DataError: an empty text, or the server cannot take these texts.  ConfigError: it refuses key, model or address, or its vectors have
            another size.  NonFiniteError.  RetryableError: no answer after all retries.
        """
        pieces, owners = self._pieces([content.text for content in contents])
        stop = threading.Event()

        def embed(start: int) -> npt.NDArray[np.float64]:
            try:
                return self._embed(pieces[start : start + self.config.batch], stop)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="embeddings") as pool:
            futures = [pool.submit(embed, start) for start in range(0, len(pieces), self.config.batch)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # KeyboardInterrupt too
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
            for future in futures:
                if not future.cancelled() and (error := future.exception()) and not isinstance(error, _StoppedError):
                    raise error
            blocks = [future.result() for future in futures]
        if not blocks:
            return np.zeros((0, self.dim), dtype=np.float32)
        sums = np.zeros((len(contents), self.dim))
        lengths = np.array([len(piece) for piece in pieces], dtype=np.float64)
        np.add.at(sums, owners, np.concatenate(blocks) * lengths[:, None])
        vectors = sums / np.bincount(owners, weights=lengths)[:, None]
        if self.config.normalise:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(norms > 0, norms, 1)
        with np.errstate(over="ignore"):  # to infinity, which is found out next
            result: FloatArray = vectors.astype(np.float32)
        require_finite(result, contents, f"{self.config.model} behind {self.config.url}")
        return result

    def _pieces(self, texts: Sequence[str]) -> tuple[list[str], list[int]]:
        """Texts of at most `max_chars`, and the text that each belongs to."""
        pieces, owners = list[str](), list[int]()
        for number, text in enumerate(texts):
            if not text.strip():
                raise DataError(f"encoder {self.config.name!r}: text {number} is empty; give the item a text or leave it out")
            own = list(_split(text, self.config.max_chars))
            self.chunked += len(own) > 1
            pieces += own
            owners += [number] * len(own)
        return pieces, owners

    def _embed(self, texts: list[str], stop: threading.Event) -> npt.NDArray[np.float64]:
        """One request with all its retries -> float64 (len(texts), dim)."""
        request: dict[str, Any] = {"model": self.config.model, "input": [self.config.instruction + text for text in texts], "encoding_format": "float"}
        if self.config.ask_dim:
            request["dimensions"] = self.config.dim
        content = json.dumps(request).encode()
        for attempt in range(self.config.retry.retries + 1):
            if stop.wait(max(0.0, self._not_before - time.monotonic())):
                raise _StoppedError
            asked, status = None, 0
            try:
                status, headers, body = self._connection.post(content)
                if status == 200:
                    return self._read(body, len(texts))
                problem = f"HTTP {status}: {self._connection.quoted(body)}"
                if status not in TRY_AGAIN:
                    raise self._refusal(status, problem, texts)
                asked = retry_after(headers.get("retry-after"))
            except (httpx.TransportError, httpx.DecodingError, UnreadableError) as error:
                problem = self._connection.described(error)
            if asked is not None and asked > self.config.retry.longest_wait:
                raise RetryableError(f"{self.config.url}: the server asks to come back in {asked:.0f} s ({problem})")
            if attempt < self.config.retry.retries:
                pause = (asked or 0.0) + back_off(self.config.retry, attempt)
                if status in (429, 503):
                    self._not_before = max(self._not_before, time.monotonic() + pause)
                else:
                    stop.wait(pause)
        raise RetryableError(f"{self.config.url}: no answer after {self.config.retry.retries + 1} tries, last {problem}; run again later")

    def _read(self, body: bytes, count: int) -> npt.NDArray[np.float64]:
        """Raises UnreadableError: not JSON of the protocol, or not these texts' vectors; ConfigError: vectors of another size."""
        try:
            rows = {int(row["index"]): row["embedding"] for row in json.loads(body)["data"]}
            if sorted(rows) != list(range(count)):
                raise ValueError(f"{len(rows)} vectors for {count} texts")
            if not all(isinstance(row, list) for row in rows.values()):
                raise ValueError("a vector that is no list of numbers")
            sizes = {len(row) for row in rows.values()}
            if sizes != {self.dim}:
                raise ConfigError(
                    f"{self.config.url}: model {self.config.model!r} gives vectors of {', '.join(map(str, sorted(sizes)))} numbers, dim is {self.dim}"
                )
            vectors = np.array([rows[number] for number in range(count)], dtype=np.float64)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UnreadableError(f"{type(error).__name__} ({error}) in {self._connection.quoted(body)}") from None
        return vectors

    def _refusal(self, status: int, problem: str, texts: list[str]) -> Exception:
        if status in (400, 413, 422):
            return DataError(
                f"{self.config.url}: the server cannot take {len(texts)} texts of up to {max(map(len, texts))} characters, {problem}; see max_chars"
            )
        if status in (401, 403):
            where = f"in ${self.config.api_key_env}" if self.config.api_key_env else "(none was sent: set api_key_env)"
            return ConfigError(f"{self.config.url}: the key {where} is refused, {problem}")
        return ConfigError(f"{self.config.url}: model {self.config.model!r} or the address is refused, {problem}")


class _StoppedError(Exception):
    """Another request has failed."""


def _split(text: str, width: int) -> Iterator[str]:
    """Pieces of at most `width` characters, cut at white space where a piece has any; nothing but that space is lost."""
    while len(text) > width:
        cut = max(text.rfind(space, 1, width + 1) for space in " \n\t")
        cut = width if cut <= 0 else cut
        if text[:cut].strip():
            yield text[:cut]
        text = text[cut:].lstrip()
    if text:
        yield text

"""`EndpointGenerator`: any server of the OpenAI protocol (/v1/chat/completions): vLLM, llama.cpp, hosted."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Annotated, Any, Literal

import httpx
from pydantic import Field, JsonValue

from recsys.config import Config, digest_of
from recsys.errors import ConfigError, RetryableError
from recsys.generation.account import Account
from recsys.generation.generator import Generation, OnDone
from recsys.generation.prompt import Prompt
from recsys.generation.retries import RetryConfig, back_off, retry_after
from recsys.generation.sampling import Sampling
from recsys.generation.transport import TRY_AGAIN, Connection, UnreadableError
from recsys.rng import derive_seed

_OWN_FAULT = {400, 413, 422}
"""The server cannot take this very prompt, e.g. because it is too long."""
_GIVE_UP = 8
"""So many prompts refused, and none answered, is no fault of the prompts."""
_FRAME_TOKENS = 64
"""More than any chat template puts around two messages."""


class EndpointGeneratorConfig(Config):
    """A server. What it is asked decides the answers; how often, how fast and at what price does not."""

    kind: Literal["endpoint"] = "endpoint"
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    """Up to and with the version: "http://localhost:8000/v1"."""
    model: str
    revision: str = ""
    """What you know of the weights behind the name: another revision, other cached answers."""
    same_as: str = ""
    """A name of your own instead of the url in the generator's id, where several addresses serve the same model."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is in no file."""
    sampling: Sampling = Sampling()
    """At most four stop strings with some servers."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """More fields of the request, e.g. {reasoning_effort: low}."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests under way at once."""
    connect_seconds: Annotated[float, Field(gt=0)] = 10.0
    answer_seconds: Annotated[float, Field(gt=0)] = 120.0
    """From the connection to the last byte of an answer."""
    answer_bytes: Annotated[int, Field(ge=1)] = 8_000_000
    retry: RetryConfig = RetryConfig()
    prompt_price: Annotated[float, Field(ge=0)] = 0.0
    """Per million prompt tokens, in any currency."""
    completion_price: Annotated[float, Field(ge=0)] = 0.0
    budget: Annotated[float, Field(gt=0)] | None = None
    """In the prices' currency; the run stops before it is passed."""

    def identity(self) -> dict[str, Any]:
        """Everything that can move an answer and is known here."""
        return {
            "kind": self.kind,
            "server": self.same_as or self.url.rstrip("/"),
            "model": self.model,
            "revision": self.revision,
            "sampling": self.sampling.model_dump(mode="json"),
            "body": self.body,
        }

    @property
    def generator_id(self) -> str:
        return digest_of(self.identity())[:16]


class EndpointGenerator:
    """Sends `concurrency` prompts at once. `account` holds what was spent so far.

    A 429 or 503 pauses every request, not only its own. Nothing that the server says is trusted: its answers are bounded in time and size.
    """

    def __init__(self, config: EndpointGeneratorConfig, *, account: Account | None = None) -> None:
        """Raises ConfigError: the environment variable of the key is not set."""
        self.config = config
        self.account = account or Account(config.prompt_price, config.completion_price, config.budget)
        self._connection = Connection(
            f"{config.url.rstrip('/')}/chat/completions",
            key_env=config.api_key_env,
            connect_seconds=config.connect_seconds,
            answer_seconds=config.answer_seconds,
            answer_bytes=config.answer_bytes,
            concurrency=config.concurrency,
        )
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._refused = self._answered = 0

    @property
    def generator_id(self) -> str:
        return self.config.generator_id

    def close(self) -> None:
        self._connection.close()

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        """See `Generator`. On an error the requests under way are awaited and handed over, the others are not sent.

        Raises:
            ConfigError: the server refuses key, model or every prompt.  RetryableError: it gave no answer after all retries.
            BudgetError: the next request could pass the budget.
        """
        answers: list[Generation | None] = [None] * len(prompts)
        stop, failures = threading.Event(), list[BaseException]()
        self._refused = self._answered = 0

        def answer(number: int) -> None:
            if stop.is_set():
                return
            try:
                found = self._answer(prompts[number], stop)
                with self._lock:
                    answers[number] = found
                    if on_done is not None:
                        on_done(number, found)
            except BaseException as error:
                failures.append(error)
                stop.set()
                raise

        with ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="generation") as pool:
            futures = [pool.submit(answer, number) for number in range(len(prompts))]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # KeyboardInterrupt too
                if not all(answers):
                    stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
        if failures:
            raise failures[0]
        return [found for found in answers if found is not None]

    def _answer(self, prompt: Prompt, stop: threading.Event) -> Generation:
        """One prompt, with all its retries."""
        content = json.dumps(self._request(prompt)).encode()
        # A token is at least one byte of text.
        most = len(prompt.system.encode("utf-8", "replace")) + len(prompt.user.encode("utf-8", "replace")) + _FRAME_TOKENS
        attempt = 0
        while True:
            self._await_turn(stop)
            with self.account.reserved(most, self.config.sampling.max_new_tokens):
                try:
                    status, headers, body = self._connection.post(content)
                    if status == 200:
                        return self._read(body, most)
                    problem = f"HTTP {status}: {self._connection.quoted(body)}"
                    asked = retry_after(headers.get("retry-after"))
                    if status not in TRY_AGAIN:
                        return self._refusal(status, problem)
                except (httpx.TransportError, httpx.DecodingError, UnreadableError) as error:
                    problem, asked, status = self._connection.described(error), None, 0
            if attempt == self.config.retry.retries or stop.is_set():
                raise RetryableError(f"{self.config.url}: no answer after {attempt + 1} tries, last {problem}; what was answered is kept, run again later")
            if asked is not None and asked > self.config.retry.longest_wait:
                raise RetryableError(f"{self.config.url}: the server asks to come back in {asked:.0f} s ({problem}); what was answered is kept")
            pause = (asked or 0.0) + back_off(self.config.retry, attempt)
            if status in (429, 503):
                with self._lock:
                    self._not_before = max(self._not_before, time.monotonic() + pause)
            else:
                stop.wait(pause)
            attempt += 1

    def _await_turn(self, stop: threading.Event) -> None:
        while (pause := self._not_before - time.monotonic()) > 0 and not stop.is_set():
            stop.wait(pause)

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        sampling = self.config.sampling
        messages = [{"role": "system", "content": prompt.system}] if prompt.system.strip() else []
        request: dict[str, Any] = {"model": self.config.model, "messages": [*messages, {"role": "user", "content": prompt.user}]}
        request |= {"temperature": sampling.temperature, self.config.limit_field: sampling.max_new_tokens}
        if sampling.temperature > 0:
            # 31 bits: what every server takes.
            request |= {"top_p": sampling.top_p, "seed": derive_seed(sampling.seed, "generation", prompt.digest) >> 32}
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.logprobs:
            request["logprobs"] = True
        return request | self.config.body

    def _read(self, body: bytes, most: int) -> Generation:
        """Raises UnreadableError: not JSON of the protocol."""
        try:
            answer = json.loads(body)
            choice = answer["choices"][0]
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
            usage = answer.get("usage") or {}
            counted = "prompt_tokens" in usage and "completion_tokens" in usage
            prompt_tokens = max(0, int(usage["prompt_tokens"])) if counted else most
            completion_tokens = max(0, int(usage["completion_tokens"])) if counted else self.config.sampling.max_new_tokens
            logprob = sum(float(token["logprob"]) for token in choice["logprobs"]["content"]) if self.config.sampling.logprobs else None
            if logprob is not None and not math.isfinite(logprob):
                raise ValueError("a log-probability that is no number")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise UnreadableError(f"{type(error).__name__} in {self._connection.quoted(body)}") from None
        self.account.add(prompt_tokens, completion_tokens, estimated=not counted)
        with self._lock:
            self._answered += 1
        if not isinstance(text, str) or reason not in ("stop", "length"):
            problem = f"the server gave no text (finish_reason {str(reason)[:40]!r})"
            return Generation("", "error", prompt_tokens, completion_tokens, error=problem)
        return Generation(text, reason, prompt_tokens, completion_tokens, logprob)

    def _refusal(self, status: int, problem: str) -> Generation:
        """Raises ConfigError unless it is likely this prompt's own fault."""
        if status in (401, 403):
            where = f"in ${self.config.api_key_env}" if self.config.api_key_env else "(none was sent: set api_key_env)"
            raise ConfigError(f"{self.config.url}: the key {where} is refused, {problem}")
        if status not in _OWN_FAULT:
            raise ConfigError(f"{self.config.url}: model {self.config.model!r} or the address is refused, {problem}")
        with self._lock:
            self._refused += 1
            if self._refused >= _GIVE_UP and not self._answered:
                raise ConfigError(f"{self.config.url}: the first {self._refused} prompts are all refused, last {problem}")
        return Generation("", "error", error=problem)

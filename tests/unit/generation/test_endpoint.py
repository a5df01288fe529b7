"""The endpoint against a real server that fails in every way a server can."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recsys.errors import ConfigError, RetryableError
from recsys.generation.account import Account, BudgetError, Usage
from recsys.generation.cache import CachedGenerator, GenerationCache
from recsys.generation.endpoint import EndpointGenerator, EndpointGeneratorConfig
from recsys.generation.generator import Generation, Generator
from recsys.generation.prompt import Prompt
from recsys.generation.retries import RetryConfig, back_off, retry_after
from recsys.generation.sampling import Sampling
from tests.unit.generation.chat_server import ChatServer, Reply, breaks_off, completion, drips, hangs_up, running, says, sleeps

FAST = RetryConfig(retries=2, first_wait=0.01, longest_wait=2.0)
KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running() as server:
        yield server


def generator_of(server: ChatServer, **options: Any) -> EndpointGenerator:
    return EndpointGenerator(EndpointGeneratorConfig(url=server.url, model="m", **({"retry": FAST, "answer_seconds": 5.0} | options)))


def test_what_is_sent_and_what_comes_back(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")
    sampling = Sampling(max_new_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("\n",), logprobs=True)
    generator = generator_of(server, api_key_env="TEST_KEY", sampling=sampling, body={"reasoning_effort": "low"}, limit_field="max_completion_tokens")
    server.otherwise = says(200, completion("Crime", finish="length", logprobs={"content": [{"logprob": -0.5}, {"logprob": -0.25}]}))
    assert isinstance(generator, Generator)
    assert generator.generate([Prompt("Genre of Heat?", "Be brief.")]) == [Generation("Crime", "length", 10, 4, -0.75)]
    path, headers, request, _ = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    seed = request.pop("seed")
    assert request == {
        "model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Genre of Heat?"}], "temperature": 0.5,
        "top_p": 0.9, "max_completion_tokens": 7, "stop": ["\n"], "logprobs": True, "reasoning_effort": "low",
    }  # fmt: skip
    server.requests.clear()
    generator.generate([Prompt("Genre of Heat?", "Be brief."), Prompt("Genre of Heat?", "Be brief.", sample=1)])
    seeds = {request["seed"] for *_, request, _ in server.requests}
    assert len(seeds) == 2 and seed in seeds and all(0 <= seed < 2**31 for seed in seeds)
    assert KEY not in generator.config.model_dump_json() and KEY not in repr(generator.config)


def test_greedy_sends_no_more_than_it_must(server: ChatServer) -> None:
    assert generator_of(server).generate([Prompt("a")]) == [Generation("A", "stop", 10, 4)]
    assert server.requests[0][2] == {"model": "m", "messages": [{"role": "user", "content": "a"}], "temperature": 0.0, "max_tokens": 128}
    assert "Authorization" not in server.requests[0][1]


def test_concurrency_is_bounded_and_order_kept(server: ChatServer) -> None:
    server.otherwise = sleeps(0.05)
    prompts = [Prompt(f"p{number}") for number in range(20)]
    threads: set[bool] = set()
    busy = threading.Lock()
    done: list[int] = []

    def on_done(number: int, generation: Generation) -> None:
        threads.add(busy.acquire(blocking=False))  # never two at the same time
        done.append(number)
        busy.release()

    answers = generator_of(server, concurrency=5).generate(prompts, on_done=on_done)
    assert [answer.text for answer in answers] == [f"P{number}" for number in range(20)]
    assert server.most_at_once == 5 and threads == {True} and sorted(done) == list(range(20))


@pytest.mark.parametrize(
    "fault",
    [
        says(500, "oops"), says(503, ""), says(429, {"error": "slow down"}), says(408, ""), says(200, "{not json"), says(200, []),
        says(200, {"error": {"message": "overloaded"}}), says(200, {"choices": []}), says(200, '{"a":' * 100_000), breaks_off, hangs_up,
    ],
)  # fmt: skip
def test_a_fault_is_tried_again(server: ChatServer, fault: Reply) -> None:
    server.plan = [fault, fault]
    assert generator_of(server).generate([Prompt("a")])[0].text == "A"
    assert len(server.requests) == 3


@pytest.mark.parametrize("slow", [sleeps(2), drips])
def test_a_slow_server_is_not_waited_for(server: ChatServer, slow: Reply) -> None:
    server.plan = [slow]
    generator = generator_of(server, answer_seconds=0.3, connect_seconds=0.3)
    assert generator.generate([Prompt("a")])[0].text == "A"
    assert server.requests[1][3] - server.requests[0][3] < 1.9


def test_an_answer_without_end_is_cut_off(server: ChatServer) -> None:
    server.otherwise = says(200, "x" * 5000)
    with pytest.raises(RetryableError, match="no answer after 3 tries, last UnreadableError: an answer of more than 1000 bytes"):
        generator_of(server, answer_bytes=1000).generate([Prompt("a")])


def test_retry_after_is_honoured_by_all_requests(server: ChatServer) -> None:
    server.plan = [says(429, "", Retry_After="1")]
    generator = generator_of(server, concurrency=1)
    assert [answer.text for answer in generator.generate([Prompt("a"), Prompt("b")])] == ["A", "B"]
    waits = [later[3] - earlier[3] for earlier, later in pairwise(server.requests)]
    assert waits[0] >= 0.95
    server.plan = [says(503, "maintenance", Retry_After="3600")]
    with pytest.raises(RetryableError, match="asks to come back in 3600 s .*maintenance"):
        generator.generate([Prompt("a")])


def test_after_all_retries_the_rest_is_not_sent_and_what_is_done_is_kept(server: ChatServer, tmp_path: Path) -> None:
    server.plan = [says(200, completion("one")), says(200, completion("two"))]
    server.otherwise = says(500, "<html>" + "broken " * 500)
    generator = generator_of(server, concurrency=1)
    prompts = [Prompt(f"p{number}") for number in range(50)]
    with pytest.raises(RetryableError, match=r"no answer after 3 tries, last HTTP 500: <html>broken") as caught:
        CachedGenerator(GenerationCache(tmp_path, generator.generator_id), lambda: generator).generate(prompts)
    assert len(str(caught.value)) < 500
    assert len(server.requests) == 2 + 3
    assert len(GenerationCache(tmp_path, generator.generator_id)) == 2


def test_no_server() -> None:
    with running() as server:
        url = server.url
    config = EndpointGeneratorConfig(url=url, model="m", retry=FAST)
    with pytest.raises(RetryableError, match="ConnectError"):
        EndpointGenerator(config).generate([Prompt("a")])


def test_refusals_are_told_apart(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    server.otherwise = says(401, f"bad key {KEY}")
    with pytest.raises(ConfigError, match=r"the key in \$TEST_KEY is refused, HTTP 401: bad key \*\*\*"):
        generator_of(server, api_key_env="TEST_KEY").generate([Prompt("a")])
    with pytest.raises(ConfigError, match="none was sent: set api_key_env"):
        generator_of(server).generate([Prompt("a")])
    server.otherwise = says(404, "no such model")
    with pytest.raises(ConfigError, match="model 'm' or the address is refused, HTTP 404: no such model"):
        generator_of(server).generate([Prompt("a")])
    server.otherwise = says(301, "", Location="http://127.0.0.1:9/")
    with pytest.raises(ConfigError, match="HTTP 301"):
        generator_of(server).generate([Prompt("a")])


def test_a_prompt_that_the_server_cannot_take_is_an_error_of_its_own(server: ChatServer) -> None:
    server.plan = [says(200, completion("one")), says(400, "context_length_exceeded"), says(200, completion(None, finish="content_filter"))]
    one, long, filtered, last = generator_of(server, concurrency=1).generate([Prompt("a"), Prompt("b"), Prompt("c"), Prompt("d")])
    assert (one.text, last.text) == ("one", "D")
    assert (long.finish, long.error) == ("error", "HTTP 400: context_length_exceeded")
    assert (filtered.finish, filtered.error, filtered.prompt_tokens) == ("error", "the server gave no text (finish_reason 'content_filter')", 10)
    server.requests.clear()
    server.otherwise = says(400, "unknown field")
    with pytest.raises(ConfigError, match="the first 8 prompts are all refused, last HTTP 400: unknown field"):
        generator_of(server, concurrency=1).generate([Prompt(f"p{number}") for number in range(100)])
    assert len(server.requests) == 8


def test_money_is_counted(server: ChatServer) -> None:
    generator = generator_of(server, prompt_price=2.0, completion_price=10.0)
    server.plan = [says(500, "")]
    generator.generate([Prompt("a"), Prompt("b")])
    # 20 prompt tokens at 2 a million and 8 completion tokens at 10: a failed request costs nothing.
    assert generator.account.usage == Usage(2, 20, 8, pytest.approx(120e-6), 0)
    server.plan = [says(200, completion("x", usage=False))]
    generator.generate([Prompt("abc")])
    # Without a word of the server: at most its bytes and the frame, and all the tokens it was allowed.
    assert generator.account.usage == Usage(3, 20 + 3 + 64, 8 + 128, pytest.approx(((20 + 67) * 2 + 136 * 10) / 1e6), 1)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_budget_is_never_passed(server: ChatServer, concurrency: int, tmp_path: Path) -> None:
    server.otherwise = sleeps(0.01)
    # A request may cost 128 and costs 4 completion tokens, of one unit each.
    generator = generator_of(server, completion_price=1e6, budget=150.0, concurrency=concurrency)
    cached = CachedGenerator(GenerationCache(tmp_path, generator.generator_id), lambda: generator)
    with pytest.raises(BudgetError, match="the budget of 150 is used up: 24 spent in 6 requests, and the next may cost 128"):
        cached.generate([Prompt(f"p{number}") for number in range(100)])
    assert generator.account.usage.cost == 24 and len(server.requests) == 6
    assert len(GenerationCache(tmp_path, generator.generator_id)) == 6


def test_a_budget_below_one_request() -> None:
    account = Account(completion_price=1e6, budget=1.0)
    with pytest.raises(BudgetError, match="0 spent in 0 requests, and the next may cost 2"), account.reserved(0, 2):
        pass
    with account.reserved(0, 1):
        pass


def test_back_off_doubles_up_to_its_bound() -> None:
    config = RetryConfig(first_wait=0.5, longest_wait=3)
    for attempt, bound in ((0, 0.5), (1, 1.0), (2, 2.0), (3, 3.0), (5000, 3.0)):
        waits = [back_off(config, attempt) for _ in range(300)]
        assert 0 <= min(waits) < 0.1 * bound and 0.9 * bound < max(waits) <= bound


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("7", 7.0), (" 1.5 ", 1.5), ("Fri, 31 Jan 2025 12:00:30 GMT", 30.0), ("Fri, 31 Jan 2025 11:00:00 GMT", 0.0), ("soon", None), ("-3", None)],
)
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2025, 1, 31, 12, tzinfo=UTC)) == seconds


def test_the_key_is_named_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    config = EndpointGeneratorConfig(url="http://localhost:1/v1", model="m", api_key_env="TEST_KEY")
    with pytest.raises(ConfigError, match="TEST_KEY is not set"):
        EndpointGenerator(config)
    with pytest.raises(ValidationError):
        EndpointGeneratorConfig(url="http://user:password@localhost/v1", model="m")


def test_the_id_covers_what_moves_an_answer_and_nothing_else() -> None:
    config = EndpointGeneratorConfig(url="http://a/v1", model="m")
    moved: list[dict[str, Any]] = [
        {"url": "http://b/v1"}, {"model": "n"}, {"revision": "2"}, {"same_as": "x"}, {"body": {"a": 1}}, {"sampling": Sampling(seed=1)}
    ]  # fmt: skip
    ids = {config.model_copy(update=change).generator_id for change in moved}
    assert len(ids) == len(moved) and config.generator_id not in ids
    same: dict[str, Any] = {"concurrency": 1, "budget": 1.0, "prompt_price": 1.0, "api_key_env": "X", "retry": FAST, "url": "http://a/v1/"}
    assert config.model_copy(update=same).generator_id == config.generator_id
    named = [EndpointGeneratorConfig(url=f"http://{host}/v1", model="m", same_as="ours").generator_id for host in "ab"]
    assert named[0] == named[1]

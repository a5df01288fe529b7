"""Against a real server of the protocol on this machine, with the faults that servers have."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings.content import of_texts
from recsys.embeddings.endpoint import EndpointEncoder, EndpointEncoderConfig, _split
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.errors import ConfigError, DataError, NonFiniteError, RetryableError
from tests.unit.embeddings.embedding_server import KEY, Answer, Server, serving

DIM = 8
TEXTS = of_texts([f"text {number} of seven" for number in range(7)])
FAST = {"retries": 3, "first_wait": 0.001, "longest_wait": 5.0}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(HashedEncoder(DIM)) as running:
        yield running


def config(server: Server, **options: object) -> EndpointEncoderConfig:
    values = {"name": "remote", "url": server.url, "model": "m", "revision": "1", "dim": DIM, "batch": 2, "retry": FAST}
    return EndpointEncoderConfig.parse(values | options)


def encoder(server: Server, **options: object) -> EndpointEncoder:
    return EndpointEncoder(config(server, **options))


def changed(**replaced: object) -> Callable[[Answer], Answer]:
    """Each row of the answer with other fields."""
    return lambda answer: answer | {"data": [row | replaced for row in answer["data"]]}


def shuffled(answer: Answer) -> Answer:
    return answer | {"data": answer["data"][::-1]}


def test_gives_what_the_servers_model_gives(tiny: Callable[..., str]) -> None:
    local = TextEncoder.load(TextEncoderConfig(name="x", model=tiny("bert"), dtype="float32"))
    with serving(local) as server:
        remote = encoder(server, dim=local.dim, ask_dim=True)
        np.testing.assert_allclose(remote.encode(TEXTS), local.encode(TEXTS), atol=1e-6)
        assert remote.encode([]).shape == (0, local.dim)
    assert sorted(len(request["input"]) for request in server.requests) == [1, 2, 2, 2]
    assert all(request["model"] == "m" and request["dimensions"] == local.dim and request["encoding_format"] == "float" for request in server.requests)


@pytest.mark.parametrize(
    "fault",
    [
        (429, {}), (500, {}), (503, {"Retry-After": "0"}), (408, {}), shuffled, lambda answer: answer | {"data": answer["data"][:-1]},
        lambda answer: {"no": "data"}, changed(index=0), changed(embedding="text"),
        lambda answer: answer | {"data": answer["data"] * 2 + [{"index": 9, "embedding": [0.0] * DIM}]},
    ],
)  # fmt: skip
def test_faults_that_pass_are_overcome(server: Server, fault: object) -> None:
    server.faults = [fault]  # type: ignore[list-item]
    np.testing.assert_allclose(encoder(server, concurrency=1).encode(TEXTS), HashedEncoder(DIM).encode(TEXTS), atol=1e-6)
    assert len(server.requests) == (4 if fault is shuffled else 5)


def test_the_server_says_when_to_come_back(server: Server) -> None:
    server.faults = [(429, {"Retry-After": "1"})]
    encoder(server, concurrency=1).encode(TEXTS[:1])
    assert server.times[1] - server.times[0] >= 1
    server.faults = [(429, {"Retry-After": "3600"})]
    with pytest.raises(RetryableError, match="come back in 3600 s"):
        encoder(server).encode(TEXTS)


def test_gives_up_after_the_retries(server: Server) -> None:
    server.faults = [(500, {})] * 99
    with pytest.raises(RetryableError, match="after 4 tries, last HTTP 500"):
        encoder(server, concurrency=1).encode(TEXTS)
    assert len(server.requests) == 4  # the other batches are not sent


def test_a_slow_server_is_a_time_out(server: Server) -> None:
    server.slow = 0.5
    with pytest.raises(RetryableError, match="ReadTimeout"):
        encoder(server, answer_seconds=0.05, retry=FAST | {"retries": 1}).encode(TEXTS[:1])


def test_nobody_listens() -> None:
    with serving(HashedEncoder(DIM)) as gone:
        pass
    with pytest.raises(RetryableError, match="ConnectError"):
        encoder(gone).encode(TEXTS)


def test_wrong_dimension_and_nan_are_errors_at_once(server: Server) -> None:
    with pytest.raises(ConfigError, match="vectors of 8 numbers, dim is 9"):
        encoder(server, dim=9, concurrency=1).encode(TEXTS[:2])
    assert len(server.requests) == 1
    for bad in ([float("nan")] * DIM, [None] * DIM, [1e300] * DIM):
        server.faults = [changed(embedding=bad)]
        with pytest.raises(NonFiniteError, match="text 0 of seven"):
            encoder(server, normalise=False).encode(TEXTS[:2])


@pytest.mark.parametrize(("status", "error"), [(400, DataError), (413, DataError), (401, ConfigError), (404, ConfigError), (302, ConfigError)])
def test_refusals_are_not_repeated(server: Server, status: int, error: type[Exception]) -> None:
    server.faults = [(status, {"Location": server.url})]
    with pytest.raises(error, match=f"HTTP {status}"):
        encoder(server).encode(TEXTS[:1])
    assert len(server.requests) == 1


def test_requests_under_way_are_bounded(server: Server) -> None:
    server.slow = 0.05
    encoder(server, batch=1, concurrency=3).encode(TEXTS)
    assert 2 <= server.most_at_once <= 3


def test_the_key_is_sent_and_shown_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError, match="EMBEDDINGS_KEY is not set"):
        encoder(server, api_key_env="EMBEDDINGS_KEY")
    monkeypatch.setenv("EMBEDDINGS_KEY", KEY)
    remote = encoder(server, api_key_env="EMBEDDINGS_KEY")
    server.faults = [(401, {})]  # its message repeats the key
    with pytest.raises(ConfigError, match=r"in \$EMBEDDINGS_KEY is refused") as caught:
        remote.encode(TEXTS)
    assert server.keys[0] == f"Bearer {KEY}"
    shown = f"{caught.value} {remote.config!r} {remote.space!r} {caplog.text}"
    assert KEY not in shown and "***" in str(caught.value)


def test_only_loopback_and_https_unless_allowed(server: Server) -> None:
    for url in ("http://10.0.0.7:8000/v1", "http://models.internal/v1", "ftp://127.0.0.1/v1", "https://user:password@host/v1", "https://host/v1?key=1"):
        with pytest.raises(ConfigError, match="url"):
            config(server, url=url)
    for url in ("http://localhost:8000/v1", "http://[::1]:8000/v1", "http://127.0.0.2/v1", "https://models.example/v1"):
        assert config(server, url=url).space() == config(server).space()
    assert config(server, url="http://10.0.0.7/v1", allow_insecure=True).space() == config(server).space()


def test_long_texts_are_split_and_averaged_by_their_characters(server: Server) -> None:
    remote = encoder(server, max_chars=16, normalise=False, instruction="q: ")
    vectors = remote.encode(of_texts(["one two three four five", "short"]))
    parts = HashedEncoder(DIM).encode(of_texts(["q: one two three", "q: four five", "q: short"]))
    np.testing.assert_allclose(vectors[0], (13 * parts[0] + 9 * parts[1]) / 22, atol=1e-6)
    np.testing.assert_allclose(vectors[1], parts[2], atol=1e-6)
    assert remote.chunked == 1
    with pytest.raises(DataError, match="text 1 is empty"):
        remote.encode(of_texts(["a", " "]))


@given(st.text(alphabet="ab \n", max_size=80), st.integers(1, 20))
def test_splitting_loses_nothing_but_white_space(text: str, width: int) -> None:
    pieces = list(_split(text, width))
    assert all(0 < len(piece) <= width for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())

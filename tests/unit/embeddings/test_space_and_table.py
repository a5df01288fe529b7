from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.pooling import masked_mean
from recsys.embeddings.space import EmbeddingSpace
from recsys.embeddings.table import EmbeddingTable, write_table
from recsys.errors import ArtifactError, NonFiniteError, SpaceMismatchError, UnknownIdError

SPACE = HashedEncoder(2).space


@given(st.sampled_from(sorted(EmbeddingSpace.model_fields)))
def test_each_field_moves_the_id(field: str) -> None:
    old = getattr(SPACE, field)
    new = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int) else old + "x"
    assert SPACE.model_copy(update={field: new}).space_id != SPACE.space_id


def test_id_is_stable() -> None:
    assert EmbeddingSpace.parse(SPACE.model_dump()).space_id == SPACE.space_id and len(SPACE.space_id) == 16


def test_masked_mean_known_answer() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [float("nan"), 9.0]]])
    assert masked_mean(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]
    assert masked_mean(hidden[:, :2], None).tolist() == [[2.0, 3.0]]


def test_table_saves_loads_and_aligns(tmp_path: Path) -> None:
    table = EmbeddingTable(np.array([[1, 2], [3, 4]], dtype=np.float32), Vocabulary(["a", "b"]), SPACE)
    table.save(tmp_path)
    loaded = EmbeddingTable.load(tmp_path)
    assert loaded.space_id == table.space_id and loaded.vocabulary == table.vocabulary
    assert loaded.aligned_to(Vocabulary(["b", "a"])).tolist() == [[3, 4], [1, 2]]
    with pytest.raises(UnknownIdError):
        loaded.aligned_to(Vocabulary(["a", "z"]))
    with pytest.raises(SpaceMismatchError):
        loaded.require_space("0" * 16)
    with pytest.raises(ValueError):
        loaded.values[0, 0] = 1


def test_table_refuses_bad_values(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        EmbeddingTable(np.zeros((1, 3), dtype=np.float32), Vocabulary(["a"]), SPACE)
    with pytest.raises(NonFiniteError, match="'a'"):
        EmbeddingTable(np.full((1, 2), np.inf, dtype=np.float32), Vocabulary(["a"]), SPACE)
    with pytest.raises(ArtifactError):
        EmbeddingTable.load(tmp_path)


def test_a_table_by_pieces_is_the_table(tmp_path: Path) -> None:
    """Also with ids that JSON has to escape; rows or ids that are too many or too few, and NaN, are refused."""
    space = HashedEncoder(3).space
    ids = [f'i"{i}\n' for i in range(12_000)]
    values = np.random.default_rng(0).random((12_000, 3), dtype=np.float32)
    table = EmbeddingTable(values, Vocabulary(ids), space)
    table.save(tmp_path / "whole")
    write_table(tmp_path / "pieces", iter(ids), 12_000, space, iter(np.array_split(values, 7)))
    for name in ("values.npy", "ids.json", "space.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "pieces" / name).read_bytes()
    loaded = EmbeddingTable.load(tmp_path / "pieces")
    np.testing.assert_array_equal(loaded.values, values)
    assert loaded.vocabulary.ids == table.vocabulary.ids
    for count, blocks in ((12_001, [values]), (11_999, [values]), (12_000, [values, values[:1]])):
        with pytest.raises(ArtifactError, match=f"{count}"):
            write_table(tmp_path / "bad", ids[:count], count, space, blocks)
    with pytest.raises(ArtifactError, match="as many ids, got 5"):
        write_table(tmp_path / "bad", ids[:5], 12_000, space, [values])
    values[7000, 1] = np.nan
    with pytest.raises(NonFiniteError, match="row 7000"):
        write_table(tmp_path / "bad", ids, 12_000, space, np.array_split(values, 7))
    write_table(tmp_path / "none", [], 0, space, [])
    assert len(EmbeddingTable.load(tmp_path / "none")) == 0

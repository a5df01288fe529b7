"""Pictures and texts together on a board of embeddings: vectors side by side, and a joint encoder that is trained on the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.embedding_board import plan_of, run_board
from pipelines.embedding_rows import EmbeddingBoardConfig
from pipelines.item_tables import concatenated
from pipelines.ledger import Ledger
from pipelines.progress import SilentReporter
from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import ConfigError, SpaceMismatchError
from recsys.testing.language_models import tiny_model
from recsys.testing.vision_models import picture, tiny_vision_model

ITEMS = 24
TEMPLATE = "{title}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    events = [(f"u{user}", f"i{item}", step) for user in range(40) for step, item in enumerate(rng.permutation(ITEMS)[:8])]
    pl.DataFrame(events, schema=["user", "item", "ts"], orient="row").write_csv(folder / "events.csv")
    names = [f"{n}.png" for n in range(ITEMS)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))
    pl.DataFrame({"id": [f"i{n}" for n in range(ITEMS)], "name": [f"film {n}" for n in range(ITEMS)], "poster": names}).write_csv(folder / "items.csv")
    tiny_model(folder / "llm", "llama")
    tiny_vision_model(folder / "clip", "clip")
    return folder


def board_of(shop: Path, **rows: object) -> EmbeddingBoardConfig:
    items = {"path": str(shop / "items.csv"), "columns": {"item_id": "id", "title": "name", "image_path": "poster"}}
    interactions = {"path": str(shop / "events.csv"), "columns": {"user_id": "user", "item_id": "item", "time": "ts"}}
    image = {"kind": "image", "name": "picture", "model": str(shop / "clip")}
    joint = {
        "encoder": {"name": "joint", "model": str(shop / "llm"), "image": image, "layers": 2, "image_tokens": 2, "dtype": "float32", "template": TEMPLATE},
        "tuning": {"kind": "lora", "rank": 2},
        "steps": 3,
        "pairs": {"window": 1},
        "chunk_tokens": 512,
        "training": {"epochs": 2, "patience": 2, "batch_size": 8, "learning_rate": 0.01},
    }
    return EmbeddingBoardConfig.parse({
        "dataset": "shop",
        "data": {"source": {"kind": "table", "interactions": interactions, "items": items}},
        "images": {"root": str(shop)},
        "split": {"protocol": "held_out_items", "held_out_share": 0.2},
        "against": "words",
        "posts": {"centre": {"kind": "centre"}},
        "rows": {
            "words": {"kind": "encoder", "label": "words", "encoder": {"model": "hashed", "template": TEMPLATE}, "posts": ["none", "centre"]},
            "poster": {"kind": "encoder", "label": "poster", "encoder": image},
            "both": {"kind": "concat", "label": "side by side", "parts": ["words-centre", "poster"]},
            "counts": {"kind": "made", "label": "counts", "made": {"kind": "tfidf", "template": TEMPLATE, "dim": 4}},
            "less": {"kind": "concat", "label": "the poster at half weight", "parts": ["counts", "poster"], "weights": [1.0, 0.5]},
            "joint": {
                "kind": "joint", "label": "joint", "seeds": [0], "pictures": ["own", "absent", "swapped", "alone"],
                "adapter": {"joint_training": joint, "validation_cases": 20},
            },
            **rows,
        },
    })  # fmt: skip


def test_every_line_is_measured_and_none_made_twice(shop: Path, tmp_path: Path) -> None:
    board, root = board_of(shop), tmp_path / "root"
    found = run_board(board, SilentReporter(), tmp_path / "board", root=root)
    lines = {line["name"]: line for line in found["lines"]}
    assert set(lines) == {"words", "words-centre", "poster", "both", "counts", "less", "joint", "joint-absent", "joint-swapped", "joint-alone"}
    assert lines["less"]["dim"] == lines["counts"]["dim"] + lines["poster"]["dim"]
    assert lines["both"]["dim"] == lines["words"]["dim"] + lines["poster"]["dim"]
    assert len({line["space_ids"][0] for line in lines.values()}) == len(lines), "each is a space of its own"
    assert lines["joint"]["trained"] and not lines["both"]["trained"]
    statuses = list(Ledger(root).survey(plan_of(board).steps))
    assert all(status.cached for status in statuses)
    trained = next(Ledger(root).open(s) for s in statuses if s.step.name.startswith("joint"))
    assert trained.manifest.metadata["figures"]["items_with_picture"] == ITEMS and trained.manifest.metadata["figures"]["cosine_after_swap"] < 0.9999
    tables = {part: EmbeddingTable.load(trained.path / f"table_{part}").values for part in ("own", "absent", "swapped", "alone")}
    assert all(np.isfinite(values).all() and np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-4) for values in tables.values())
    assert np.abs(tables["own"] - tables["swapped"]).max() > 1e-4 and np.abs(tables["own"] - tables["absent"]).max() > 1e-4


def test_a_line_that_is_not_there_cannot_stand_beside_another(shop: Path) -> None:
    with pytest.raises(ConfigError, match="no line that is not trained is called postre; there are: words"):
        board_of(shop, both={"kind": "concat", "label": "x", "parts": ["words", "postre"]})
    with pytest.raises(ConfigError, match="1 weights of 2 parts"):
        board_of(shop, both={"kind": "concat", "label": "x", "parts": ["words", "poster"], "weights": [1.0]})


def test_vectors_side_by_side_count_alike_and_a_missing_one_is_near_to_nothing() -> None:
    items = Vocabulary(["a", "b", "c"])
    first = EmbeddingTable(np.array([[3, 4], [0, 2], [0, 0]], dtype=np.float32), items, HashedEncoder(2).space)
    second = EmbeddingTable(np.array([[5, 0, 0], [0, 0, 0], [0, 0, 0]], dtype=np.float32), items, HashedEncoder(3).space)
    both = concatenated([first, second], items)
    half = 2**-0.5
    np.testing.assert_allclose(both.values[0], [0.6 * half, 0.8 * half, half, 0, 0], atol=1e-6)
    # What is known of b weighs as it does of a, and beside it stands a vector of its own; of c nothing is known.
    np.testing.assert_allclose(both.values[1, :2], [0, half], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both.values, axis=1), [1, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(both.values, concatenated([first, second], items).values)
    weighted = concatenated([first, second], items, [1.0, 2.0])
    np.testing.assert_allclose(weighted.values[0], np.array([0.6, 0.8, 2, 0, 0]) / 5**0.5, atol=1e-6)
    assert weighted.space_id != both.space_id
    other = EmbeddingTable(second.values, items, second.space.model_copy(update={"split_hash": "b" * 64}))
    fitted = EmbeddingTable(first.values, items, first.space.model_copy(update={"split_hash": "a" * 64}))
    assert concatenated([first, other], items).space.split_hash == "b" * 64, "fitted on interactions, and says so"
    with pytest.raises(SpaceMismatchError, match="different splits"):
        concatenated([fitted, other], items)

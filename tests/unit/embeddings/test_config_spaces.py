"""Every option of every text encoder either moves the embedding space or is stated not to. A new option fails here until it is sorted in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.data.vocabulary import Vocabulary
from recsys.embeddings.cache import EmbeddingCache
from recsys.embeddings.configs import kind_of, parse_encoder
from recsys.embeddings.content import of_texts
from recsys.embeddings.endpoint import EndpointEncoderConfig
from recsys.embeddings.loading import load_encoder
from recsys.embeddings.post import PostConfig, fit_post
from recsys.embeddings.post_encoder import PostEncoderConfig
from recsys.embeddings.promptreps import PROMPTREPS, PromptRepsConfig
from recsys.embeddings.table import EmbeddingTable
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import SpaceMismatchError
from recsys.ranking.index import ItemIndex
from recsys.testing.language_models import tiny_adapter

TEXTS = of_texts(["Toy Story", "Heat", "a robot", "Toys"])
Change = tuple[str, Any]


def fitted(folder: Path, encoder: Any, split_hash: str = "split", **options: Any) -> Path:
    table = EmbeddingTable(load_encoder(encoder).encode(TEXTS), Vocabulary("abcd"), encoder.space())
    fit_post(PostConfig.parse(options), table, np.array([True, True, True, False]), split_hash).save(folder)
    return folder


@pytest.fixture(scope="module")
def cases(tiny: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, list[Change], list[Change]]]:
    """kind -> config, changes that move the space, changes that do not."""
    root = tmp_path_factory.mktemp("spaces")
    model = tiny("llama")
    text = TextEncoderConfig(name="x", model=model)
    hashed = TextEncoderConfig(name="x", model="hashed")
    moving: list[Change] = [
        ("model", tiny("llama", seed=1)), ("template", "{title}"), ("instruction", "query: "), ("max_length", 128), ("layer", 1), ("pooling", "last"),
        ("attention", "bidirectional"), ("normalise", False), ("dtype", "float32"), ("adapter", tiny_adapter(root / "adapter", model)),
    ]  # fmt: skip
    still: list[Change] = [("name", "y"), ("kind", "text"), ("token_budget", 64), ("attention", "causal")]
    prompted = PromptRepsConfig(name="x", model=model, max_length=512)
    remote = EndpointEncoderConfig(name="x", url="http://localhost:1/v1", model="m", revision="1", dim=4)
    posted = PostEncoderConfig(name="x", encoder=hashed, post=fitted(root / "post", hashed))
    return {
        "text": (text, moving, still),
        "promptreps": (
            prompted,
            [("model", tiny("llama", seed=1)), ("template", "{title}"), ("max_length", 256), ("dtype", "float32")],
            [("name", "y"), ("kind", "promptreps"), ("token_budget", 64)],
        ),
        "endpoint": (
            remote,
            [("model", "n"), ("revision", "2"), ("dim", 5), ("template", "{title}"), ("instruction", "q: "), ("max_chars", 99), ("normalise", False)],
            [
                ("name", "y"), ("kind", "endpoint"), ("url", "https://other/v1"), ("ask_dim", True), ("batch", 1), ("concurrency", 1), ("connect_seconds", 1.0),
                ("answer_seconds", 1.0), ("answer_bytes", 9), ("retry", {"retries": 0}), ("api_key_env", "KEY"), ("allow_insecure", True),
            ],
        ),
        "post": (
            posted,
            [("post", fitted(root / kind, hashed, kind=kind)) for kind in ("centre", "pca_whiten", "pca", "all_but_the_top")]
            + [
                ("post", fitted(root / "split", hashed, "other split")), ("post", fitted(root / "raw", hashed, normalise=False)),
                ("post", fitted(root / "shrunk", hashed, shrinkage=0.5)),
            ],
            [("name", "y"), ("kind", "post"), ("post", fitted(root / "again", hashed))],
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["text", "promptreps", "endpoint", "post"])
def test_every_option_moves_the_space_or_is_stated_not_to(cases: dict[str, Any], kind: str) -> None:
    config, moving, still = cases[kind]
    values = config.model_dump()
    ids = [config.space().space_id]
    for name, value in moving:
        changed = parse_encoder(values | {name: value})
        assert name not in config.NOT_IN_SPACE
        ids.append(changed.space().space_id)
    assert len(set(ids)) == len(ids), "two of the changes share a space"
    for name, value in still:
        assert parse_encoder(values | {name: value}).space() == config.space(), name
    # `prompt` has one version so far; `encoder` of post is bound to what was fitted.
    untried = set(type(config).model_fields) - {name for name, _ in (*moving, *still)} - {"prompt", "encoder"}
    assert not untried, f"sort the options {untried} in"
    assert set(config.NOT_IN_SPACE) <= {name for name, _ in still}


def test_prompts_of_two_versions_are_two_spaces() -> None:
    assert len({prompt.name for prompt in PROMPTREPS.values()}) == len(PROMPTREPS)


def test_no_machine_path_and_no_address_in_a_space(cases: dict[str, Any]) -> None:
    for config, _, _ in cases.values():
        assert "/" not in config.space().model_dump_json(exclude={"template"})


@pytest.mark.parametrize("kind", ["text", "promptreps", "post"])
def test_the_loaded_encoder_is_in_the_space_that_the_config_states(cases: dict[str, Any], kind: str) -> None:
    config = cases[kind][0]
    encoder = load_encoder(parse_encoder(config.model_dump(mode="json")))
    assert encoder.space == config.space() and encoder.encode(TEXTS).shape == (4, encoder.dim)
    assert kind_of(config) == kind


def test_the_same_files_elsewhere_are_the_same_space(tiny: Callable[..., str], tmp_path: Path) -> None:
    import shutil

    model = Path(tiny("llama"))
    moved = shutil.copytree(model, tmp_path / "deep" / model.name)
    assert TextEncoderConfig(name="x", model=str(moved)).space() == TextEncoderConfig(name="x", model=str(model)).space()
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        changed = Path(shutil.copytree(model, tmp_path / name.split(".")[0] / model.name))
        data = (changed / name).read_bytes()
        (changed / name).write_bytes(data.replace(b'"rope_theta": 10000.0', b'"rope_theta": 20000.0') if name == "config.json" else data[:-1] + b" ")
        assert TextEncoderConfig(name="x", model=str(changed)).space() != TextEncoderConfig(name="x", model=str(model)).space(), name


def test_loading_across_spaces_is_refused(tmp_path: Path) -> None:
    """Table, cache and index: what was made in one space says no to another."""
    one, two = (TextEncoderConfig(name="x", model="hashed", template=template) for template in ("{title}", "{title}."))
    encoder = load_encoder(one)
    table = EmbeddingTable(encoder.encode(TEXTS), Vocabulary("abcd"), encoder.space)
    with pytest.raises(SpaceMismatchError):
        table.require_space(two.space().space_id)
    EmbeddingCache(tmp_path / "cache", encoder.space).put(TEXTS, table.values)
    assert EmbeddingCache(tmp_path / "cache", two.space()).missing(TEXTS) == TEXTS
    ItemIndex.build(table.values, table.space_id).save(tmp_path / "index")
    with pytest.raises(SpaceMismatchError):
        ItemIndex.load(tmp_path / "index", space_id=two.space().space_id)
    table.save(tmp_path / "table")
    file = tmp_path / "table" / "space.json"
    file.write_text(file.read_text().replace('"{title}"', '"{title}."'))
    with pytest.raises(SpaceMismatchError, match="its fields give"):
        EmbeddingTable.load(tmp_path / "table")
    post = fitted(tmp_path / "post", one)
    with pytest.raises(SpaceMismatchError, match="fitted in space"):
        PostEncoderConfig(name="x", encoder=two, post=post).space()

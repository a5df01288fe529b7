"""The bundle: one folder with all that a published model needs to recommend, score and take in new items.

Layout: `ranker/` (FusedRanker), `items.parquet` (catalog, row = item_num), `users.parquet` (user_id, item_nums: the
history at publishing time), `index/` (ItemIndex over the unit-length fused item vectors), `encoders.json` (signal ->
encoder config), `golden.json` (requests with the answers that they must get), `explanations.parquet` (item_id, text; where
a language model gave reasons), `bundle.json` (facts). The caller wraps it in an Artifact of kind "bundle".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json, sha256_of, write_json
from recsys.config import digest_of
from recsys.data.catalog import ItemCatalog
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError, SpaceMismatchError
from recsys.heads.fusion import FusedRanker
from recsys.ranking.index import ItemIndex
from recsys.serving.golden import Golden, golden_requests
from recsys.types import BoolArray, FloatArray, IntArray, Queries

KIND = "bundle"
GOLDEN, EXPLANATIONS = "golden.json", "explanations.parquet"


class Ranker(Protocol):
    """What serving needs of a fused model, whose score is `represent @ items.T`; see FusedRanker."""

    @property
    def spaces(self) -> Mapping[str, str]: ...
    @property
    def n_items(self) -> int: ...
    def scorable_items(self) -> BoolArray: ...
    def represent(self, queries: Queries) -> FloatArray: ...
    def score(self, queries: Queries, item_nums: IntArray) -> FloatArray: ...
    def items(self) -> FloatArray: ...
    def shares_of(self, states: FloatArray, item_nums: IntArray) -> Mapping[str, FloatArray]: ...
    def with_items(self, vectors: Mapping[str, FloatArray]) -> Ranker: ...


@dataclass(frozen=True)
class Bundle:
    """histories: row u belongs to user_num u. encoders: signal -> plain values of its TextEncoderConfig. space_id: of
    the fused item vectors in `index`. facts: model facts for readers (split digest, metrics). path, key: of the artifact. created:
    when it was written, ISO 8601. explanations: item_id -> the reason that a language model gave for the item."""

    name: str
    version: str
    ranker: Ranker
    catalog: ItemCatalog
    users: Vocabulary
    histories: Sequences
    index: ItemIndex
    space_id: str
    encoders: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    path: Path | None = None
    key: str = ""
    created: str = ""
    golden: tuple[Golden, ...] = ()
    explanations: Mapping[str, str] = field(default_factory=dict)


def save_bundle(
    folder: Path,
    *,
    name: str,
    ranker: FusedRanker,
    catalog: ItemCatalog,
    users: Vocabulary,
    histories: Sequences,
    encoders: Mapping[str, Mapping[str, Any]],
    split_digest: str,
    metrics: Mapping[str, float],
    explanations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write the files into `folder`, build the index; gives the metadata for the manifest.

    encoders: signal -> `TextEncoderConfig.model_dump(mode="json")`; a signal without one cannot take new items.

    Raises:
        SpaceMismatchError: ranker, catalog, users and histories do not fit each other.
    """
    _check_sizes(ranker.n_items, catalog, users, histories)
    unknown = set(encoders) - set(ranker.spaces)
    if unknown:
        raise SpaceMismatchError(f"encoders for signals that the ranker does not have: {sorted(unknown)}; its signals: {sorted(ranker.spaces)}")
    (folder / "ranker").mkdir(parents=True)
    (folder / "index").mkdir()
    ranker.save(folder / "ranker")
    space_id = fused_space_id(folder / "ranker", ranker.spaces)
    build_index(ranker.items(), space_id, catalog.items).save(folder / "index")
    catalog.table.write_parquet(folder / "items.parquet")
    rows = [row.tolist() for row in histories]
    pl.DataFrame({"user_id": list(users.ids), "item_nums": rows}, schema={"user_id": pl.String, "item_nums": pl.List(pl.Int64)}).write_parquet(
        folder / "users.parquet"
    )
    write_json(folder / GOLDEN, [golden.to_json() for golden in golden_requests(ranker, histories)])
    if explanations:
        told = {"item_id": list(explanations), "text": list(explanations.values())}
        pl.DataFrame(told, schema={"item_id": pl.String, "text": pl.String}).write_parquet(folder / EXPLANATIONS)
    write_json(folder / "encoders.json", {signal: dict(config) for signal, config in encoders.items()})
    facts = {"name": name, "spaces": dict(ranker.spaces), "space_id": space_id, "split_digest": split_digest, "metrics": dict(metrics)}
    write_json(folder / "bundle.json", facts)
    return {**facts, "items": len(catalog), "users": len(users)}


def load_bundle(path: Path, *, name: str | None = None, version: str | None = None, key: str | None = None) -> Bundle:
    """Read and verify a bundle.

    name, version: of the registered model; without them the bundle's own name and the beginning of its key.
    key: the artifact key that the registry recorded, if it did.

    Raises:
        ArtifactError: bytes that differ from the manifest, or a bundle other than the registered one.
        SpaceMismatchError: ranker, index and facts are not of the same embedding spaces.
    """
    artifact = Artifact.open(path, kind=KIND)
    if key is not None and artifact.key != key:
        raise ArtifactError(f"{path}: the registry recorded the bundle {key[:12]}, found {artifact.key[:12]}; register the model again")
    facts = read_json(artifact.file("bundle.json"))
    ranker = FusedRanker.load(artifact.path / "ranker")
    if dict(ranker.spaces) != facts["spaces"]:
        raise SpaceMismatchError(f"{path}: the bundle states the spaces {facts['spaces']}, its ranker was trained on {dict(ranker.spaces)}")
    space_id = fused_space_id(artifact.path / "ranker", ranker.spaces)
    catalog = ItemCatalog(pl.read_parquet(artifact.file("items.parquet")))
    index = ItemIndex.load(artifact.path / "index", space_id=space_id, vocabulary_digest=catalog.items.digest)
    table = pl.read_parquet(artifact.file("users.parquet"))
    users = Vocabulary(table["user_id"].to_list())
    histories = Sequences.of_rows([np.array(row, dtype=np.int64) for row in table["item_nums"].to_list()])
    _check_sizes(ranker.n_items, catalog, users, histories)
    files = artifact.manifest.files
    golden = tuple(Golden.of_json(entry) for entry in read_json(artifact.file(GOLDEN))) if GOLDEN in files else ()
    explanations = dict(pl.read_parquet(artifact.file(EXPLANATIONS)).iter_rows()) if EXPLANATIONS in files else {}
    return Bundle(
        name=name or facts["name"],
        version=version or artifact.key[:12],
        ranker=ranker,
        catalog=catalog,
        users=users,
        histories=histories,
        index=index,
        space_id=space_id,
        encoders=read_json(artifact.file("encoders.json")),
        facts=facts,
        path=artifact.path,
        key=artifact.key,
        created=artifact.manifest.created,
        golden=golden,
        explanations=explanations,
    )


def fused_space_id(ranker_folder: Path, spaces: Mapping[str, str]) -> str:
    """The fused vectors move with every weight: their space is the hash of the ranker's files and input spaces."""
    files = {f.relative_to(ranker_folder).as_posix(): sha256_of(f) for f in sorted(ranker_folder.rglob("*")) if f.is_file()}
    return digest_of({"spaces": dict(spaces), "files": files})[:16]


def unit_rows(vectors: FloatArray) -> FloatArray:
    """float32 (n, d) of length 1; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def build_index(item_vectors: FloatArray, space_id: str, items: Vocabulary) -> ItemIndex:
    """Exact inner product over unit vectors: cosine."""
    return ItemIndex.build(unit_rows(item_vectors), space_id, items.digest)


def _check_sizes(n_items: int, catalog: ItemCatalog, users: Vocabulary, histories: Sequences) -> None:
    if n_items != len(catalog):
        raise SpaceMismatchError(f"the ranker knows {n_items} items, the catalog has {len(catalog)}")
    if len(users) != len(histories):
        raise SpaceMismatchError(f"{len(users)} users but {len(histories)} histories")
    if len(histories.item_nums) and not 0 <= histories.item_nums.min() <= histories.item_nums.max() < n_items:
        raise SpaceMismatchError(f"a history holds an item_num outside 0..{n_items - 1}")

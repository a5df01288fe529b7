"""The embedding stage on catalogs with poisoned rows: what is refused, what is kept, what is computed again and what is not."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipelines import embed
from pipelines.embed_job import BATCH, _batches
from pipelines.executors import EncodedBatch, LocalExecutor
from pipelines.progress import SilentReporter
from pipelines.stage import Surroundings
from pipelines.throughput import Job, expected_rate, jobs_of, note_job
from recsys.artifacts.artifact import Artifact, Manifest, write_artifact
from recsys.embeddings.configs import EncoderConfig
from recsys.embeddings.content import Content, of_texts
from recsys.embeddings.hashed import HashedEncoder
from recsys.embeddings.image_source import ImageSourceConfig
from recsys.embeddings.limits import LimitsConfig
from recsys.embeddings.table import EmbeddingTable
from recsys.embeddings.text import TextEncoderConfig
from recsys.errors import ConfigError, DataError, RetryableError
from recsys.rng import numpy_generator
from recsys.testing.encoders import LoadStandIn, StandIn, StandInConfig

JOINT = StandInConfig(name="joint", model="hashed", template="{title}")
TEXT = TextEncoderConfig(name="words", model="hashed", template="{title}")


def jpeg(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (colour % 256, colour * 7 % 256, colour * 31 % 256)).save(file, "JPEG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


POISONS = {
    "empty": "empty",
    "huge": "text too long",
    "control": "control character",
    "broken": "picture not decoded (text kept)",
    "bomb": "picture not decoded (text kept)",
    "missing": "picture not read (text kept)",
}


@pytest.fixture
def poisoned(tmp_path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """200 items with posters, six of them poisoned (3 %), at random places; item_id -> poison."""
    posters = tmp_path / "posters"
    posters.mkdir()
    titles: list[str | None] = [f"film number {i}" for i in range(200)]
    paths = [f"{i}.jpg" for i in range(200)]
    for i in range(200):
        (posters / paths[i]).write_bytes(jpeg(i))
    places = numpy_generator(0, "tests", "poison").choice(200, size=len(POISONS), replace=False).tolist()
    poison = dict(zip(places, POISONS, strict=True))
    for i, kind in poison.items():
        if kind == "empty":
            titles[i], paths[i] = None, ""
        elif kind == "huge":
            titles[i] = "x" * 1_000_000
        elif kind == "control":
            titles[i] = "a \x00 b"
        elif kind == "broken":
            (posters / paths[i]).write_bytes(jpeg(i)[:200])
        elif kind == "bomb":
            (posters / paths[i]).write_bytes(bomb())
        else:
            (posters / paths[i]).unlink()
    table = pl.DataFrame({"item_id": [f"i{i}" for i in range(200)], "title": titles, "image_path": [path or None for path in paths]})
    return table, {f"i{i}": kind for i, kind in poison.items()}


def ingested(folder: Path, table: pl.DataFrame) -> Artifact:
    def write(target: Path) -> None:
        table.write_parquet(target / "items.parquet")

    return write_artifact(folder, Manifest(kind="ingest", key=folder.name, config_hash=""), write)


class Bench:
    """Runs the stage in one root, and counts what the encoder was given."""

    def __init__(self, tmp_path: Path, config: embed.EmbedConfig) -> None:
        self.config, self.tmp_path, self.log, self.runs = config, tmp_path, tmp_path / "encoded.log", 0
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        self.surroundings = Surroundings(SilentReporter(), LocalExecutor(load=LoadStandIn(log=self.log)), tmp_path / "embeddings", scratch)

    def run(self, table: pl.DataFrame, *, retry: bool = False) -> tuple[dict[str, object], EmbeddingTable, dict[str, tuple[str, str]]]:
        """The stage's facts, its table, and item_id -> (part, reason) of the file for the user."""
        self.runs += 1
        folder = self.tmp_path / f"out{self.runs}"
        folder.mkdir()
        data = ingested(self.tmp_path / f"data{self.runs}", table)
        facts = embed.run(self.config, {"data": data}, folder, replace(self.surroundings, retry_quarantined=retry))
        with (folder / embed.QUARANTINE).open(newline="", encoding="utf-8") as file:
            listed = {row["item_id"]: (row["part"], row["reason"]) for row in csv.DictReader(file)}
        json.dumps(facts)
        return dict(facts), EmbeddingTable.load(folder), listed

    def encoded(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, embed.EmbedConfig(encoder=JOINT, images=ImageSourceConfig(root=tmp_path / "posters")))


def test_exactly_the_poisoned_rows_are_in_quarantine(poisoned: tuple[pl.DataFrame, dict[str, str]], bench: Bench) -> None:
    table, poison = poisoned
    facts, vectors, listed = bench.run(table)
    assert listed.keys() == poison.keys() and (facts["items"], facts["quarantined"]) == (200, 6)
    assert facts["quarantine"] == dict(Counter(POISONS.values()))
    for item, kind in poison.items():
        part, reason = listed[item]
        assert part == ("picture" if kind in ("broken", "bomb", "missing") else "item")
        assert reason.startswith(POISONS[kind].removesuffix(" (text kept)") + ": "), reason
        row = vectors.values[int(item[1:])]
        # A bad picture costs the picture; a bad text the item.
        expected = HashedEncoder().encode(of_texts([f"film number {item[1:]}"]))[0] if part == "picture" else np.zeros(64)
        np.testing.assert_array_equal(row, expected, err_msg=kind)
    assert facts["items_without_vector"] == 3 and facts["computed"] == 197
    sound = next(i for i in range(200) if f"i{i}" not in poison)
    picture = (bench.tmp_path / "posters" / f"{sound}.jpg").read_bytes()
    np.testing.assert_array_equal(vectors.values[sound], StandIn("", 0, None).encode([Content(f"film number {sound}", picture)])[0])


def test_a_rerun_computes_nothing_and_retries_only_when_asked(poisoned: tuple[pl.DataFrame, dict[str, str]], bench: Bench) -> None:
    table, poison = poisoned
    _, first, listed = bench.run(table)
    assert bench.encoded() == 197
    facts, second, listed_again = bench.run(table)
    assert bench.encoded() == 197 and facts["computed"] == 0 and facts["cached"] == 197 and listed_again == listed
    np.testing.assert_array_equal(first.values, second.values)
    bench.run(table, retry=True)
    assert bench.encoded() == 197  # tried again, refused again
    mended = next(item for item, kind in poison.items() if kind == "broken")
    (bench.tmp_path / "posters" / f"{mended[1:]}.jpg").write_bytes(jpeg(300))
    _, _, listed = bench.run(table)
    assert mended not in listed and bench.encoded() == 198


def test_a_picture_that_a_better_decoder_takes(poisoned: tuple[pl.DataFrame, dict[str, str]], bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    table, poison = poisoned
    bench.run(table)
    monkeypatch.setattr("recsys.testing.encoders._colours", lambda picture: "any")
    _, _, listed = bench.run(table)
    assert listed.keys() == poison.keys()
    _, _, listed = bench.run(table, retry=True)
    assert {poison[item] for item in listed} == {"empty", "huge", "control", "missing"}


def test_a_text_encoder_does_not_look_at_pictures(poisoned: tuple[pl.DataFrame, dict[str, str]], tmp_path: Path) -> None:
    table, poison = poisoned
    _, _, listed = Bench(tmp_path, embed.EmbedConfig(encoder=TEXT)).run(table)
    assert {poison[item] for item in listed} == {"empty", "huge", "control"}


def test_changed_shared_and_refused_contents(tmp_path: Path) -> None:
    """1 % of the items change: those are computed. Equal contents are computed once. A refused text does not lose its batch."""
    bench = Bench(tmp_path, embed.EmbedConfig(encoder=TEXT))
    titles = [f"film {i % 300}" for i in range(400)] + ["this is not finite"]
    table = pl.DataFrame({"item_id": [f"i{i}" for i in range(401)], "title": titles})
    facts, vectors, listed = bench.run(table)
    assert (facts["missing"], facts["computed"], facts["refused"], bench.encoded()) == (301, 300, 1, 300)
    assert listed == {"i400": ("item", listed["i400"][1])} and listed["i400"][1].startswith("vector not finite: ")
    np.testing.assert_array_equal(vectors.values[:400], HashedEncoder().encode(of_texts(titles[:400])))
    changed = table.with_columns(title=pl.when(pl.int_range(401) < 4).then(pl.lit("new ") + pl.col("title")).otherwise("title"))
    facts, _, _ = bench.run(changed)
    assert (facts["computed"], facts["cached"], bench.encoded()) == (4, 396, 304)
    surroundings = replace(bench.surroundings, executor=LocalExecutor(load=LoadStandIn(error="never loaded")))
    seen = embed.look(bench.config, ingested(tmp_path / "seen", table), surroundings)
    assert (seen["new"], seen["same"], seen["cached"], seen["quarantined"], seen["without_vector"]) == (0, 0, 400, 1, 1)
    seen = embed.look(bench.config, ingested(tmp_path / "more", table.with_columns(title=pl.lit("the same for all"))), surroundings)
    assert (seen["new"], seen["same"]) == (1, 400)
    assert not list((tmp_path / "scratch").iterdir())


def test_an_encoder_that_refuses_everything_ends_the_job_and_leaves_no_quarantine(tmp_path: Path) -> None:
    table = pl.DataFrame({"item_id": [f"i{i}" for i in range(1000)], "title": [f"not finite {i}" for i in range(1000)]})
    bench = Bench(tmp_path, embed.EmbedConfig(encoder=TEXT))
    with pytest.raises(DataError, match=r"refuses 256 of 256 contents.*max_refused_share"):
        bench.run(table)
    assert not list((bench.surroundings.embedding_cache / TEXT.space().space_id / "quarantine").glob("*.json"))
    few = Bench(tmp_path / "few", embed.EmbedConfig(encoder=TEXT)) if (tmp_path / "few").mkdir() is None else bench
    with pytest.raises(DataError, match=r"has a vector for none of 10 items: vector not finite \(10\)"):
        few.run(table.head(10))
    with pytest.raises(ConfigError, match="names the field 'title'"):
        few.run(table.head(10).rename({"title": "name"}))
    wide = Bench(tmp_path / "wide", embed.EmbedConfig(encoder=TEXT, limits=LimitsConfig(max_refused_share=1))) if (tmp_path / "wide").mkdir() is None else bench
    facts, _, _ = wide.run(pl.concat([table, pl.DataFrame({"item_id": ["fine"], "title": ["fine"]})]))
    assert (facts["refused"], facts["computed"]) == (1000, 1)


def test_the_runs_report_counts_what_was_refused() -> None:
    from types import SimpleNamespace
    from typing import Any

    from pipelines.report import _refused

    def table(name: str, quarantine: dict[str, int]) -> Any:
        return SimpleNamespace(manifest=SimpleNamespace(metadata={"name": name, "quarantine": quarantine}))

    inputs = {"data": None, "table:a": table("a", {"empty": 2, "text too long": 1}), "table:b": table("b", {})}
    assert _refused(inputs) == {"embed a: empty": 2, "embed a: text too long": 1}


def test_figures_for_the_tracking_server() -> None:
    from types import SimpleNamespace
    from typing import Any

    names = ("items", "computed", "cached", "items_without_vector", "quarantined", "refused", "items_per_second")
    facts = {"name": "a", **dict.fromkeys(names, 3), "tokens": 30, "seconds": 1.5}
    artifact: Any = SimpleNamespace(manifest=SimpleNamespace(metadata=facts))
    found = embed.figures(artifact)
    assert found["embed/a/tokens_per_second"] == 20.0 and found["embed/a/quarantined"] == 3.0 and len(found) == 10


def test_batches_hold_similar_lengths_and_few_long_texts() -> None:
    contents = of_texts("x" * (i % 50 + 1) + str(i) for i in range(1000))
    found = list(_batches(iter([*contents, Content("y" * 190_000), Content("z" * 190_000)])))
    assert len(found[0]) == 1 and all(len(batch) <= BATCH and sum(len(c.text) for c in batch) <= 200_000 for batch in found)
    assert sorted(c.text for batch in found for c in batch) == sorted([*(c.text for c in contents), "y" * 190_000, "z" * 190_000])
    assert all(max(len(c.text) for c in batch) - min(len(c.text) for c in batch) < 15 for batch in found[2:])
    assert list(_batches(iter([]))) == []


def test_the_place_of_the_pictures_is_no_part_of_the_key_but_they_are(tmp_path: Path) -> None:
    one, two = (embed.EmbedConfig(encoder=JOINT, images=ImageSourceConfig(root=tmp_path / name)) for name in "ab")
    assert one.digest() == two.digest() != embed.EmbedConfig(encoder=JOINT, images=ImageSourceConfig(max_bytes=5)).digest()
    assert embed.EmbedConfig(encoder=TEXT).digest() == embed.EmbedConfig(encoder=TEXT, images=ImageSourceConfig(max_bytes=5)).digest()


def test_estimates_come_from_jobs_that_ran_alike(tmp_path: Path) -> None:
    assert jobs_of(tmp_path) == [] and expected_rate(tmp_path, "ray", 2) is None
    job = Job(finished="", executor="ray", workers=2, items=100, tokens=0, seconds=50.0, rate=4.0)
    for one in (job, job.model_copy(update={"executor": "local", "workers": 1, "rate": 0.0})):
        note_job(tmp_path, one)
    assert (expected_rate(tmp_path, "ray", 2), expected_rate(tmp_path, "local", 1), expected_rate(tmp_path, "ray", 8)) == (4.0, 2.0, 2.0)
    (tmp_path / "throughput.json").write_text("[{]")
    assert expected_rate(tmp_path, "ray", 2) is None


class Restless(LocalExecutor):
    """Somebody writes another picture while the items are embedded: before they are read, and `also_after`."""

    def __init__(self, picture: Path, *, also_after: bool) -> None:
        super().__init__(load=LoadStandIn())
        self.picture, self.also_after, self.times = picture, also_after, 0

    def change(self) -> None:
        self.times += 1
        self.picture.write_bytes(jpeg(1000 + self.times))

    def encode(self, config: EncoderConfig, space_id: str, batches: Iterator[list[Content]]) -> Iterator[EncodedBatch]:
        self.change()
        yield from super().encode(config, space_id, batches)
        if self.also_after:
            self.change()


def test_pictures_that_change_meanwhile(poisoned: tuple[pl.DataFrame, dict[str, str]], bench: Bench) -> None:
    """The table holds the vector of what was read last; one that never rests ends the job, and what was computed stays."""
    table, poison = poisoned
    picture = next(bench.tmp_path / "posters" / f"{i}.jpg" for i in range(200) if f"i{i}" not in poison)
    bench.surroundings = replace(bench.surroundings, executor=Restless(picture, also_after=False))
    _, vectors, _ = bench.run(table)
    content = Content(f"film number {picture.stem}", jpeg(1001))  # the second round, for texts of refused pictures, does not read it
    np.testing.assert_array_equal(vectors.values[int(picture.stem)], StandIn("", 0, None).encode([content])[0])
    bench.surroundings = replace(bench.surroundings, executor=Restless(picture, also_after=True))
    with pytest.raises(RetryableError, match="1 items of 'joint' changed while they were embedded, 5 times"):
        picture.write_bytes(jpeg(999))
        bench.run(table)

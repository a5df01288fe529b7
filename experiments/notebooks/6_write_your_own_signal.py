# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Write your own signal
#
# A new encoder as one small class, checked by the contract that all encoders keep; a table with an identity; its place on a board by one command; and as one more signal of
# the fused ranker. Needs a finished `make run`.
#
# ## The signal
# Who watches old films watches old films. The year of a film as a smooth bump over the decades, and beside it the letters of its title, hashed. Nothing is learned.

# %%
import style

import zlib

import numpy as np
import polars as pl

from recsys.embeddings.space import EmbeddingSpace

DECADES = np.arange(1930, 2010, 10)
TEMPLATE = "{title}|\t{year}"


class YearAndLetters:
    """A bump over the decades beside the hashed trigrams of the title. All that can move a vector stands in `space`."""

    space = EmbeddingSpace(
        model="year-and-letters", revision="1", tokenizer="trigrams", template=TEMPLATE, max_length=1_000_000, layer=0, pooling="none", attention="none",
        normalise=True, dtype="float32", dim=len(DECADES) + 32,
    )  # fmt: skip
    dim = space.dim

    def encode(self, contents):
        """float32 (n, dim), rows of length 1."""
        rows = np.zeros((len(contents), self.dim), dtype=np.float32)
        for row, content in enumerate(contents):
            title, _, year = content.text.partition("\t")
            if year.isdigit():
                rows[row, : len(DECADES)] = np.exp(-(((int(year) - DECADES) / 8.0) ** 2))
            for start in range(max(1, len(title) - 2)):
                rows[row, len(DECADES) + zlib.crc32(title[start : start + 3].lower().encode()) % 32] += 0.15
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)


# %% [markdown]
# ## The contract
# What every encoder of the library is held to, in one call: the protocol, shapes and types, finite numbers, one text one vector whatever stands beside it, and a space
# whose dimension is the vectors' own.

# %%
from recsys.testing.contracts import check_encoder

check_encoder(YearAndLetters())
print("kept")

# %% [markdown]
# It is worth what it refuses. The same class, but its vectors depend on what else is in the batch, so that a film's vector at night is not its vector in the service:


# %%
class Centred(YearAndLetters):
    def encode(self, contents):
        rows = super().encode(contents)
        return rows - rows.mean(axis=0) if len(rows) else rows


try:
    check_encoder(Centred())
except AssertionError as refused:
    print(refused)

# %% [markdown]
# ## A table, with its identity
# Vectors of all films, saved with their space. A table of any other space is refused where this one is expected; whoever changes the class raises its `revision`.

# %%
import shutil
from pathlib import Path

from pipelines import embed, ingest, split
from pipelines.config import RunConfig
from pipelines.run import finished
from recsys.embeddings.content import of_texts
from recsys.embeddings.table import EmbeddingTable
from recsys.errors import SpaceMismatchError

done = finished(RunConfig.read("experiments/configs/ml-100k/default.yaml"))
catalog, minilm = ingest.load(done["ingest"]).catalog, embed.load(done["embed:minilm"])
signal = YearAndLetters()
mine = EmbeddingTable(signal.encode(of_texts(catalog.texts(TEMPLATE))), catalog.items, signal.space)

place = Path(".recsys/notebooks/own_signal")
shutil.rmtree(place, ignore_errors=True)
mine.save(place / "mine")
minilm.save(place / "minilm")
try:
    EmbeddingTable.load(place / "minilm").require_space(mine.space_id)
except SpaceMismatchError as refused:
    print(refused)

# %% [markdown]
# Does it do what it was made for? The nearest films of the same length-1 vectors, beside those of MiniLM:

# %%
titles, years = catalog.titles(), catalog.table["year"].to_list()


def nearest(table, film):
    """The three nearest rows, in words."""
    rows = table.values / np.linalg.norm(table.values, axis=1, keepdims=True).clip(1e-9)
    order = np.argsort(-(rows @ rows[titles.index(film)]))
    return "; ".join([f"{titles[row]} ({years[row]})" for row in order if titles[row] != film][:3])


films = ["Casablanca", "Psycho", "Star Wars", "Toy Story"]
pl.DataFrame({"film": films} | {name: [nearest(table, film) for film in films] for name, table in (("year and letters", mine), ("MiniLM", minilm))})

# %% [markdown]
# ## On a board, in one command
# A board is a file: a data set and models, some of which read the table. This one is small, in a folder of its own and with few epochs, so that it is done soon; a
# table becomes a model of the committed board by the same entry in `experiments/configs/ml-100k/fusion.yaml`.

# %%
few = "{epochs: 4, patience: 4, learning_rate: 0.002, batch_size: 128}"
board = f"""
dataset: films
data: {{source: {{kind: recbole, dataset: ml-100k}}}}
models:
  popularity: {{kind: popularity}}
  nearest_mine:
    kind: nearest
    label: nearest by year and letters
    signals: {{mine: &mine {{kind: table, path: mine, space_id: {mine.space_id}}}}}
  nearest_minilm:
    kind: nearest
    label: nearest in MiniLM
    signals: {{minilm: {{kind: table, path: minilm, space_id: {minilm.space_id}}}}}
  sasrec: {{kind: sequential, label: "SASRec, few epochs", settings: {{projection: false, training: {few}}}}}
  fused_mine: {{kind: fused, label: "ID + year and letters, few epochs", signals: {{mine: *mine}}, settings: {{projection: false, training: {few}}}}}
"""
file = place / "experiments/configs/films/baselines.yaml"
file.parent.mkdir(parents=True)
file.write_text(board)
print(board)

# %% language="bash"
# set -e
# cd .recsys/notebooks/own_signal
# recsys board films --run all --json > board.json 2> board.log || { tail board.log; exit 1; }

# %%
from recsys.evaluation.ladder import ladder
from recsys.evaluation.run_values import read_models

runs = read_models(place / "experiments/boards/films")
rows = sorted(ladder(list(runs.values())), key=lambda rung: -rung.levels["ndcg@10"].mean)
levels = {rung.label: rung.levels["ndcg@10"] for rung in rows}
style.bars(
    {label: level.mean for label, level in levels.items()},
    intervals={label: (level.low, level.high) for label, level in levels.items()},
    label="NDCG@10 over the whole catalogue, with its 95 % interval",
    title="A small board of films",
    lead="nearest by year and letters",
)

# %% [markdown]
# What the table says of each pair is for `recsys compare`; few epochs and one seed are enough to see the machinery, and too little to judge by.

# %%
from recsys.evaluation.run_comparison import compare_runs, verdict

for a, b in (("nearest_mine", "nearest_minilm"), ("fused_mine", "sasrec")):
    (d,) = compare_runs(runs[a], runs[b], ["ndcg@10"])
    print(verdict(d, runs[a][0][1].label, runs[b][0][1].label))

# %% [markdown]
# ## Films that nobody has seen
# For new films there is no ID, and a signal is all there is. The split holds films out of training; only they are ranked, for the people who then watched one of them.

# %%
from recsys.evaluation.evaluate import evaluate
from recsys.models.chance import Chance
from recsys.models.text_nearest import TextNearest

cold = split.load(done["split:cold"])
known = cold.item_counts() > 0
scorers = {"chance": Chance(cold.n_items)}
for name, table in (("year and letters", mine), ("MiniLM", minilm)):
    scorers[name] = TextNearest(table.aligned_to(cold.items), name, centre_on=known)
results = {name: evaluate(scorer, cold.cold, ks=(10,), split=cold, candidates=cold.held_out) for name, scorer in scorers.items()}
print(f"{len(cold.cold)} people, {int(cold.held_out.sum())} new films")
style.bars(
    {name: found.mean("recall@10") for name, found in results.items()},
    intervals={name: found.interval("recall@10") for name, found in results.items()},
    label="Recall@10 among the new films, with its 95 % interval",
    title="Does it find films that nobody has seen?",
    lead="year and letters",
)

# %% [markdown]
# ## Beside the others, in the fused ranker
# One more entry of `tables` is one more signal. Trained shortly, on the split with new films; each score can be taken apart into what each signal gave.

# %%
from recsys.heads.fusion import FusionConfig, fit_ranker
from recsys.training.config import TrainingConfig

settings = FusionConfig(training=TrainingConfig(epochs=4, batch_size=128, learning_rate=0.002), id_dropout=0.1)
fitted = fit_ranker(
    settings, cold, {"minilm": minilm, "mine": mine}, seed=0,
    validate=lambda scorer: evaluate(scorer, cold.validation, ks=(10,), metrics=("ndcg",), lists=False, split=cold).mean("ndcg@10"),
)  # fmt: skip
new = evaluate(fitted.ranker, cold.cold, ks=(10,), split=cold, candidates=cold.held_out)
print(f"{len(fitted.history)} epochs in {fitted.seconds:.0f} s; Recall@10 among the new films: {new.mean('recall@10'):.3f}")

# %%
of_row = dict(zip(catalog.items.ids, titles, strict=True))
case = int(np.argmax(cold.cold.inputs.lengths))
query = cold.cold.queries().slice(case, case + 1)
scores = fitted.ranker.score(query, np.arange(cold.n_items))[0]
scores[cold.cold.seen[case]] = -np.inf
best = [*np.argsort(-np.where(cold.held_out, -np.inf, scores))[:4], *np.argsort(-np.where(cold.held_out, scores, -np.inf))[:4]]
names = {"id": "ID", "minilm": "MiniLM", "mine": "year and letters"}
style.stacked(
    [of_row[cold.items.ids[row]] + (" (new)" if cold.held_out[row] else "") for row in best],
    {names[name]: values[0].tolist() for name, values in fitted.ranker.shares(query, np.array(best)).items()},
    label="part of the score",
    title="The best known and the best new films for one user",
)

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Fusion and the ladder
#
# The fused ranker that `make run` published, asked live: what its gate gives to IDs and texts, and one user looked at in depth. Then what each signal is worth, and what
# language models are worth as rankers, from the committed boards: those trainings take hours, and the records of their runs are small.

# %%
import style

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

import recsys
from pipelines import split
from pipelines.config import RunConfig
from pipelines.run import finished

warm = split.load(finished(RunConfig.read("experiments/configs/ml-100k/default.yaml"))["split:warm"])
model = recsys.load("models:/recsys-ml100k@champion")
ranker, counts = model.bundle.ranker, warm.item_counts()
names = {"id": "ID: what people did", "minilm": "MiniLM: the text", "smollm2": "SmolLM2: the text"}
model

# %% [markdown]
# ## What the gate gives
# A film's vector is a sum: its ID's part and a part of each text, weighed by a small network that sees how often the film was watched. These are its weights for a film that
# has all signals. Before the first interaction there is no ID to weigh.

# %%
grid = np.unique(np.geomspace(1, counts.max(), 60).round()).astype(np.int64)
unseen, seen = ranker.gates(np.zeros(1, dtype=np.int64)), ranker.gates(grid)
fig, (upper, lower) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=(3, 1))
for number, (signal, weights) in enumerate(seen.items()):
    look = {"color": style.COLOURS[number], "marker": style.MARKERS[number]}
    upper.plot(grid, weights, markevery=6, linewidth=2, label=names.get(signal, signal), **look)
    if signal != "id":
        upper.plot(0, unseen[signal][0], markersize=8, **look)
upper.set_ylabel("weight in the sum")
upper.set_title("How the gate weighs the signals of a film")
lower.hist(counts, bins=[0, *np.unique(np.geomspace(1, counts.max() + 1, 24).round())], color=style.COLOURS[3], edgecolor="white")
lower.set_xscale("symlog", linthresh=1)
lower.set_ylabel("films")
lower.set_xlabel("training interactions of the film; 0: nobody has watched it yet")
lower.xaxis.set_major_formatter("{x:g}")
fig.legend(ncols=3, loc="outside lower center")

# %% [markdown]
# A weight is not yet a length: the part also depends on what it weighs. How long the parts are, as shares of their sum. One might expect that the ID counts for more, the more
# is known of a film; nothing in the training asks for it, so look.

# %%
lengths = {signal: np.linalg.norm(part, axis=1) for signal, part in ranker.parts().items()}
total = np.maximum(sum(lengths.values()), 1e-9)
borders = {"none": (0, 0), "1 or 2": (1, 2), "3 to 9": (3, 9), "10 to 29": (10, 29), "30 to 99": (30, 99), "100 and more": (100, counts.max())}
masks = {f"{name}  ({int(mask.sum())} films)": mask for name, (low, high) in borders.items() if (mask := (counts >= low) & (counts <= high)).any()}
shares = {signal: [float((length / total)[mask].mean()) for mask in masks.values()] for signal, length in lengths.items()}
style.stacked(
    list(masks),
    {names.get(signal, signal): values for signal, values in shares.items()},
    label="share of the lengths of the parts, mean over the films",
    title="What a film's vector is made of, by its training interactions",
)
one, most = ((counts > 0) & (counts <= 2), counts >= 100)
print(
    f"share of the ID: {(lengths['id'] / total)[one].mean():.0%} where it was watched once or twice, {(lengths['id'] / total)[most].mean():.0%} of the most watched films"
)

# %% [markdown]
# ## One user in depth
# Taken is the user whose history is of median length. Its last films:

# %%
by_length = sorted(model.user_ids, key=lambda user: len(model.user_history(user)))
person = by_length[len(by_length) // 2]
history = model.user_history(person)
films = dict(zip(model.catalog.items.ids, zip(model.catalog.titles(), model.catalog.categories(), strict=True), strict=True))
print(f"user {person}, {len(history)} films, the newest last")
pl.DataFrame([{"film": films[item][0], "genres": ", ".join(films[item][1]), "watched by": int(counts[warm.items.num(item)])} for item in history[-8:]])

# %% [markdown]
# What is recommended, and which share of each score comes from where. The shares add up to the score; one below zero speaks against the film.

# %%
found = model.recommend(users=[person], k=8)
titles = [f"{rank}. {films[item][0]}" for rank, item in enumerate(found.item_ids(person), start=1)]
style.stacked(
    titles,
    {names.get(signal, signal): found.frame[f"share_{signal}"].to_list() for signal in ranker.signals},
    label="part of the score",
    title=f"Why user {person} is recommended these",
)
# %% [markdown]
# The films of the history that are nearest to each, by the cosine of the fused vectors: the plain reason that a service can show.

# %%
items = model.catalog.items
likeness = model.likeness(items.nums(found.item_ids(person)), items.nums(history))
nearest = [[films[history[row]][0] for row in np.argsort(-values)[:2]] for values in likeness]
pl.DataFrame(
    {"recommended": titles, "nearest of the history": [one for one, _ in nearest], "and then": [two for _, two in nearest], "cosine": likeness.max(axis=1)}
)

# %% [markdown]
# And if this user now watched the most popular horror films that are not in the history? The model reads histories, so the answer moves without a training.

# %%
horror = sorted((i for i, (_, genres) in films.items() if "Horror" in genres and i not in history), key=lambda i: -counts[warm.items.num(i)])[:3]
other = model.recommend(history=[*history, *horror], k=8)
is_horror = {name: sum("Horror" in films[item][1] for item in ids) for name, ids in (("before", found.item_ids(person)), ("after", other.item_ids()))}
print("watched now:", "; ".join(films[item][0] for item in horror))
print("horror films among the recommended:", is_horror)
pl.DataFrame({"before": titles, "after": [f"{rank}. {films[item][0]}" for rank, item in enumerate(other.item_ids(), start=1)]})

# %% [markdown]
# ## The ladder
# One signal more on each rung, beside SASRec without any, from the committed boards. Every difference is paired over the test cases, each with its mean over the seeds; p is
# corrected over the rungs (Holm). Rungs that do not help stay, and random vectors of the same width are a rung: they say how much of a gain is the text's.

# %%
from IPython.display import Markdown, display

from pipelines.board_config import FusionFile
from pipelines.board_folders import BOARDS, CONFIGS
from recsys.evaluation.ladder import ladder
from recsys.evaluation.run_values import read_models


def beside_the_first(dataset, names, title):
    """A plot and a table of those models of a board that were run, each beside the first; says which were not."""
    runs = read_models(BOARDS / dataset)
    rungs = ladder([runs[name] for name in names if name in runs])
    tested = {rung.label: rung.to_base["ndcg@10"] for rung in rungs if rung.to_base}
    if tested:
        style.differences(
            {name: (d.low, d.difference, d.high) for name, d in tested.items()},
            label=f"NDCG@10 less that of {rungs[0].label}, 95 % interval; hollow: cannot be told from 0",
            title=f"{dataset}: {title}",
            clear=[name for name, d in tested.items() if d.holm < 0.05],
        )
        plt.show()
        rows = []
        for rung in rungs:
            d = tested.get(rung.label)
            means = {"model": rung.label, "seeds": rung.seeds, "NDCG@10": rung.levels["ndcg@10"].mean, "Recall@10": rung.levels["recall@10"].mean}
            test = {"relative, %": d and 100 * d.relative, "p": d and d.holm}
            rows.append({**means, **test, "training, s": round(rung.train_seconds), "ms a user": rung.ms_per_user})
        display(pl.DataFrame(rows, infer_schema_length=None))
    missing = [name for name in names if name not in runs]
    print(f"{dataset}: on the board {', '.join(name for name in names if name in runs) or 'nothing'}; not run yet: {', '.join(missing) or 'nothing'}")


for path in sorted(CONFIGS.glob("*/fusion.yaml")):
    beside_the_first(path.parent.name, FusionFile.of_dataset(path.parent.name).ladder, "what each signal adds to SASRec")

# %% [markdown]
# ## Lite-LLM4Rec: a language model over item vectors
# Item vectors go through the first layers of a language model, whose last state scores the whole catalogue at once. What the language itself is worth is told by its
# ablations: random item vectors, layers begun at random, histories and titles in words.

# %%
from pipelines.lite_llm import LiteFile

for path in sorted(CONFIGS.glob("*/lite_llm.yaml")):
    beside_the_first(path.parent.name, ["sasrec", *LiteFile.of_file(path).models], "Lite-LLM4Rec beside SASRec")

# %% [markdown]
# ## A-LLMRec: users and items as tokens of a frozen language model
# Four ways on the same cases: the frozen recommender alone, its items aligned with their texts (stage 1), the language model's state against the catalogue, and titles by
# likelihood. The differences are to the frozen recommender; where text should help most is among rare items and short histories.

# %%
from pipelines.a_llmrec import FOLDER
from pipelines.a_llmrec_config import AlignmentFile
from recsys.evaluation.alignment_board import WAYS, board_document, read_alignment_board

for path in sorted(CONFIGS.glob("*/a_llmrec.yaml")):
    dataset, wanted = path.parent.name, AlignmentFile.of_file(path)
    document = board_document(read_alignment_board(BOARDS / dataset / FOLDER), list(wanted.models))
    for told in document["models"][:1]:
        for kind, ways in told["kinds"].items():
            cells = {(way, part): row["recall@10"] for way, parts in ways.items() for part, row in parts.items() if row.get("recall@10")}
            rows = {f"{WAYS[way]}: {part}": (c["low"], c["difference"], c["high"]) for (way, part), c in cells.items() if "difference" in c}
            if rows:
                clear = [name for name, (low, _, high) in rows.items() if low > 0 or high < 0]
                label = "Recall@10 less that of the frozen recommender, 95 % interval; hollow: holds 0"
                style.differences(rows, label=label, title=f"{dataset}: {told['label']}, cases: {kind}", clear=clear)
                plt.show()
    there = [told["model"] for told in document["models"]]
    missing = [name for name, each in wanted.models.items() if each.ranked and name not in there]
    print(f"{dataset}: on the board {', '.join(there) or 'nothing'}; not run yet: {', '.join(missing) or 'nothing'}")
    page = BOARDS / dataset / "explanations.md"
    if page.is_file():
        display(Markdown("\n".join(page.read_text(encoding="utf-8").splitlines()[:30])))

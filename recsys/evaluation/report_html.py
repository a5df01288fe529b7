"""HTML of a `Report`. Every piece of text passes `escape`: titles, reasons and names are untrusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from recsys.evaluation import report_plots as plots
from recsys.evaluation.page import document, figure, section, table
from recsys.evaluation.report import DataFacts, Measure, ModelRow, Recommended, Report, Sample, SignificanceRow, number


def render(report: Report) -> str:
    """The whole document. Deterministic."""
    body = "".join(
        (
            _header(report),
            section("results", "Results", _models(report.models) + figure(plots.metric_intervals(report.models), _METRICS_CAPTION)) if report.models else "",
            section("significance", "Significance", _significance(report.significance)) if report.significance else "",
            section("popularity", "Popular and rare items", figure(plots.popularity_recall(report.popularity), _POPULARITY_CAPTION))
            if report.popularity
            else "",
            section("training", "Training", figure(plots.training_curves(report.curves), _CURVES_CAPTION)) if report.curves else "",
            section("map", "The item space", '<div class="pair">' + "".join(figure(plots.item_map(m), _MAP_CAPTION) for m in report.maps) + "</div>")
            if report.maps
            else "",
            section("samples", "Sample recommendations", '<div class="samples">' + "".join(map(_sample, report.samples)) + "</div>") if report.samples else "",
            section("data", "Data", _data(report.data)),
            _lineage(report),
        )
    )
    return document(report.title, body)


_METRICS_CAPTION = "Mean over all test cases, each ranked against the whole catalogue; the thin line is the 95 % bootstrap interval."
_POPULARITY_CAPTION = "Recall@10 by how often training saw the target: the left end shows who can rank what is rare, the right end who lives off hits."
_CURVES_CAPTION = "Loss and validation NDCG@10 by epoch, one line a model; the marker is the best epoch."
_MAP_CAPTION = "Each point is an item, placed by its embedding alone; genres that gather were not told to."


def _header(report: Report) -> str:
    best = next((m for m in report.models if m.highlight), None) or max(report.models, key=lambda m: m.ndcg.mean, default=None)
    cards = [("users", f"{report.data.users:,}", ""), ("items", f"{report.data.items:,}", ""), ("interactions", f"{report.data.interactions:,}", "")]
    if best is not None:
        cards = [("NDCG@10", number(best.ndcg.mean), _span(best.ndcg)), ("Recall@10", number(best.recall.mean), _span(best.recall)), *cards[2:]]
        if best.cold_recall is not None:
            cards.insert(2, ("cold Recall@10", number(best.cold_recall.mean), _span(best.cold_recall)))
    tiles = "".join(f'<div class="card"><dt>{escape(k)}</dt><dd>{escape(v)}</dd><small>{escape(s)}</small></div>' for k, v, s in cards)
    whose = f'<p class="whose">Figures of <b>{escape(best.name)}</b>, the model of this run</p>' if best is not None else ""
    summary = f'<p class="lead">{escape(report.summary)}</p>' if report.summary else ""
    over = f'<p class="over">{escape(report.data.name)} · {escape(report.created)}</p>'
    return f'<header>{over}<h1>{escape(report.title)}</h1>{summary}{whose}<dl class="cards">{tiles}</dl></header>'


def _models(models: Sequence[ModelRow]) -> str:
    best = {name: max((_mean(m, name) for m in models), default=math.nan) for name in ("recall", "ndcg", "cold_recall")}

    def cell(model: ModelRow, name: str) -> str:
        measure: Measure | None = getattr(model, name)
        if measure is None or not math.isfinite(measure.mean):
            return '<td class="none">–</td>'
        first = ' class="best"' if measure.mean == best[name] and measure.mean > 0 else ""
        return f"<td{first}>{number(measure.mean)}<small>{_span(measure)}</small></td>"

    def row(model: ModelRow) -> str:
        cells = "".join(cell(model, name) for name in best)
        return f'<tr{" class=own" if model.highlight else ""}><th scope="row">{escape(model.name)}</th>{cells}<td>{_seconds(model.seconds)}</td></tr>'

    return table(("Model", "Recall@10", "NDCG@10", "Cold Recall@10", "Seconds"), map(row, models), "models")


def _significance(rows: Sequence[SignificanceRow]) -> str:
    def row(s: SignificanceRow) -> str:
        clear = math.isfinite(s.holm) and s.holm < 0.05
        verdict = ("better" if s.difference.mean > 0 else "worse") if clear else "not shown"
        names = f'<th scope="row">{escape(s.model)} <i>vs {escape(s.baseline)}</i></th><td>{escape(s.metric)}</td>'
        difference = f"<td>{s.difference.mean:+.4f}<small>{_span(s.difference, signed=True)}</small></td>"
        tag = f'<td><span class="tag {verdict.split()[0]}">{verdict}</span></td>'
        return f"<tr>{names}{difference}{tag}" + "".join(f"<td>{_p(p)}</td>" for p in (s.holm, s.p_bootstrap, s.p_t, s.p_wilcoxon)) + "</tr>"

    note = (
        '<p class="note">Paired over the same cases. Holm corrects the bootstrap p for the number of comparisons; below 0.05 a difference counts as shown.</p>'
    )
    return table(("Comparison", "Metric", "Difference", "Verdict", "p Holm", "p bootstrap", "p t-test", "p Wilcoxon"), map(row, rows), "tests") + note


def _sample(sample: Sample) -> str:
    history = "".join(f"<li>{escape(title)}</li>" for title in sample.history)
    signals = list(dict.fromkeys(name for r in sample.recommendations for name in r.shares))

    def bar(shares: Mapping[str, float]) -> str:
        total = sum(abs(v) for v in shares.values()) or 1.0
        parts = "".join(f'<i style="width:{100 * abs(v) / total:.1f}%;background:var(--s{signals.index(k) % 8})"></i>' for k, v in shares.items())
        words = ", ".join(f"{k} {v:+.2f}" for k, v in shares.items())
        return f'<span class="bar" role="img" aria-label="{escape(words)}" title="{escape(words)}">{parts}</span>' if shares else ""

    def pick(r: Recommended) -> str:
        mark = " <b class=hit>test item</b>" if r.hit else ""
        return f'<li><span class="name">{escape(r.title)}{mark}</span><span class="score">{r.score:.2f}</span>{bar(r.shares)}</li>'

    listed = "".join(map(pick, sample.recommendations))
    legend = "".join(f'<span><i style="background:var(--s{i % 8})"></i>{escape(name)}</span>' for i, name in enumerate(signals))
    key = f'<p class="key">Share of the score: {legend}</p>' if signals else ""
    before = f'<h3>User {escape(sample.user_id)}</h3><h4>Recently</h4><ul class="history">{history}</ul>'
    return f'<article>{before}<h4>Recommended</h4><ol class="picks">{listed}</ol>{key}</article>'


def _data(data: DataFacts) -> str:
    facts = [("Users", f"{data.users:,}"), ("Items", f"{data.items:,}"), ("Interactions", f"{data.interactions:,}")]
    facts += [("Test cases", f"{data.test_cases:,}")] * bool(data.test_cases) + [("Cold cases", f"{data.cold_cases:,}")] * bool(data.cold_cases)
    facts += [("Split", data.protocol)]
    left = (
        "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
        + f"<div><dt>Split hash</dt><dd><code>{escape(data.split_hash)}</code></dd></div>"
    )
    total = sum(data.quarantine.values())
    rows = (
        f'<tr><th scope="row">{escape(reason)}</th><td>{count:,}</td></tr>'
        for reason, count in sorted(data.quarantine.items(), key=lambda pair: (-pair[1], pair[0]))
    )
    right = table((f"Quarantined because ({total:,} rows)", "Rows"), rows) if data.quarantine else '<p class="note">No row was quarantined.</p>'
    return f'<div class="pair"><dl class="facts">{left}</dl><div>{right}</div></div>'


def _lineage(report: Report) -> str:
    parts = []
    if report.stages:
        rows = (
            f'<tr><th scope="row">{escape(s.stage)}</th><td><code>{escape(s.key[:16])}</code></td><td class="text">{escape(s.note)}</td></tr>'
            for s in report.stages
        )
        parts.append(table(("Stage", "Key", "Made"), rows, "lineage"))
    pairs = [("Embedding spaces", report.spaces), ("Versions", report.versions)]
    lists = "".join(f'<div><h3>{title}</h3><dl class="facts">{"".join(map(_fact, values.items()))}</dl></div>' for title, values in pairs if values)
    parts.append(f'<div class="pair">{lists}</div>' if lists else "")
    return section("lineage", "Lineage", "".join(parts)) if any(parts) else ""


def _fact(pair: tuple[str, str]) -> str:
    return f"<div><dt>{escape(pair[0])}</dt><dd><code>{escape(pair[1])}</code></dd></div>"


def _mean(model: ModelRow, name: str) -> float:
    measure: Measure | None = getattr(model, name)
    return measure.mean if measure is not None and math.isfinite(measure.mean) else -math.inf


def _span(measure: Measure, *, signed: bool = False) -> str:
    if not (math.isfinite(measure.low) and math.isfinite(measure.high)):
        return ""
    return f"{measure.low:+.4f} to {measure.high:+.4f}" if signed else f"{measure.low:.4f} – {measure.high:.4f}"


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else number(value, 3)


def _seconds(value: float) -> str:
    return number(value, 1) if value < 100 or not math.isfinite(value) else f"{value:,.0f}"

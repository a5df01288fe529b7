"""A report of made-up numbers, with everything a report can hold."""

from __future__ import annotations

import math

import numpy as np

from recsys.evaluation.report import Curve, DataFacts, ItemMap, Measure, ModelRow, PopularityRecall, Recommended, Report, Sample, SignificanceRow, StageRow
from recsys.rng import numpy_generator

MODELS = ("popularity", "ItemKNN", "EASE", "text nearest (minilm)", "text nearest (smollm2)", "SASRec (ID only)", "fused (ID + minilm + smollm2)")
GENRES = ("Drama", "Comedy", "Action", "Thriller", "Romance", "Horror", "Children's", "Sci-Fi", "Film-Noir")


def example_report(*, title: str = "Example run", n_items: int = 400) -> Report:
    """Deterministic. The numbers mean nothing."""
    generator = numpy_generator(0, "testing", "report")
    ndcg = (0.022, 0.041, 0.049, 0.008, 0.006, 0.064, 0.067)
    cold = (0.0, 0.0, 0.0, 0.031, 0.022, 0.0, 0.026)

    def measure(mean: float, width: float) -> Measure:
        return Measure(mean, max(0.0, mean - width), mean + width)

    rows = tuple(
        ModelRow(name, measure(1.9 * n, 0.017), measure(n, 0.009), measure(c, 0.009 * (c > 0)), 3.0 * i**2 + 0.2, highlight=i == len(MODELS) - 1)
        for i, (name, n, c) in enumerate(zip(MODELS, ndcg, cold, strict=True))
    )
    epochs = tuple(range(1, 41))
    curves = tuple(
        Curve(
            name,
            epochs,
            tuple(7.4 * math.exp(-e / speed) + 5.1 for e in epochs),
            tuple(top * (1 - math.exp(-e / speed)) + float(generator.normal(0, 6e-4)) for e in epochs),
        )
        for name, speed, top in ((MODELS[-2], 9.0, 0.066), (MODELS[-1], 6.0, 0.070))
    )
    buckets = ("0", "1–5", "6–20", "21–50", "51–100", "101–200", "201+")
    recall = {
        name: tuple(max(0.0, r.recall.mean * (0.15 + 0.3 * b) + (c if b == 0 else 0.0)) for b in range(len(buckets)))
        for name, r, c in zip(MODELS, rows, cold, strict=True)
    }
    genre = generator.integers(0, len(GENRES), size=n_items)
    xy = np.column_stack([np.cos(genre * 0.7), np.sin(genre * 0.7)]) * 20 + generator.normal(0, 5, size=(n_items, 2))
    picks = (
        Recommended("Fargo (1996)", 8.41, {"id": 5.1, "minilm": 2.2, "smollm2": 1.1}, hit=True),
        Recommended("L.A. Confidential (1997)", 7.96, {"id": 6.0, "minilm": 1.5, "smollm2": 0.4}),
        Recommended("Usual Suspects, The (1995)", 7.02, {"id": 3.3, "minilm": 2.9, "smollm2": 0.8}),
    )
    return Report(
        title=title,
        created="2026-11-24T12:00:00+00:00",
        summary="Text and collaborative signals in one model, compared with honest baselines on one split, the whole catalogue ranked.",
        data=DataFacts(
            "ml-100k", 943, 1682, 100_000, "leave_last_out", "9f2c" * 16, {"duplicate event": 12, "rating is not a number": 3, "unknown item": 1}, 943, 812
        ),
        models=rows,
        curves=curves,
        popularity=PopularityRecall(buckets, (21, 60, 130, 171, 190, 201, 170), recall),
        maps=(ItemMap.of("MiniLM", xy, [GENRES[g] for g in genre]), ItemMap.of("SmolLM2", xy[::-1] * (1.0, 0.7), [GENRES[g] for g in genre])),
        significance=tuple(
            SignificanceRow(
                MODELS[-1],
                m,
                "ndcg@10",
                Measure(0.067 - n, 0.059 - n, 0.075 - n),
                0.0005 if n < 0.06 else 0.21,
                0.0004 if n < 0.06 else 0.19,
                0.002 if n < 0.06 else 0.3,
                0.003 if n < 0.06 else 0.21,
            )
            for m, n in zip(MODELS[:-1], ndcg[:-1], strict=True)
        ),
        stages=tuple(
            StageRow(s, f"{i:x}{'a7c3' * 8}", note)
            for i, (s, note) in enumerate(
                (("ingest", "100,000 interactions"), ("split", "943 test cases"), ("embed", "2 tables of 1,682 items"), ("rank", "40 epochs"))
            )
        ),
        spaces={"minilm": "8c1d0f4be2a97713", "smollm2": "41b7aa90c6de5f02"},
        versions={"recsys": "0.1.0", "torch": "2.13.0", "transformers": "5.0.0"},
        samples=tuple(Sample(u, ("Pulp Fiction (1994)", "Reservoir Dogs (1992)", "Heat (1995)"), picks) for u in ("196", "22", "305")),
    )

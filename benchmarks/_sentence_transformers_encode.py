"""sentence-transformers' `encode` with its defaults, in the peers' environment. Started by benchmarks.embedding.

Reads `texts.txt` (parted by NUL), writes `vectors.npy`, prints one JSON line: the seconds of `encode` alone, after a warm-up.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(settings: dict[str, Any]) -> None:
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    except ImportError:
        print(json.dumps({"missing": "make bench-peers"}), flush=True)
        return
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\0")
    if (Path(settings["model"]) / "modules.json").is_file():
        model = SentenceTransformer(settings["model"], device="cpu")
    else:  # SmolLM2: its default, the last token, would give other vectors in the same time
        body = Transformer(settings["model"])
        # Else it would put the chat template around each text, twice the tokens.
        body.tokenizer.chat_template = None
        body.modality_config.pop("message", None)
        model = SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension(), pooling_mode="mean")], device="cpu")
    if model.tokenizer.pad_token is None:  # it must pad, and SmolLM2 has no token for it
        model.tokenizer.pad_token = model.tokenizer.eos_token
    model.encode(texts[:32])
    started = time.perf_counter()
    vectors = model.encode(texts)
    seconds = time.perf_counter() - started
    np.save(folder / "vectors.npy", np.asarray(vectors, dtype=np.float32), allow_pickle=False)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    print(json.dumps({"seconds": seconds, "dtype": dtype}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

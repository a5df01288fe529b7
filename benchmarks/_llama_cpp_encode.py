"""llama.cpp's embeddings of the same GGUF, mean pooling, in the peers' environment. Started by benchmarks.embedding.

Reads `texts.txt` (parted by NUL), writes `vectors.npy`, prints one JSON line: the seconds of `embed` alone, after a warm-up.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 1024
"""Tokens a batch, as ours."""


def main(settings: dict[str, Any]) -> None:
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError):
        print(json.dumps({"missing": "llama-cpp-python needs a C++ compiler"}), flush=True)
        return
    folder = Path(settings["folder"])
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\0")
    model = llama_cpp.Llama(
        model_path=settings["model"], embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN, n_ctx=WINDOW, n_batch=WINDOW, n_ubatch=WINDOW,
        n_threads=settings["threads"], n_threads_batch=settings["threads"], verbose=False,
    )  # fmt: skip
    model.embed(texts[:32])
    started = time.perf_counter()
    vectors = model.embed(texts)
    seconds = time.perf_counter() - started
    np.save(folder / "vectors.npy", np.asarray(vectors, dtype=np.float32), allow_pickle=False)
    print(json.dumps({"seconds": seconds, "dtype": "as in the GGUF"}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

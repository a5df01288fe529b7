"""EASE and ItemKNN on data of the size of MovieLens-1M: seconds to fit, and peak memory of the process.

Each fit in a process of its own that holds the library and the split. The peak counts them too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import _synthetic
from benchmarks._child import Child, own
from benchmarks._data import real, split_of
from benchmarks._meter import metered
from benchmarks._progress import say
from recsys.data.split import Split
from recsys.models.ease import Ease, EaseConfig
from recsys.models.itemknn import ItemKNN, ItemKNNConfig

ML_1M = {"n_events": 1_000_000, "n_users": 6_040, "n_items": 3_700, "least": 20}
SMALL = {"n_events": 5_000, "n_users": 200, "n_items": 150, "least": 5}
CAP = 120.0


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "events.parquet"
        sizes = SMALL if small else ML_1M
        _synthetic.write(path, **sizes)
        sources = {f"synthetic, {sizes['n_users']:,} x {sizes['n_items']:,}": _synthetic.source(path)}
        measured = real("ml-1m")
        if measured is not None and not small:
            sources["ml-1m (ratings of 3 and more)"] = measured
        for data, source in sources.items():
            split = split_of(source)
            folder = Path(temporary) / str(len(rows))
            folder.mkdir()
            split.save(folder)
            for model in ("EASE", "ItemKNN"):
                with Child(own("benchmarks.item_item:fit", {"model": model, "folder": str(folder)}), cap=CAP, threads=threads) as child:
                    found = list(child)
                cost = found[0] if found else {"seconds": f"over the cap of {CAP:g} s", "peak_mb": None}
                rows.append({"data": data, "training_interactions": len(split.train.item_nums), "model": model, **cost})
                say(f"{model}, {data}: {rows[-1]['seconds']} s, peak {rows[-1]['peak_mb']} MB")
    return {"threads": threads, "fits": rows, "notes": [" ".join((__doc__ or "").split("\n\n")[1].split())]}


def fit(model: str, folder: str) -> Iterator[dict[str, Any]]:
    """In the child."""
    split = Split.load(Path(folder))
    with metered() as cost:
        Ease.fit(EaseConfig(), split) if model == "EASE" else ItemKNN.fit(ItemKNNConfig(), split)
    yield dict(cost)

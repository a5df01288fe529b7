"""Collect the boards of several seeds into one table: `python experiments/collect.py ml-100k COMMIT SEED_JSON...`

Each SEED_JSON is what `recsys run CONFIG --set seed=N --json` printed, in the order of the seeds 0, 1, 2, ...; COMMIT is what
they ran on. Writes experiments/boards/<dataset>/seeds.json and seeds.md.
"""

from __future__ import annotations

import json
import statistics
import sys
from datetime import date
from pathlib import Path

COLUMNS = ("recall@10", "ndcg@10", "cold_recall@10", "cold_only_recall@10", "cold_split_warm_ndcg@10", "seconds")


def main(dataset: str, commit: str, files: list[str]) -> None:
    boards = [json.loads(Path(file).read_text(encoding="utf-8"))["board"] for file in files]
    rows = []
    for models in zip(*boards, strict=True):
        row: dict[str, object] = {"model": models[0]["label"], "seeds": len(models)}
        for column in COLUMNS:
            values = [model[column] for model in models if column in model]
            if values:
                row[column] = {"mean": round(statistics.fmean(values), 5), "deviation": round(statistics.stdev(values), 5) if len(values) > 1 else 0.0}
        rows.append(row)
    folder = Path(__file__).parent / "boards" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    runs = [{"seed": seed, "board": board} for seed, board in enumerate(boards)]
    command = f"recsys run experiments/configs/{dataset}/default.yaml --set seed=N --json"
    result = {"dataset": dataset, "command": command, "commit": commit, "date": date.today().isoformat(), "models": rows, "runs": runs}
    (folder / "seeds.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    lines = [
        "| model | Recall@10 | NDCG@10 | cold Recall@10 | among cold items alone | NDCG@10 of the cold-trained model on warm cases | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [str(row["model"])]
        for column in COLUMNS:
            value = row.get(column)
            digits = 1 if column == "seconds" else 4
            cells.append("–" if not isinstance(value, dict) else f"{value['mean']:.{digits}f} ± {value['deviation']:.{digits}f}")
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

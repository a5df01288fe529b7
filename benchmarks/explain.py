"""`recsys explain` of all 1,682 movies of ml-100k by SmolLM2, from nothing: likelihoods of ten audiences, then an explanation of the likeliest.

Then the same command once more, which finds the table; and once more after the table was taken away, which finds every answer.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._progress import say
from benchmarks._torch import ready
from pipelines.explain import KIND, ExplainFile, load, run_steps
from pipelines.progress import RichReporter
from recsys.artifacts.artifact import Artifact

EXAMPLES = 3
NOTE = (
    "The config is experiments/configs/ml-100k/explain.yaml. Seconds are those of the whole command, loading both models included; tokens are those that were "
    "written, and tokens a second are of the time in which the writer was at work. Reading the labels writes none."
)


def run(*, small: bool = False, threads: int = 2) -> dict[str, Any]:
    ready(threads)
    with tempfile.TemporaryDirectory() as temporary:
        changes = [f"root={temporary}", f"threads={threads}", *(["sample=8", "writer.sampling.max_new_tokens=8"] if small else [])]
        config = ExplainFile.of_argument("ml-100k", changes)
        first, seconds = _timed(config)
        facts = first.manifest.metadata
        _, again = _timed(config)
        shutil.rmtree(Path(temporary) / "artifacts" / KIND)
        anew, answers = _timed(config)
        assert anew.manifest.metadata["computed"] == 0
        table = load(first)
        shown = [row for row in table.to_dicts() if row["status"] == "ok"][:: max(1, len(table) // EXAMPLES)][:EXAMPLES]
    return {
        "items": facts["items"],
        "explained": facts["explained"],
        "retried": facts["retried"],
        "seconds": round(seconds, 1),
        "items_per_second": facts["items"] / seconds,
        "prompt_tokens": facts["prompt_tokens"],
        "completion_tokens": facts["completion_tokens"],
        "tokens_per_second": facts["tokens_per_second"],
        "second_run_seconds": round(again, 2),
        "answers_cached_seconds": round(answers, 2),
        "threads": threads,
        "missing": [{"reason": reason, "items": count} for reason, count in facts["missing"].items()],
        "examples": [{"item": row["item_id"], "labels": ", ".join(row["labels"]), "explanation": row["explanation"]} for row in shown],
        "notes": [NOTE],
    }


def _timed(config: ExplainFile) -> tuple[Artifact, float]:
    started = time.perf_counter()
    artifact, ran = run_steps(config, RichReporter(Console(stderr=True)))
    seconds = time.perf_counter() - started
    say(f"{seconds:.1f} s{'' if ran else ': nothing to do'}")
    return artifact, seconds

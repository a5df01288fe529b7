"""A stage's source may not change its result in silence: a changed file needs a raised VERSION, or a recorded no-change.

After a change that moves results, raise VERSION in the stage's file. Then, in either case, record the new state:

    python tests/contracts/test_stage_versions.py
"""

import ast
import hashlib
import importlib
import json
from pathlib import Path

import pytest

RECORD = Path(__file__).parent.parent / "golden" / "stage_versions.json"
STAGES = (
    "ingest",
    "split",
    "embed",
    "graph",
    "rank",
    "evaluate",
    "publish",
    "inspection",
    "window",
    "contest",
    "fine_tune",
    "measure_embedding",
    "train_joint",
    "concat",
    "explain",
    "neighbours",
)


def state_of(stage: str) -> dict[str, int | str]:
    """VERSION and the hash of the syntax tree: comments and formatting do not count."""
    module = importlib.import_module(f"pipelines.{stage}")
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    return {"version": module.VERSION, "source": hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]}


@pytest.mark.parametrize("stage", STAGES)
def test_a_changed_stage_has_a_raised_version(stage: str) -> None:
    recorded, now = json.loads(RECORD.read_text(encoding="utf-8"))[stage], state_of(stage)
    if now["source"] != recorded["source"]:
        assert now["version"] != recorded["version"], (
            f"pipelines/{stage}.py changed: raise its VERSION if the result can change, then run this file as a script"
        )
    assert now == recorded, f"run `python {Path(__file__).name}` to record pipelines/{stage}.py"


if __name__ == "__main__":
    RECORD.write_text(json.dumps({stage: state_of(stage) for stage in STAGES}, indent=2) + "\n", encoding="utf-8")

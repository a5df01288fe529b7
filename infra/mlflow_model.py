"""The scorer as an MLflow pyfunc: a thin adapter of `recsys.serving.scoring.Scoring`, as code and not as a pickle.

    python -m infra.mlflow_model BUNDLE_FOLDER MODEL_FOLDER      # writes an MLflow model
    mlflow models serve -m MODEL_FOLDER --env-manager local      # POST /invocations {"dataframe_records": [{"user_id": "196", "candidates": ["50"]}]}

A row is one request of the service: with `candidates` it is scored, without them the best `k` are recommended. What a row leaves out stays null.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc


class ScorerModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        import recsys
        from recsys.serving.live import LiveModel
        from recsys.serving.scoring import Scoring

        self.scoring = Scoring(LiveModel(recsys.load(context.artifacts["bundle"])))
        self.scoring.probe()

    # Without type hints: MLflow would read them as a schema for its inputs.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """One answer a row, each what the service would give."""
        from recsys.serving.schemas import RecommendRequest, ScoreRequest

        answers = []
        for row in model_input.to_dict("records"):
            values = {name: value for name, value in row.items() if not _is_null(value)}
            if "candidates" in values:
                answers.append(self.scoring.score(ScoreRequest.model_validate(values), self.scoring.call()))
            else:
                answers.append(self.scoring.recommend(RecommendRequest.model_validate(values), self.scoring.call()))
        return answers


def save(bundle: Path, folder: Path) -> None:
    """Write an MLflow model of a published bundle."""
    mlflow.pyfunc.save_model(path=str(folder), python_model=str(Path(__file__).resolve()), artifacts={"bundle": str(bundle)}, pip_requirements=["recsys"])


def _is_null(value: Any) -> bool:
    """Rows of a frame that has a column which they lack hold None, or NaN among numbers."""
    return value is None or (isinstance(value, float) and value != value)


if __name__ == "__main__":
    save(Path(sys.argv[1]), Path(sys.argv[2]))
else:
    mlflow.models.set_model(ScorerModel())

"""The fused model: gated ID and LLM text signals, one training loop for both. The public names of its parts."""

from recsys.heads.config import FusionConfig
from recsys.heads.fitting import FitResult, fit_ranker
from recsys.heads.ranker import ID, FusedRanker

__all__ = ["ID", "FitResult", "FusedRanker", "FusionConfig", "fit_ranker"]

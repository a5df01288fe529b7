"""Where the boards stand, from the repository's root. Imports nothing, so that the command line starts at once."""

from pathlib import Path

BOARDS = Path("experiments/boards")
"""`<dataset>/`: the records of the runs and the tables made of them."""
CONFIGS = Path("experiments/configs")
"""`<dataset>/baselines.yaml`: what stands on a board."""
PUBLISHED = Path("experiments/published")
"""`<dataset>.yaml`: figures of the literature."""
STATE = Path(".recsys/boards")
"""Checkpoints; may be deleted when nothing runs."""

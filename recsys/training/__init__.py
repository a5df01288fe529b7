"""Batches, the loop and its checkpoints. Knows no model: it takes a module, one epoch as a function, and `validate`."""

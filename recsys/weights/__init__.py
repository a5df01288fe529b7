"""Weights of models: where their files are, what identifies them, and GGUF files converted once."""

"""Text from language models: one `Generator` for a local model and for an OpenAI-compatible endpoint, answers checked by a schema, results cached."""

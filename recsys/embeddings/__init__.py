"""Texts to vectors: versioned spaces, encoders, a content-addressed cache, tables."""

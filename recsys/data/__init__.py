"""Interactions, catalogues, vocabularies and splits."""

"""Folders with a manifest: written whole or not at all, checked by sha256 when read."""

"""Lightweight heads: from vectors and signals to scores."""

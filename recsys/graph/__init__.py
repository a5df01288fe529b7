"""Graphs over items and users, and the networks that pass messages over them."""

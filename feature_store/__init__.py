"""A Feast repository (`feature_store.yaml` and the definitions beside it), its publisher and its online reader.

Feast takes seconds to import, so nothing here imports it before it is needed.
"""

"""Published models: the bundle on disk, the recommender in memory, the HTTP service."""

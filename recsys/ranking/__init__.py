"""From scores to ordered lists: top-k and the item index."""

"""Where features are read from in bulk, and what live events are pushed through. Relative paths are resolved against the Feast repository's folder."""

from feast import FileSource, PushSource

user_state_source = FileSource(
    name="user_state_source",
    path="data/user_state.parquet",
    timestamp_field="event_timestamp",
    description="One row a user and day with events; true from the second after its last event on",
)
user_events = PushSource(name="user_events", batch_source=user_state_source, description="A user's state after a live event; see online.py")
item_attributes_source = FileSource(
    name="item_attributes_source",
    path="data/item_attributes.parquet",
    timestamp_field="event_timestamp",
    description="One row an item, written at publish",
)
item_popularity_source = FileSource(
    name="item_popularity_source",
    path="data/item_popularity.parquet",
    timestamp_field="event_timestamp",
    description="One row an item and day, true from the end of the day on; the last one at the end of the data",
)
item_vectors_source = FileSource(
    name="item_vectors_source",
    path="data/item_vectors.parquet",
    timestamp_field="event_timestamp",
    description="The item vectors of the ranker that is published beside these features, and their space",
)

"""Where features are read from in bulk. Relative paths are resolved against the Feast repository's folder."""

from feast import FileSource

user_state_source = FileSource(
    name="user_state_source",
    path="data/user_state.parquet",
    timestamp_field="event_timestamp",
    description="One row a user, written at publish",
)
item_attributes_source = FileSource(
    name="item_attributes_source",
    path="data/item_attributes.parquet",
    timestamp_field="event_timestamp",
    description="One row an item, written at publish",
)

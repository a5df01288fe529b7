"""The two views. No time to live: the newest state of a user is true however old it is."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Int64, String, UnixTimestamp

from feature_store.data_sources import item_attributes_source, user_state_source
from feature_store.entities import item, user

FOREVER = timedelta(0)

user_state = FeatureView(
    name="user_state",
    entities=[user],
    ttl=FOREVER,
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="recent_item_ids", dtype=Array(String), description="The model's input history, oldest first"),
        Field(name="n_interactions", dtype=Int64),
        Field(name="last_timestamp", dtype=UnixTimestamp),
    ],
    online=True,
    source=user_state_source,
)

item_attributes = FeatureView(
    name="item_attributes",
    entities=[item],
    ttl=FOREVER,
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="title", dtype=String),
        Field(name="categories", dtype=Array(String)),
        Field(name="n_interactions", dtype=Int64, description="Training interactions"),
        Field(name="embedding_space", dtype=String, description="The space of the vectors published beside these features; vectors are not stored here"),
    ],
    online=True,
    source=item_attributes_source,
)

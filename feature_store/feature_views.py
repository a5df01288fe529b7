"""The views. No time to live: the newest state of a user is true however old it is."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Float32, Int64, String, UnixTimestamp

from feature_store.data_sources import item_attributes_source, item_popularity_source, item_vectors_source, user_events
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
        Field(name="last_timestamp", dtype=UnixTimestamp, description="Of the last interaction: how recent the state is"),
    ],
    online=True,
    source=user_events,
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
        Field(name="embedding_space", dtype=String, description="The spaces of the texts' vectors that the ranker reads"),
    ],
    online=True,
    source=item_attributes_source,
)

item_popularity = FeatureView(
    name="item_popularity",
    entities=[item],
    ttl=FOREVER,
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="n_1d", dtype=Int64, description="Interactions in the day that ends at the row's time"),
        Field(name="n_7d", dtype=Int64),
        Field(name="n_30d", dtype=Int64),
    ],
    online=True,
    source=item_popularity_source,
)

item_vectors = FeatureView(
    name="item_vectors",
    entities=[item],
    ttl=FOREVER,
    schema=[
        Field(name="item_id", dtype=String),
        Field(name="vector", dtype=Array(Float32), description="As the ranker's inner product reads it; scoring itself reads the published snapshot"),
        Field(name="embedding_space_id", dtype=String, description="Must be that of the snapshot: `recsys features verify`"),
    ],
    online=True,
    source=item_vectors_source,
)

"""All objects of the repository in one namespace.

The one file that `feast apply` scans (see .feastignore): it would load the others a second time, outside the package,
and then find every name twice.
"""

from feature_store.data_sources import item_attributes_source, item_popularity_source, item_vectors_source, user_events, user_state_source
from feature_store.entities import item, user
from feature_store.feature_services import ranker_v1
from feature_store.feature_views import item_attributes, item_popularity, item_vectors, user_state

ALL = [
    user,
    item,
    user_state_source,
    user_events,
    item_attributes_source,
    item_popularity_source,
    item_vectors_source,
    user_state,
    item_attributes,
    item_popularity,
    item_vectors,
    ranker_v1,
]

__all__ = [
    "ALL",
    "item",
    "item_attributes",
    "item_attributes_source",
    "item_popularity",
    "item_popularity_source",
    "item_vectors",
    "item_vectors_source",
    "ranker_v1",
    "user",
    "user_events",
    "user_state",
    "user_state_source",
]

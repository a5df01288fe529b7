"""All objects of the repository in one namespace.

The one file that `feast apply` scans (see .feastignore): it would load the others a second time, outside the package,
and then find every name twice.
"""

from feature_store.data_sources import item_attributes_source, user_state_source
from feature_store.entities import item, user
from feature_store.feature_services import ranker_v1
from feature_store.feature_views import item_attributes, user_state

__all__ = ["item", "item_attributes", "item_attributes_source", "ranker_v1", "user", "user_state", "user_state_source"]

"""What one model version reads, under one name."""

from feast import FeatureService

from feature_store.feature_views import item_attributes, user_state

ranker_v1 = FeatureService(name="ranker_v1", features=[user_state, item_attributes], description="Features of the fused ranker")

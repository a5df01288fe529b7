"""What a model version reads, under one name."""

from collections.abc import Mapping

from feast import FeatureService

from feature_store.feature_views import item_attributes, item_popularity, item_vectors, user_state

VIEWS = [user_state, item_attributes, item_popularity, item_vectors]

ranker_v1 = FeatureService(name="ranker_v1", features=VIEWS, description="Features of the fused ranker, whatever its version")


def of_ranker(name: str, spaces: Mapping[str, str]) -> FeatureService:
    """The service of one version of a ranker. spaces: signal -> embedding_space_id, kept as tags."""
    return FeatureService(name=name, features=VIEWS, tags={f"space.{signal}": space for signal, space in spaces.items()})

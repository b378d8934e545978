"""Artifacts, as the API has them."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey


def artifact_texts(key: str) -> list[str]:
    """The artifacts of a key, the newest first."""
    of_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=of_key, sort="CREATED_DESC")
    return [str(one.data) for one in found]

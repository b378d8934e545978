"""Staging: new files of some samples, made on this machine before they are sent to a bucket."""

from typing import Any

from prefect_pipestream.items import FileSource
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.commits.staging import (
    StagedFile,
    StagedSample,
    Staging,
    kept_as,
)


class BucketStaging(Staging):
    """Where the new files of some samples wait: a folder of this machine."""

    dataset: Bucket

    def _fit_to_old(self, staged: StagedSample, kinds: Any) -> None:
        """Does nothing: objects have no modes and groups, and no folder is in the way."""

    def _status_of_old(self, what: str, name: str) -> None:
        """Returns nothing: see above."""

    def _shared_mark(self, name: str) -> str | None:
        now = self.dataset.contents.version_now(name)
        return None if now is None else now.mark

    def _shared_source(self, name: str) -> FileSource | None:
        return self.dataset.source_of(name)

    def _kept(self, name: str, kept: str | FileSource) -> StagedFile:
        """What is kept in the bucket already stays there."""
        return super()._kept(name, kept) if isinstance(kept, str) else kept_as(name, kept)

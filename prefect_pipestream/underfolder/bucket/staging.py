"""Staging: new files of some samples, made on this machine before they are sent to a bucket."""

import copy
from typing import Any

from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.items.storing import copied_from
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.source import BucketSource
from prefect_pipestream.underfolder.commits.staging import (
    StagedFile,
    StagedSample,
    Staging,
    kept_as,
)
from prefect_pipestream.underfolder.format.names import is_shared


class BucketStaging(Staging):
    """Where the new files of some samples wait: a folder of this machine."""

    dataset: Bucket

    def _fit_to_old(self, staged: StagedSample, kinds: Any) -> None:
        """Does nothing: objects have no modes and groups, and no folder is in the way."""

    def _status_of_old(self, what: str, name: str) -> None:
        """Returns nothing: see above."""

    def _store(
        self, what: str, name: str, item: Item[Any], replaced: FileSource | None = None
    ) -> FileSource:
        """Makes a staged file; what the store can copy itself, it does when it is sent."""
        if not (is_shared(name) or self.is_checking):
            for source in copied_from(item, name):
                if self._is_copied_by_store(source):
                    return copy.copy(source)
        return super()._store(what, name, item, replaced)

    def _is_copied_by_store(self, source: FileSource) -> bool:
        if not isinstance(source, BucketSource) or source.kept is None:
            return False
        return self.dataset.log.store.copies_from(source.store)

    def _shared_mark(self, name: str) -> str | None:
        return self.dataset.contents.mark_now(name)

    def _shared_source(self, name: str) -> FileSource | None:
        return self.dataset.source_of(name)

    def _kept(self, name: str, kept: str | FileSource) -> StagedFile:
        """What is kept in the bucket already stays there."""
        return super()._kept(name, kept) if isinstance(kept, str) else kept_as(name, kept)

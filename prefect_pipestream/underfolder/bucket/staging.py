"""Staging: new files of some samples, made on this machine before they are sent to a bucket."""

import os
import warnings
from typing import Any

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import Item
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.commits.staging import StagedFile, StagedSample, Staging


class BucketStaging(Staging):
    """Where the new files of some samples wait: a folder of this machine."""

    dataset: Bucket

    def _fit_to_old(self, staged: StagedSample, kinds: Any) -> None:
        """Does nothing: objects have no modes and groups, and no folder is in the way."""

    def _status_of_old(self, what: str, name: str) -> None:
        """Returns nothing: see above."""

    def _keep_or_replace(self, key: str, name: str, item: Item[Any], staged: StagedSample) -> None:
        """Leaves a shared item that is there as it is, unless it is among those to replace."""
        final = self.layout.final(name)
        if not item.has_value or item.is_stored_at(final):
            return
        if any(file.name == name for sample in self.samples.values() for file in sample.files):
            return  # staged with another sample
        source = self._store(f"Shared item {key!r}", name, item)
        there = self.dataset.source_of(name)
        if there is not None:
            there.read()
        is_equal = there is not None and there.digest == source.digest
        if not is_equal and key in self._replace_shared:
            was = item.made_from
            of_it = was.version.mark if was and was.version and was.path == final else None
            staged.files.append(StagedFile(key, name, source, None, of_it))
            return
        os.unlink(source.path)  # the next sample's is stored under the same name
        if there is not None and is_equal:
            item.add_source(there)  # the next sample that has it need not be compared
        else:
            warnings.warn(
                f"{self.layout.root}: the shared item {name[1:]} is there already and stays as it "
                "is. To change it for one sample, give that sample an item of its own "
                "(`set_value_as(..., shared_item=False)`).",
                stacklevel=2,
            )

    def refuse_changed_shared(self) -> None:
        """Checks that what replaces a shared item was made of what is there.

        Raises:
            DatasetError: If another writer changed it since, or made it.
        """
        for sample in self.samples.values():
            for file in sample.files:
                if not (file.name[:1] == "/" and file.key in self._replace_shared):
                    continue
                now = self.dataset.contents.version_now(file.name)
                if _mark(now) != file.found:
                    raise DatasetError(
                        f"{self.layout.final(file.name)}: another writer changed this shared item, "
                        "which was to be replaced by one made of what it was before. What was "
                        "written is kept; run it again."
                    )


def _mark(version: Version | None) -> str | None:
    return None if version is None else version.mark

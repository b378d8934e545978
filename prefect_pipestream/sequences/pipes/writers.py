"""Samples written to a dataset folder as they pass."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pydantic import Field, PrivateAttr, field_validator

from prefect_pipestream import underfolder
from prefect_pipestream.items import SerializationMode
from prefect_pipestream.sequences.piped import PipedSequence
from prefect_pipestream.sequences.registry import piped_sequence
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.storage.address import PlaceField
from prefect_pipestream.underfolder.commits.commit import OnConflict
from prefect_pipestream.underfolder.opening import open_writer


@piped_sequence
class ToUnderfolder(PipedSequence, title="to_underfolder"):
    """Writes each sample that is read into a dataset folder, and passes it on.

    Nothing is created before the first sample; an empty sample is not written.

    Raises:
        DatasetExistsError: If the folder exists and may not.
    """

    keeps_indices = True

    folder: PlaceField
    zfill: int | None = Field(None, ge=0, le=100)
    key_serialization_mode: Mapping[str, SerializationMode] | None = None
    exists_ok: bool = False

    run_key: str | None = None
    durable: bool = False
    on_conflict: OnConflict = "raise"
    replace_shared: Sequence[str] = ()

    _writer: underfolder.UnderfolderWriter = PrivateAttr()
    _batch: underfolder.Batch | None = PrivateAttr(default=None)

    @field_validator("key_serialization_mode", mode="before")
    @classmethod
    def _modes(cls, modes: Any) -> Any:
        if isinstance(modes, Mapping):
            return {str(key): SerializationMode.of(mode) for key, mode in modes.items()}
        return modes

    def model_post_init(self, context: Any) -> None:
        """Looks whether the folder may be written, without creating anything."""
        self._writer = open_writer(
            self.folder,
            zfill=self.zfill,
            exists_ok=self.exists_ok,
            length=self.source.size if self.zfill is None else None,
            key_serialization_mode=self.key_serialization_mode,
            run_key=self.run_key,
            durable=self.durable,
            on_conflict=self.on_conflict,
            replace_shared=self.replace_shared,
        )

    @property
    def writer(self) -> underfolder.UnderfolderWriter:
        """The writer; pickled copies of this sequence write as parts of the same run."""
        return self._writer

    def _in_batch(self, batches: ExitStack) -> "ToUnderfolder":
        other = self.model_copy()
        other._batch = batches.enter_context(self._writer.batch())
        return other

    def writers(self) -> Iterator[underfolder.UnderfolderWriter]:
        """Yields its writer, and those of the sequences that it reads."""
        yield self._writer
        yield from super().writers()

    def get_sample(self, idx: int) -> Sample:
        """Writes the sample and returns it."""
        sample = self.source.get_sample(idx)
        if sample and self._batch is not None:
            self._batch.set_output(idx, sample)
        elif sample:
            self._writer.write(idx, sample)
        return sample


UnderfolderWriter = ToUnderfolder
"""The pipe by the name that it has in pipelime; the writer itself is in `underfolder`."""

"""DataStream: samples read from one place and written to another, when they are ready."""

import copy
import operator
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Protocol, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.items import Item
from prefect_pipestream.sequences.output import OutputPipe
from prefect_pipestream.sequences.pipe import PipeSpec
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.samples_sequence import SamplesSequence
from prefect_pipestream.sequences.sorting import Sorted, sort_by_value
from prefect_pipestream.sequences.sources.from_underfolder import FromUnderfolder
from prefect_pipestream.sequences.where import Found, found_in
from prefect_pipestream.storage.address import Place, is_address
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder import Batch, StagedSample, UndoReport, opening, undo_commit
from prefect_pipestream.underfolder.commits.commit import OnConflict
from prefect_pipestream.underfolder.commits.prospect import Check
from prefect_pipestream.underfolder.commits.staging import Staging
from prefect_pipestream.underfolder.format.layout import Layout
from prefect_pipestream.underfolder.format.run_key import check_run_key
from prefect_pipestream.underfolder.ledger.run import Run

F = TypeVar("F", bound=Callable[..., Any])


class OutputDataset(Protocol):
    """What describes an output, for `DataStream.from_output_dataset`."""

    def as_pipe(self) -> PipeSpec:
        """Returns the operations that end with `to_underfolder`."""

    def as_input(self) -> Any:
        """Returns what has a method `create_reader` that opens the output as a sequence."""


def _also_named(**names: str) -> Callable[[F], F]:
    """Lets a method take arguments by other names too, those of pipelime."""

    def decorate(method: F) -> F:
        @wraps(method)
        def renaming(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **{names.get(name, name): kwargs[name] for name in kwargs})

        renaming.__dict__["also_named"] = names
        return cast("F", renaming)

    return decorate


class DataStream(Sequence[Sample]):
    """Reads samples from an input and writes samples, changed or not, to an output.

    A read costs the same at any size of the dataset, and shows what was written last, also by
    other processes. A write is atomic, and part of a run that can be undone.

    Args:
        input_sequence: Where samples are read; None for a stream that only writes.
        output_pipe: The operations that a sample passes when it is set, the last of them
            ``to_underfolder``.
        run_key: The run that the writes belong to, by its key or the name that it was given; by
            default one of this stream's own. Streams of one run key may create a dataset together.
        durable: Whether a write survives a loss of power once `set_output` returns.
        on_conflict: ``"raise"`` a `ConflictError` if another writer changed a sample since it
            was read, or ``"overwrite"`` what it wrote.

    Raises:
        PipeBuildingError: If the output pipe is wrong, or does not end with ``to_underfolder``.
        DatasetExistsError: If the output exists, may not, and was not created by this run.
    """

    output_pipe: PipeSpec

    def __init__(
        self,
        input_sequence: SamplesSequence | None = None,
        output_pipe: PipeSpec = (),
        *,
        run_key: str | None = None,
        durable: bool = False,
        on_conflict: OnConflict = "raise",
    ) -> None:
        writing: dict[str, Any] = {}  # what is not told here stays as the pipe says
        if run_key is not None:
            writing["run_key"] = check_run_key(run_key)
        if durable:
            writing["durable"] = durable
        if on_conflict != "raise":
            writing["on_conflict"] = on_conflict
        self._input = input_sequence
        self.output_pipe = output_pipe
        source = self._source_folder()
        if source is not None:
            source.dataset.recover()
        self._output, self._writer = OutputPipe.with_writer(output_pipe, len(self), **writing)
        if source is not None and source.dataset.folder == self._writer.folder:
            self._input = source = source.watching()  # else a change would go unseen
            self._writer = self._writer.sharing(source.dataset)  # one index, that both keep right
        else:
            self._writer.dataset.recover()

    def _source_folder(self) -> FromUnderfolder | None:
        return self._input if isinstance(self._input, FromUnderfolder) else None

    @classmethod
    @_also_named(path="folder", must_exists="must_exist")
    def read_write_underfolder(
        cls,
        folder: str | os.PathLike[str],
        must_exist: bool = True,
        zfill: int | None = None,
        *,
        allow_pickle: bool = False,
        **options: Any,
    ) -> "DataStream":
        """Opens a dataset whose samples are read, changed and written back in place.

        Args:
            folder: The dataset's root.
            must_exist: Whether a missing folder is an error; otherwise the dataset is empty.
            zfill: The digits to which the names written are padded. None: a file that exists
                keeps its name, and a new one gets the digits of the last index, or wider ones
                found on disk.
            allow_pickle: Whether pickled items may be decoded; that runs code.
            **options: As for `DataStream`.

        Raises:
            DatasetNotFoundError: If the folder is missing and must exist.
        """
        reader = SamplesSequence.from_underfolder(
            folder, must_exist=must_exist, watch=True, allow_pickle=allow_pickle
        )
        output = {"to_underfolder": {"folder": folder, "zfill": zfill, "exists_ok": True}}
        return cls(reader, [output], **options)

    @classmethod
    @_also_named(path="folder")
    def create_new_underfolder(
        cls,
        folder: str | os.PathLike[str],
        zfill: int | None = 0,
        *,
        allow_pickle: bool = False,
        **options: Any,
    ) -> "DataStream":
        """Creates a dataset, to write and to read what was written.

        Args:
            folder: The dataset's root. It is made at once, and belongs to the stream's run.
            zfill: The digits to which names are padded; 0 does not pad.
            allow_pickle: Whether pickled items may be decoded; that runs code.
            **options: As for `DataStream`.

        Raises:
            DatasetExistsError: If the folder exists and was not created by this run.
        """
        output = {"to_underfolder": {"folder": folder, "zfill": zfill, "exists_ok": False}}
        stream = cls(None, [output], **options)
        stream._writer.claim()
        stream._input = reader = FromUnderfolder(
            folder=stream.output_folder, watch=True, allow_pickle=allow_pickle
        )
        stream._writer = stream._writer.sharing(reader.dataset)
        return stream

    @classmethod
    @_also_named(path="folder")
    def create_output_stream(
        cls, folder: str | os.PathLike[str], zfill: int | None = 0, **options: Any
    ) -> "DataStream":
        """Opens a dataset to write only, created where it does not exist.

        Args:
            folder: The dataset's root.
            zfill: The digits to which the names written are padded; 0 does not pad.
            **options: As for `DataStream`.
        """
        output = {"to_underfolder": {"folder": folder, "zfill": zfill, "exists_ok": True}}
        return cls(None, [output], **options)

    @classmethod
    def from_output_dataset(
        cls, output_interface: OutputDataset, bidirectional: bool = False, **options: Any
    ) -> "DataStream":
        """Opens what describes an output: its `as_pipe()` is the output pipe.

        Args:
            output_interface: The output.
            bidirectional: Whether it is read too, by `as_input().create_reader()`.
            **options: As for `DataStream`.
        """
        reader = output_interface.as_input().create_reader() if bidirectional else None
        return cls(reader, output_interface.as_pipe(), **options)

    # -- reading -----------------------------------------------------------------------

    def __len__(self) -> int:
        """The input's length: 0 for a stream that only writes."""
        return 0 if self._input is None else len(self._input)

    @overload
    def __getitem__(self, idx: int) -> Sample: ...
    @overload
    def __getitem__(self, idx: "slice[Any, Any, Any]") -> SamplesSequence: ...
    def __getitem__(self, idx: "int | slice[Any, Any, Any]") -> Sample | SamplesSequence:
        """Returns the sample at `idx`, or a lazy sequence of those of a slice.

        Raises:
            IndexError: If there is no such sample, or the stream only writes.
            DuplicateItemError: If two files claim one key of the sample.
        """
        if isinstance(idx, slice):
            return SamplesSequence.from_list([]) if self._input is None else self._input[idx]
        return self.get_input(idx)

    def get_input(self, idx: int) -> Sample:
        """Returns the sample at `idx`; see `__getitem__`."""
        if self._input is None:
            raise IndexError(f"sample {idx}: this stream has no input, it only writes.")
        return self._input[operator.index(idx)]

    def indices(self, where: str | None = None) -> npt.NDArray[np.int64]:
        """The indices to process: int64, ascending; of a folder, those that have own files.

        Args:
            where: A query that is to be true of the samples, such as "metadata.label == 3"; see
                `Sample.match`. Of a folder also outcomes in runs that wrote this stream's output.

        Raises:
            QueryError: If the query cannot be understood, or asks what cannot be answered.
        """
        if where is not None:
            found = self.found(where)
            if (warning := found.warning()) is not None:
                warnings.warn(warning, stacklevel=2)
            return found.indices
        return np.arange(0) if self._input is None else self._input.indices()

    def found(
        self, where: str, ledger: Place | None = None, *, most_reads: int | None = None
    ) -> Found:
        """The samples of which a query is true, and what is wrong with others; see `indices`.

        Of a folder with many metadata files that were not read before, the first answer takes its
        time. With `most_reads` it takes less, is one of a part of the samples, and says so
        (`is_complete`, `known`, `of`); what was read is kept, so that the next one is of more.

        Args:
            where: The query.
            ledger: The dataset that runs wrote whose outcomes are asked for; by default the output.
            most_reads: How many metadata files of a folder may be read for the answer; None is as
                many as it takes, and all samples are asked.

        Raises:
            QueryError: If the query cannot be understood, or asks what cannot be answered.
            PipestreamError: If samples cannot be read.
        """
        samples = SamplesSequence.from_list([]) if self._input is None else self._input
        return found_in(samples, where, ledger or self.output_folder, most_reads=most_reads)

    def sorted_by(
        self,
        path: str,
        indices: Iterable[int] | None = None,
        *,
        descending: bool = False,
        most_reads: int | None = None,
    ) -> Sorted:
        """The samples in the order of a value in their metadata; those without it are the last.

        Args:
            path: The item's key and the way to the value, such as ``metadata.label``.
            indices: The samples; None is all.
            descending: Whether the greatest comes first.
            most_reads: How many metadata files may be read for it; see `found`.

        Raises:
            QueryError: If the path leads into an item that is no metadata.
            DatasetError: If the stream does not just read a folder, or that cannot be read.
        """
        there = self.indices()
        chosen = there if indices is None else np.intersect1d(there, np.fromiter(indices, np.int64))
        return sort_by_value(
            self._folder_source().dataset,
            chosen,
            path,
            descending=descending,
            most_reads=most_reads,
        )

    def versions(self, indices: Iterable[int]) -> dict[int, str]:
        """One value for each of some samples, another one if anything of it changed on disk.

        It is the `Sample.version` that each has when it is read now, whoever wrote it meanwhile;
        ``absent`` for an index without a sample. For 120 samples it costs a few milliseconds, at
        any size of the dataset: few enough to ask each second what is to be shown anew.

        Args:
            indices: The samples.

        Raises:
            DatasetError: If the stream does not just read a folder, or a file of it cannot be
                looked at.
        """
        return self._folder_source().dataset.versions(indices)

    def as_of_now(self) -> SamplesSequence:
        """The samples as they are now, to read several at once: in a bucket by one request.

        What is taken of it later is not of then.

        Raises:
            DatasetError: If the stream does not just read a folder, or that cannot be asked.
        """
        return self._folder_source().as_of_now()

    def file_versions(self, indices: Sequence[int]) -> Sequence[Mapping[str, Version] | None]:
        """What the files of some samples are like now, by the names that a sample's origin has.

        None for a sample that is to be read to know it: each one, where the stream does not just
        read a folder; else one that is unlike others, as where a file is missing.

        Args:
            indices: The samples.

        Raises:
            DatasetError: If the folder cannot be looked at.
        """
        source = self._source_folder()
        if source is None:
            return [None] * len(indices)
        return source.dataset.file_versions(indices)

    def _folder_source(self) -> FromUnderfolder:
        source = self._source_folder()
        if source is None:
            raise DatasetError(
                f"{self!r}: this can be asked of the samples of a folder only. Open the dataset by "
                "`DataStream.read_write_underfolder`."
            )
        return source

    @property
    def input_sequence(self) -> SamplesSequence | None:
        """Where samples are read."""
        return self._input

    @property
    def input_folder(self) -> Place | None:
        """The folder that samples are read from; None if the input is not just a folder."""
        source = self._source_folder()
        return None if source is None else source.dataset.folder

    @property
    def output_folder(self) -> Place:
        """The folder that samples are written to."""
        return self._writer.folder

    @property
    def run_key(self) -> str:
        """The run that the writes belong to."""
        return self._writer.run_key

    @property
    def run(self) -> Run:
        """The ledger of that run: what became of its samples so far."""
        return self._writer.run

    @property
    def ledgers(self) -> Layout:
        """Where the ledgers of all runs of the output are, to be read."""
        return self._writer.ledgers

    def end_run(self) -> None:
        """Ends the run: notes that it has finished, and packs its ledger.

        Raises:
            DatasetWriteError: If that cannot be written; the ledger is as it was.
        """
        opening.end_run(self._writer)

    @property
    def is_in_place(self) -> bool:
        """Whether samples are written to the folder that they are read from."""
        return self.input_folder == self.output_folder

    # -- writing -----------------------------------------------------------------------

    def set_output(
        self,
        idx: int,
        sample: Sample,
        keys: Collection[str] | None = None,
        *,
        if_version: str | None = None,
        write_id: str | None = None,
        removes: Collection[str] = (),
    ) -> list[StagedSample]:
        """Writes a sample, entirely or not at all.

        An item that is there unchanged is left as it is; one that comes from another file is
        linked, not encoded anew. Items on disk that the sample lacks stay, but for those of
        `removes`. Costs about 0.5 ms beside encoding, at any size of the dataset.

        Args:
            idx: The index to write at; negative ones count from the input's end.
            sample: The sample.
            keys: The items to write; None is all.
            if_version: The version that the sample at `idx` of the output is to have, as
                `Sample.version` or `versions` told it, maybe long ago and in another process;
                ``absent``: none is to be there. None: any.
            write_id: An id for this write, letters and digits, that no other has. The commit has
                it in its own, by which who did not hear of the outcome finds in the sample's
                history whether it was made (`SampleEvent.write_id`). None: one by chance.
            removes: The keys of items of the sample's own that are removed, and not written; their
                files are kept with the run, whose undo brings them back.

        Returns:
            What was committed; nothing if all was as it is to be. ``[0].commit_id`` is the commit,
            by which it can be undone; see `undo`.

        Raises:
            ConflictError: If another writer changed the sample's files since it was read; or it has
                another version than `if_version`.
            InvalidSampleError: If the stream's check finds something wrong with the sample.
            IndexError: If a negative index is out of range.
            ItemError: If a key, an index or a value cannot be written.
            DatasetError: If the dataset's folder cannot be read, or the write's id can be none.
            DatasetWriteError: If the disk cannot take it; the dataset is as it was.
        """
        idx = self._absolute(idx)
        items, origin = self._output.prepared(idx, sample)
        return self._writer.write(idx, items, keys, origin, if_version, write_id, removes)

    def staging_elsewhere(self, folder: str) -> Staging:
        """A staging in an empty folder outside of the dataset, to see what a write would be.

        Nothing of the dataset is changed by it, and it is not to be committed.
        """
        return self._writer.staging_in(folder)

    def prepared(self, idx: int, sample: Sample) -> Mapping[str, Item[Any]]:
        """The items that would be written of a sample at an index: past the output pipe.

        Raises:
            ItemNameError: If the index can be none.
            TypeError: If it is no sample.
        """
        return self._output.prepared(idx, sample)[0]

    def stored_bytes(self, indices: Iterable[int]) -> dict[str, int]:
        """The disk space of all own files that samples have in the output, by the items' keys.

        Costs a `stat` a file.

        Raises:
            DatasetError: If a file could not be asked for.
        """
        return self._writer.dataset.stored_bytes(indices)

    def remove(
        self, idx: int, sample: Sample | None = None, *, if_version: str | None = None
    ) -> list[StagedSample]:
        """Removes a sample with all its own files; those that are shared stay.

        The others keep their indices: a gap is left, or the dataset gets shorter at its end. The
        files are kept with the run, whose undo brings them back.

        Args:
            idx: The index to remove; negative ones count from the input's end.
            sample: The sample as it was read, for the conflict check; None removes what is there.
            if_version: The version that it is to have; see `set_output`. None: any.

        Returns:
            What was committed; nothing if there is no such sample.

        Raises:
            ConflictError: If another writer changed the sample since it was read; or it has another
                version than `if_version`.
            IndexError: If a negative index is out of range.
            ItemNameError: If that can be no index.
            DatasetError: If the dataset's folder cannot be read.
            DatasetWriteError: If the disk cannot take it; the dataset is as it was.
        """
        origin = None if sample is None else sample.origin
        return self._writer.remove(self._absolute(idx), origin, if_version)

    def undo(self, commit_id: str, *, force: bool = False) -> UndoReport:
        """Takes one write of this stream's run back, and nothing else of the run.

        An undo can be undone: by the `commit_id` of the report.

        Args:
            commit_id: The commit, as `set_output` or `remove` told it, or an earlier undo.
            force: Whether to restore also samples that someone changed since.

        Raises:
            UndoRefusedError: If someone changed the samples since; or the run has no such commit
                (any more). Nothing was changed.
            PipestreamError: As for `undo_commit`.
        """
        return undo_commit(self.output_folder, self.run_key, commit_id, force=force)

    def _absolute(self, idx: int) -> int:
        if hasattr(idx, "__index__") and not isinstance(idx, bool):
            idx = operator.index(idx)  # also of numpy
        if isinstance(idx, int) and idx < 0:
            if idx + len(self) < 0:
                raise IndexError(f"sample {idx} is out of range: there are {len(self)} samples.")
            return idx + len(self)
        return idx

    def commit_group(
        self, *, tag: str = "main", signed: bool = False, **limits: Any
    ) -> AbstractContextManager[Batch]:
        """Opens a batch: what is set in it is committed together, which costs less than one by one.

            with stream.commit_group() as batch:
                batch.set_output(0, sample)

        What is complete is committed on leaving, also after an exception.

        Args:
            tag: The part of the run that this is, for its ledger.
            signed: Whether the ledger notes what each sample's files are like, by which a later
                run sees which samples changed.
            **limits: `count` samples and `seconds` after which what was set is committed.
        """
        prepare = self._output.prepared
        return self._writer.batch(tag=tag, signed=signed, prepare=prepare, **limits)

    def recover(self) -> None:
        """Ends what dead writers left in the folders: their logged commits are applied.

        Opening a stream does so. It is to be done again before a ledger is read for what is
        still to do, if a writer may have died since. Costs some 20 µs.

        Raises:
            DatasetWriteError: If a commit cannot be applied, as on a full disk.
        """
        source = self._source_folder()
        if source is not None and not self.is_in_place:
            source.dataset.recover()
        self._writer.dataset.recover()

    def for_attempt(self) -> "DataStream":
        """Returns a copy of the stream that alone, with its parts, may write to the run.

        Streams of earlier attempts, whose workers may still be alive, are refused from now on:
        what the run's ledger lacks after this call is done by nobody else.

        Raises:
            DatasetWriteError: If that cannot be noted.
        """
        other = copy.copy(self)
        other._writer = self._writer.for_attempt()
        return other

    def checking(self, check: Check | None) -> "DataStream":
        """Returns the same stream, of the same run, that writes only samples that are valid.

        Each is looked at as it would be on disk after the commit, with the items that are not
        written and the shared ones. That decodes all of them.

        Args:
            check: Says what is wrong with a sample, given its items by key, as
                `SampleRules.problems` does: nothing, if nothing is. Then `set_output` raises an
                `InvalidSampleError`, and the sample stays as it is. None: nothing is checked.
        """
        other = copy.copy(self)
        other._writer = self._writer.checking(check)
        return other

    @property
    def attempt(self) -> str | None:
        """The attempt at its run that this stream is part of; None: the run is open to others."""
        return self._writer.attempt

    @property
    def has_run_to_itself(self) -> bool:
        """Whether this stream and its parts are all that writes as part of its run."""
        return self._writer.attempt is not None

    def begin_run(self, **facts: Any) -> None:
        """Creates the dataset where it does not exist, and notes facts on the run, for its list.

        Writing does it too, without the facts. Facts that were noted before stay.

        Args:
            **facts: Plain values by name; a transform's ``fingerprint`` among them lets a later
                run find the samples that changed since.

        Raises:
            DatasetExistsError: If the folder exists, may not, and was not created by this run.
            RunTakenOverError: If this was to have the run to itself, and another has it by now.
            DatasetWriteError: If the dataset cannot be written.
        """
        self._writer.begin_run(facts)

    # -- other streams -----------------------------------------------------------------

    @property
    def is_all_data(self) -> bool:
        """Whether it reads a folder, or nothing, and writes as it is told: no code but our own.

        Another process does the same with it, then.
        """
        source = self._source_folder()
        reads_files = self._input is None or (source is not None and not source.allow_pickle)
        if any(map(is_address, (self.input_folder, self.output_folder))):
            return False  # who waits for a store needs threads, and no processes
        return reads_files and self._output.is_empty and self._writer.check is None

    def part(self, indices: Iterable[int]) -> "DataStream":
        """Returns a stream for just these samples: small to pickle, for a worker elsewhere.

        Where it is opened, no folder is scanned; it does not see samples come and go.
        """
        part = copy.copy(self)
        chosen = [operator.index(idx) for idx in indices]
        source = self._source_folder()
        shared = None
        if source is not None:
            part._input = source = source.restricted_to(chosen)
            shared = source.dataset if self.is_in_place else None
        elif self._input is not None:
            part._input = self._input.restricted_to(chosen)
        part._writer = self._writer.for_part(chosen, shared)
        return part

    def with_input(self, input_sequence: SamplesSequence) -> "DataStream":
        """Returns the same stream, of the same attempt at its run, that reads other samples."""
        other = copy.copy(self)
        other._input = input_sequence
        return other

    def with_run(self, run_key: str) -> "DataStream":
        """Returns the same stream as part of another run."""
        other = copy.copy(self)
        other._writer = self._writer.for_run(run_key)
        return other

    def __repr__(self) -> str:
        written = f"{self._output!r}.to_underfolder({str(self.output_folder)!r})"
        return f"DataStream({self._input!r} -> {written})"

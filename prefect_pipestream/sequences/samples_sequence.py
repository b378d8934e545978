"""SamplesSequence: a lazy sequence of samples."""

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from prefect_pipestream.errors import MissingExtraError
from prefect_pipestream.sequences.building import argument_name
from prefect_pipestream.sequences.operations import Operations
from prefect_pipestream.sequences.registry import piped_sequence as piped_sequence
from prefect_pipestream.sequences.registry import source_sequence as source_sequence
from prefect_pipestream.sequences.sample import EMPTY_SAMPLE, Sample

if TYPE_CHECKING:
    import torch.utils.data

    from prefect_pipestream.sequences.direct_access import DirectAccessSequence
    from prefect_pipestream.underfolder import UnderfolderWriter


class SamplesSequence(Operations, BaseModel, Sequence[Sample]):
    """A lazy sequence of samples: nothing is read before a sample is asked for.

    A pydantic model: its fields are the arguments of the source or pipe, and others are
    refused. Sequences are immutable and picklable. Every source is a constructor, every pipe
    a method:

        reader = SamplesSequence.from_underfolder("datasets/mini_mnist")
        reader[::2].shuffle(seed=1).to_underfolder("half").run(num_workers=4)

    A new one derives from this class (or from `PipedSequence`), says how many samples it has
    (`size`) and gives one (`get_sample`), and registers with `source_sequence` or
    `piped_sequence`.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    # What registering the class makes of it; a source has no field that takes its source.
    sequence_title: ClassVar[str | None] = None
    source_field: ClassVar[str | None] = None
    # Takes a list, or a mapping none of whose keys is one of its fields, as its one argument.
    takes_whole_argument: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args:  # in the order of the fields, as the method of the same title takes them
            fields = type(self).model_fields.items()
            names = [argument_name(name, f) for name, f in fields if name != self.source_field]
            if len(args) > len(names):
                raise TypeError(f"{self.name()}: {len(args)} arguments were given by position.")
            kwargs = {**kwargs, **dict(zip(names, args, strict=False))}
        super().__init__(**kwargs)

    @abstractmethod
    def size(self) -> int:
        """Returns the number of samples."""

    @abstractmethod
    def get_sample(self, idx: int) -> Sample:
        """Returns sample `idx`, which is at least 0 and less than the size."""

    # -- the sequence --------------------------------------------------------------------

    def __len__(self) -> int:
        return self.size()

    @overload
    def __getitem__(self, idx: int) -> Sample: ...
    @overload
    def __getitem__(self, idx: "slice[Any, Any, Any]") -> "SamplesSequence": ...
    def __getitem__(self, idx: "int | slice[Any, Any, Any]") -> "Sample | SamplesSequence":
        if isinstance(idx, slice):
            return self.slice(start=idx.start, stop=idx.stop, step=idx.step)
        idx, size = operator.index(idx), self.size()
        if idx < 0:
            idx += size
        if not 0 <= idx < size:
            shown = idx if idx >= 0 else idx - size
            raise IndexError(f"sample {shown} is out of range: there are {size} samples.")
        return self.get_sample(idx)

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override] # a model iterates its fields
        get_sample = self.get_sample
        for idx in range(self.size()):
            yield get_sample(idx)

    def __add__(self, other: "SamplesSequence") -> "SamplesSequence":
        return self.cat(other) if isinstance(other, SamplesSequence) else NotImplemented

    def is_normalized(self, max_items: int = -1) -> bool:
        """Tells whether all samples have the same keys. Reads samples, decodes nothing.

        Args:
            max_items: How many samples to look at, at most; negative: all.
        """
        stop = self.size() if max_items < 0 else min(max_items, self.size())
        keys = {frozenset(self.get_sample(idx)) for idx in range(stop)}
        return len(keys) <= 1

    def indices(self) -> npt.NDArray[np.int64]:
        """Returns the indices at which there are samples: int64, ascending; a folder has gaps."""
        return np.arange(self.size(), dtype=np.int64)

    def restricted_to(self, indices: Iterable[int]) -> "SamplesSequence":
        """Returns a sequence that has at least these samples, where it can small to pickle."""
        return self

    def best_zfill(self) -> int:
        """Returns the number of digits of the last index."""
        return len(str(max(self.size() - 1, 0)))

    # -- other ways to look at it --------------------------------------------------------

    def direct_access(self) -> "DirectAccessSequence":
        """Returns a view that gives values: `sequence.direct_access()[3]["image"]`."""
        from prefect_pipestream.sequences.direct_access import DirectAccessSequence

        return DirectAccessSequence(self)

    def batch(
        self, batch_size: int, drop_last: bool = False, fill: Sample = EMPTY_SAMPLE
    ) -> Iterator[tuple[Sample, ...]]:
        """Yields the samples in tuples of `batch_size`.

        Args:
            batch_size: How many samples there are in a tuple.
            drop_last: Whether to leave out the last tuple if it is not full.
            fill: What to fill the last tuple up with.

        Raises:
            ValueError: If `batch_size` is less than 1.
        """
        from prefect_pipestream.sequences.batches import batches

        return batches(self, batch_size, drop_last, fill)

    def torch_dataset(self) -> "torch.utils.data.Dataset[Sample]":
        """Returns a map-style PyTorch dataset of the samples.

        Raises:
            MissingExtraError: If PyTorch is not installed.
        """
        try:
            from prefect_pipestream.sequences.torch import TorchDataset
        except ImportError as err:
            raise MissingExtraError(
                "torch_dataset() needs PyTorch, which is not installed: `pip install torch`."
            ) from err
        return TorchDataset(self)

    # -- going through it ----------------------------------------------------------------

    def run(
        self,
        num_workers: int = 0,
        prefetch: int = 2,
        keep_order: bool = False,
        sample_fn: "Callable[[Sample], object] | Callable[[Sample, int], object] | None" = None,
        track_fn: "bool | str | Callable[[Iterable[Any]], Iterable[Any]] | None" = True,
    ) -> None:
        """Goes through all samples once, for what the pipes do on the way.

        Args:
            num_workers: Processes to do it in; 0: this one, negative: one a core. Each is a new
                Python, which costs some 0.5 s of a core, and gets the sequence by `cloudpickle`.
            prefetch: How many samples each worker prepares ahead of `sample_fn`.
            keep_order: Whether `sample_fn` gets the samples in order, also from workers.
            sample_fn: Called in this process with each sample, or with each sample and its index if
                it takes two arguments.
            track_fn: True shows a progress bar on a terminal, with the text if it is one; a
                callable gets an iterable and returns one, as `tqdm` does.

        Raises:
            Exception: Whatever a sample raised, with a note that has the sample's index. What
                `to_underfolder` wrote before stays, each sample entirely.
            WorkerDiedError: If a worker process was killed.
        """
        from prefect_pipestream.sequences.running import run

        run(self, num_workers, prefetch, keep_order, sample_fn, track_fn)

    def apply(
        self,
        num_workers: int = 0,
        prefetch: int = 2,
        track_fn: "bool | str | Callable[[Iterable[Any]], Iterable[Any]] | None" = True,
    ) -> "SamplesSequence":
        """Like `run`, and returns the processed samples, in order, as a sequence.

        All of them are held in memory, as far as their items hold values.
        """
        from prefect_pipestream.sequences.running import run

        samples: list[Sample] = []
        run(self, num_workers, prefetch, True, samples.append, track_fn)
        return self.from_list(samples)

    # -- how it was made -----------------------------------------------------------------

    def to_pipe(self, recursive: bool = True, objs_to_str: bool = True) -> list[dict[str, Any]]:
        """Returns the list of operations from which `build_pipe` makes this sequence again.

        Args:
            recursive: Whether sequences among the arguments become lists of operations too.
            objs_to_str: Whether paths, classes and other objects become text.
        """
        from prefect_pipestream.sequences.describing import to_pipe

        return to_pipe(self, recursive, objs_to_str)

    @classmethod
    def name(cls) -> str:
        """Returns the name of the source or pipe."""
        return cls.sequence_title or f"{cls.__module__}:{cls.__qualname__}"

    def upstream(self) -> Iterator["SamplesSequence"]:
        """Yields the sequences that this one reads from directly."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SamplesSequence):
                yield value
            elif isinstance(value, list | tuple):
                yield from (v for v in value if isinstance(v, SamplesSequence))

    def rebuilt(self, change: "Callable[[SamplesSequence], SamplesSequence]") -> "SamplesSequence":
        """Returns this sequence with what `change` makes of it and of each that it reads.

        Args:
            change: Takes a sequence, whose sources are changed already, and returns it or another.
        """
        changed: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SamplesSequence):
                new: Any = value.rebuilt(change)
            elif isinstance(value, list | tuple):
                parts = [p.rebuilt(change) if isinstance(p, SamplesSequence) else p for p in value]
                new = type(value)(parts) if any(map(operator.is_not, parts, value)) else value
            else:
                continue
            if new is not value:
                changed[name] = new
        return change(self.model_copy(update=changed) if changed else self)

    def in_batches(self, batches: ExitStack) -> "SamplesSequence":
        """Returns this sequence with each `to_underfolder` in it committing in batches.

        Args:
            batches: Closes them, which commits what they have.
        """
        return self.rebuilt(lambda sequence: sequence._in_batch(batches))

    def _in_batch(self, batches: ExitStack) -> "SamplesSequence":
        return self

    def writers(self) -> Iterator["UnderfolderWriter"]:
        """Yields the writer of every `to_underfolder` among this one and those that it reads."""
        for sequence in self.upstream():
            yield from sequence.writers()

    def __repr__(self) -> str:
        from prefect_pipestream.sequences.describing import describe

        return describe(self)

    def __str__(self) -> str:
        return repr(self)

"""Every error that this package raises on purpose, in one small hierarchy.

A message says what was given, what was expected and what to do, and names the file
and the sample where there is one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class PipestreamError(Exception):
    """Base of all errors of this package."""


class MissingExtraError(PipestreamError, ImportError):
    """An optional dependency is needed; the message names the extra that brings it."""


# -- items ---------------------------------------------------------------------------------


class ItemError(PipestreamError):
    """An item's value cannot be had or kept."""


class DecodeError(ItemError, ValueError):
    """A file's content is not a valid value of its item class."""


class EncodeError(ItemError, ValueError):
    """A value cannot be encoded by its item class."""


class UnpicklingNotAllowedError(ItemError, PermissionError):
    """A pickle was to be decoded where the caller has not allowed it."""


class ItemNameError(ItemError, ValueError):
    """An item key or a sample index cannot be part of a file name."""


class DuplicateItemError(ItemError, ValueError):
    """Two files of one sample claim the same item key."""


# -- datasets ------------------------------------------------------------------------------


class DatasetError(PipestreamError):
    """A dataset folder cannot be used as asked."""

    @classmethod
    @contextmanager
    def explaining_questions(cls) -> Iterator[None]:
        """Raises one in place of an operating system's error inside; also a decorator.

        It is for code that only reads, to which "it is not there" is an answer and no error.
        """
        try:
            yield
        except PipestreamError:
            raise
        except OSError as error:
            raise DatasetError(
                f"{error.filename or 'A file of the dataset'} could not be asked for "
                f"({error.strerror or error}). Nothing is changed upon a guess: mend what is "
                "wrong there, and repeat what was asked for."
            ) from error


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """The dataset folder does not exist."""


class DatasetExistsError(DatasetError, FileExistsError):
    """The dataset folder exists and belongs to someone else."""


_SHOWN_PROBLEMS = 5


def some_problems(problems: Sequence[str]) -> str:
    """The first problems of a sample, and how many more there are."""
    more = len(problems) - _SHOWN_PROBLEMS
    return "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more:,} more" if more > 0 else "")


# Not of a whole run, which may have committed other samples by then.
_AS_BEFORE = "The dataset is as it was before this step"


class DatasetWriteError(DatasetError, OSError):
    """The dataset could not be written (disk full, read-only, no permission): nothing changed.

    Made of the operating system's error number and the message, which a pickle keeps.
    """

    @classmethod
    def of(cls, error: OSError, what: str, then: str = _AS_BEFORE) -> "DatasetWriteError":
        """Makes it of the operating system's error.

        Args:
            error: That error.
            what: What cannot be done, and to which dataset.
            then: What that means for the dataset.
        """
        file = error.filename2 or error.filename
        where = f" ({file})" if file else ""
        return cls(error.errno, f"{what}: {error.strerror or error}{where}. {then}")

    @classmethod
    @contextmanager
    def explaining(cls, what: str, then: str = _AS_BEFORE) -> Iterator[None]:
        """Raises one in place of an operating system's error inside; see `of`."""
        try:
            yield
        except PipestreamError:
            raise
        except OSError as error:
            raise cls.of(error, what, then) from error

    def __str__(self) -> str:
        """The message alone."""
        return self.strerror or super().__str__()


class ConflictError(DatasetError):
    """Another writer changed samples after they were read: read and transform them anew.

    Attributes:
        indices: The indices under which they were read.
    """

    def __init__(self, message: str, indices: Sequence[int] = ()) -> None:
        super().__init__(message, indices)
        self.indices = list(indices)

    def __str__(self) -> str:
        """The message alone."""
        return str(self.args[0])


class RunKeyError(DatasetError, ValueError):
    """What was given cannot be the key of a run."""


class RunNotFoundError(DatasetError, LookupError):
    """The dataset's ledger has no run of this key."""


class ReviewNotFoundError(DatasetError, LookupError):
    """No review of this name waits for a decision (any more)."""


class PlanError(DatasetError, ValueError):
    """A run cannot go by a plan: there is no such plan (any more), or it is one of another run."""


class RunTakenOverError(DatasetError):
    """A later attempt at the run goes on with it: this one may write nothing more."""


class UndoRefusedError(DatasetError):
    """Someone changed samples after the run that is to be undone, or it is still running.

    Attributes:
        indices: The samples that were changed.
        files: Their files that were changed, by name.
    """

    def __init__(
        self, message: str, indices: Sequence[int] = (), files: Sequence[str] = ()
    ) -> None:
        super().__init__(message, indices, files)
        self.indices = list(indices)
        self.files = list(files)

    def __str__(self) -> str:
        """The message alone."""
        return str(self.args[0])


# -- sequences and stages ------------------------------------------------------------------


class PipeBuildingError(PipestreamError, ValueError):
    """An operation or a stage cannot be built: its name or an argument is wrong."""


class SampleError(PipestreamError):
    """A sample does not have what an operation needs of it."""


class InvalidSampleError(SampleError):
    """A sample would not be as the rules say, and is not written.

    Attributes:
        problems: What would be wrong with it.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message, problems)
        self.problems = list(problems)

    @classmethod
    def of(cls, idx: int, problems: Sequence[str]) -> "InvalidSampleError":
        """Makes it of a sample's index, and of what would be wrong with it."""
        shown = some_problems(problems)
        return cls(f"sample {idx} is not written, for it would not be valid: {shown}", problems)

    def __str__(self) -> str:
        """The message alone."""
        return str(self.args[0])


class QueryError(SampleError, PipeBuildingError):
    """A query cannot be understood, or asks what cannot be answered; the message says where."""


class MissingItemError(SampleError, KeyError):
    """A sample has no item of this key."""

    def __str__(self) -> str:
        """The message alone, where a `KeyError` would show its repr."""
        return str(self.args[0])


class WorkerDiedError(PipestreamError, RuntimeError):
    """A worker process ended in the middle of its work, mostly because it was killed."""


class SampleTimeoutError(SampleError):
    """A sample took longer than it may: the process that worked on it was ended."""


class SampleDiedError(SampleError):
    """The process that worked on a sample ended, or was killed, in the middle of it."""

"""An undo in a bucket: one entry of the log, which says what each file is to hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prefect_pipestream.underfolder.bucket.dataset import Bucket
from prefect_pipestream.underfolder.bucket.entry import Entry, Ref
from prefect_pipestream.underfolder.bucket.restoring import Restoring, put_back, restoring_entry
from prefect_pipestream.underfolder.bucket.state import State
from prefect_pipestream.underfolder.bucket.undo_files import BucketFiles
from prefect_pipestream.underfolder.format.names import key_of
from prefect_pipestream.underfolder.ledger.records import new_commit_id
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.undo_plan import Change, Plan


@dataclass(frozen=True, kw_only=True)
class Undo(Restoring):
    """An undo that is to be made.

    Attributes:
        files: The dataset's files.
        runs: The runs that are taken back, or something of them.
        changes: What is taken back.
        plan: What is to be done for it.
    """

    files: BucketFiles
    runs: Sequence[Run]
    changes: Mapping[str, Change]
    plan: Plan

    def contents(self) -> dict[int, dict[str, Ref | None]]:
        """The content that each file gets, by sample and name; None: it is removed."""
        found = {idx: {n: self._ref(n) for n in names} for idx, names in self.plan.todo.items()}
        back = {(idx, key_of(n)) for idx, own in found.items() for n, ref in own.items() if ref}
        for idx, names in self.plan.changed.items():  # by force
            others = (n for n in names if n not in self.changes and (idx, key_of(n)) in back)
            found.setdefault(idx, {}).update(dict.fromkeys(others))
        return found

    def _ref(self, name: str) -> Ref | None:
        return self.files.ref(name, self.changes[name])


def make_undo(dataset: Bucket, begin: Callable[[BucketFiles], Undo]) -> tuple[Undo, str]:
    """Makes an undo, anew where others are faster.

    Args:
        dataset: The dataset.
        begin: Looks at its files, and says what the undo is.

    Returns:
        The undo, and the id of its entry.

    Raises:
        UndoRefusedError: If `begin` refuses it.
        DatasetWriteError: If the dataset cannot be written.
    """
    commit_id = new_commit_id()
    made: list[Undo] = []

    def make(state: State) -> Entry | None:
        undo = begin(BucketFiles(dataset))
        made.append(undo)
        if not (undo.plan.todo or undo.retired or undo.taken or undo.drops):
            return None
        return restoring_entry(dataset, state, undo, undo.contents(), commit_id)

    put_back(dataset, make, "the undo")
    return made[-1], commit_id

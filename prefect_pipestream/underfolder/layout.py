"""Where this package keeps its own files in a dataset: ``<dataset>/.pipestream/``.

::

    lock                        held by whoever commits
    journal                     names that came and went (see `journal`)
    claim.json                  the run that created the dataset
    staged/<writer>.alive       held as long as a writer lives
    staged/<writer>/<commit>/   new files of a commit that is being prepared
    log/<commit>.json           the one commit that is being applied: the commit point
    runs/<run>/run.json         what the run is: key, start, transform, host
    runs/<run>/done/<tag>/      its done commits, one record each
    runs/<run>/undo/<commit>/   the files that the commit replaced or removed
    runs/<run>/compact-<n>/     the done commits of a run that has ended, packed
    runs/<run>/dropped/         ids of commits that were taken back
    runs/<run>/undoing.json     there as long as an undo of the run is under way
    runs/<run>/attempt.json     the attempt at the run that may write, where one has it to itself
    runs/<run>~undone-<time>/   a run that was undone
    seen/<fingerprint>.npz      signatures from runs that were pruned
    aside/<time>/               what `check` put aside
    ledger.lock                 held by whoever undoes, packs or prunes runs
"""

import hashlib
import os
from urllib.parse import quote, unquote

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.underfolder.names import DATA_FOLDER, PRIVATE_FOLDER

_LONGEST = 120


class Layout:
    """The paths of one dataset."""

    __slots__ = ("data", "journal", "lock", "log", "private", "root", "runs", "staged")

    def __init__(self, root: str) -> None:
        self.root = root
        self.data = os.path.join(root, DATA_FOLDER)
        self.private = os.path.join(root, PRIVATE_FOLDER)
        self.lock = os.path.join(self.private, "lock")
        self.journal = os.path.join(self.private, "journal")
        self.staged = os.path.join(self.private, "staged")
        self.log = os.path.join(self.private, "log")
        self.runs = os.path.join(self.private, "runs")

    @property
    def ledger_lock(self) -> str:
        """The lock of those who undo, pack or prune runs."""
        return os.path.join(self.private, "ledger.lock")

    @property
    def seen(self) -> str:
        """The folder of signatures from runs that were pruned."""
        return os.path.join(self.private, "seen")

    @property
    def aside(self) -> str:
        """The folder of what `check` put aside."""
        return os.path.join(self.private, "aside")

    @property
    def claim(self) -> str:
        """The file that names the run which created the dataset."""
        return os.path.join(self.private, "claim.json")

    def make(self) -> None:
        """Makes the folders that are missing.

        Raises:
            OSError: If one cannot be made.
        """
        for folder in (self.data, self.staged, self.log, self.runs):
            os.makedirs(folder, exist_ok=True)

    def refuse_links(self) -> None:
        """Checks that what is written below the root stays there.

        Raises:
            DatasetError: If a folder that is written to is a symbolic link.
        """
        for folder in (self.data, self.private, self.staged, self.log, self.runs):
            if os.path.islink(folder):
                raise DatasetError(
                    f"{folder} is a symbolic link to {os.readlink(folder)}: what is written would "
                    "leave the dataset. Open the dataset there, or put a folder in its place."
                )

    def pending(self, commit_id: str) -> str:
        """The record of a commit from its commit point until it is applied."""
        return os.path.join(self.log, commit_id + ".json")

    def run(self, run_key: str) -> "RunLayout":
        """The paths of one run."""
        return RunLayout(os.path.join(self.runs, folder_of(run_key)))

    def final(self, name: str) -> str:
        """The path of an item: ``/<name>`` is a shared one in the root, else a sample's own.

        Raises:
            DatasetError: If the name has a path in it: records on disk may say anything.
        """
        if "/" in name[1:]:
            raise DatasetError(f"{self.root}: {name!r} is not the name of an item's file.")
        return f"{self.root}{name}" if name[0] == "/" else f"{self.data}/{name}"


class RunLayout:
    """The paths of one run of one dataset."""

    __slots__ = ("attempt", "done", "dropped", "folder", "info", "undo", "undoing")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.info = os.path.join(folder, "run.json")
        self.done = os.path.join(folder, "done")
        self.undo = os.path.join(folder, "undo")
        self.dropped = os.path.join(folder, "dropped")
        self.undoing = os.path.join(folder, "undoing.json")
        self.attempt = os.path.join(folder, "attempt.json")

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return os.path.basename(self.folder)

    def undo_of(self, commit_id: str) -> str:
        """The folder of the files that a commit replaced or removed."""
        return os.path.join(self.undo, commit_id)


def folder_of(run_key: str) -> str:
    """The name of a run's folder: the run key where it can be a name, else made from it."""
    name = quote(run_key, safe=" +,=@()[]{}")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) <= _LONGEST:
        return name
    return (
        name[: _LONGEST - 20] + "~" + hashlib.blake2b(run_key.encode(), digest_size=8).hexdigest()
    )


def run_key_of(folder: str) -> str:
    """The run key of a run folder that has no readable ``run.json``."""
    return unquote(folder)


def staged_name(name: str) -> str:
    """The name under which a file is staged: flat, also for shared items."""
    return "root." + name[1:] if name[0] == "/" else name

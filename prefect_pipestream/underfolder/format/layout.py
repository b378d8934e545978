"""Where this package keeps its own files in a dataset: ``<dataset>/.pipestream/``.

::

    lock                        held by whoever commits
    journal                     names that came and went (see `journal`)
    claim.json                  the run that created the dataset
    staged/<writer>.alive       held as long as a writer lives
    staged/<writer>/<commit>/   new files of a commit that is being prepared
    staged/<maker>.new          a file of ours that is being written, and held by its maker
    staged/packing-<n>/         a ledger that is being packed
    staged/pruned-<n>/          a run, staged/review-<n>/ a review, that is being removed
    log/<commit>.json           the one commit that is being applied: the commit point
    runs/<run>/run.json         what the run is: key, start, transform, host
    runs/<run>/done/<tag>/      its done commits, one record each
    runs/<run>/undo/<commit>/   the files that the commit replaced or removed
    runs/<run>/compact-<n>/     the done commits of a run that has ended, packed
    runs/<run>/dropped/         ids of commits that were taken back
    runs/<run>/taken-back/      which of its samples were taken back alone (see `taken_back`)
    runs/<run>/failures.csv     its failed samples, for a spreadsheet
    runs/<run>/undoing.json     there as long as an undo of the run is under way
    runs/<run>/attempt.json     the attempt at the run that may write, where one has it to itself
    runs/<run>~undone-<time>/   a run that was undone
    review/<id>/                changes that wait for a decision (see `kept_review`)
    imported.jsonl              which sample came from what (see `imported`)
    catalog/<item>/             what metadata says, for queries (see `catalog.kept`)
    thumbnails/<nn>/<file>      small pictures of items, bounded (see `views.item_thumbnails`)
    plans/<key>.npz             what a run would process, to be followed (see `kept_plan`)
    seen/<fingerprint>.npz      signatures from runs that were pruned
    aside/<time>/               what `check` put aside
    ledger.lock                 held by whoever undoes, packs or prunes runs

Of a dataset that cannot be written, ``catalog`` and ``thumbnails`` are in a cache folder of the
user's (see `caches`).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from prefect_pipestream.errors import DatasetError, DatasetNotFoundError
from prefect_pipestream.storage.address import local_folder, place_of
from prefect_pipestream.storage.asking import is_folder, is_link, is_there
from prefect_pipestream.storage.file_source import FileSource
from prefect_pipestream.storage.untrusted import inside, leads_away, write_anew
from prefect_pipestream.underfolder.format.names import DATA_FOLDER, PRIVATE_FOLDER, is_shared
from prefect_pipestream.underfolder.format.run_key import check_run_key, is_run_key

Folder = str | os.PathLike[str]

_LONGEST = 120


class Layout:
    """The paths of one dataset.

    A private path is looked at each time it is asked for: there is none where a symbolic link is
    on the way or at its end, since a dataset may come from anybody. So what is listed, written,
    renamed or removed by these paths is in the dataset.
    """

    __slots__ = ("data", "private", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.data = os.path.join(root, DATA_FOLDER)
        self.private = os.path.join(root, PRIVATE_FOLDER)

    @classmethod
    def of(cls, dataset: "Folder | Layout") -> "Layout":
        """The paths of the dataset at a folder."""
        if isinstance(dataset, Layout):
            return dataset
        folder = local_folder(place_of(dataset))
        return cls(os.path.abspath(os.path.expanduser(os.fspath(folder))))

    def at(self, *parts: str) -> str:
        """The path of a private file or folder.

        Raises:
            DatasetError: If it, or a folder on the way, is a symbolic link.
            OSError: If that could not be asked.
        """
        return inside(self.root, PRIVATE_FOLDER, *parts)

    @property
    def lock(self) -> str:
        """The lock of those who commit."""
        return self.at("lock")

    @property
    def ledger_lock(self) -> str:
        """The lock of those who undo, pack or prune runs."""
        return self.at("ledger.lock")

    @property
    def journal(self) -> str:
        """The file of names that came and went, to be written."""
        return self.at("journal")

    @property
    def staged(self) -> str:
        """The folder of writers' staged files."""
        return self.at("staged")

    @property
    def log(self) -> str:
        """The folder of the commit that is being applied."""
        return self.at("log")

    @property
    def runs(self) -> str:
        """The folder of the runs' ledgers."""
        return self.at("runs")

    @property
    def reviews(self) -> str:
        """The folder of changes that wait for a decision."""
        return self.at("review")

    @property
    def seen(self) -> str:
        """The folder of signatures from runs that were pruned."""
        return self.at("seen")

    @property
    def imported(self) -> str:
        """The file that says which sample came from what."""
        return self.at("imported.jsonl")

    @property
    def plans(self) -> str:
        """The folder of plans of runs."""
        return self.at("plans")

    @property
    def thumbnails(self) -> str:
        """The folder of small pictures of items."""
        return self.at("thumbnails")

    @property
    def claim(self) -> str:
        """The file that names the run which created the dataset."""
        return self.at("claim.json")

    def make(self) -> None:
        """Makes the folders that are missing.

        Raises:
            DatasetError: If one of them is a symbolic link.
            OSError: If one cannot be made.
        """
        self.refuse_linked_data()
        for folder in (self.data, self.staged, self.log, self.runs):
            os.makedirs(folder, exist_ok=True)

    def refuse_missing(self) -> None:
        """Checks that the dataset is there.

        Raises:
            DatasetNotFoundError: If there is no such folder.
        """
        if not is_folder(self.root):
            what = "this is no folder" if is_there(self.root) else "no such folder"
            raise DatasetNotFoundError(f"Dataset {self.root}: {what}.")

    def refuse_linked_data(self) -> None:
        """Checks that samples are written below the root. (They may be read by a link.)

        Raises:
            DatasetError: If the data folder is a symbolic link.
        """
        if is_link(self.data):
            raise leads_away(self.data)

    def write_json(self, path: str, content: Mapping[str, Any]) -> None:
        """Writes a private file anew, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        write_anew(path, json.dumps(content, indent=1).encode(), self.staged)

    def pending(self, commit_id: str) -> str:
        """The record of a commit from its commit point until it is applied."""
        return f"{self.log}/{commit_id}.json"

    def final(self, name: str) -> str:
        """The path of an item: ``/<name>`` is a shared one in the root, else a sample's own.

        Raises:
            DatasetError: If the name has a path in it: records on disk may say anything.
        """
        if "/" in name[1:]:
            raise DatasetError(f"{self.root}: {name!r} is not the name of an item's file.")
        return f"{self.root}{name}" if is_shared(name) else f"{self.data}/{name}"

    # -- what commits found and left ----------------------------------------------------

    def kept_source(self, run: str, commit_id: str, name: str) -> FileSource | None:
        """Where the content is that a file had before a commit, as long as that is kept.

        Args:
            run: The folder of the run.
            commit_id: The commit.
            name: The file, which the commit replaced or removed.
        """
        return FileSource(f"{inside(run, 'undo', commit_id)}/{staged_name(name)}")

    def written_source(self, run: str, commit_id: str, name: str) -> FileSource | None:
        """Where a commit put the content of a file; there may be another one by now.

        Args:
            run: The folder of the run.
            commit_id: The commit.
            name: The file, which the commit wrote.
        """
        return FileSource(self.final(name))

    def look_at(self, sources: Iterable[FileSource]) -> None:
        """Looks at many of these at once, where each look is a request; of a folder, at none."""

    def order_of(self, commit_id: str) -> str:
        """What a commit is sorted by among others, in the order of their making."""
        return commit_id


def folder_of(run_key: str) -> str:
    """The name of a run's folder: the run key where it can be a name, else made from it.

    Raises:
        RunKeyError: If that cannot be a run's key.
    """
    name = quote(check_run_key(run_key), safe=" +,=@()[]{}")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) <= _LONGEST:
        return name
    return (
        name[: _LONGEST - 20] + "~" + hashlib.blake2b(run_key.encode(), digest_size=8).hexdigest()
    )


def run_key_of(folder: str) -> str:
    """The run key of a run folder that has no readable ``run.json``."""
    key = unquote(folder)
    return key if is_run_key(key) else repr(folder)


def staged_name(name: str) -> str:
    """The name under which a file is staged: flat, also for shared items."""
    return "root." + name[1:] if is_shared(name) else name

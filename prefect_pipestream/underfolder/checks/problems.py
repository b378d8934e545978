"""What `check` finds wrong with a dataset, and where it puts aside what is in the way."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.storage.untrusted import inside
from prefect_pipestream.underfolder.format.layout import Layout

ProblemKind = Literal[
    "undecodable",
    "broken-link",
    "duplicate",
    "stray",
    "leftover",
    "pending",
    "unreadable-record",
    "dead-staging",
    "half-undone",
    "no-data",
    "not-ours",
    "out-of-place",
    "lost-content",
]
"""What can be wrong.

``undecodable``: a file's content is not what its extension says. ``broken-link``: a symbolic link
leads nowhere. ``duplicate``: two files claim one item of a sample. ``stray``: a name in the data
folder is no item's. ``leftover``: a write or the creation of a dataset was interrupted.
``pending``: a commit was logged and not applied. ``unreadable-record``: a commit's record cannot
be read. ``dead-staging``: files that a dead process staged. ``half-undone``: an undo was
interrupted. ``no-data``: the folder has no data folder. ``not-ours``: a link, or no regular file,
is where this package keeps its own files. ``out-of-place``: a file of a bucket has not the content
that the log gave it last, but an older one, or none. ``lost-content``: a content that the log of a
bucket needs is gone, or is another one.
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: What it is.
        file: Where: a path relative to the dataset's root.
        idx: The sample; None where it is none's.
        message: What exactly is wrong.
        mended: Whether it was mended.
        remedy: How it was mended, or what to do.
    """

    kind: ProblemKind
    file: str
    idx: int | None
    message: str
    mended: bool
    remedy: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found.

    Attributes:
        folder: The dataset's root.
        samples: How many samples have files of their own.
        items: How many items were decoded, the shared ones among them.
        unchecked: How many items were not, by reason.
        problems: What is wrong: in private files first, in names next, then sample by sample.
        gaps: The indices below the last that have no sample, as ranges: the first and the last of
            each. That is no problem: samples may be removed, and `compact` closes gaps.
    """

    folder: str
    samples: int
    items: int
    unchecked: Mapping[str, int]
    problems: tuple[Problem, ...]
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or not any more."""
        return all(problem.mended for problem in self.problems)


class Aside:
    """Moves what is in the way to ``.pipestream/aside/<time>/``; nothing is ever deleted.

    Args:
        layout: The dataset.
        enabled: Whether to do so; otherwise it only says that it could.
    """

    def __init__(self, layout: Layout, enabled: bool) -> None:
        self._layout = layout
        self._enabled = enabled
        now = datetime.now(UTC)
        self._name = f"{now:%Y%m%dT%H%M%S%f}"

    def put(self, path: str) -> tuple[bool, str]:
        """Moves a file or folder aside.

        Returns:
            Whether that was done, and how to say so, or why it was not.
        """
        if not self._enabled:
            return False, "`pipestream check --fix` puts it aside."
        folder, name = os.path.split(os.path.relpath(path, self._layout.root).removeprefix("../"))
        try:
            target = self._layout.at("aside", self._name, *filter(None, folder.split("/")), name)
            if not path.startswith(self._layout.root + "/"):  # what a creator left beside it
                folder = ""
            inside(self._layout.root, *filter(None, folder.split("/")))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(path, target)
        except (OSError, DatasetError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            return False, f"It cannot be put aside: {why}."
        return True, f"Put aside: {os.path.relpath(target, self._layout.root)}"

"""The keys of the objects of a dataset in a bucket.

::

    data/…                             the files of samples, in their places; shared ones beside it
    .pipestream/log/<number>.json      the entries of the log: creating the next one is the commit
                                       point
    .pipestream/packs/<number>.gz      entries up to this one, once more, to be read at once
    .pipestream/objects/<entry>/…      the contents that entries place, and those of before
    .pipestream/applied                the entry up to which all files are in their places
    .pipestream/plans/…, review/…      documents of their own (see `documents`)
    .pipestream/copied-from            of a copy: the dataset of which it is one (see `copying`)
"""

import re

from prefect_pipestream.underfolder.format.names import DATA_FOLDER, PRIVATE_FOLDER, is_shared
from prefect_pipestream.underfolder.format.ref import Ref

LOG = f"{PRIVATE_FOLDER}/log"
"""The folder of the entries."""
PACKS = f"{PRIVATE_FOLDER}/packs"
"""The folder of entries that are packed."""
APPLIED = f"{PRIVATE_FOLDER}/applied"
"""The note of how far all files are in their places."""

DIGITS = 12
"""How many digits an entry's number has in a key."""
_ENTRY = re.compile(rf"{re.escape(LOG)}/([0-9]{{{DIGITS}}})\.json")


def entry_key(number: int) -> str:
    """The key of an entry, by its number."""
    return f"{LOG}/{number:0{DIGITS}d}.json"


def number_in(key: str) -> int | None:
    """The number of the entry that has this key; None where it is none."""
    match = _ENTRY.fullmatch(key)
    return None if match is None else int(match[1])


def pack_key(number: int) -> str:
    """The key of the pack of the entries up to one, by its number."""
    return f"{PACKS}/{number:0{DIGITS}d}.gz"


def view_of(name: str) -> str:
    """The key of a file in its place, by its name: ``/<name>`` is a shared one."""
    return name[1:] if is_shared(name) else f"{DATA_FOLDER}/{name}"


def object_of(ref: Ref) -> str:
    """The key of a content that is kept."""
    return f"{PRIVATE_FOLDER}/{ref.object}"

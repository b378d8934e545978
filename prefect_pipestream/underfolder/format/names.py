"""Names of the Underfolder format: ``data/<index>_<key>.<ext>`` and ``<key>.<ext>``."""

from typing import NamedTuple

from prefect_pipestream.errors import ItemNameError

DATA_FOLDER = "data"
"""The sub-folder of a dataset that holds the samples' own items."""

PRIVATE_FOLDER = ".pipestream"
"""The sub-folder of a dataset that holds this package's own files."""

MAX_INDEX = 10**14
"""Indices from here on are refused: no padded name of them is ever meant."""


class Kind(NamedTuple):
    """What the names of one item of many samples have in common.

    Attributes:
        tail: All that follows the index and its underscore: ``<key>.<ext>``.
        width: The digits to which the index is padded; 0 where it is not padded.
    """

    tail: str
    width: int

    @property
    def key(self) -> str:
        """The item's key: the part of the tail before its first dot."""
        return self.tail.partition(".")[0]

    @property
    def extension(self) -> str:
        """The file's extension with its dot, as written."""
        _, dot, extension = self.tail.partition(".")
        return dot + extension

    def name_of(self, idx: int) -> str:
        """Returns the file name of sample `idx`."""
        return f"{idx:0{self.width}d}_{self.tail}"


def parse_item_name(name: str) -> tuple[int, Kind] | None:
    """Splits ``<index>_<key>.<ext>``; None where `name` is not of this form."""
    head, _, tail = name.partition("_")
    key, _, extension = tail.partition(".")
    if not (head.isascii() and head.isdigit() and key and extension):
        return None
    idx = int(head)
    if idx >= MAX_INDEX:
        return None
    padded = len(head) > 1 and head[0] == "0"
    return idx, Kind(tail, len(head) if padded else 0)


def index_in(name: str) -> int | None:
    """The index in the name of a sample's own file; None where there is none."""
    parsed = parse_item_name(name)
    return None if parsed is None else parsed[0]


def is_shared(name: str) -> bool:
    """Whether a name is that of a shared item, ``/<key>.<ext>``: its file is in the root."""
    return name[:1] == "/"


def key_of(name: str) -> str:
    """The key in an item's name ``<index>_<key>.<ext>``, or ``/<key>.<ext>`` of a shared one."""
    own = name[1:] if is_shared(name) else name.partition("_")[2]
    return own.partition(".")[0]


def parse_root_name(name: str) -> tuple[str, str] | None:
    """Splits ``<key>.<ext>`` into key and extension; None where `name` is not of this form."""
    key, dot, extension = name.partition(".")
    return (key, dot + extension) if key and extension else None


def check_key(key: object) -> str:
    """Returns `key` if it can name an item in a dataset folder.

    Raises:
        ItemNameError: If it is not a string, is empty, or has a dot, a path separator or a
            control character: a file of that name would be read back under another key, or
            leave the folder.
    """
    if not isinstance(key, str) or not key:
        raise ItemNameError(f"Item key {key!r}: expected a non-empty string.")
    if "." in key or "/" in key or "\\" in key or not key.isprintable():
        raise ItemNameError(
            f"Item key {key!r}: expected a name without dots, path separators and control "
            "characters, since it becomes part of a file name. Rename the item."
        )
    try:
        too_long = len(key.encode()) > 200
    except UnicodeEncodeError as error:
        raise ItemNameError(f"Item key {key!r} cannot be written as UTF-8: {error}.") from error
    if too_long:
        raise ItemNameError(f"Item key {key[:40]!r}…: expected at most 200 bytes.")
    return key


def check_index(idx: object) -> int:
    """Returns `idx` as an int if it can be a sample's index.

    Raises:
        ItemNameError: If it is not an integer, is negative or has more than 14 digits.
    """
    if isinstance(idx, bool) or not hasattr(idx, "__index__"):
        raise ItemNameError(f"Sample index {idx!r}: expected an integer.")
    number = int(idx.__index__())
    if not 0 <= number < MAX_INDEX:
        raise ItemNameError(f"Sample index {number}: expected 0 to {MAX_INDEX - 1}.")
    return number

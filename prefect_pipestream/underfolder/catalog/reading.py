"""Reading the metadata of many samples, in as many processes as there are cores."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from prefect_pipestream.errors import DecodeError, ItemError, WorkerDiedError
from prefect_pipestream.items import FileSource, Item, MetadataItem
from prefect_pipestream.items.registry import class_for
from prefect_pipestream.storage.asking import is_of_disk
from prefect_pipestream.storage.cores import usable_cores
from prefect_pipestream.storage.store import AT_ONCE
from prefect_pipestream.storage.version import Version
from prefect_pipestream.underfolder.catalog.documents import as_text

_WORTH_A_PROCESS = 2_000  # files: a new Python costs some 0.5 s of a core
MOST_INODE = 2**63 - 1
"""As much of a file's number as a column of numbers takes."""
_BUILTIN = "prefect_pipestream.items"  # other classes of items are not known to a new process


class Document(NamedTuple):
    """What was found in a metadata file.

    Attributes:
        size, mtime_ns, inode: The version that was read; a size of -1 where it may still change
            unseen, as it was written a moment ago, or may be read another time all the same.
        text: Its value as text; empty where it has none.
        problem: Why it has no value.
    """

    size: int
    mtime_ns: int
    inode: int
    text: str
    problem: str


def is_metadata(name: str) -> bool:
    """Whether a file of this name holds metadata."""
    cls = class_for(name)
    return cls is not None and issubclass(cls, MetadataItem)


def read_document(source: FileSource) -> Document:
    """Reads a metadata file. Whatever is wrong with its content is told, not raised."""
    path, known = source.path, source.known_as
    text = problem = ""
    is_lasting = True
    try:
        text = as_text(Item.from_source(source)())
    except ItemError as error:
        problem = str(error)
        is_own = _is_builtin(path.rpartition(".")[2])  # another class may be mended
        is_lasting = is_own and type(error) is DecodeError and not is_of_disk(error.__cause__)
    except (ValueError, TypeError) as error:
        problem = f"{path}: cannot be searched: {error}."
    if known is not None and source.is_newer:  # it is known by what it was before
        is_lasting = False
    version = known or source.version or Version(-1, 0)
    size = version.size if version.is_beyond_tick and is_lasting else -1
    return Document(size, version.mtime_ns, version.inode & MOST_INODE, text, problem)


def read_documents(folder: str, names: Sequence[str]) -> list[Document]:
    """Reads metadata files of a folder; see `read_document`.

    Raises:
        WorkerDiedError: If a process that read some of them was killed.
    """
    workers = min(usable_cores(), len(names) // _WORTH_A_PROCESS)
    if workers < 2 or not all(map(_is_builtin, {name.rpartition(".")[2] for name in names})):
        return [read_document(FileSource(f"{folder}/{name}")) for name in names]
    parts = [names[at::workers] for at in range(workers)]
    with ThreadPoolExecutor(workers) as waiting:  # for the processes
        read = list(waiting.map(lambda part: _in_a_process(folder, part), parts))
    found: list[Document | None] = [None] * len(names)
    for at, documents in enumerate(read):
        found[at::workers] = documents
    return [one for one in found if one is not None]


def read_elsewhere(sources: Sequence[FileSource]) -> list[Document]:
    """Reads metadata files of a store, many at a time; see `read_document`.

    Raises:
        StoreError: If it cannot be asked.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:  # of its own: a source may make many requests
        return list(threads.map(read_document, sources))


def _is_builtin(extension: str) -> bool:
    cls = class_for(f".{extension}")
    return cls is not None and cls.__module__.startswith(_BUILTIN)


def _in_a_process(folder: str, names: Sequence[str]) -> list[Document]:
    program = (
        f"import json, sys; sys.path = json.loads(sys.argv[1]); from {__name__} import main; main()"
    )
    command = [sys.executable, "-c", program, json.dumps(sys.path)]
    done = subprocess.run(
        command,
        input=json.dumps([folder, *names]).encode(),
        capture_output=True,
        check=False,
    )
    documents = list(_documents_of(done.stdout))
    if done.returncode or len(documents) != len(names):
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise WorkerDiedError(
            f"{folder}: a process that read metadata ended with status {done.returncode} "
            f"({said or 'it said nothing'}). Nothing was changed: ask again."
        )
    return documents


def _documents_of(lines: bytes) -> Iterator[Document]:
    for line in lines.splitlines():
        yield Document(*json.loads(line))


def main() -> None:
    """What a process does that reads for another: names come in, a line a document goes out."""
    folder, *names = json.load(sys.stdin.buffer)
    for name in names:
        sys.stdout.write(json.dumps(read_document(FileSource(f"{folder}/{name}"))) + "\n")

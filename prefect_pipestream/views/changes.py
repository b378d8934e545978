"""Some of the samples that a run changed: before, from what undo keeps, and after."""

from collections.abc import Iterable, Iterator

from prefect_pipestream.errors import PipestreamError
from prefect_pipestream.items import FileSource, Item
from prefect_pipestream.sequences import DataStream, Sample
from prefect_pipestream.underfolder.format.names import is_shared, key_of
from prefect_pipestream.underfolder.ledger.records import CHANGING, CommitRecord, SampleRecord
from prefect_pipestream.underfolder.ledger.run import Run
from prefect_pipestream.underfolder.runs.kept_files import existing
from prefect_pipestream.views.differences import Items, ShownChange, change_between, removal_of

SHOWN_CHANGES = 16


def changes_of_run(
    source: DataStream, target: DataStream, most: int = SHOWN_CHANGES
) -> Iterator[ShownChange]:
    """Shows some of the samples that a run wrote or removed, spread over its course.

    Costs the decoding of these few samples, whatever the size of the run.

    Args:
        source: Where the run read samples.
        target: Where it wrote them: its run key is the run.
        most: How many are shown at most.

    Raises:
        DatasetError: If the run's ledger cannot be read.
    """
    run = target.run
    commits = run.some_commits(most)
    for commit, record in _written(commits, most):
        if record.outcome == "removed":
            yield removal_of(record.idx, _kept(run, commit, record))
            continue
        written = record.writes or ()
        after = _items(run, ((name, run.written_source(commit.id, name)) for name in written))
        if source.input_folder == target.output_folder:
            before: Items = _kept(run, commit, record)
        else:
            before = _read(source, record.idx)
        keys = [key_of(name) for name in written]
        yield change_between(record.idx, before, after, keys, record.written_at)


def _written(commits: list[CommitRecord], most: int) -> Iterator[tuple[CommitRecord, SampleRecord]]:
    """Some samples that were changed, by index: as many of each commit as it takes."""
    share = -(-most // max(1, len(commits)))
    found = []
    for commit in commits:
        written = [record for record in commit.samples if record.outcome in CHANGING]
        step = max(1, len(written) / share)
        chosen = [written[int(number * step)] for number in range(min(share, len(written)))]
        found += [(commit, record) for record in chosen]
    yield from sorted(found[:most], key=lambda pair: pair[1].idx)


def _kept(run: Run, commit: CommitRecord, record: SampleRecord) -> Items:
    """The items that the commit replaced or removed."""
    names = (*record.replaces, *record.removes)
    return _items(run, ((name, run.kept_source(commit.id, name)) for name in names))


def _items(run: Run, files: Iterable[tuple[str, FileSource | None]]) -> Items:
    own = ((name, source) for name, source in files if not is_shared(name))
    return {
        key_of(name): Item.from_source(source, shared=False)
        for name, source in existing(run, own).items()
    }


def _read(source: DataStream, idx: int) -> Items:
    try:
        return source.get_input(idx)
    except (IndexError, PipestreamError):  # gone since: then there is no picture of it
        return Sample()

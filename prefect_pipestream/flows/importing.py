"""`import-dataset`: what people have in other layouts comes into a dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from prefect import flow, get_run_logger
from pydantic import Field

from prefect_pipestream.blocks import OutputUnderfolder
from prefect_pipestream.errors import DatasetError, PipeBuildingError
from prefect_pipestream.flows.dataset import absolute
from prefect_pipestream.flows.gating import OnInvalid, gate
from prefect_pipestream.flows.planning import as_report, check_planning, plan_run
from prefect_pipestream.flows.process_run import ProcessRun, identity_of
from prefect_pipestream.flows.processing import run_to_its_end
from prefect_pipestream.flows.selection import Choice, Select
from prefect_pipestream.items import Item, MetadataItem
from prefect_pipestream.layouts import LAYOUTS, LayoutKind
from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.sequences import DataStream, Sample, SampleStage
from prefect_pipestream.sequences.categories import Categories
from prefect_pipestream.sequences.imported import ImportedSamples
from prefect_pipestream.sequences.query import parse_where
from prefect_pipestream.sequences.registry import make_source
from prefect_pipestream.sequences.sources.from_image_folder import FromImageFolder
from prefect_pipestream.sequences.sources.from_underfolder import FromUnderfolder
from prefect_pipestream.sequences.sources.import_source import CATEGORIES, ImportSource, Items
from prefect_pipestream.sequences.stage import REMOVE, StageResult
from prefect_pipestream.storage.address import Place
from prefect_pipestream.underfolder.format.names import DATA_FOLDER
from prefect_pipestream.underfolder.format.run_key import check_run_key, new_run_key
from prefect_pipestream.underfolder.ledger.provenance import SourceState
from prefect_pipestream.underfolder.ledger.signatures import IMPORT
from prefect_pipestream.underfolder.opening import assign, open_dataset, would_assign
from prefect_pipestream.underfolder.runs.imported import Assigned
from prefect_pipestream.validation import ItemRule, SampleRules
from prefect_pipestream.work.chunk import Transform
from prefect_pipestream.work.streams import run_key_in_force

Vanished = Literal["report", "remove"]
"""What becomes of samples that are gone from their source."""

_NAMED = 5


@flow(name="import-dataset")
def import_dataset(
    kind: LayoutKind,
    source: Path,
    dataset: OutputUnderfolder | Path,
    options: dict[str, Any] | None = None,
    select: Select = "changed",
    vanished: Vanished = "report",
    link: bool = True,
    indices: list[int] | None = None,
    chunk_size: Annotated[int, Field(gt=0)] | None = None,
    sample_retries: Annotated[int, Field(ge=0)] = 2,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    run_key: str | None = None,
    rules: list[ItemRule] | None = None,
    allow_other_items: bool = True,
    on_invalid: OnInvalid = "fail",
    plan: bool = False,
    follow: str | None = None,
    where: str | None = None,
) -> RunReport:
    """Brings samples of another layout into a dataset: each once, and again where it changed.

    It is a run as others are: reported, resumed after a kill, undoable. Each sample keeps its index
    in the dataset, whatever comes or goes beside it at the source. Files are linked where the file
    system can, else copied, and never encoded anew. More than one source can be imported into a
    dataset.

    Args:
        kind: The layout of the source.
        source: The folder or file to import; it is not changed. A relative one begins at the folder
            in which the flow runs (a worker's).
        dataset: The dataset to bring it into, or its folder or address; it is made where it does
            not exist.
        options: Options of the layout: those of its source, such as {"sidecars": {"mask":
            "{stem}_mask.png"}}. Empty for none.
        select: "changed" for what is new or changed at the source since it was imported; "all" for
            all of it, over what was done to it in the dataset; "failed" for what failed to be
            imported in the last run, or in that of the run key.
        vanished: What becomes of samples that are gone from the source: "report" names them,
            "remove" removes them from the dataset, too.
        link: Whether files are hard links to those of the source, where the file system can: then
            a program that overwrites a source's file in place changes the dataset's, too. Else
            they are copies, as they are in a bucket.
        indices: The samples of the dataset to import; empty for all.
        chunk_size: How many samples each task run imports; empty for a few seconds of work.
        sample_retries: How often a sample that fails is tried again.
        max_failed: The share of samples that may fail before the run counts as failed.
        run_key: Give the key of an earlier run to go on with it; empty for a new run.
        rules: What is expected of items: class, shape and type of images, fields of metadata; as in
            validate-dataset. A sample that is not so fails, and does not come in. Empty for none.
        allow_other_items: With rules, whether samples may have items that no rule is about.
        on_invalid: Where too many samples failed: fail, and leave the others there; or undo, and
            take the whole import back.
        plan: Only say what the run would do: which samples and why, how long it would take, what
            undo would hold, and some samples before and after. Nothing is written.
        follow: The key of a plan, to do just that; what changed since is left as it is, and named.
            Empty for none.
        where: A query that is to be true of what the source has, such as: metadata.label == 'cat'.
            Empty for none. Each sample of the source is asked.

    Returns:
        What became of the samples; with `plan`, what would.

    Raises:
        PipeBuildingError: If an option, a rule or the query is wrong.
        DatasetNotFoundError: If the source is not there.
        DatasetError: If the source cannot be understood as a whole, the dataset is inside of it,
            its list of classes is broken, or all samples would be removed, as the source is empty.
        TooManyFailedError: If more than the share `max_failed` failed.
    """
    check_planning(plan, follow or None)
    if where:
        parse_where(where)
    block = OutputUnderfolder(folder=dataset) if isinstance(dataset, Path) else dataset
    folder = absolute(block.folder)
    given = SampleRules.gate(rules, allow_other_items)
    known = _known_categories(folder)
    classes = _classes_in(known)
    numbers = {name: one for name, one in classes.numbers.items() if isinstance(one, int)}
    found = source_of(kind, source, options or {}).knowing(numbers)
    if isinstance(folder, Path):
        _refuse_inside(found, folder)
    names = found.names  # what is wrong with the source is seen before anything is made
    key = check_run_key(run_key) if run_key else None if plan else run_key_in_force()
    output = {"folder": folder, "zfill": block.zfill, "exists_ok": True}
    pipe = [{"to_underfolder": {**output, "replace_shared": [CATEGORIES]}}]
    stream = DataStream(None, pipe, run_key=key or new_run_key("import"))
    stream = stream if plan else stream.for_attempt()
    assigned = (would_assign if plan else assign)(
        folder,
        stream.run_key,
        found.origin_name,
        names,
        metadata_key=found.metadata_key,
        take_back=select == "all",
    )
    _refuse_to_remove_all(found, folder, names, assigned, vanished)
    if isinstance(found, FromImageFolder) and found.splits is None:
        found = found.model_copy(update={"splits": _had_splits(folder, found, assigned)})
    samples = ImportedSamples(
        source=found,
        assigned=assigned.indices,
        gone=tuple(assigned.vanished.values()) if vanished == "remove" else (),
        shared=_with_all_categories(found, known, classes),
        copies=not link,
    )
    transform = Transform(_TakeIn(layout=kind, options=options or {}))
    stream = stream.with_input(samples)
    run = ProcessRun(stream, stream, transform, None, sample_retries, get_run_logger())
    _warn(run, assigned, found.origin_name, vanished)
    choice = Choice(
        select,
        indices or None,
        is_named=bool(run_key),
        where=where or None,
        follow=follow or None,
    )
    fingerprint = IMPORT + transform.fingerprint(None)
    if plan:
        gate(run, given)
        return as_report(plan_run(run, choice, identity_of(run, fingerprint)))
    return run_to_its_end(
        run,
        choice,
        chunk_size=chunk_size,
        max_failed=max_failed,
        fingerprint=fingerprint,
        origin=SourceState(str(found.location), len(names), layout=kind),
        rules=given,
        on_invalid=on_invalid,
        imported_from=found.origin_name,
    )


def _refuse_to_remove_all(
    found: ImportSource, folder: Place, names: Sequence[str], assigned: Assigned, vanished: Vanished
) -> None:
    if vanished == "remove" and assigned.vanished and not names:
        raise DatasetError(
            f"{found.location}: there is no sample in it, and all that came from it would be "
            f"removed from {folder}. Is it mounted? To remove them all the same, undo the imports."
        )


def _had_splits(folder: Place, found: FromImageFolder, assigned: Assigned) -> bool | None:
    """Whether first folders were splits in earlier imports; None where there were none."""
    there = open_dataset(folder, must_exist=False)
    for at in np.isin(assigned.indices, there.indices()).nonzero()[0].tolist():
        name, idx = found.names[at], int(assigned.indices[at])
        if "/" in name:
            item = there.read(idx).get(found.metadata_key)
            said = item() if isinstance(item, MetadataItem) else None
            if isinstance(said, dict) and said.get("file") == name:
                return "split" in said
    return None


def _warn(run: ProcessRun, assigned: Assigned, origin: str, vanished: Vanished) -> None:
    if vanished == "report" and assigned.vanished:
        run.warn(
            f"{_listed(list(assigned.vanished))} gone from {origin}. The dataset keeps what is "
            "gone; to remove it, import with `vanished` as `remove` (`--vanished remove`)."
        )
    if assigned.left_out:
        run.warn(
            f"{_listed(assigned.left_out)} left out, as they were removed from the dataset before "
            "it was compacted. To bring them in again, import with `select` as `all`."
        )


class _TakeIn(SampleStage):
    """Takes a sample as it is; one that is gone from its source is to be removed."""

    layout: str
    options: dict[str, Any]

    @classmethod
    def stage_name(cls) -> str:
        """What the ledger calls it: no list of operations can name it."""
        return "import"

    def __call__(self, sample: Sample) -> StageResult:
        return sample or REMOVE


def source_of(kind: LayoutKind, source: Path, options: dict[str, Any]) -> ImportSource:
    """Makes the source that reads a layout.

    Raises:
        PipeBuildingError: If an option is wrong.
        DatasetNotFoundError: If there is nothing at the path.
        MissingExtraError: If what reads it is not installed.
    """
    layout = LAYOUTS[kind]
    if wrong := sorted(layout.arguments.keys() & options.keys()):
        raise PipeBuildingError(f"{kind}: the option {wrong[0]!r} cannot be given with this kind.")
    found = make_source(layout.source, (source,), {**layout.arguments, **options})
    assert isinstance(found, ImportSource)
    return found


def _known_categories(folder: Place) -> Item[Any] | None:
    """The list of classes that a dataset has."""
    item = FromUnderfolder(folder=folder, must_exist=False).root_sample.get(CATEGORIES)
    return item if isinstance(item, MetadataItem) else None


def _classes_in(item: Item[Any] | None) -> Categories:
    """The classes in the list of a dataset.

    Raises:
        DatasetError: If it is none: it is left as it is.
    """
    try:
        return Categories() if item is None else Categories.of(item())
    except ValueError as error:
        assert item is not None
        files = ", ".join(source.path for source in item.file_sources)
        raise DatasetError(
            f"{files}: the list of classes cannot be added to: {error}. Correct it, or remove it."
        ) from error


def _with_all_categories(
    found: ImportSource, known: Item[Any] | None, classes: Categories
) -> Items | None:
    """What the samples share: the classes of the dataset, and those of the source behind them."""
    if known is None or CATEGORIES not in found.shared_items:
        return None
    both = classes.extended(Categories.of(found.shared_items[CATEGORIES]()))
    return {CATEGORIES: known if both is classes else known.make_new([*both], shared=True)}


def _refuse_inside(source: ImportSource, folder: Path) -> None:
    """Raises `DatasetError` where an import would find samples of the dataset itself."""
    location, dataset = source.location.resolve(), folder.resolve()
    outer = location if location.is_dir() else location.parent
    if dataset == outer or (location.is_dir() and outer in dataset.parents):
        raise DatasetError(
            f"{folder}: the dataset is inside of what is imported, {location}: the next import "
            "would find its samples there. Name a folder elsewhere."
        )
    if dataset / DATA_FOLDER in (location, *location.parents):
        raise DatasetError(
            f"{location}: these are the samples of {folder} itself. Name a source elsewhere, or "
            "another dataset."
        )


def _listed(names: Sequence[str]) -> str:
    """Some names and their number, as the subject of a sentence."""
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    are = "sample is" if len(names) == 1 else "samples are"
    return f"{shown}{more}: {len(names):,} {are}"

"""Where a run comes from, as far as Prefect knows it: what its ledger notes as it begins."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.utilities.urls import url_for

from prefect_pipestream.errors import DatasetError
from prefect_pipestream.flows.process_run import ProcessRun
from prefect_pipestream.reporting.progress import API_ERRORS
from prefect_pipestream.sequences import DataStream, SampleStage
from prefect_pipestream.stages.noted import noted_transform, noted_value, own_files
from prefect_pipestream.storage.address import Place, place_of
from prefect_pipestream.storage.checkout import Checkout, checkout_of
from prefect_pipestream.underfolder.ledger.plain import text
from prefect_pipestream.underfolder.ledger.provenance import (
    PROVENANCE,
    FlowRunNote,
    Provenance,
    SourceState,
    software,
)
from prefect_pipestream.underfolder.opening import ledgers_of, open_dataset
from prefect_pipestream.underfolder.runs.listing import last_writer

T = TypeVar("T")

_log = logging.getLogger(__name__)


def provenance_of(run: ProcessRun, origin: SourceState | None = None) -> dict[str, Any]:
    """The fact on where a run comes from; nothing where it is one that was begun before.

    Where that was by other code, the report is to warn of it.

    Args:
        run: The run.
        origin: What it reads, where that is no stream that can be asked.
    """
    transform = run.transform
    read = run.source.input_folder if origin is None else origin.folder
    folders = [run.target.output_folder, *(() if read is None else (place_of(read),))]
    code = code_in_force(transform.stage, folders)
    known = run.target.run.provenance()
    if known is not None:
        if (warning := warning_of_other_code(run.key, known, code)) is not None:
            run.warn(warning)
        return {}
    source = origin or state_of(run.source)
    return provenance_fact(code, transform.stage, run.keys, transform.encoder_options, source)


def provenance_fact(
    code: Checkout | None,
    transform: Any = None,
    keys: Collection[str] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    source: SourceState | None = None,
) -> dict[str, Any]:
    """The fact on where a run comes from that begins now, for `Run.note`.

    What cannot be asked is left out. Costs, with the code, some 15 ms; in a deployment a request.

    Args:
        code: See `code_in_force`.
        transform: What it does with each sample: a stage, or what stands for one. None for nothing.
        keys: The items to write; None is all.
        encoder_options: How items that change are encoded.
        source: What it reads.
    """
    provenance = Provenance(
        transform=None if transform is None else _told(lambda: noted_transform(transform)),
        keys=None if keys is None else tuple(noted_value(list(keys))),
        encoder_options=_told(lambda: noted_value(encoder_options)) if encoder_options else None,
        code=code,
        flow_run=_flow_run(),
        source=source,
        **software(),
    )
    return {PROVENANCE: provenance.fact()}


def code_in_force(transform: SampleStage | None, datasets: Collection[Place]) -> Checkout | None:
    """The checkout with a transform's own code, or with the folder in which the flow runs.

    A checkout in a dataset does not count, as a stranger may have made it.
    """
    own = None if transform is None else _told(lambda: list(own_files(transform)))
    try:
        places = own or [os.getcwd()]
    except FileNotFoundError:  # the folder was removed
        return None
    return checkout_of(places, map(str, datasets))


def state_of(source: DataStream) -> SourceState:
    """What a stream reads, as it is now."""
    folder, samples = source.input_folder, len(source.indices())
    if folder is None:
        return SourceState(samples=samples, pipe=_told(lambda: text(repr(source.input_sequence))))
    return state_of_folder(folder, samples)


def state_of_folder(folder: Place, samples: int | None = None) -> SourceState:
    """A dataset as it is now, of which the number of samples is known, or is to be counted."""
    if samples is None:
        samples = len(open_dataset(folder).indices())
    try:
        last = last_writer(ledgers_of(folder))
    except (DatasetError, OSError) as error:
        _log.warning("Which run wrote %s last cannot be told: %s", folder, error)
        last = None
    return SourceState(str(folder), samples, last)


def warning_of_other_code(run_key: str, known: Provenance, code: Checkout | None) -> str | None:
    """What to say where a run was begun by other code than goes on with it; None for the same."""
    began, now = [], []
    if known.code is not None and code is not None and known.code.commit != code.commit:
        began.append(f"commit {known.code.commit}")
        now.append(f"commit {code.commit}")
    version = software().get("package")
    if None not in (known.package, version) and known.package != version:
        began.append(f"prefect-pipestream {known.package}")
        now.append(f"prefect-pipestream {version}")
    if not began:
        return None
    return (
        f"run {run_key!r} was begun by other code ({', '.join(began)}) than goes on with it now "
        f"({', '.join(now)}): what it had done before stays as that left it. To apply this code to "
        "all samples, give another run key."
    )


def _told(say: Callable[[], T]) -> T | None:
    """What there is to say of arguments, of any class; None where they cannot be asked."""
    try:
        return say()
    except Exception as error:  # noqa: BLE001 - a run is not to fail for what is noted of it
        _log.warning("A part of what the run is made of is not noted: %r", error)
        return None


# -- what Prefect knows --------------------------------------------------------------------


def _flow_run() -> FlowRunNote | None:
    """The flow run that is executed; None outside of one."""
    context = FlowRunContext.get()
    found = None if context is None else context.flow_run
    if found is None:
        return None
    by = found.created_by
    return FlowRunNote(
        id=str(found.id),
        name=found.name,
        url=url_for("flow-run", obj_id=found.id),
        deployment=None if found.deployment_id is None else _deployment(found.deployment_id),
        created_by=None if by is None else by.display_value or by.type,
    )


def _deployment(deployment_id: UUID) -> str:
    """A deployment's name; its id, where it cannot be asked, or was deleted."""
    try:
        with get_client(sync_client=True) as client:
            return client.read_deployment(deployment_id).name
    except API_ERRORS:
        return str(deployment_id)

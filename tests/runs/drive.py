"""A flow that processes a dataset, run in a process of its own.

It prints a line ``begun`` when the flow has begun, and the report as JSON when it has ended.
"""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from prefect.transactions import transaction

from prefect_pipestream.blocks import CreateNewUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.flows import import_dataset
from prefect_pipestream.flows.processing import process_samples
from prefect_pipestream.tasks import process_chunk
from tests.runs.transforms import BY_NAME


def run(
    folder: str,
    transform: str,
    target: str | None = None,
    run_key: str | None = None,
    keys: list[str] | None = None,
    chunk_size: int | None = None,
    tasks_per: str = "chunk",
) -> dict[str, Any]:
    """Processes a dataset in the flow run that is under way."""
    print("begun", flush=True)
    report = process_samples.fn(
        source=ReadWriteUnderfolder(folder=Path(folder)),
        transform=BY_NAME[transform],
        target=None if target is None else CreateNewUnderfolder(folder=Path(target), zfill=5),
        run_key=run_key,
        keys=keys,
        chunk_size=chunk_size,
        tasks_per=tasks_per,  # type: ignore[arg-type]
    )
    return report.model_dump()


run_flow_of_tests = flow(name="drive", persist_result=False)(run)


@flow(name="drive-subflow", persist_result=False)
def run_subflow_of_tests(folder: str, transform: str) -> dict[str, Any]:
    """The same as a flow of the user's own, which calls `process_samples` and may be retried."""
    source = ReadWriteUnderfolder(folder=Path(folder))
    return process_samples(source, BY_NAME[transform]).model_dump()


@flow(name="drive-transaction", persist_result=False)
def run_transaction_of_tests(folder: str, transform: str) -> dict[str, Any]:
    """A flow that does all of its work in a transaction."""
    print("begun", flush=True)
    block = ReadWriteUnderfolder(folder=Path(folder))
    with transaction():
        report = process_chunk(block, BY_NAME[transform], block.open().indices())
    return {"counts": report.counts}


@flow(name="drive-import", persist_result=False)
def run_import_of_tests(
    source: str, folder: str, run_key: str | None = None, vanished: Any = "report"
) -> dict[str, Any]:
    """Imports a folder of classes."""
    print("begun", flush=True)
    report = import_dataset.fn(
        "image-folder",
        Path(source),
        Path(folder),
        run_key=run_key,
        vanished=vanished,
        chunk_size=97,
    )
    return report.model_dump()


FLOWS = {
    "run": run_flow_of_tests,
    "transaction": run_transaction_of_tests,
    "import": run_import_of_tests,
}


def main(arguments: dict[str, Any]) -> None:
    """Runs the flow; `arguments` are its parameters, and how it is run."""
    runner: Any = ThreadPoolTaskRunner(max_workers=2)
    if arguments.pop("runner", "threads") == "processes":
        runner = ProcessPoolTaskRunner(max_workers=2)
    existing = arguments.pop("flow_run", None)
    chosen = FLOWS[arguments.pop("flow", "run")]
    wanted = chosen.with_options(task_runner=runner, **arguments.pop("options", {}))
    if existing is None:
        report = wanted(**arguments)
    else:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(existing))
        report = run_flow(wanted, flow_run=found, parameters=arguments)
    print(json.dumps(report), flush=True)


def serve() -> None:
    """Serves the flow until this process ends, with its runs in processes of their own."""
    run_subflow_of_tests.serve(name="of-tests")


if __name__ == "__main__":
    serve()

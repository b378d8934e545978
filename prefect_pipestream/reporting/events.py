"""Events about datasets, by which automations react to runs, and the datasets as assets."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from prefect.assets import Asset
from prefect.assets.core import AssetProperties
from prefect.context import AssetContext
from prefect.events import emit_event
from prefect.states import Completed

from prefect_pipestream.reporting.reports import RunReport
from prefect_pipestream.sequences import DataStream
from prefect_pipestream.storage.address import Place, is_address

PREFIX = "prefect-pipestream"
_LONGEST_KEY = 512


def dataset_resource(folder: Place) -> dict[str, str]:
    """A dataset as the resource of events."""
    return {
        "prefect.resource.id": f"{PREFIX}.dataset.{folder}",
        "prefect.resource.name": folder.name,
        f"{PREFIX}.folder": str(folder),
    }


def emit_dataset_event(what: str, folder: Place, **payload: Any) -> None:
    """Emits ``prefect-pipestream.<what>`` about a dataset; Prefect adds the flow run to it.

    Args:
        what: What happened, such as ``run.finished``.
        folder: The dataset's folder.
        **payload: More about it.
    """
    emit_event(
        event=f"{PREFIX}.{what}",
        resource=dataset_resource(folder),
        payload={"folder": str(folder), **payload},
    )


def emit_run_events(
    folder: Place, run_key: str, counts: Mapping[Any, int], is_ok: bool, **more: Any
) -> None:
    """Tells that a run ended, and apart from it whether samples failed.

    Of a run that took itself back there is no failed sample any more, to process again.

    Args:
        folder: The dataset that was written.
        run_key: The run.
        counts: Outcome → number.
        is_ok: Whether no more samples failed than the run allows.
        **more: More about it.
    """
    about = {"run_key": run_key, "counts": dict(counts), "is_ok": is_ok, **more}
    emit_dataset_event("run.finished", folder, **about)
    if counts.get("failed") and not more.get("taken_back"):
        emit_dataset_event("samples.failed", folder, failed=counts["failed"], **about)


def tell_of_run(report: RunReport, source: DataStream, target: DataStream, is_ok: bool) -> None:
    """Emits the events of a run that went through all its samples, and records the dataset.

    Args:
        report: The run's report.
        source: Where the run read samples.
        target: Where it wrote them.
        is_ok: Whether no more samples failed than the run allows.
    """
    folder = target.output_folder
    more = {"taken_back": True, "undone_by": report.undone_by} if report.taken_back else {}
    emit_run_events(folder, report.run_key, report.counts, is_ok, **more)
    if is_ok and report.changed:
        record_asset(
            folder, source.input_folder, {"run_key": report.run_key, "counts": report.counts}
        )


def record_asset(folder: Place, source: Place | None, metadata: Mapping[str, Any]) -> None:
    """Records that a dataset was written, and of which one it was made, as Prefect's assets.

    The same events as of a task made by `prefect.assets.materialize`, without the task run.

    Args:
        folder: The dataset that was written.
        source: The dataset that was read; None, or the same, where there is no other.
        metadata: What is known of it.
    """
    asset = _asset(folder)
    upstream = {_asset(source)} if source is not None and source != folder else set()
    assets = AssetContext(
        downstream_assets={asset}, direct_asset_dependencies=upstream, materialized_by=PREFIX
    )
    assets.add_asset_metadata(asset.key, dict(metadata))
    assets.emit_events(Completed())


def _asset(folder: Place) -> Asset:
    # Prefect refuses these in a key, quoted or not, and a key that is longer.
    key = re.sub(
        r"""[\s#?&%"'<>\[\]{}|\\^`]""",
        "_",
        str(folder) if is_address(folder) else f"file://{folder}",
    )
    if len(key) > _LONGEST_KEY:
        digest = hashlib.sha256(str(folder).encode(errors="surrogateescape")).hexdigest()
        key = f"{key[: _LONGEST_KEY - len(digest) - 1]}~{digest}"
    return Asset(key=key, properties=AssetProperties(name=folder.name))

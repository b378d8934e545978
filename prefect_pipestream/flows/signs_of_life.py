"""What a flow run that is on leaves on the server, and one whose process is dead does not."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import FlowRun, State
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.sorting import ArtifactSort, LogSort
from prefect.events.filters import (
    EventAnyResourceFilter,
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
)
from prefect.events.schemas.events import ReceivedEvent

HEARTBEAT = "prefect.flow-run.heartbeat"

_CLOCKS_DIFFER = timedelta(days=1)  # at most: events have the time of the machine they come from


@dataclass(frozen=True)
class SignsOfLife:
    """What a flow run has left on the server so far; while it is on, more comes and this changes.

    Args:
        state: Its state.
        event: The last event: its own, such as a heartbeat, or one of its task runs or datasets.
        log: The last line of its log.
        artifact: When one of its artifacts was changed last, such as that of its progress.
        latest: When the last of all these came.
        has_heartbeats: Whether it has sent a heartbeat since it is in this state.
    """

    state: UUID
    event: UUID | None
    log: UUID | None
    artifact: datetime | None
    latest: datetime
    has_heartbeats: bool

    def age(self) -> float:
        """How long it is silent, in seconds."""
        return (datetime.now(UTC) - self.latest).total_seconds()


def signs_of_life(run: FlowRun, state: State, client: SyncPrefectClient) -> SignsOfLife:
    """Asks what a flow run has left on the server: four short questions.

    Args:
        run: The flow run.
        state: The state that it is in.
        client: Asks the server.
    """
    event = _last_event(run, client)
    heartbeat = _last_event(run, client, HEARTBEAT)
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    logs = client.read_logs(of_run, limit=1, sort=LogSort.TIMESTAMP_DESC)
    artifacts = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])),
        sort=ArtifactSort.UPDATED_DESC,
        limit=1,
    )
    log = logs[0] if logs else None
    changed = artifacts[0].updated if artifacts else None
    times = [event.received if event else None, log.timestamp if log else None, changed]
    return SignsOfLife(
        state=state.id,
        event=event.id if event else None,
        log=log.id if log else None,
        artifact=changed,
        latest=max(filter(None, [state.timestamp, *times])),
        has_heartbeats=heartbeat is not None and heartbeat.received >= state.timestamp,
    )


def _last_event(run: FlowRun, client: SyncPrefectClient, *names: str) -> ReceivedEvent | None:
    now = datetime.now(UTC)
    events = EventFilter(
        occurred=EventOccurredFilter(
            since=(run.created or now) - _CLOCKS_DIFFER, until=now + _CLOCKS_DIFFER
        ),
        event=EventNameFilter(name=list(names)) if names else None,
        any_resource=EventAnyResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
    )
    return next(iter(client.read_events(events, limit=1).events), None)

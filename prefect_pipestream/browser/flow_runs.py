"""Prefect's flow runs, through its API: one that waits for a review is resumed, one is started.

This is the one module of the browser that knows Prefect, which is imported when it is needed
first. The API is that of the server's own settings: no file of a dataset says whom to ask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel

from prefect_pipestream.errors import ConflictError, PipestreamError, RunNotFoundError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas import FlowRun as PrefectFlowRun

CLEANING = "clean-dataset"
"""The name of the flow that changes samples in place."""

ANSWER = "as decided in the browser"
"""The decision by which the flow takes what is kept beside the review."""


class PrefectUnreachableError(PipestreamError):
    """Prefect cannot be asked for a flow run."""


class Deployment(BaseModel):
    """A deployment of the flow that changes samples in place.

    Attributes:
        id: Its id.
        name: The names of its flow and its own, as Prefect writes them.
    """

    id: UUID
    name: str


class FlowRun(BaseModel):
    """A flow run, as Prefect has it.

    Attributes:
        id: Its id.
        name: Its name.
        state: The name of its state.
        is_waiting: Whether it waits to be resumed.
        is_over: Whether it has ended.
        address: Its page in Prefect's UI.
    """

    id: str
    name: str
    state: str
    is_waiting: bool
    is_over: bool
    address: str | None


def flow_run_of(flow_run_id: str) -> FlowRun | None:
    """A flow run; None where Prefect knows none of that id (any more).

    Raises:
        PrefectUnreachableError: If it cannot be asked.
    """
    from prefect.exceptions import ObjectNotFound

    with _client(_unknown(flow_run_id)) as client:
        try:
            return _told(client.read_flow_run(UUID(flow_run_id)))
        except ObjectNotFound:
            return None


def resume(flow_run_id: str, reviewer: str, comment: str) -> None:
    """Resumes a flow run that waits, with what was decided in the browser.

    Raises:
        ConflictError: If it does not wait (any more), or asks for something else.
        PrefectUnreachableError: If it cannot be asked.
    """
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.exceptions import ObjectNotFound

    given: dict[str, Any] = {"decision": ANSWER, "reviewer": reviewer, "comment": comment}
    with _client(_unknown(flow_run_id)) as client:
        try:
            found = client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound as error:
            raise ConflictError(f"The flow run {flow_run_id} was deleted meanwhile.") from error
        asks = found.state is not None and found.state.state_details.run_input_keyset
        if found.state is not None and found.state.is_paused() and not asks:
            raise ConflictError(f"The flow run {flow_run_id} asks for no decision about a review.")
        answer = client.resume_flow_run(UUID(flow_run_id), run_input=given)
    if answer.status != SetStateStatus.ACCEPT:
        why = getattr(answer.details, "reason", None) or answer.status.value
        raise ConflictError(
            f"The flow run {flow_run_id} was not resumed: {why} It was decided in Prefect "
            "meanwhile, or asks for something else."
        )


def cleaning_deployments() -> list[Deployment]:
    """The deployments by which samples can be changed; none where no API is configured.

    Raises:
        PrefectUnreachableError: If it cannot be asked.
    """
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return []
    wanted = FlowFilter(name=FlowFilterName(any_=[CLEANING]))
    with _client("the deployments cannot be listed") as client:
        found = client.read_deployments(flow_filter=wanted)
    return [Deployment(id=one.id, name=f"{CLEANING}/{one.name}") for one in found]


def start_cleaning(deployment_id: UUID, name: str, parameters: dict[str, Any]) -> FlowRun:
    """Asks for a flow run of a deployment; a worker begins it when it comes to that.

    Args:
        deployment_id: The deployment.
        name: The name of the flow run.
        parameters: The parameters of the flow, in place of those of the deployment.

    Raises:
        RunNotFoundError: If there is no such deployment (any more).
        PrefectUnreachableError: If Prefect cannot be asked.
        PipestreamError: If Prefect refuses the parameters.
    """
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    with _client("nothing was started") as client:
        try:
            found = client.create_flow_run_from_deployment(
                deployment_id, parameters=parameters, name=name
            )
        except ObjectNotFound as error:
            raise RunNotFoundError("The deployment was deleted meanwhile.") from error
        except PrefectHTTPStatusError as error:
            if not error.response.is_client_error:
                raise
            raise PipestreamError(f"Prefect refuses the flow run: {error}") from error
    return _told(found)


def _told(found: "PrefectFlowRun") -> FlowRun:
    from prefect.utilities.urls import url_for

    state = found.state
    return FlowRun(
        id=str(found.id),
        name=found.name,
        state="unknown" if state is None else state.name or state.type.value.title(),
        is_waiting=state is not None and state.is_paused(),
        is_over=state is not None and state.is_final(),
        address=url_for("flow-run", obj_id=found.id) or None,
    )


@contextmanager
def _client(otherwise: str) -> "Iterator[SyncPrefectClient]":
    """A client of the API of this process's settings; `otherwise` says what it means without."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectException
    from prefect.settings import PREFECT_API_URL

    address = PREFECT_API_URL.value()
    if not address:  # a server of its own would know nothing of it
        raise PrefectUnreachableError(
            f"Where `pipestream browse` was started, Prefect's API is not configured: {otherwise}. "
            "Set PREFECT_API_URL as for the worker of the flow run, and start it again; or choose "
            "“as decided in the browser” in Prefect's UI."
        )
    try:
        with get_client(sync_client=True) as client:
            yield client
    except ObjectNotFound:
        raise
    except (HTTPError, PrefectException, OSError) as error:
        raise PrefectUnreachableError(
            f"Prefect's API at {address} does not answer ({error}): {otherwise}. Try again."
        ) from error


def _unknown(flow_run_id: str) -> str:
    return (
        f"it is not known whether the flow run {flow_run_id} waits for this review, and nothing "
        "was applied"
    )

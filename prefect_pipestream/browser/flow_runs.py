"""The Prefect flow run that waits for a review: asked for, and resumed, through Prefect's API.

This is the one module of the browser that knows Prefect, which is imported when it is needed
first. The API is that of the server's own settings: no file of a dataset says whom to ask.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel

from prefect_pipestream.errors import ConflictError, PipestreamError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ANSWER = "as decided in the browser"
"""The decision by which the flow takes what is kept beside the review."""


class PrefectUnreachableError(PipestreamError):
    """Prefect cannot be asked for a flow run."""


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
    from prefect.utilities.urls import url_for

    with _client(flow_run_id) as client:
        try:
            found = client.read_flow_run(UUID(flow_run_id))
        except ObjectNotFound:
            return None
    state = found.state
    return FlowRun(
        id=flow_run_id,
        name=found.name,
        state="unknown" if state is None else state.name or state.type.value.title(),
        is_waiting=state is not None and state.is_paused(),
        is_over=state is not None and state.is_final(),
        address=url_for("flow-run", obj_id=found.id) or None,
    )


def resume(flow_run_id: str, reviewer: str, comment: str) -> None:
    """Resumes a flow run that waits, with what was decided in the browser.

    Raises:
        ConflictError: If it does not wait (any more), or asks for something else.
        PrefectUnreachableError: If it cannot be asked.
    """
    from prefect.client.schemas.responses import SetStateStatus
    from prefect.exceptions import ObjectNotFound

    given: dict[str, Any] = {"decision": ANSWER, "reviewer": reviewer, "comment": comment}
    with _client(flow_run_id) as client:
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


@contextmanager
def _client(flow_run_id: str) -> "Iterator[SyncPrefectClient]":
    """A client of the API of this process's settings."""
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectException
    from prefect.settings import PREFECT_API_URL

    address = PREFECT_API_URL.value()
    if not address:  # a server of its own would know nothing of it
        raise PrefectUnreachableError(
            f"The flow run {flow_run_id} waits for this review, and where `pipestream browse` was "
            "started, Prefect's API is not configured. Set PREFECT_API_URL as for the flow run's "
            "worker and start it again; or choose “as decided in the browser” in Prefect's UI."
        )
    try:
        with get_client(sync_client=True) as client:
            yield client
    except ObjectNotFound:
        raise
    except (HTTPError, PrefectException, OSError) as error:
        raise PrefectUnreachableError(
            f"Prefect's API at {address} does not answer ({error}): it is not known whether the "
            f"flow run {flow_run_id} waits for this review. Nothing was applied; try again."
        ) from error

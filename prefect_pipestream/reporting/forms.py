"""Links to the forms of deployments, filled in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.utilities.urls import url_for
from pydantic import BaseModel

from prefect_pipestream.blocks import DataStreamBlock, OutputUnderfolder, ReadWriteUnderfolder
from prefect_pipestream.reporting.progress import API_ERRORS


def link_to_form(text: str, flow_name: str, parameters: Mapping[str, Any]) -> str:
    """A Markdown link to the form of a flow's deployment, filled in; empty where there is none.

    Args:
        text: What the link says.
        flow_name: The flow, by its name in Prefect.
        parameters: What the form is filled in with: as JSON, or as a flow has it.
    """
    wanted = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    try:
        filled = quote(json.dumps(parameters, default=_in_a_form), safe="")
        with get_client(sync_client=True) as client:
            deployments = client.read_deployments(flow_filter=wanted)
    except (*API_ERRORS, TypeError):  # TypeError: a transform that no form can show
        return ""
    if not deployments:
        return ""
    # The one that is the most general.
    deployment = min(deployments, key=lambda one: len(one.parameters))
    address = url_for("deployment", obj_id=deployment.id)
    return f"[{text}]({address}/run?parameters={filled})" if address else ""


def _in_a_form(value: Any) -> Any:
    """A flow's parameter as JSON; a block as the folder for which flows take it.

    Raises:
        TypeError: If a form cannot say it.
    """
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, ReadWriteUnderfolder | OutputUnderfolder) and _is_just_a_folder(value):
        return str(value.folder)
    if isinstance(value, BaseModel) and not isinstance(value, DataStreamBlock):
        return value.model_dump(mode="json", exclude_defaults=True)
    raise TypeError(f"a form cannot say {value!r}")


def _is_just_a_folder(block: ReadWriteUnderfolder | OutputUnderfolder) -> bool:
    fields = set(type(block).model_fields)
    return set(block.model_dump(include=fields, exclude_defaults=True)) == {"folder"}

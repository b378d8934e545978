"""Questions to a Prefect server, as plain requests: to know what it, and its UI, should show."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.ui.host import PrefectHost

_TRIES = 6


class Api:
    """Questions to the server, to know what the browser is to show."""

    def __init__(self, host: PrefectHost) -> None:
        self._url = f"{host.url}/api"

    def ask(self, path: str, question: Any = None, method: str | None = None) -> Any:
        """Sends a request: GET, or POST where there is a question."""
        request = urllib.request.Request(
            f"{self._url}/{path}",
            data=None if question is None else json.dumps(question).encode(),
            headers={"content-type": "application/json"},
            method=method,
        )
        for _ in range(_TRIES):
            try:
                with urllib.request.urlopen(request, timeout=90) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503:  # a busy database: Prefect's own client tries again, too
                    raise
                time.sleep(1)
        raise AssertionError(f"the server was busy {_TRIES} times: {path}")

    def start(self, deployment: str, **parameters: Any) -> str:
        """Starts a run of a deployment; gives its id."""
        path = f"deployments/{self.deployment(deployment)}/create_flow_run"
        found: str = self.ask(path, {"parameters": parameters})["id"]
        return found

    def runs(self, deployment_id: str, *states: str) -> list[dict[str, Any]]:
        """The runs of a deployment that are in one of some types of states, by time."""
        question = {
            "deployments": {"id": {"any_": [deployment_id]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", question)
        return found

    def deployment(self, name: str) -> str:
        found: str = self.ask(f"deployments/name/{name}")["id"]
        return found

    def last_run(self, deployment_id: str) -> str:
        question = {
            "deployments": {"id": {"any_": [deployment_id]}},
            "sort": "EXPECTED_START_TIME_DESC",
        }
        found: str = self.ask("flow_runs/filter", question)[0]["id"]
        return found

    def artifacts(self, flow_run_id: str) -> list[dict[str, Any]]:
        question = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
        found: list[dict[str, Any]] = self.ask("artifacts/filter", question)
        return found

    def artifact(self, flow_run_id: str, about: str) -> str | None:
        """The id of a run's artifact, by its type or the beginning of its key."""
        for one in self.artifacts(flow_run_id):
            if one["type"] == about or (one["key"] or "").startswith(about):
                found: str = one["id"]
                return found
        return None

    def plan_of(self, flow_run_id: str) -> str:
        """The key of the plan that a run made, as its artifact says it."""
        (plan,) = (
            one for one in self.artifacts(flow_run_id) if (one["key"] or "").startswith("plan")
        )
        (key,) = re.findall(r"^Plan `([^`]+)`", plan["data"], re.M)
        return str(key)

    def wait_for_state(self, flow_run_id: str, *names: str, seconds: float = 120.0) -> str:
        def state() -> str | None:
            name: str = self.ask(f"flow_runs/{flow_run_id}")["state"]["name"]
            if name in ("Failed", "Crashed", "Cancelled") and name not in names:
                logs = self.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run_id]}}})
                raise AssertionError(f"{name}: " + "\n".join(one["message"] for one in logs))
            return name if name in names else None

        found: str = waited(state, seconds)
        return found


def waited(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"nothing came of {what} in {seconds} s"
        time.sleep(0.3)
    return found

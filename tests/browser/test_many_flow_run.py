"""A change to many samples that a flow run of a Prefect deployment makes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefect_pipestream import DataStream, list_runs
from tests.browser.prefect_served import served_flow
from tests.browser.screen import Screen
from tests.browser.served import Served
from tests.ui.api import Api
from tests.ui.host import PrefectHost

pytestmark = [pytest.mark.slow, pytest.mark.about_files]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrefectHost]:
    with served_flow(tmp_path, "clean_dataset", "on demand") as host:
        yield host


def test_what_a_query_finds_is_changed_by_a_flow_run(
    host: PrefectHost, dataset: Path, chrome: Any, tmp_path: Path
) -> None:
    api = Api(host)
    settings = {name: host.env[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")}
    stream = DataStream.read_write_underfolder(dataset)
    label = stream[3]["metadata"]()["label"]
    wanted = stream.indices(f"metadata.label == {label}").tolist()
    with Served(dataset, **settings) as served, Screen.of(chrome, served, tmp_path) as screen:
        page = screen.page
        page.get_by_label("Your name").fill("Ada")
        page.get_by_label("Where", exact=True).fill(f"metadata.label == {label}")
        screen.press("Enter")
        page.locator("#count", has_text=f"{len(wanted)} of 30 samples").wait_for()
        screen.button("Change many").click()
        page.get_by_label("Where, as a path").fill("metadata.label")
        page.get_by_label("Value", exact=True).fill("99")
        screen.button("Preview").click()
        screen.button("As a flow run of clean-dataset/on demand").dblclick()
        link = page.get_by_role("link", name="Ada in the browser: set metadata.label")
        run = str(link.get_attribute("href")).rpartition("/")[2]
        api.wait_for_state(run, "Completed")
        assert len(api.ask("flow_runs/filter", {})) == 1
    assert stream.indices("metadata.label == 99").tolist() == wanted
    (info,) = [one for one in list_runs(dataset) if one.fingerprint is not None]
    assert info.counts["written"] == len(wanted)

"""Plans of runs of a dataset in a bucket."""

from typing import Any

import pytest

from prefect_pipestream.flows import clean_dataset
from prefect_pipestream.storage.store import open_store
from tests.dataset_files import new_address


@pytest.mark.usefixtures("prefect_api")
def test_who_may_not_write_a_bucket_plans_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_pipestream.storage.store import Store, StoreError

    address = new_address()
    open_store(address).put("data/0_image.json", b"1")

    def refused(self: Store, key: str, data: bytes) -> str:
        raise StoreError(f"{key}: AccessDenied")

    monkeypatch.setattr(Store, "put", refused)
    plan: Any = clean_dataset(str(address), ["verify-items"], plan=True)  # type: ignore[arg-type]
    assert (plan.indices, plan.can_be_followed) == ([0], False)
    assert any("AccessDenied" in warning for warning in plan.warnings)

"""A Prefect of the benchmark's own: its database in a temporary folder, its log quiet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Prefect reads these when it is imported, its server when it starts: import this module first.
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


@contextmanager
def own_prefect(folder: Path) -> Iterator[None]:
    """Keep what runs inside away from the user's Prefect profile, server and database.

    Flows send no heartbeats: the end of one that does waits for the rest of a second, by which no
    time below could be told from another.
    """
    from prefect.settings import (
        PREFECT_API_DATABASE_CONNECTION_URL,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    home = folder / "prefect"
    home.mkdir()
    updates = {
        PREFECT_HOME: str(home),
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{home}/prefect.db",
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True,
    }
    with temporary_settings(updates=updates, restore_defaults={PREFECT_API_URL}):
        yield

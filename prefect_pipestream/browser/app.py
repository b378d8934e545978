"""The application: its routes together, and what becomes of errors."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from prefect_pipestream.browser.access import Access, Guard
from prefect_pipestream.browser.dataset import ShownDataset
from prefect_pipestream.browser.edits import offered_stages
from prefect_pipestream.browser.flow_runs import PrefectUnreachableError
from prefect_pipestream.browser.grid import grid_routes
from prefect_pipestream.browser.history import history_routes
from prefect_pipestream.browser.jobs import Jobs, job_routes
from prefect_pipestream.browser.many import many_routes
from prefect_pipestream.browser.page_files import PageFiles
from prefect_pipestream.browser.reviews import review_routes
from prefect_pipestream.browser.runs import runs_routes
from prefect_pipestream.browser.samples import sample_routes
from prefect_pipestream.errors import (
    ConflictError,
    DatasetNotFoundError,
    DatasetWriteError,
    MissingItemError,
    PipestreamError,
    ReviewNotFoundError,
    RunNotFoundError,
    UndoRefusedError,
)
from prefect_pipestream.storage.address import Place
from prefect_pipestream.storage.store import StoreError

PAGES = ("/", "/sample/{idx}", "/runs", "/run", "/reviews", "/reviews/{review_id:path}")
"""The paths of pages, which `page/app.js` makes of what the server answers."""

# What a page may be told of with another status than 400.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ConflictError, 409),
    (UndoRefusedError, 409),
    (DatasetNotFoundError, 404),
    (RunNotFoundError, 404),
    (ReviewNotFoundError, 404),
    (PrefectUnreachableError, 502),
    (StoreError, 502),
    (MissingItemError, 404),
    (IndexError, 404),
    (DatasetWriteError, 507),
)


def create_app(folder: Place, access: Access) -> Guard:
    """The ASGI application that shows a dataset.

    Args:
        folder: Where the dataset is.
        access: What a request must have.

    Raises:
        DatasetNotFoundError: If there is none.
        DatasetError: If it cannot be read.
    """
    dataset = ShownDataset(folder)
    jobs = Jobs()

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(jobs.end)

    app = FastAPI(title="pipestream browse", openapi_url=None, lifespan=living)
    app.include_router(grid_routes(dataset))
    app.include_router(sample_routes(dataset))
    app.include_router(many_routes(dataset, jobs))
    app.include_router(job_routes(jobs))
    app.include_router(review_routes(dataset))
    app.include_router(history_routes(dataset))
    app.include_router(runs_routes(dataset, jobs))
    app.add_exception_handler(PipestreamError, _told)
    app.add_exception_handler(IndexError, _told)
    app.add_exception_handler(RequestValidationError, _told_invalid)
    app.add_exception_handler(HTTPException, _told_refused)
    files = PageFiles()
    app.add_route("/page/{digest}/{name}", files.file)
    for path in PAGES:
        app.add_route(path, files.index)

    @app.get("/api/dataset")
    def about() -> dict[str, Any]:
        return {
            "name": dataset.folder.name,
            "folder": str(dataset.folder),
            "is_read_only": access.is_read_only,
        }

    @app.get("/api/stages")
    def stages() -> Mapping[str, Any]:
        return offered_stages()

    return Guard(app, access)


def _told(request: Request, error: Exception) -> JSONResponse:
    status = next((status for cls, status in _STATUS if isinstance(error, cls)), 400)
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return JSONResponse({"error": str(text), "kind": type(error).__name__}, status_code=status)


def _told_refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = {"error": str(error.detail), "kind": "HTTPException"}
    return JSONResponse(answer, status_code=error.status_code, headers=error.headers)


def _told_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    wrong = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"error": "; ".join(wrong), "kind": "ValidationError"}, status_code=422)

"""The HTTP API of a server: JSON and files in, records out, with limits on everything that a client sends."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, HTTPException, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from arclight.serving.body_limit import BodyLimit
from arclight.serving.deployment import Deployment, ServedRun
from arclight.serving.pool import FailedError, Pending, RefusedError

PAGE = Path(__file__).parent / "page"
PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob:; form-action 'none'"
LOOPBACK = ["127.0.0.1", "localhost", "[::1]", "::1"]


@dataclass(frozen=True)
class Limits:
    """What a request may hold.

    Args:
        items: inputs.
        body_bytes: of the whole request.
        characters: of all texts together.
        timeout_s: from the start of the request to the answer; as long may the body take to arrive.
    """

    items: int = 64
    body_bytes: int = 16_000_000
    characters: int = 100_000
    timeout_s: float = 30.0


class Inputs(BaseModel):
    """Inputs of a prediction."""

    model_config = ConfigDict(extra="forbid")
    inputs: list[str | list[Any] | dict[str, Any] | float] = Field(
        description="Texts or lists of words; images as base64; for other models one row each: a list, or an object of lists "
        "by the name of the model's input",
        min_length=1,
    )
    top_k: int | None = Field(None, ge=1, le=1000, description="Most probable labels that are listed")


class Predictions(BaseModel):
    """Records of the inputs in order; {"source", "error"} for an input that cannot be predicted."""

    model: str
    run: str
    predictions: list[dict[str, Any]]


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "Not JSON, or not a form",
        401: "The API key is missing or wrong",
        404: "No such model",
        408: "The request took too long to arrive",
        413: "More than the server takes",
        422: "No input can be predicted, or a field is wrong",
        429: "The queue is full; see Retry-After",
        500: "The input ended its worker process",
        503: "The server is loading or stopping; see Retry-After",
        504: "The answer took too long",
    }.items()
}


def create_app(deployment: Deployment, limits: Limits, *, api_key: str | None = None, is_loopback: bool = True) -> FastAPI:
    """Returns the application; it loads the runs when it starts and answers what is queued before it ends.

    Args:
        deployment: the runs.
        limits: of requests.
        api_key: that clients must send, as `Authorization: Bearer KEY` or `X-API-Key: KEY`; None asks for none.
        is_loopback: whether only names of this machine are allowed as Host: no web page then reaches it by a name of its own.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await deployment.start()
        yield
        await deployment.stop()

    app: FastAPI = FastAPIOffline(
        title="arclight",
        version=version("arclight"),
        lifespan=lifespan,
        redoc_url=None,
        description="Predictions of trained runs.",
    )
    app.state.deployment = deployment
    app.state.limits = limits
    app.state.api_key = api_key
    app.include_router(pages)
    app.include_router(api, dependencies=[Depends(check_key)] if api_key is not None else [])
    app.add_exception_handler(RequestValidationError, describe_invalid)
    app.add_exception_handler(Exception, hide_traceback)
    app.add_middleware(BodyLimit, max_bytes=limits.body_bytes, timeout_s=limits.timeout_s, on_answer=deployment.note_answer)
    if is_loopback:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)
    return app


pages = APIRouter()
api = APIRouter(responses={401: PROBLEMS[401]})


@pages.get("/", include_in_schema=False)
@pages.get("/ui", include_in_schema=False)
def page() -> FileResponse:
    return FileResponse(PAGE / "page.html", headers={"Content-Security-Policy": PAGE_POLICY})


@pages.get("/page.{kind}", include_in_schema=False)
def page_file(kind: str) -> FileResponse:
    if kind not in ("js", "css"):
        raise HTTPException(404, "Not Found")
    return FileResponse(PAGE / f"page.{kind}")


@pages.get("/health", summary="Whether the server runs")
def health() -> dict[str, str]:
    return {"status": "ok"}


@pages.get("/ready", summary="Whether every run can answer", responses={503: PROBLEMS[503]})
def ready(request: Request) -> dict[str, str]:
    if not request.app.state.deployment.is_ready:
        raise HTTPException(503, "a run has no worker", headers={"Retry-After": "5"})
    return {"status": "ready"}


bearer = HTTPBearer(auto_error=False)
key_header = APIKeyHeader(name="X-API-Key", auto_error=False)


def check_key(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    header: Annotated[str | None, Depends(key_header)],
) -> None:
    """Raises HTTPException 401 for a missing or wrong API key."""
    expected: str = request.app.state.api_key
    given = credentials.credentials if credentials else header
    if not hmac.compare_digest((given or "").encode(), expected.encode()):
        raise HTTPException(401, "the API key is missing or wrong", headers={"WWW-Authenticate": "Bearer"})


@api.get("/metrics", summary="Counters for Prometheus", response_class=Response)
def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.deployment.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@api.get("/models", summary="The served runs")
def models(request: Request) -> list[dict[str, Any]]:
    return [describe(served) for served in request.app.state.deployment.runs.values()]


def describe(served: ServedRun) -> dict[str, Any]:
    """Returns a run for clients: its name, kind of inputs, labels and test scores."""
    return {"name": served.name, **(served.pool.description if served.pool else {})}


@api.post("/models/{name}/predict", summary="Predict texts, images in base64, or rows of numbers", responses=PROBLEMS)
async def predict(request: Request, name: str, body: Inputs) -> Predictions:
    served = find(request, name)
    kind = describe(served)["kind"]
    limits: Limits = request.app.state.limits
    check_count(len(body.inputs), limits)
    payloads = [payload_of(value, kind, f"inputs[{number}]") for number, value in enumerate(body.inputs)]
    if kind == "text":
        check_characters(sum(map(len, payloads)), limits)
    how = "file" if kind == "images" else "json"
    pending = [Pending(f"inputs[{number}]", how, payload, body.top_k) for number, payload in enumerate(payloads)]
    return await answer(request, served, pending)


@api.post("/models/{name}/files", summary="Predict files", responses=PROBLEMS)
async def predict_files(
    request: Request,
    name: str,
    files: Annotated[list[UploadFile], File(description="Images, texts, or arrays (.npy, .json, .csv)")],
    top_k: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> Predictions:
    served = find(request, name)
    limits: Limits = request.app.state.limits
    check_count(len(files), limits)
    contents = [await file.read() for file in files]
    if describe(served)["kind"] == "text":
        check_characters(sum(map(len, contents)), limits)
    names = [Path(file.filename or "").name[:200] or f"files[{number}]" for number, file in enumerate(files)]
    pending = [Pending(name, "file", content, top_k) for name, content in zip(names, contents, strict=True)]
    return await answer(request, served, pending)


def find(request: Request, name: str) -> ServedRun:
    """Returns a run by its name; raises HTTPException 404, or 503 while it is being loaded."""
    served: ServedRun | None = request.app.state.deployment.runs.get(name)
    if served is None:
        raise HTTPException(404, f"no such model; there are: {', '.join(request.app.state.deployment.runs)}")
    if served.pool is None:
        raise HTTPException(503, "the run is being loaded", headers={"Retry-After": "5"})
    return served


def check_count(number: int, limits: Limits) -> None:
    """Raises HTTPException 413 for more inputs than a request may hold."""
    if number > limits.items:
        raise HTTPException(413, f"{number} inputs are more than the {limits.items} of a request")


def check_characters(number: int, limits: Limits) -> None:
    """Raises HTTPException 413 for more text than a request may hold."""
    if number > limits.characters:
        raise HTTPException(413, f"{number:,} characters are more than the {limits.characters:,} of a request")


def payload_of(value: Any, kind: str, name: str) -> bytes:
    """Returns an input of a JSON request as a worker takes it; raises HTTPException 422 when it is not of this kind."""
    try:
        if kind == "images":
            if not isinstance(value, str):
                raise HTTPException(422, f"{name} must be an image in base64; send files to /files")
            return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
        if kind == "text" and not (isinstance(value, str) or is_words(value)):
            raise HTTPException(422, f"{name} must be a text, or a list of words")
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except binascii.Error as error:
        raise HTTPException(422, f"{name} is not base64: {error}") from error
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise HTTPException(422, f"{name} is not text or numbers ({type(error).__name__})") from error


def is_words(value: Any) -> bool:
    """Returns whether a value is a list of words."""
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


async def answer(request: Request, served: ServedRun, pending: Sequence[Pending]) -> Predictions:
    """Returns the records of queued inputs; raises HTTPException as `PROBLEMS` lists it."""
    deployment: Deployment = request.app.state.deployment
    timeout_s = request.app.state.limits.timeout_s
    began = time.monotonic()
    try:
        await deployment.submit(served.name, pending)
        async with asyncio.timeout(timeout_s):
            found = await asyncio.gather(*(one.records for one in pending))
        records = [record for of_input in found for record in of_input]
        if records and all("error" in record for record in records):
            more = f" (and {len(records) - 1} more)" if len(records) > 1 else ""
            raise HTTPException(422, f"{records[0]['source']}: {records[0]['error']}{more}")
        run = served.pool.description["run"] if served.pool else ""
        return Predictions(model=served.name, run=run, predictions=records)
    except RefusedError as error:
        headers = {"Retry-After": str(error.retry_after)}
        raise HTTPException(429 if error.is_full else 503, str(error), headers=headers) from error
    except FailedError as error:
        raise HTTPException(500, str(error)) from error
    except TimeoutError as error:
        raise HTTPException(504, f"no answer within {timeout_s:g} s") from error
    finally:
        for one in pending:
            one.records.cancel()  # those of a refused request; no worker takes them then
        deployment.metrics.seconds.labels(served.name).observe(time.monotonic() - began)


async def describe_invalid(request: Request, error: Exception) -> JSONResponse:
    """Returns what is wrong with the fields of a request, without the values, which may be large."""
    assert isinstance(error, RequestValidationError)
    places = (f"{'.'.join(map(str, one['loc']))[:200]}: {one['msg']}" for one in error.errors()[:5])
    detail = "; ".join(places).encode(errors="replace").decode()
    return JSONResponse({"detail": detail}, status_code=400 if "JSON decode error" in detail else 422)


async def hide_traceback(request: Request, error: Exception) -> JSONResponse:
    """Returns an answer that says nothing about the server; its log has the traceback."""
    return JSONResponse({"detail": "internal error"}, status_code=500)

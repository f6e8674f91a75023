"""A body that does not arrive, or does not end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import HTTPException

from arclight.serving.body_limit import BodyLimit


def test_a_body_that_stops_arriving_is_given_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def stalled() -> dict[str, Any]:
        await asyncio.sleep(0 if not chunks.pop() else 60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    chunks = [True, False, False]
    limit = BodyLimit(app, max_bytes=100, timeout_s=0.1, on_answer=lambda path, answer: None)
    with pytest.raises(HTTPException) as raised:
        asyncio.run(limit({"type": "http", "headers": []}, stalled, None))  # type: ignore[arg-type]
    assert (raised.value.status_code, raised.value.detail) == (408, "the request did not arrive within 0.1 s")

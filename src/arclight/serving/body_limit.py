"""Middleware that bounds the size of a request and the time that it takes to arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyLimit:
    """ASGI middleware.

    Args:
        app: what answers.
        max_bytes: of a body; 413 above.
        timeout_s: until the whole body has arrived; 408 after.
        on_answer: called with the path parameters of each request and the start of its answer, which it may change.
    """

    def __init__(
        self, app: Any, max_bytes: int, timeout_s: float, on_answer: Callable[[Mapping[str, str], Message], None]
    ) -> None:
        self.app, self.max_bytes, self.timeout_s, self.on_answer = app, max_bytes, timeout_s, on_answer

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > self.max_bytes:
            await self._too_large()(scope, receive, send)
            return
        deadline = time.monotonic() + self.timeout_s
        received, is_complete = 0, False

        async def bounded() -> Message:
            nonlocal received, is_complete
            if is_complete:  # what follows is the end of the connection
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the request did not arrive within {self.timeout_s:g} s") from None
            received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if received > self.max_bytes:
                raise HTTPException(413, self._too_large_text())
            return message

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.on_answer(scope.get("path_params", {}), message)
            await send(message)

        await self.app(scope, bounded, noted)

    def _too_large_text(self) -> str:
        return f"the request is larger than {self.max_bytes / 1e6:g} MB"

    def _too_large(self) -> JSONResponse:
        return JSONResponse({"detail": self._too_large_text()}, status_code=413, headers={"Connection": "close"})

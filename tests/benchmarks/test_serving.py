"""The client of the load test counts answers, and requests without one."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

from benchmarks.serving import LOST, REFUSED, Load, keep_sending, request_for


def test_the_request_holds_a_text_or_a_file_in_base64(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    head, _, body = request_for(8000, str(tmp_path / "a.png")).partition(b"\r\n\r\n")
    assert json.loads(body) == {"inputs": [base64.b64encode(b"pixels").decode()]}
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(request_for(8000, "a text").partition(b"\r\n\r\n")[2]) == {"inputs": ["a text"]}


def test_each_kind_of_answer_is_counted() -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
    ]

    async def main() -> Load:
        load = Load()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while answers and await reader.read(1000):
                answer = answers.pop(0)
                writer.write(answer)
                if b"200" not in answer or not answers:
                    break
            writer.close()
            if not answers:
                server.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sender = asyncio.create_task(keep_sending(port, b"POST / HTTP/1.1\r\n\r\n", load))
        while not load.statuses[REFUSED]:
            await asyncio.sleep(0.01)
        load.is_over = True
        await sender
        await asyncio.sleep(0.01)  # until the closed connections are gone
        return load

    load = asyncio.run(main())
    assert {key: load.statuses[key] for key in ("200", "429", LOST)} == {"200": 1, "429": 1, LOST: 1}
    assert len(load.seconds) == 1

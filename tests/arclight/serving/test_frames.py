from __future__ import annotations

import asyncio
import io

from arclight.serving.frames import pack, read_frame, receive


def test_a_frame_comes_back_with_its_payloads_until_the_pipe_ends() -> None:
    pipe = io.BytesIO(pack({"names": ["ü", "b"]}, [b"\x00\n", b""]) + pack({"names": []}))
    assert read_frame(pipe) == ({"names": ["ü", "b"]}, [b"\x00\n", b""])
    assert read_frame(pipe) == ({"names": []}, [])
    assert read_frame(pipe) is None


def test_the_server_reads_the_header_of_a_reply() -> None:
    async def read() -> object:
        pipe = asyncio.StreamReader()
        pipe.feed_data(pack({"records": [[{"label": "cat"}]]}))
        return await receive(pipe)

    assert asyncio.run(read()) == {"records": [[{"label": "cat"}]], "sizes": []}

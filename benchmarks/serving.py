"""A server at saturation: requests per second, latency, memory, and what a stop under load leaves unanswered.

    python -m benchmarks.serving RUN photo.png --seconds 60 --connections 16
    python -m benchmarks.serving RUN "Hana Novak works in Oslo."

Starts `python -m arclight serve RUN` on loopback. Each connection of this process sends its next request when it has the
answer. Then SIGTERM comes while they send.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from arclight import hardware
from arclight.benchmark.measurement import Case, Figure, make_result, write_result
from arclight.hardware.peak_measurement import choose_device, measure_peaks

START_S = 120
LOST = "no answer"
REFUSED = "connection refused"


@dataclass
class Load:
    """What the connections have seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of answers with 200
    is_over: bool = False


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Returns the status of the answer to a request."""
    writer.write(request)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    await reader.readexactly(int(headers.get("content-length", 0)))
    if headers.get("connection", "").lower() == "close":
        writer.close()
    return lines[0].split()[1]


async def keep_sending(port: int, request: bytes, load: Load) -> None:
    """Sends requests one after another until the load is over."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not load.is_over:
        if connection is None:
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                load.statuses[REFUSED] += 1
                await asyncio.sleep(0.1)
                continue
        began = time.perf_counter()
        try:
            status = await send(*connection, request)
        except (asyncio.IncompleteReadError, ConnectionError):
            load.statuses[LOST] += 1
            connection[1].close()
            connection = None
            continue
        load.statuses[status] += 1
        if status == "200":
            load.seconds.append(time.perf_counter() - began)
        else:
            await asyncio.sleep(0.05)
        if connection[1].is_closing():
            connection = None
    if connection is not None:
        connection[1].close()


def memory_mb(process: psutil.Process) -> float:
    """Returns the memory of a process and its children, in MB."""
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)]) / 1e6


async def measure(port: int, request: bytes, server: psutil.Process, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the load at saturation, memory by second, and the load during the stop."""
    warm_up = Load()
    tasks = [asyncio.create_task(keep_sending(port, request, warm_up)) for _ in range(options.connections)]
    await asyncio.sleep(3)
    warm_up.is_over = True
    await asyncio.gather(*tasks)

    load, memory = Load(), []
    tasks = [asyncio.create_task(keep_sending(port, request, load)) for _ in range(options.connections)]
    began = time.perf_counter()
    while time.perf_counter() - began < options.seconds:
        await asyncio.sleep(1)
        memory.append(memory_mb(server))
    elapsed = time.perf_counter() - began
    load.is_over = True
    await asyncio.gather(*tasks)

    stop = Load()
    tasks = [asyncio.create_task(keep_sending(port, request, stop)) for _ in range(options.connections)]
    await asyncio.sleep(1)
    server.send_signal(signal.SIGTERM)
    stop_began = time.perf_counter()
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.02)
    stop_s = time.perf_counter() - stop_began
    stop.is_over = True
    await asyncio.gather(*tasks)
    return {"load": load, "memory": memory, "elapsed": elapsed, "stop": stop, "stop_s": stop_s}


def request_for(port: int, given: str) -> bytes:
    """Returns the request that predicts a file, or a text."""
    path = Path(given)
    value = base64.b64encode(path.read_bytes()).decode() if path.is_file() else given
    body = json.dumps({"inputs": [value]}).encode()
    head = f"POST /models/model/predict HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Prints a table, and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("input", metavar="INPUT", help="image file, or text")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, help="result file")
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    typed = [
        sys.executable,
        "-m",
        "arclight",
        "serve",
        f"model={options.run}",
        "--port",
        str(port),
        "--workers",
        str(options.workers),
    ]
    process = subprocess.Popen(typed)
    try:
        wait_until_ready(port, process)
        found = asyncio.run(measure(port, request_for(port, options.input), psutil.Process(process.pid), options))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    load, stop, memory = found["load"], found["stop"], found["memory"]
    ordered = sorted(load.seconds)
    figures = {
        "requests_per_s": Figure((load.statuses["200"] / found["elapsed"],), "1/s"),
        "p50": Figure((1e3 * statistics.median(ordered),), "ms"),
        "p99": Figure((1e3 * ordered[int(0.99 * len(ordered))],), "ms"),
        "memory_start": Figure((memory[min(4, len(memory) - 1)],), "MB"),
        "memory_end": Figure((memory[-1],), "MB"),
        "stop": Figure((found["stop_s"],), "s"),
    }
    settings = {"answers": dict(load.statuses), "answers_during_stop": dict(stop.statuses), "connections": options.connections}
    table = Table("what", "value")
    for name, figure in figures.items():
        table.add_row(name, f"{figure.values[0]:.4g} {figure.unit}")
    for name, value in settings.items():
        table.add_row(name, str(value))
    Console().print(table)
    if options.output:
        machine = measure_peaks(choose_device("cpu"), hardware.probe())
        result = make_result("serving", [Case("model", settings, figures)], machine, {}, {"overrides": []}, num_rounds=1)
        write_result(result, options.output)


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Returns when the server answers; raises SystemExit when it has ended or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/ready", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server is not ready")


if __name__ == "__main__":
    main()

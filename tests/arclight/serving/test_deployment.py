"""Names of runs, pointer files, and a run that replaces another."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.serving import deployment
from arclight.serving.deployment import Deployment, name_and_source, pointer_file, read_pointer
from arclight.serving.pool import Pending, WorkerSettings


async def ask(served: Deployment, name: str, text: str) -> Any:
    pending = Pending(text, "json", text.encode(), None)
    await served.submit(name, [pending])
    return (await pending.records)[0]


def test_a_run_is_named_by_its_directory_its_pointer_or_the_user(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "production").write_text("words\n")
    checkpoint = tmp_path / "words" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert name_and_source("words") == ("words", "words")
    assert name_and_source("tags=words") == ("tags", "words")
    assert name_and_source(str(checkpoint)) == ("words", str(checkpoint))
    assert name_and_source("production") == ("production", "production")
    assert name_and_source("registry/production") == ("production", "registry/production")
    assert pointer_file("words") is None


def test_wrong_runs_are_reported_before_a_process_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a run directory"):
        Deployment(["nowhere"], WorkerSettings())
    with pytest.raises(InputError, match="two runs are named 'words'; name them: serve first=words second="):
        Deployment(["words", "words"], WorkerSettings())
    (tmp_path / "pointer").write_text("a\nb\n")
    with pytest.raises(InputError, match="pointer must hold one line, the path of a run; it has 2"):
        Deployment(["pointer"], WorkerSettings())
    (tmp_path / "pointer").write_bytes(b"\xff")
    with pytest.raises(InputError, match="pointer cannot be read"):
        read_pointer(tmp_path / "pointer")


def test_a_changed_pointer_replaces_the_run_without_a_refused_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "LOOK_EVERY_S", 0.05)
    pointer = tmp_path / "production"
    pointer.write_text("words")

    async def main() -> list[str]:
        served = Deployment(["production"], WorkerSettings())
        await served.start()
        runs = []
        pointer.write_text("missing")  # cannot be loaded: the old one stays
        for number in range(400):
            record = await ask(served, "production", f"slow {number}" if number % 50 == 0 else "a")
            assert record["text"]
            runs.append(served.runs["production"].pool.description["run"])  # type: ignore[union-attr]
            if number == 60:
                while not served.metrics.registry.get_sample_value(
                    "arclight_reloads_total", {"model": "production", "status": "failed"}
                ):
                    await asyncio.sleep(0.02)
                pointer.write_text("other")
            if runs[-1] == "other" and number > 100:
                break
            await asyncio.sleep(0.005)
        await served.stop()
        return runs

    runs = asyncio.run(main())
    assert runs[0] == "words"
    assert runs[-1] == "other"

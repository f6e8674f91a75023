"""Batches, a bounded queue, and workers that die, hang or cannot start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from arclight.errors import InputError
from arclight.serving.metrics import Metrics
from arclight.serving.pool import FailedError, Pending, RefusedError, WorkerPool, WorkerSettings


def with_pool(use: Callable[[WorkerPool], Awaitable[Any]], run: str = "words", **settings: Any) -> tuple[Any, Metrics]:
    async def main() -> Any:
        pool = WorkerPool(run, WorkerSettings(**settings), metrics, "model")
        await pool.start()
        try:
            return await use(pool)
        finally:
            await pool.stop()

    metrics = Metrics()
    return asyncio.run(main()), metrics


async def ask(pool: WorkerPool, *texts: str, top_k: int | None = None) -> list[Any]:
    """Returns the records of texts, and exceptions in their places."""
    pending = [Pending(text, "json", text.encode(), top_k) for text in texts]
    await pool.submit(pending)
    found = await asyncio.gather(*(one.records for one in pending), return_exceptions=True)
    return [records if isinstance(records, BaseException) else records[0] for records in found]


def value(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name, {"model": "model"}) or 0.0


def test_inputs_that_wait_together_are_answered_in_one_batch_in_order() -> None:
    records, metrics = with_pool(lambda pool: ask(pool, *"abcde"), batch_size=4)
    assert [record["text"] for record in records] == list("ABCDE")
    assert [record["batch"] for record in records] == [4, 4, 4, 4, 1]
    assert value(metrics, "arclight_batch_size_count") == 2
    assert value(metrics, "arclight_queue") == 0


def test_a_batch_has_one_top_k() -> None:
    async def use(pool: WorkerPool) -> list[int]:
        async with pool._changed:  # both requests are there before the worker looks
            first, second = (
                Pending("a", "json", b"a", 1),
                Pending("b", "json", b"b", 2),
            )
            pool._waiting.extend([first, second])
            pool._changed.notify_all()
        return [(await one.records)[0]["batch"] for one in (first, second)]

    assert with_pool(use)[0] == [1, 1]


def test_more_than_the_queue_holds_is_refused_and_the_rest_answered() -> None:
    async def use(pool: WorkerPool) -> Any:
        busy = asyncio.create_task(ask(pool, "slow"))
        await asyncio.sleep(0.05)  # the worker has taken it
        waiting = asyncio.create_task(ask(pool, "a", "b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await ask(pool, "c")
        return refused.value, await busy, await waiting

    (refused, busy, waiting), _ = with_pool(use, max_queue=2)
    assert refused.is_full
    assert refused.retry_after >= 1
    assert [record["text"] for record in busy + waiting] == ["SLOW", "A", "B"]


def test_a_worker_that_dies_is_restarted_and_only_the_input_that_ends_it_fails() -> None:
    async def use(pool: WorkerPool) -> Any:
        first = await ask(pool, "a", "die", "b")
        return first, await ask(pool, "c"), pool.num_ready

    (first, after, num_ready), metrics = with_pool(use)
    assert [first[0]["text"], first[2]["text"], after[0]["text"]] == ["A", "B", "C"]
    assert isinstance(first[1], FailedError)
    assert "die ended its worker process 2 times" in str(first[1])
    assert value(metrics, "arclight_worker_restarts_total") == 2
    assert num_ready == 1


def test_a_worker_that_hangs_is_killed() -> None:
    (hung, after), metrics = with_pool(hang_and_ask_again, batch_timeout_s=0.3)
    assert isinstance(hung[0], FailedError)
    assert after[0]["text"] == "A"
    assert value(metrics, "arclight_worker_restarts_total") == 2


async def hang_and_ask_again(pool: WorkerPool) -> tuple[list[Any], list[Any]]:
    hung = await ask(pool, "hang")
    with pytest.raises(RefusedError, match="the workers are being restarted"):
        await ask(pool, "a")
    while not pool.num_ready:
        await asyncio.sleep(0.01)
    return hung, await ask(pool, "a")


def test_stopping_answers_what_is_queued_and_refuses_more() -> None:
    async def use(pool: WorkerPool) -> Any:
        queued = asyncio.create_task(ask(pool, "slow", "a"))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(pool.stop())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="stopping"):
            await ask(pool, "b")
        await stopping
        return await queued

    records, _ = with_pool(use, batch_size=1)
    assert [record["text"] for record in records] == ["SLOW", "A"]


def test_an_input_whose_request_has_ended_is_not_computed() -> None:
    async def use(pool: WorkerPool) -> Any:
        pending = [Pending("a", "json", b"die", None), Pending("b", "json", b"b", None)]
        pending[0].records.cancel()
        await pool.submit(pending)
        return await pending[1].records

    records, metrics = with_pool(use)
    assert records[0]["text"] == "B"
    assert value(metrics, "arclight_worker_restarts_total") == 0


@pytest.mark.parametrize(
    ("run", "message"), [("missing", "missing is not a run"), ("crashing", "crashing: its worker process ended while loading")]
)
def test_a_run_that_cannot_be_loaded_is_reported(run: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_pool(ask, run, workers=2)

"""Work on many files at once, whose troubles are told together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from arclight.data.download import progress
from arclight.errors import InputError

TOLD_PROBLEMS = 10  # that one message lists
ROWS_PER_TASK = 16  # of a thread


def for_each(work: Callable[[int], None], num_rows: int, *, num_threads: int, title: str) -> None:
    """Does `work` for the rows 0..num_rows-1 in threads, as suits image decoders: they let other threads run.

    Raises:
        InputError: with all InputErrors that `work` raised, in order of rows.
    """

    def work_from(start: int) -> list[str]:
        problems = []
        for row in range(start, min(start + ROWS_PER_TASK, num_rows)):
            try:
                work(row)
            except InputError as error:
                problems.append(str(error))
        return problems

    problems: list[str] = []
    pool = ThreadPoolExecutor(num_threads)
    try:
        with progress(title, num_rows) as advance:
            for some in pool.map(work_from, range(0, num_rows, ROWS_PER_TASK)):
                problems += some
                advance(ROWS_PER_TASK)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, do not decode the rest first
    if problems:
        told = [*problems[:TOLD_PROBLEMS], *(["..."] if len(problems) > TOLD_PROBLEMS else [])]
        raise InputError("\n  ".join([f"{len(problems)} of {num_rows} files cannot be used; mend or delete them:", *told]))

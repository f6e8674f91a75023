from __future__ import annotations

import pytest

from arclight.errors import InputError
from arclight.images.image_cache import for_each


@pytest.mark.parametrize("num_threads", [1, 3])
def test_work_is_done_for_every_row(num_threads: int) -> None:
    done: list[int] = []
    for_each(done.append, 100, num_threads=num_threads, title="work")
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(("num_broken", "listed"), [(3, 3), (10, 10), (25, 10)])
def test_all_errors_are_counted_and_the_first_are_listed(num_broken: int, listed: int) -> None:
    def work(row: int) -> None:
        if row % 2 and row < 2 * num_broken:
            raise InputError(f"row {row}")

    with pytest.raises(InputError) as caught:
        for_each(work, 100, num_threads=2, title="work")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{num_broken} of 100 files cannot be read; fix or delete them:"
    assert lines[1 : 1 + listed] == [f"  row {2 * number + 1}" for number in range(listed)]
    assert lines[1 + listed :] == (["  ..."] if num_broken > listed else [])


def test_a_bug_in_the_work_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        for_each(lambda row: print(1 // (row - 50)), 100, num_threads=2, title="work")

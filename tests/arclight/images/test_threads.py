from __future__ import annotations

import pytest

from arclight.errors import InputError
from arclight.images.threads import for_each


@pytest.mark.parametrize("num_threads", [1, 3])
def test_work_is_done_for_every_row(num_threads: int) -> None:
    done: list[int] = []
    for_each(done.append, 100, num_threads=num_threads, title="work")
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize(("num_broken", "told"), [(3, 3), (10, 10), (25, 10)])
def test_all_troubles_are_counted_and_the_first_are_listed(num_broken: int, told: int) -> None:
    def work(row: int) -> None:
        if row % 2 and row < 2 * num_broken:
            raise InputError(f"row {row}")

    with pytest.raises(InputError) as caught:
        for_each(work, 100, num_threads=2, title="work")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{num_broken} of 100 files cannot be used; mend or delete them:"
    assert lines[1 : 1 + told] == [f"  row {2 * number + 1}" for number in range(told)]
    assert lines[1 + told :] == (["  ..."] if num_broken > told else [])


def test_a_bug_in_the_work_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        for_each(lambda row: print(1 // (row - 50)), 100, num_threads=2, title="work")

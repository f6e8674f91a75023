import pytest

from arclight.errors import InputError, first_line, nearest


def test_a_near_name_is_offered() -> None:
    assert nearest("batchsize", ["batch_size", "root"]) == "Did you mean 'batch_size'?"


def test_without_a_near_name_all_are_listed() -> None:
    assert nearest("zebra", ["root", "batch_size"]) == "Known: batch_size, root."


def test_a_mistake_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="too large"):
        raise InputError("too large")


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("the disk is full\nat once", "the disk is full"),
        ("\n  no route  \nto host", "no route"),
        (
            "(raised as a result of Query-invoked autoflush)\n(sqlite3.OperationalError) disk is full",
            "(sqlite3.OperationalError) disk is full",
        ),
        ("", ""),
        ("x" * 1000, "x" * 300),
    ],
)
def test_what_an_error_says_first(said: str, first: str) -> None:
    assert first_line(RuntimeError(said)) == first

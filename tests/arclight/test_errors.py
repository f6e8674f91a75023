import pytest

from arclight.errors import InputError, first_line, join_errors, nearest


def test_a_near_name_is_offered() -> None:
    assert nearest("batchsize", ["batch_size", "root"]) == "Did you mean 'batch_size'?"


def test_without_a_near_name_all_are_listed() -> None:
    assert nearest("zebra", ["root", "batch_size"]) == "Known: batch_size, root."


def test_an_input_error_is_a_value_error() -> None:
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


def test_an_error_carries_its_key_and_suggestions() -> None:
    error = InputError("lr", key="optimizer.lr", suggestions=["optimizer.lr=1"])
    assert (str(error), error.key, error.suggestions, error.errors) == ("lr", "optimizer.lr", ("optimizer.lr=1",), (error,))


def test_several_errors_become_one() -> None:
    errors = [InputError("first\nof two lines", key="a"), InputError("second")]
    joined = join_errors(errors, "python train.py")
    assert str(joined) == "2 errors:\n  first\n  of two lines\n  second\nTry: python train.py"
    assert joined.errors == tuple(errors)
    assert str(join_errors(errors[:1])) == "first\nof two lines"

import pytest

from arclight.errors import InputError, nearest


def test_a_near_name_is_offered() -> None:
    assert nearest("batchsize", ["batch_size", "root"]) == "Did you mean 'batch_size'?"


def test_without_a_near_name_all_are_listed() -> None:
    assert nearest("zebra", ["root", "batch_size"]) == "Known: batch_size, root."


def test_a_mistake_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="too large"):
        raise InputError("too large")

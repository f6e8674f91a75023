"""What every benchmark reads from the command line."""

from __future__ import annotations

import pytest

from arclight.benchmark.options import read_counts
from arclight.errors import InputError


def test_numbers_are_read() -> None:
    assert read_counts("--devices", None) is None
    assert read_counts("--devices", "4,1,2,2") == (1, 2, 4)
    with pytest.raises(InputError, match="--devices 1,,2 must be whole numbers"):
        read_counts("--devices", "1,,2")

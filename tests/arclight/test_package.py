from __future__ import annotations

import importlib.util
import sys

import pytest

import arclight


def test_windows_itself_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arclight.__file__ is not None
    spec = importlib.util.spec_from_file_location("arclight_on_windows", arclight.__file__)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ImportError, match="arclight runs on Linux and macOS; on Windows, run it in WSL 2"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

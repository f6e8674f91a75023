import os
from pathlib import Path

import pytest

pytest.importorskip("fastapi_offline")


@pytest.fixture(autouse=True)
def workers_without_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The pool starts fake workers; runs are directories of `tmp_path`."""
    monkeypatch.setattr("arclight.serving.pool.MODULE", "tests.arclight.serving.fake_worker")
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "src")]))
    monkeypatch.chdir(tmp_path)
    for name in ("words", "other", "images", "missing", "crashing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()

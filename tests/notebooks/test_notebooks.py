"""The notebooks run from the first to the last cell, learn something, leave nothing behind, and are stored with outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
CHANCE = 0.35  # of three classes
MAX_BYTES = 150_000
CHECK = f"""
assert run.results["status"] == "finished"
assert run.results["test/accuracy"] > {CHANCE}, run.results
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_with_its_outputs(path: Path) -> None:
    """After a change: python scripts/run_notebooks.py."""
    text = path.read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) // 2
    assert not any(
        output["output_type"] == "error" or output.get("name") == "stderr" for cell in cells for output in cell["outputs"]
    )
    assert not any(cell["metadata"] for cell in notebook["cells"])
    assert not re.search(r"/(tmp|home|root|Users|work)/", text)
    assert "\\u001b" not in text


@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.processes
def test_executes(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    (clean_up,) = [number for number, cell in enumerate(notebook.cells) if cell.source.startswith("## Clean up")]
    notebook.cells.insert(clean_up, nbformat.v4.new_code_cell(CHECK))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]

"""Executes notebooks in a temporary directory and stores them with outputs: `python scripts/run_notebooks.py [NOTEBOOK...]`."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TIMEOUT_S = 900  # of a cell
TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor movements


def main() -> None:
    for path in map(Path, sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb"))):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": folder}}).execute()
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs = cleaned(cell.outputs, folder)
        notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        nbformat.write(notebook, path)
        print(path)


def cleaned(outputs: list[nbformat.NotebookNode], folder: str) -> list[nbformat.NotebookNode]:
    """Returns the outputs without log lines, terminal codes and the temporary directory; printed lines are one output."""
    text = TERMINAL.sub("", "".join(output.text for output in outputs if output.get("name") == "stdout"))
    others = [output for output in outputs if output.output_type != "stream"]
    return [
        *([nbformat.v4.new_output("stream", text=text.replace(f"{folder}/", "").replace(folder, "."))] if text else []),
        *others,
    ]


if __name__ == "__main__":
    main()

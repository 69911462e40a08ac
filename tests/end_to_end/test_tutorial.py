"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

import pytest

from tests.made import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


@pytest.mark.slow(reason="a minute and a half: each of the twelve steps is a command of its own")
def test_the_notebook_runs_and_makes_what_it_shows(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("OUT", str(tmp_path / "tutorial"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert (tmp_path / "tutorial" / "run" / "evaluation" / "report.html").is_file()
    assert list((tmp_path / "tutorial" / "dist").glob("*.zip"))

"""The notebooks: in step with their sources, without outputs, and a cell that fails is named. `make notebooks` executes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
sys.path.insert(0, str(FOLDER))

import run as runner  # noqa: E402

SOURCE = """# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # A small one

# %%
values = [1, 2]
print(sum(values))

# %%
{last}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1_small.py").write_text(SOURCE.format(last="values[0]"), encoding="utf-8")
    return tmp_path


def test_each_notebook_is_in_step_with_its_source_and_holds_no_output() -> None:
    assert runner.main(["--check"]) == 0
    assert [path.name[0] for path in runner.sources(FOLDER)] == list("123456")
    for path in FOLDER.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def test_a_source_that_changed_is_found_out_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--check", "--folder", str(folder)]) == 1
    assert runner.main(["--sync", "--folder", str(folder)]) == 0
    assert runner.main(["--check", "--folder", str(folder)]) == 0
    source = folder / "1_small.py"
    source.write_text(source.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    assert runner.main(["--check", "--folder", str(folder)]) == 1
    assert "1_small.ipynb" in capsys.readouterr().out


def test_it_is_executed_in_a_kernel_of_its_own(folder: Path) -> None:
    assert runner.execute(folder / "1_small.py", folder / "out", seconds=60) is None
    cells = json.loads((folder / "out" / "1_small.ipynb").read_text(encoding="utf-8"))["cells"]
    assert cells[1]["outputs"][0]["text"] in ("3\n", ["3\n"])


def test_a_broken_cell_fails_it_and_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "1_small.py").write_text(SOURCE.format(last="values[7]  # there is none"), encoding="utf-8")
    monkeypatch.setattr(runner, "EXECUTED", folder / "out")
    assert runner.main(["--folder", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "1_small.py" in told and "cell 2" in told and "IndexError" in told and "\x1b" not in told
    assert (folder / "out" / "1_small.ipynb").is_file()


def test_a_cell_without_end_fails_it_and_is_named(folder: Path) -> None:
    (folder / "1_small.py").write_text(SOURCE.format(last="while True: pass"), encoding="utf-8")
    wrong = runner.execute(folder / "1_small.py", folder / "out", seconds=2)
    assert wrong is not None and "cell 2" in wrong and "not finished" in wrong


def test_an_unknown_notebook_is_an_error(folder: Path) -> None:
    with pytest.raises(SystemExit, match="no notebook 9"):
        runner.main(["9", "--folder", str(folder)])

"""`recsys board` and `recsys compare` as commands: files, JSON and exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from recsys.evaluation.metrics import expected_ndcg, expected_recall
from recsys.evaluation.run_record import RunRecord, write_run

REPOSITORY = Path(__file__).parents[2]


def put(folder: Path, model: str, rank: int, split: str = "a") -> Path:
    better, tied = np.full(40, rank), np.ones(40, dtype=np.int64)
    record = RunRecord(
        dataset="toy",
        protocol="leave_last_out",
        split_hash=split,
        model=model,
        label=model,
        seed=0,
        config={},
        cases=40,
        metrics={"recall@10": float(expected_recall(better, tied, 10).mean()), "ndcg@10": float(expected_ndcg(better, tied, 10).mean())},
        train_seconds=1.0,
        inference_ms_per_user=0.1,
        peak_rss_mb=1.0,
        threads=1,
        commit="c",
        command="recsys board toy",
        created="2026-01-01T00:00:00+00:00",
    )
    return write_run(folder / "toy", record, better, tied)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def recsys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """What `python -m pipelines.cli` does, in this process: its imports take seconds each time."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["recsys", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return run


def test_module_runs_as_a_process() -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", "compare", "toy/one", "one.json"], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 64 and "error" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("board",), "Missing argument"),
        (("board", "toy", "--seeds", "0"), "'--seeds'"),
        (("board", "toy", "--sead", "0"), "--sead"),
        (("bored",), "bored"),
    ],
)
def test_a_wrong_command_line_is_no_traceback(arguments: tuple[str, ...], message: str, recsys: Callable[..., Done]) -> None:
    done = recsys(*arguments)
    assert done.returncode == 64 and message in done.stderr


def test_board_writes_its_files_and_prints_json(tmp_path: Path, recsys: Callable[..., Done]) -> None:
    put(tmp_path, "one", 0)
    put(tmp_path, "two", 2)
    done = recsys("board", "toy", "--folder", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    (board,) = json.loads(done.stdout)["boards"]
    assert [(row["model"], row["metrics"]["ndcg@10"]["mark"]) for row in board["rows"]] == [("one", "best"), ("two", "")]
    assert "**1.0000 [1.0000, 1.0000]**" in (tmp_path / "toy/board.md").read_text()
    assert "<!doctype html>" in (tmp_path / "toy/board.html").read_text()


def test_board_prints_a_table(tmp_path: Path, recsys: Callable[..., Done]) -> None:
    put(tmp_path, "one", 0)
    done = recsys("board", "toy", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1.0000 [1.0000, 1.0000]" in done.stdout and "board.html" in done.stdout


def test_compare(tmp_path: Path, recsys: Callable[..., Done]) -> None:
    one = put(tmp_path, "one", 0)
    put(tmp_path, "two", 2)
    done = recsys("compare", str(one), "toy/two", "--folder", str(tmp_path), "--metric", "ndcg@10", "--json")
    assert done.returncode == 0, done.stderr
    (metric,) = json.loads(done.stdout)["metrics"]
    assert metric["difference"] == 0.5 and metric["better"] == 40 and metric["effect"] is None
    put(tmp_path, "twin", 0)
    shown = recsys("compare", "toy/one", "toy/twin", "--folder", str(tmp_path), "--slices")
    assert shown.returncode == 0, shown.stderr
    assert "cannot be told apart on ndcg@10" in shown.stdout
    unknown = recsys("compare", "toy/one", "toy/twin", "--folder", str(tmp_path), "--metric", "ndgc@10")
    assert unknown.returncode == 64 and "unknown metric 'ndgc'; known are: recall" in unknown.stderr


def test_a_board_without_runs_says_how_to_fill_it(tmp_path: Path, recsys: Callable[..., Done]) -> None:
    done = recsys("board", "ml-100k", "--folder", str(tmp_path))
    assert done.returncode == 64 and "no runs yet; fill it: recsys board ml-100k --run MODEL" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("board", "nothing"), 64, "no runs; there are boards of: toy"),
        (("board", "toy"), 65, "not of one split"),
        (("compare", "toy/one", "toy/other"), 65, "not of one split"),
        (("compare", "toy/one", "toy/none"), 64, "no run of 'none'; there are: one, other"),
        (("compare", "toy/one", "none/one"), 64, "no runs; there are boards of: toy"),
        (("compare", "toy/one", "one"), 64, "DATASET/MODEL such as ml-100k/sasrec; there are boards of: toy"),
        (("compare", "toy/one", "none.json"), 64, "no such file"),
        (("compare", "toy/one", "toy/one"), 64, "are the same runs: there is nothing to compare; there are also: other"),
    ],
)
def test_mistakes(tmp_path: Path, recsys: Callable[..., Done], arguments: tuple[str, ...], code: int, message: str) -> None:
    put(tmp_path, "one", 0)
    put(tmp_path, "other", 0, split="b")
    done = recsys(*arguments, "--folder", str(tmp_path))
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr

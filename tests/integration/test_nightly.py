"""Nights of a small shop by the command: promoted, held, stopped, repeated, interrupted, rolled back."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import cli
from pipelines.ledger import Ledger
from pipelines.night_record import NightBook
from recsys.artifacts.artifact import Artifact
from recsys.artifacts.atomic import read_json
from recsys.tracking import REPLACED_TAG, ROLLED_BACK_TAG, Tracker, default_tracking_uri
from tests.integration import days

STEPS = ["inspect", "ingest", "split:window", "embed:words", "inspect:vectors", "rank:window", "evaluate:contest", "publish"]
PROMOTE = "--set=publish.gate.tolerance=0.9"


@pytest.fixture(autouse=True)
def _registry_below_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_TRACKING_URI", raising=False)


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "nightly.yaml"
    path.write_text(yaml.safe_dump(days.config(folder, **changes)))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]


def recsys(*arguments: object, code: int = 0) -> str:
    """The command in this process: imports take longer than a night. Standard output, or standard error where it fails."""
    out, err, found = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["recsys", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            found = int(end.code or 0)
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue() if code == 0 else " ".join(err.getvalue().split())


def nightly(config: Path, *arguments: object, code: int = 0) -> str:
    return recsys("pipeline", "nightly", config, *arguments, code=code)


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Days 1 to 3 filled in one go: a first version, then two that the gate lets pass."""
    folder = days.shop(tmp_path_factory.mktemp("shop"), 4)
    told = folder / "told.jsonl"
    hook = [sys.executable, "-c", f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + chr(10))"]
    config = write_config(folder, notify={"command": hook})
    lines = nightly(config, "--backfill", days.day(1), days.day(3), "--json", PROMOTE)
    (folder / "results.jsonl").write_text(lines)
    return folder


def results(week: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (week / "results.jsonl").read_text().splitlines()]


def test_each_night_runs_every_stage_and_beats_the_version_before(week: Path) -> None:
    found = results(week)
    assert [night["as_of"] for night in found] == [str(days.day(n)) for n in (1, 2, 3)]
    assert all(night["ran"] == STEPS and night["outcome"] == "promoted" for night in found)
    assert [(night["champion_before"], night["model"]["version"]) for night in found] == [(None, "1"), ("1", "2"), ("2", "3")]
    embedded = [Artifact.open(Path(night["artifacts"]["embed:words"])).manifest.metadata for night in found]
    assert [(facts["computed"], facts["cached"]) for facts in embedded] == [(37, 0), (1, 37), (1, 38)]
    verdict = read_json(Path(found[2]["artifacts"]["publish"]) / "verdict.json")
    assert [check["name"] for check in verdict["checks"]] == ["NDCG@10", "cold NDCG@10", "latency", "parity", "data contract"]
    assert verdict["checks"][0]["numbers"]["users"] == 60
    told = [json.loads(line) for line in (week / "told.jsonl").read_text().splitlines()]
    assert [(each["as_of"], each["outcome"], each["version"]) for each in told] == [(str(days.day(n)), "promoted", str(n)) for n in (1, 2, 3)]


def test_the_decision_is_stored_with_the_version(week: Path) -> None:
    tracker = Tracker(default_tracking_uri(week / "root"))
    versions = tracker.versions("tiny-shop")
    assert [v.tags.get(REPLACED_TAG) for v in versions] == [None, "1", "2"]
    assert [v.tags["gate"] for v in versions] == ["promote"] * 3 and "first version" in versions[0].tags["gate.reason"]
    figures = tracker.file_of(versions[2], "gate/verdict.json")
    assert figures is not None and read_json(figures)["decision"] == "promote"


def test_a_night_again_finds_nothing_to_do(week: Path) -> None:
    config = week / "nightly.yaml"
    again = json.loads(nightly(config, "--as-of", days.day(2), "--json", PROMOTE))
    assert (again["ran"], again["champion_before"], again["model"]["version"]) == ([], "1", "2")
    assert Tracker(default_tracking_uri(week / "root")).champion("tiny-shop").version == "3"  # type: ignore[union-attr]
    assert len((week / "told.jsonl").read_text().splitlines()) == 3
    assert all(step["cached"] for step in json.loads(nightly(config, "--as-of", days.day(3), "--dry-run", "--json", PROMOTE)))


def test_the_features_are_those_of_the_champion(week: Path) -> None:
    checks = json.loads(recsys("features", "verify", "--model", "tiny-shop", "--root", week / "root", "--json"))
    assert [check["name"] for check in checks] == ["published", "definitions", "user state", "item vectors", "snapshot"]
    recsys("features", "apply", "--root", week / "root")
    recsys("features", "materialize", "2026-11-01", "2026-12-01", "--root", week / "root")
    recsys("features", "materialize-incremental", "2026-12-02", "--root", week / "root")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    config = write_config(days.shop(tmp_path, 2))
    steps = json.loads(nightly(config, "--as-of", days.day(1), "--dry-run", "--json"))
    assert [step["step"] for step in steps] == STEPS and not any(step["cached"] for step in steps)
    assert not (tmp_path / "root").exists()


def test_mistakes_have_their_exit_codes(tmp_path: Path) -> None:
    config = write_config(days.shop(tmp_path, 2))
    assert "either --as-of DATE or --backfill" in nightly(config, code=64)
    assert "'soon' is no day" in nightly(config, "--as-of", "soon", code=64)
    assert "the first day is after the last" in nightly(config, "--backfill", days.day(2), days.day(1), code=64)
    assert "kind: daily" in nightly(config, "--as-of", days.day(1), '--set=data.source={"kind": "recbole"}', code=64)
    assert f"no file of {days.day(5)}" in nightly(config, "--as-of", days.day(5), code=65)
    assert "no file of a day from" in nightly(config, "--backfill", days.day(5), days.day(6), code=65)
    assert "are too few to train" in nightly(config, "--as-of", days.day(0), code=65)
    with Ledger(tmp_path / "root").lock():
        assert "another run is at work here" in nightly(config, "--as-of", days.day(1), code=75)


def test_a_spoilt_day_publishes_nothing_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    config = write_config(days.shop(tmp_path, 3), attempts={"retries": 2, "wait": 0.01})
    nightly(config, "--as-of", days.day(1))
    file = tmp_path / "events" / f"{days.day(2)}.csv"
    whole = file.read_text()
    file.write_text("\n".join(whole.splitlines()[:20]) + "\n")
    assert "stopped by the checks, nothing is published: volume: 19 clean events" in nightly(config, "--as-of", days.day(2), code=65)
    tracker = Tracker(default_tracking_uri(tmp_path / "root"))
    assert [v.version for v in tracker.versions("tiny-shop")] == ["1"]
    night = NightBook(tmp_path / "root", "tiny-shop").read(days.day(2))
    assert night is not None and (night.state, night.outcome) == ("failed", "failed") and len(night.tries) == 1
    file.write_text(whole)
    assert json.loads(nightly(config, "--as-of", days.day(2), "--json"))["champion_before"] == "1"


@pytest.mark.slow
def test_sigterm_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config = write_config(days.shop(tmp_path, 2))
    long = ("--set=rank.training.epochs=100000", "--set=rank.training.patience=100000")
    process = subprocess.Popen(command("pipeline", "nightly", config, "--as-of", days.day(1), *long), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "root").glob("scratch/rank-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143 and b"goes on from here" in stderr and b"Traceback" not in stderr
    night = NightBook(tmp_path / "root", "tiny-shop").read(days.day(1))
    assert night is not None and night.state == "stopped"
    assert not list((tmp_path / "root" / "artifacts").glob("*/.*.tmp"))
    timed_out = nightly(config, "--as-of", days.day(1), "--set=attempts.timeouts.rank=1", *long, code=75)
    assert "stage rank:window took longer than 1 s" in timed_out
    again = json.loads(nightly(config, "--as-of", days.day(1), "--json"))
    assert again["ran"] == STEPS[5:] and again["outcome"] == "promoted"


def test_a_worse_challenger_is_not_promoted_and_users_are_fresh_all_the_same(week: Path) -> None:
    """Last of the nights of `week`: it adds a day."""
    days.write_day(week, 4)
    worse = ("--set=rank.training.epochs=1", "--set=rank.training.learning_rate=1e-9", "--set=rank.use_ids=true", "--set=embed=[]")
    night = json.loads(nightly(week / "nightly.yaml", "--as-of", days.day(4), "--json", *worse))
    assert (night["outcome"], night["model"]["alias"], night["champion_before"]) == ("rejected", "challenger", "3")
    tracker = Tracker(default_tracking_uri(week / "root"))
    assert tracker.champion("tiny-shop").version == "3"  # type: ignore[union-attr]
    assert json.loads(recsys("features", "verify", "--model", "tiny-shop", "--root", week / "root", "--json"))


def test_rollback_is_one_command(week: Path) -> None:
    """After the night above: the champion before it serves, with its own item vectors, and again one further back."""
    root = week / "root"
    assert "version 3 is taken back, version 2 is the champion" in recsys("rollback", "tiny-shop", "--root", root, "--reason", "complaints")
    tracker = Tracker(default_tracking_uri(root))
    taken = tracker.version("tiny-shop", "3")
    assert taken.tags[ROLLED_BACK_TAG].endswith("complaints") and tracker.champion("tiny-shop").version == "2"  # type: ignore[union-attr]
    recsys("features", "verify", "--model", "tiny-shop", "--root", root)
    recsys("rollback", "tiny-shop", "--root", root)
    assert "there is none before it" in recsys("rollback", "tiny-shop", "--root", root, code=64)
    assert "no champion" in recsys("rollback", "nobody", "--root", root, code=64)

"""Time-outs, retries, SIGTERM, and a hook that cannot break a night."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.attempts import Attempts, Stopped, stoppable, within
from pipelines.nightly_config import AttemptConfig, NotifyConfig
from pipelines.notify import notify
from pipelines.progress import SilentReporter
from pipelines.stage import Step
from recsys.config import Config
from recsys.errors import ConfigError, DataError, RetryableError

STEP = Step("embed:words", 1, Config(), lambda *_: {})


class Tried:
    def __init__(self, config: AttemptConfig) -> None:
        self.told: list[tuple[str, int, str]] = []
        self.slept: list[float] = []
        self.attempts = Attempts(config, SilentReporter(), lambda step, number, _, error: self.told.append((step, number, error)), sleep=self.slept.append)

    def run(self, *outcomes: BaseException | Callable[[], None] | None) -> Any:
        left = list(outcomes)

        def once() -> Any:
            outcome = left.pop(0)
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is not None:
                outcome()
            return "artifact"

        return self.attempts(STEP, once)


def test_what_may_pass_is_tried_again_with_growing_waits() -> None:
    tried = Tried(AttemptConfig(retries=2, wait=3))
    assert tried.run(RetryableError("busy"), ConnectionError("gone"), None) == "artifact"
    assert tried.told == [("embed:words", 1, "busy"), ("embed:words", 2, "gone"), ("embed:words", 3, "")]
    assert tried.slept == [3, 6]


def test_the_last_try_tells_its_error_and_bad_data_is_not_tried_again() -> None:
    with pytest.raises(RetryableError, match="still busy"):
        Tried(AttemptConfig(retries=1)).run(RetryableError("busy"), RetryableError("still busy"))
    tried = Tried(AttemptConfig(retries=5))
    with pytest.raises(DataError):
        tried.run(DataError("bad"))
    assert tried.told == [("embed:words", 1, "DataError: bad")]


def test_a_stage_that_takes_too_long_is_stopped_and_tried_again() -> None:
    tried = Tried(AttemptConfig(timeouts={"embed": 0.05}, retries=1, wait=0))
    assert tried.run(lambda: time.sleep(5), None) == "artifact"
    assert "stage embed:words took longer than 0.05 s" in tried.told[0][2]


def test_a_limit_leaves_the_alarm_of_others_as_it_was() -> None:
    handler, waiting = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with within(0.05, "a block"):
        pass
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is handler
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert left == 0 if not waiting else waiting - 60 < left < waiting


def test_a_block_that_does_not_come_back_ends_the_process() -> None:
    code = (
        "import time; from pipelines.attempts import within\n"
        "with within(0.05, 'a block', grace=0.1):\n"
        "    while True:\n"
        "        try: time.sleep(1)\n"
        "        except Exception: pass\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=250).returncode == 75


def test_sigterm_is_heard_once_and_no_handler_swallows_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="goes on from here"), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Exception:
            pytest.fail("an Exception")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


DOCUMENT = {"name": "shop", "outcome": "held"}


def test_a_command_is_told_on_its_standard_input(tmp_path: Path) -> None:
    target = tmp_path / "told.json"
    config = NotifyConfig(command=(sys.executable, "-c", f"import sys; open({str(target)!r}, 'w').write(sys.stdin.read())"))
    notify(config, DOCUMENT, SilentReporter())
    assert json.loads(target.read_text()) == DOCUMENT
    target.unlink()
    notify(config.model_copy(update={"on": ("failed",)}), DOCUMENT, SilentReporter())
    assert not target.exists()


def test_a_url_on_loopback_is_told() -> None:
    received: list[bytes] = []

    class Relay(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        notify(NotifyConfig(url=f"http://127.0.0.1:{server.server_port}/nights"), DOCUMENT, SilentReporter())
    assert json.loads(received[0]) == DOCUMENT


@pytest.mark.parametrize("config", [{"command": ["/no/such/program"]}, {"command": [sys.executable, "-c", "exit(3)"]}, {"url": "http://127.0.0.1:9/"}])
def test_a_hook_that_fails_is_a_line_in_the_log(config: dict[str, Any]) -> None:
    said: list[str] = []

    class Listening(SilentReporter):
        def say(self, message: str) -> None:
            said.append(message)

    notify(NotifyConfig.parse(config), DOCUMENT, Listening())
    assert len(said) == 1 and "notify: " in said[0]


@pytest.mark.parametrize("url", ["http://example.com/", "ftp://127.0.0.1/", "http://10.0.0.1/", "localhost"])
def test_urls_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http://127.0.0.1"):
        NotifyConfig.parse({"url": url})

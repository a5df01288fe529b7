"""Telling somebody how a night ended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx

from pipelines.nightly_config import NotifyConfig
from pipelines.progress import Reporter


def notify(config: NotifyConfig, document: Mapping[str, Any], reporter: Reporter) -> None:
    """document: its "outcome" is one of `NotifyConfig.on`. Nothing is raised: a night does not fail for its hook."""
    if document["outcome"] not in config.on:
        return
    text = json.dumps(document)
    if config.command:
        try:
            done = subprocess.run(config.command, input=text, text=True, timeout=config.timeout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if done.returncode:
                reporter.say(f"[yellow]notify: {config.command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}[/]")
        except (OSError, subprocess.TimeoutExpired) as error:
            reporter.say(f"[yellow]notify: {config.command[0]}: {error}[/]")
    if config.url is not None:
        try:
            # Without the environment's proxies: the address is this machine.
            with httpx.Client(timeout=config.timeout, trust_env=False) as client:
                client.post(config.url, content=text, headers={"Content-Type": "application/json"}).raise_for_status()
        except httpx.HTTPError as error:
            reporter.say(f"[yellow]notify: {config.url}: {error}[/]")

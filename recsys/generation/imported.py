"""Answers that another model wrote elsewhere: prompts go out as JSON lines, answers come back the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from recsys.artifacts.atomic import sha256_of, write_bytes
from recsys.config import Config, digest_of
from recsys.errors import DataError
from recsys.generation.generator import Generation, OnDone
from recsys.generation.prompt import Prompt


class ImportedGeneratorConfig(Config):
    """A file of answers: JSON lines with `text`, and either `key` (as `export_prompts` wrote it) or `user`, `system`, `sample`."""

    kind: Literal["imported"] = "imported"
    file: Path
    name: Annotated[str, Field(min_length=1)]
    """Who wrote the answers, e.g. the model's name and date."""

    def identity(self) -> dict[str, Any]:
        """Raises DataError: no such file."""
        if not self.file.is_file():
            raise DataError(f"{self.file}: no such file of answers; write the prompts with export_prompts and have them answered")
        return {"kind": self.kind, "name": self.name, "sha256": sha256_of(self.file)}

    @property
    def generator_id(self) -> str:
        return digest_of(self.identity())[:16]


class ImportedGenerator:
    """A Generator that looks answers up; a prompt without one has `finish` "error". `answered` counts the answers in the file."""

    def __init__(self, generator_id: str, answers: dict[str, Generation]) -> None:
        self._id = generator_id
        self._answers = answers
        self.answered = len(answers)

    @classmethod
    def load(cls, config: ImportedGeneratorConfig) -> Self:
        """Raises DataError: names the first line that is not an answer, or that contradicts an earlier one."""
        generator_id = config.generator_id
        answers: dict[str, Generation] = {}
        with config.file.open(encoding="utf-8") as lines:
            try:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        key, generation = _line(line, f"{config.file}:{number}")
                        if answers.setdefault(key, generation).text != generation.text:
                            raise DataError(f"{config.file}:{number}: a second, other answer to one prompt; leave one of them")
            except UnicodeDecodeError as error:
                raise DataError(f"{config.file}: not UTF-8: {error}") from None
        return cls(generator_id, answers)

    @property
    def generator_id(self) -> str:
        return self._id

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        """See `Generator`."""
        found = [self._answers.get(prompt.digest, Generation("", "error", error="not among the imported answers")) for prompt in prompts]
        for number, generation in enumerate(found):
            if on_done is not None:
                on_done(number, generation)
        return found


def export_prompts(prompts: Sequence[Prompt], file: Path) -> None:
    """Distinct prompts as JSON lines {key, system, user, sample}, for another model to add `text`."""
    rows = ({"key": prompt.digest, "system": prompt.system, "user": prompt.user, "sample": prompt.sample} for prompt in dict.fromkeys(prompts))
    write_bytes(file, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _line(line: str, place: str) -> tuple[str, Generation]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not isinstance(row.get("key", row.get("user")), str):
        raise DataError(f"{place}: expected a JSON object with text, and key or user (and system, sample)")
    key = row["key"] if "key" in row else Prompt(row["user"], str(row.get("system", "")), int(row.get("sample", 0))).digest
    return key, Generation(row["text"], "stop")

"""`GenerationCache`: answers by (generator, prompt), in atomic shards; `CachedGenerator`: only what is missing is generated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.artifacts.atomic import write_bytes, write_json
from recsys.errors import ArtifactError
from recsys.generation.generator import Generation, Generator, OnDone
from recsys.generation.prompt import Prompt

_FIELDS = {"key": str, "text": str, "finish": str, "prompt_tokens": int, "completion_tokens": int}


class GenerationCache:
    """Shards live in `root/<generator_id>/<sha256 of the shard>.jsonl`, one answer a line; `generator.json` beside them says whose they are.

    The name is the digest of the bytes, so that each shard is verified when it is read, and two processes that write the same shard agree.
    Answers with `finish` "error" are never stored.

    Raises:
        ArtifactError: a shard whose bytes do not match its name, or that holds no answers.
    """

    def __init__(self, root: Path, generator_id: str, identity: Mapping[str, Any] | None = None) -> None:
        self.generator_id = generator_id
        self.folder = root / generator_id
        self._identity = identity
        self._answers: dict[str, Generation] = {}
        for shard in sorted(self.folder.glob("*.jsonl")):
            if not shard.name.startswith("."):
                self._read(shard)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, prompt: Prompt) -> Generation | None:
        return self._answers.get(prompt.digest)

    def put(self, answers: Sequence[tuple[Prompt, Generation]]) -> None:
        """Store as one shard; on return they are on the disk. What is stored already is skipped."""
        self.put_keys([(prompt.digest, generation) for prompt, generation in answers])

    def put_keys(self, answers: Sequence[tuple[str, Generation]]) -> None:
        """`put` by the prompts' digests."""
        fresh = {key: generation for key, generation in answers if key not in self._answers and generation.finish != "error"}
        if not fresh:
            return
        # ASCII: a text may hold half of a surrogate pair.
        data = "".join(json.dumps(_row(key, generation), ensure_ascii=True, allow_nan=False) + "\n" for key, generation in fresh.items()).encode()
        if self._identity is not None and not (self.folder / "generator.json").exists():
            write_json(self.folder / "generator.json", self._identity)
        write_bytes(self.folder / f"{hashlib.sha256(data).hexdigest()}.jsonl", data)
        self._answers.update(fresh)

    def _read(self, shard: Path) -> None:
        data = shard.read_bytes()
        if hashlib.sha256(data).hexdigest() != shard.stem:
            raise ArtifactError(f"{shard}: sha256 differs from its name, the shard was changed or damaged; delete this file, its prompts are then asked again")
        try:
            rows = [json.loads(line) for line in data.splitlines()]
            found = {row["key"]: _answer(row) for row in rows}
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{shard}: not answers of this version: {type(error).__name__} {error}; delete this file") from None
        # Two drivers may have stored one prompt in two shards: the first wins.
        self._answers = found | self._answers


class CachedGenerator:
    """A Generator that asks `load()` for the real one only when an answer is missing.

    shard_rows: finished answers kept in memory at most; a killed run loses these and the ones under way. Equal prompts are asked once.
    `hits` and `misses` count prompts so far.
    """

    def __init__(self, cache: GenerationCache, load: Callable[[], Generator], *, shard_rows: int = 32) -> None:
        self.cache = cache
        self.hits = self.misses = 0
        self._load = load
        self._loaded: Generator | None = None
        self._shard_rows = shard_rows

    @property
    def generator_id(self) -> str:
        return self.cache.generator_id

    def generate(self, prompts: Sequence[Prompt], *, on_done: OnDone | None = None) -> list[Generation]:
        """See `Generator`. What was answered before an error is stored. Raises ArtifactError too: the loaded generator is not the cache's."""
        answers: dict[int, Generation] = {}
        missing: dict[Prompt, list[int]] = {}

        def done(number: int, generation: Generation) -> None:
            answers[number] = generation
            if on_done is not None:
                on_done(number, generation)

        for number, prompt in enumerate(prompts):
            if (known := self.cache.get(prompt)) is not None:
                done(number, known)
            else:
                missing.setdefault(prompt, []).append(number)
        self.hits += len(answers)
        self.misses += len(prompts) - len(answers)
        if not missing:
            return [answers[number] for number in range(len(prompts))]
        asked = list(missing)
        buffer: list[tuple[Prompt, Generation]] = []

        def keep(place: int, generation: Generation) -> None:
            buffer.append((asked[place], generation))
            if len(buffer) >= self._shard_rows:
                self.cache.put(buffer)
                buffer.clear()
            for number in missing[asked[place]]:
                done(number, generation)

        try:
            self._generator().generate(asked, on_done=keep)
        finally:
            self.cache.put(buffer)
        return [answers[number] for number in range(len(prompts))]

    def _generator(self) -> Generator:
        if self._loaded is None:
            loaded = self._load()
            if loaded.generator_id != self.cache.generator_id:
                raise ArtifactError(
                    f"generator {loaded.generator_id} was loaded for the cache of {self.cache.generator_id}; open the cache with the same config"
                )
            self._loaded = loaded
        return self._loaded


def _row(key: str, generation: Generation) -> dict[str, Any]:
    return {
        "key": key,
        "text": generation.text,
        "finish": generation.finish,
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.completion_tokens,
        "logprob": generation.logprob,
    }


def _answer(row: Mapping[str, Any]) -> Generation:
    """Raises ValueError: a field of another type."""
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(row[name], kind)]
    if wrong or row["finish"] not in ("stop", "length"):
        raise ValueError(f"unexpected {', '.join(wrong) or 'finish'}")
    return Generation(row["text"], row["finish"], row["prompt_tokens"], row["completion_tokens"], row.get("logprob"))

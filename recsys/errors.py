"""Every error a user of the platform can cause. This module imports nothing.

Each message says what came, what was expected and what to do. The command line maps the classes to exit codes:
`ConfigError` 64, `DataError` 65, `RetryableError` 75.
"""


class RecsysError(Exception):
    """Base of every error that is the platform's own."""


class ConfigError(RecsysError):
    """A configuration cannot be used: unknown key, unknown name, contradicting values."""


class DataError(RecsysError):
    """Input data cannot be used: missing file or column, nothing left after quarantine, wrong encoding."""


class ImageError(DataError):
    """A picture that cannot be decoded, or that is beyond a limit (its item keeps its text)."""


class UnknownIdError(DataError):
    """An outside id (`user_id`, `item_id`) that the vocabulary does not hold."""

    def __init__(self, noun: str, ids: list[str], known: int) -> None:
        shown = ", ".join(repr(i) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        super().__init__(f"unknown {noun}: {shown}; the vocabulary holds {known} ids")
        self.noun = noun
        self.ids = ids


class LeakError(DataError):
    """What a model was fitted on holds validation, test or held-out interactions."""


class ArtifactError(RecsysError):
    """An artifact cannot be trusted or read: missing file, sha256 mismatch, unknown schema version."""


class SpaceMismatchError(ArtifactError):
    """Vectors of another embedding space, or of another vocabulary, were offered."""


class NonFiniteError(RecsysError):
    """A model or encoder produced NaN or infinity."""


class RetryableError(RecsysError):
    """Nothing is wrong with the input; trying again later may work (no progress, a lost worker, a busy store)."""

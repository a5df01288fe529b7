"""The one reader of a pickle: tensors only, of a known file only, in another process, once."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from recsys.artifacts.atomic import sha256_of
from recsys.errors import ArtifactError
from recsys.weights import torch_file
from recsys.weights.torch_file import load_torch_file

STATE = {"weight": torch.arange(6.0).reshape(2, 3).t(), "running_mean": torch.ones(2, dtype=torch.float64), "count": torch.tensor(7)}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    torch.save(STATE, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_the_floating_tensors_come_back_and_are_kept(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256_of(file)
    state = load_torch_file(file, digest)
    assert state.keys() == {"weight", "running_mean"}
    torch.testing.assert_close(state["weight"], STATE["weight"])
    monkeypatch.setattr(subprocess, "run", None)  # the second time nothing is converted
    file.unlink()
    torch.testing.assert_close(load_torch_file(file, digest)["running_mean"], STATE["running_mean"])
    (kept,) = (tmp_path / "cache").iterdir()
    (kept / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="no such file"):  # a damaged conversion is not used
        load_torch_file(file, digest)


def test_a_full_disk_is_no_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "store", lambda *parts: False)
    assert load_torch_file(file, sha256_of(file)).keys() == {"weight", "running_mean"}


def test_another_file_is_not_opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(ArtifactError, match="sha256 is .*, expected 0000"):
        load_torch_file(file, "0" * 64)


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_the_file_is_not_run(file: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2), "payload": Payload(tmp_path / "pwned")}, file)
    with pytest.raises(ArtifactError, match="not readable as tensors alone"):
        load_torch_file(file, sha256_of(file))
    assert not (tmp_path / "pwned").exists()

"""Runs, metrics and the model registry: the only module that imports mlflow, and only when it is used.

No global state of MLflow is touched: everything goes through a client bound to an explicit URI.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from mlflow import MlflowClient

URI_VARIABLE = "RECSYS_TRACKING_URI"
CHAMPION, CHALLENGER = "champion", "challenger"
BUNDLE_KEY_TAG, MANIFEST_HASH_TAG, BUNDLE_PATH_TAG = "recsys.bundle_key", "recsys.manifest_sha256", "recsys.bundle_path"
REPLACED_TAG, ROLLED_BACK_TAG = "recsys.replaced", "recsys.rolled_back"
"""The champion that a version took the place of; when and why a version was taken back."""
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_SQLITE = "sqlite:///"
_PARAMS_PER_CALL = 100
_PYFUNC_CODE = "from recsys.tracking import set_pyfunc_model\n\nset_pyfunc_model()\n"


def default_tracking_uri(root: Path = Path(".recsys")) -> str:
    """RECSYS_TRACKING_URI of the environment, else SQLite below `root`."""
    return os.environ.get(URI_VARIABLE) or f"{_SQLITE}{(root / 'mlflow.db').absolute()}"


@dataclass(frozen=True)
class RegisteredVersion:
    """One version in the registry. run_metrics: what its run logged last under each name. bundle_key: of the artifact."""

    name: str
    version: str
    run_id: str
    bundle_key: str
    manifest_hash: str
    run_metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ResolvedModel:
    """Where a registered bundle lies on this machine; not yet verified, the loader does that."""

    name: str
    version: str
    path: Path
    bundle_key: str


class Run:
    """One open run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nested mappings become `a.b`; values are cut at MLflow's limit of 6000 characters."""
        from mlflow.entities import Param

        flat = [Param(key, str(value)[:6000]) for key, value in flatten(params).items()]
        for start in range(0, len(flat), _PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=flat[start : start + _PARAMS_PER_CALL])

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """`ndcg@10` is logged as `ndcg_at_10`: MLflow refuses '@'."""
        self.log_history([metrics], first_step=step)

    def log_history(self, rows: Sequence[Mapping[str, float]], *, first_step: int = 1) -> None:
        """One row an epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(metric_name(name), float(value), now, first_step + i) for i, row in enumerate(rows) for name, value in row.items()]
        for start in range(0, len(values), 1000):
            self._client.log_batch(self.run_id, metrics=values[start : start + 1000])

    def log_files(self, path: Path, folder: str | None = None) -> None:
        """A file, or all files of a folder."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)


class Tracker:
    """Runs and registered models at one URI. Use from one process only (the driver)."""

    def __init__(self, uri: str, experiment: str = "recsys") -> None:
        self.uri = uri
        if (database := _database(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        self._client = _client(uri)
        self._experiment = experiment

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str] | None = None) -> Iterator[Run]:
        """The run ends FINISHED, or FAILED when the block raises."""
        run = Run(self._client, self._client.create_run(self._experiment_id(), run_name=name, tags=dict(tags or {})).info.run_id)
        try:
            yield run
        except BaseException:
            self._client.set_terminated(run.run_id, status="FAILED")
            raise
        self._client.set_terminated(run.run_id, status="FINISHED")

    def register(self, name: str, bundle: Path, *, run_id: str, tags: Mapping[str, str] | None = None) -> str:
        """Log the bundle into the run, behind a pyfunc shim, and make it the next version of `name`; gives the version.

        Raises:
            ArtifactError: `bundle` is not a whole bundle.
        """
        from recsys.artifacts.artifact import MANIFEST, Artifact
        from recsys.artifacts.atomic import sha256_of

        artifact = Artifact.open(bundle, kind="bundle")
        mlflow = _mlflow()
        with tempfile.TemporaryDirectory(prefix="recsys-register-") as temporary:
            code = Path(temporary) / "recsys_model.py"
            code.write_text(_PYFUNC_CODE, encoding="utf-8")
            model = Path(temporary) / "model"
            # Requirements stated: inferring them would import the whole model in another process.
            # MLflow resets the filters, so its advice on type hints can only be caught.
            with warnings.catch_warnings(record=True) as caught:
                mlflow.pyfunc.save_model(path=str(model), python_model=str(code), artifacts={"bundle": str(artifact.path)}, pip_requirements=["recsys"])
            for warning in caught:
                if "type hint" not in str(warning.message):
                    warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            self._client.log_artifacts(run_id, str(model), "model")
        source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
        all_tags = {
            **(tags or {}),
            BUNDLE_KEY_TAG: artifact.key,
            MANIFEST_HASH_TAG: sha256_of(artifact.path / MANIFEST),
            BUNDLE_PATH_TAG: f"artifacts/{artifact.path.name}",
        }
        try:
            self._client.create_registered_model(name)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return str(self._client.create_model_version(name, source, run_id=run_id, tags=all_tags).version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._client.set_registered_model_alias(name, alias, version)

    def champion(self, name: str) -> RegisteredVersion | None:
        return self.version_of(name, CHAMPION)

    def promote(self, name: str, version: str) -> None:
        """Make `version` the champion, and remember in its tags whose place it took. Doing it again changes nothing."""
        champion = self.champion(name)
        if champion is not None and champion.version == version:
            return
        if champion is not None:
            self.set_version_tags(name, version, {REPLACED_TAG: champion.version})
        self.set_alias(name, CHAMPION, version)

    def rollback(self, name: str, reason: str = "") -> tuple[str, str]:
        """Give the place of the champion back to the version that had it before; (version taken back, version that serves now).

        Raises:
            ConfigError: there is no champion, or none before it.
        """
        champion = self.champion(name)
        if champion is None:
            raise ConfigError(f"{name}: no champion in the registry {self.uri}; nothing to take back")
        before = champion.tags.get(REPLACED_TAG)
        if before is None:
            raise ConfigError(f"{name}: version {champion.version} is the first champion; there is none before it to go back to")
        self.resolve(f"models:/{name}/{before}")  # what cannot be fetched must not become the champion
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.set_version_tags(name, champion.version, {ROLLED_BACK_TAG: f"{stamp} {reason}".strip()})
        self.set_alias(name, CHAMPION, before)
        return champion.version, before

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)

    def find(self, name: str, tags: Mapping[str, str]) -> RegisteredVersion | None:
        """The newest version that carries all of `tags`; None when there is none."""
        found = [v for v in self._versions(name) if all(v.tags.get(key) == value for key, value in tags.items())]
        return self._registered(max(found, key=lambda v: int(v.version))) if found else None

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Oldest first."""
        return [self._registered(found) for found in sorted(self._versions(name), key=lambda v: int(v.version))]

    def file_of(self, version: RegisteredVersion, file: str) -> Path | None:
        """A file that the version's run logged, on this machine; None when there is none."""
        mlflow = _mlflow()
        folder, _, _ = file.rpartition("/")
        if not version.run_id or file not in {entry.path for entry in self._client.list_artifacts(version.run_id, folder or None)}:
            return None
        uri = f"{self._client.get_run(version.run_id).info.artifact_uri}/{file}"
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=self.uri))

    def version_of(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version that carries `alias`; None when the model or the alias does not exist yet."""
        mlflow = _mlflow()
        try:
            found = self._client.get_model_version_by_alias(name, alias)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return self._registered(found)

    def version(self, name: str, version: str) -> RegisteredVersion:
        """Raises ConfigError: no such version."""
        found = next((v for v in self._versions(name) if str(v.version) == version), None)
        if found is None:
            raise ConfigError(f"{name}: no version {version} in the registry {self.uri}")
        return self._registered(found)

    def resolve(self, uri: str) -> ResolvedModel:
        """See `resolve` of this module."""
        match = _MODEL_URI.fullmatch(uri)
        if match is None:
            raise ConfigError(f"model URI {uri!r}: expected models:/name@alias or models:/name/version")
        mlflow, name = _mlflow(), match["name"]
        try:
            if match["alias"]:
                found = self._client.get_model_version_by_alias(name, match["alias"])
            else:
                found = self._client.get_model_version(name, match["version"])
        except mlflow.exceptions.MlflowException:
            known = (
                ", ".join(sorted(f"{m.name} ({', '.join(f'@{a}' for a in m.aliases) or 'no alias'})" for m in self._client.search_registered_models()))
                or "none"
            )
            raise ConfigError(f"{uri}: not in the registry {self.uri}; registered models: {known}") from None
        inside = found.tags.get(BUNDLE_PATH_TAG)
        if inside is None:
            raise ArtifactError(f"{uri}: version {found.version} was not registered by this platform (no tag {BUNDLE_PATH_TAG})")
        try:
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=found.source, tracking_uri=self.uri))
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise ArtifactError(f"{uri}: the files of version {found.version} cannot be fetched from {found.source}: {error}") from None
        path = folder / inside
        self._check_manifest(path, found.tags.get(MANIFEST_HASH_TAG), uri)
        return ResolvedModel(name, str(found.version), path, found.tags[BUNDLE_KEY_TAG])

    def _versions(self, name: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _registered(self, found: Any) -> RegisteredVersion:
        metrics = dict(self._client.get_run(found.run_id).data.metrics) if found.run_id else {}
        tags = dict(found.tags)
        key, manifest = tags.get(BUNDLE_KEY_TAG, ""), tags.get(MANIFEST_HASH_TAG, "")
        return RegisteredVersion(found.name, str(found.version), found.run_id or "", key, manifest, metrics, tags)

    def _check_manifest(self, path: Path, expected: str | None, uri: str) -> None:
        """The manifest vouches for the files, the registry for the manifest."""
        from recsys.artifacts.artifact import MANIFEST
        from recsys.artifacts.atomic import sha256_of

        if not (path / MANIFEST).is_file():
            raise ArtifactError(f"{uri}: {path} has no {MANIFEST}; the registry's files were moved or deleted, run `publish` again")
        if expected != sha256_of(path / MANIFEST):
            raise ArtifactError(f"{uri}: {path / MANIFEST} is not the manifest that was registered (sha256 differs); run `publish` again")

    def _experiment_id(self) -> str:
        existing = self._client.get_experiment_by_name(self._experiment)
        if existing is not None:
            return str(existing.experiment_id)
        database = _database(self.uri)
        # A server knows its own place for files; a database file keeps them in a folder next to it.
        location = (database.parent / "mlflow-artifacts").absolute().as_uri() if database is not None else None
        return str(self._client.create_experiment(self._experiment, artifact_location=location))


def alias_of(uri: str) -> tuple[str, str] | None:
    """("name", "alias") of "models:/name@alias", which another version may carry tomorrow; None of anything else."""
    match = _MODEL_URI.fullmatch(uri)
    return (match["name"], match["alias"]) if match is not None and match["alias"] else None


def resolve(uri: str, tracking_uri: str | None = None) -> ResolvedModel:
    """Find "models:/name@alias" or "models:/name/version" and bring its bundle to this machine.

    Raises:
        ConfigError: malformed URI, no registry there, or no such model, alias or version.
        ArtifactError: the version's files are gone, or its manifest is not the registered one.
    """
    if _MODEL_URI.fullmatch(uri) is None:
        raise ConfigError(f"model URI {uri!r}: expected models:/name@alias or models:/name/version")
    where = tracking_uri or default_tracking_uri()
    database = _database(where)
    if database is not None and not database.is_file():
        raise ConfigError(f"{uri}: no registry at {where}; publish a model first (`recsys run CONFIG`) or set {URI_VARIABLE}")
    return Tracker(where).resolve(uri)


def set_pyfunc_model() -> None:
    """Called by the models-from-code file of a registered version: `mlflow.pyfunc.load_model` then works too.

    The pyfunc takes a frame with the columns `user_id` and optionally `k` (the greatest counts), and gives the recommendations' frame.
    """
    mlflow = _mlflow()

    base: Any = mlflow.pyfunc.PythonModel

    class BundleModel(base):  # type: ignore[misc]  # mlflow is imported lazily: its classes are Any here
        def load_context(self, context: Any) -> None:
            import recsys

            self.recommender = recsys.load(context.artifacts["bundle"])

        # Without type hints: MLflow would read them as a schema for its inputs, and warn of any it cannot use.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            users = [str(user) for user in model_input["user_id"]]
            k = int(model_input["k"].max()) if "k" in model_input.columns else 10
            return self.recommender.recommend(users=users, k=k).frame.to_pandas()

    mlflow.models.set_model(BundleModel())


def metric_name(name: str) -> str:
    """`ndcg@10` -> `ndcg_at_10`; other characters that MLflow refuses become `_`."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _database(uri: str) -> Path | None:
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def _client(uri: str) -> MlflowClient:
    client: MlflowClient = _mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)
    return client


def _mlflow() -> ModuleType:
    """Import quietly. The variables must stand before the import; what the user set stays."""
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    import mlflow.pyfunc

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow

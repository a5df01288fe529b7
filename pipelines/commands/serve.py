"""`recsys serve`: the scoring service, following the registry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.serving.config import ServiceConfig
    from recsys.serving.service import Service

TOKEN_VARIABLE = "RECSYS_TOKEN"
DEFAULT_MODEL = "models:/recsys-ml100k@champion"


def serve(
    model: Annotated[
        str, typer.Option("--model", help="models:/NAME@ALIAS is followed: another version is swapped in. models:/NAME/VERSION or a folder stays.")
    ] = DEFAULT_MODEL,
    root: Annotated[Path, typer.Option(help="Folder of artifacts, registry, feature store and new items.")] = Path(".recsys"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8080,
    config: Annotated[Path | None, typer.Option(help="YAML file of limits, deadlines and logs; docs/serving.md lists them.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value of the config; may be given often.")] = None,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="How often the registry is asked for another version.")] = 5.0,
    allow_remote: Annotated[bool, typer.Option(help="Allow a host that is not loopback without a token.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the champion over HTTP: a page at /, the API's description at /docs.

    With RECSYS_TOKEN set, callers send `Authorization: Bearer TOKEN`.
    """
    from recsys.serving.server import LOOPBACK_HOSTS, is_loopback, require_safe
    from recsys.serving.server import serve as run

    options = read_options(config, overrides)
    require_safe(host, token=options.token, allow_remote=allow_remote)
    if is_loopback(host) and not options.hosts and not allow_remote:
        # A web page elsewhere must not reach the service under a name of its own.
        options = options.model_copy(update={"hosts": LOOPBACK_HOSTS})
    run(open_service(model, root, options, poll_seconds), host=host, port=port, log_level=log_level)


def read_options(config: Path | None, overrides: list[str] | None) -> ServiceConfig:
    """Of the file, the overrides and the environment. The token comes from the environment alone: files are copied about."""
    from recsys.config import apply_overrides, read_yaml
    from recsys.serving.config import ServiceConfig

    values = apply_overrides({} if config is None else read_yaml(config), overrides or [])
    if "token" in values:
        raise ConfigError(f"the token does not belong into a file or a command line; set the variable {TOKEN_VARIABLE}")
    token = os.environ.get(TOKEN_VARIABLE)
    return ServiceConfig.parse({**values, **({"token": token} if token else {})}, source=str(config or TOKEN_VARIABLE))


def open_service(model: str, root: Path, options: ServiceConfig, poll_seconds: float) -> Service:
    """All parts below `root`: features, registry, new items and the model that served last."""
    from pipelines.services import online_features
    from recsys.serving.assembly import assemble
    from recsys.serving.bundle import load_bundle
    from recsys.serving.encoder_process import EncoderProcess
    from recsys.serving.model_source import BundleStore, RegistrySource, open_bundle
    from recsys.serving.recommender import Recommender
    from recsys.tracking import alias_of, default_tracking_uri, resolve

    uri, followed = default_tracking_uri(root), alias_of(model)
    source, store = None, None
    if followed is not None:
        source = RegistrySource(*followed, uri)
        store = BundleStore(root / "serving" / "models" / followed[0])
        bundle = open_bundle(source, store)
    elif model.startswith("models:"):
        found = resolve(model, uri)
        bundle = load_bundle(found.path, name=found.name, version=found.version, key=found.bundle_key)
    elif Path(model).is_dir():
        bundle = load_bundle(Path(model))
    else:
        raise ConfigError(f"{model!r} is neither a folder nor a registered model (models:/name@alias or models:/name/version)")
    encoder = EncoderProcess()
    service = assemble(
        Recommender(bundle, item_encoder=encoder),
        online_features(root),
        options,
        new_items=root / "serving" / "new_items" / bundle.name,
        source=source,
        store=store,
        item_encoder=encoder,
        poll_seconds=poll_seconds,
    )
    service.stops.append(encoder.close)
    return service

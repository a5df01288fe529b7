"""The command line, and the composition root: the only place that wires recsys, Ray, Feast and MLflow together."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.commands.a_llmrec import a_llmrec
from pipelines.commands.board import board
from pipelines.commands.cold_board import cold_board
from pipelines.commands.compare import compare
from pipelines.commands.embed import embed
from pipelines.commands.embedding_board import embedding_board
from pipelines.commands.explain import explain
from pipelines.commands.features import features
from pipelines.commands.fine_tune import fine_tune
from pipelines.commands.lite_llm import lite_llm
from pipelines.commands.pipeline import pipeline
from pipelines.commands.rollback import rollback
from pipelines.commands.serve import serve
from pipelines.commands.tag_board import tag_board
from recsys.errors import ConfigError, DataError, RecsysError, RetryableError

if TYPE_CHECKING:
    from recsys.serving.recommender import Recommender

EXIT_CONFIG, EXIT_DATA, EXIT_RETRY = 64, 65, 75
CLICK_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What typer raises for a wrong command line. It may carry a click of its own, so it is found through the one class that typer exports."""
DEFAULT_MODEL = "models:/recsys-ml100k@champion"

app = typer.Typer(
    name="recsys",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Recommendations from LLM item embeddings and collaborative signals.

    [bold]recsys run CONFIG[/] goes from raw data to a registered model, an index and a live scorer; what is done already is not done again.
    [bold]recsys init[/] writes a config for your own files. [bold]recsys doctor[/] checks this machine.

    Exit codes: 0 fine, 64 bad config, 65 bad data, 75 try again, 143 stopped by SIGTERM.""",
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, for example experiments/configs/ml-100k/default.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one value of the config; may be given often. Example: --set rank.training.epochs=20"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")]
Root = Annotated[Path, typer.Option(help="Folder of artifacts, registry and feature store.")]
ModelUri = Annotated[str, typer.Option("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION, or the folder of a bundle.")]


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    force: Annotated[list[str] | None, typer.Option(help="Run this stage again although its artifact exists; may be given often.")] = None,
    as_json: AsJson = False,
) -> None:
    """Go through every stage, from raw data to a live scorer. Finished stages are reused; a killed run resumes."""
    from pipelines.run import run_plan, show_result

    loaded = _load_config(config, overrides)
    console = Console(stderr=as_json)
    result = run_plan(loaded, console, quiet=as_json, force=force or [])
    if as_json:
        _print_json(result.to_json())
    else:
        show_result(result, console)


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show which stages would run, which are cached, and why. Nothing is run."""
    from pipelines.run import show_plan, survey

    statuses = survey(_load_config(config, overrides))
    if as_json:
        _print_json([{"step": s.step.name, "key": s.key, "cached": s.cached, "reason": s.reason} for s in statuses])
    else:
        show_plan(statuses, Console())


def _stage_command(stage: str, summary: str) -> None:
    @app.command(name=stage, help=f"{summary} Runs the stages that it needs first.", rich_help_panel="Single stages")
    def command(config: ConfigPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
        from pipelines.run import run_plan

        result = run_plan(_load_config(config, overrides), Console(stderr=as_json), quiet=as_json, last_stage=stage)
        if as_json:
            _print_json(result.to_json())


for _stage, _summary in {
    "ingest": "Read the raw files; quarantine bad rows.",
    "split": "Make the hashed splits.",
    "graph": "Build the graphs of `graph:`; fit their encoders.",
    "backbone": "Train the ID-only SASRec.",
    "rank": "Train the fused model.",
    "evaluate": "Rank the full catalogue with every model; write the report.",
    "publish": "Gate, register, index, materialise features, prove parity.",
}.items():
    _stage_command(_stage, _summary)
app.command(rich_help_panel="Single stages")(embed)


@app.command()
def recommend(
    user: Annotated[list[str] | None, typer.Option(help="A user_id; may be given often.")] = None,
    history: Annotated[str | None, typer.Option(help="item_ids separated by commas, oldest first: for someone never seen.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    model: ModelUri = DEFAULT_MODEL,
    root: Root = Path(".recsys"),
    as_json: AsJson = False,
) -> None:
    """Recommend items to users, or to a history."""
    if bool(user) == bool(history):
        raise ConfigError("give either --user or --history")
    recommender = _load_model(model, root)
    answer = recommender.recommend(users=user, k=k) if user else recommender.recommend(history=_ids(history), k=k)
    _show_frame(answer.frame, as_json)


@app.command()
def score(
    items: Annotated[str, typer.Option(help="Candidate item_ids, separated by commas.")],
    user: Annotated[str | None, typer.Option(help="A user_id.")] = None,
    history: Annotated[str | None, typer.Option(help="item_ids separated by commas, oldest first.")] = None,
    model: ModelUri = DEFAULT_MODEL,
    root: Root = Path(".recsys"),
    as_json: AsJson = False,
) -> None:
    """Score candidates for a user or a history. What cannot be scored gets null and the reason."""
    if bool(user) == bool(history):
        raise ConfigError("give either --user or --history")
    recommender = _load_model(model, root)
    frame = recommender.score(user, _ids(items)) if user else recommender.score(history=_ids(history), items=_ids(items))
    _show_frame(frame, as_json)


@app.command()
def doctor(root: Root = Path(".recsys"), as_json: AsJson = False) -> None:
    """Check the machine, the weights and the stores; say what to do."""
    from pipelines.doctor import examine, show

    checks = examine(root)
    if as_json:
        _print_json([check.to_json() for check in checks])
    else:
        show(checks, Console())
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


@app.command()
def init(
    interactions: Annotated[Path, typer.Option(help="CSV, TSV, JSONL or Parquet with one row an event.")],
    items: Annotated[Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet with one row an item; without it the model knows no text.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Map a column where the guess is wrong, e.g. user_id=reviewerID; may be given often.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model in the registry.")] = "my-recommender",
    output: Annotated[Path, typer.Option(help="The config file to write.")] = Path("recsys.yaml"),
    overwrite: Annotated[bool, typer.Option(help="Replace an existing config file.")] = False,
) -> None:
    """Write a commented config for your own files; the column mapping is guessed and shown."""
    from pipelines.init import write_config

    write_config(interactions, items, column or [], name, output, overwrite, Console())


app.command()(serve)
app.add_typer(pipeline, name="pipeline")
app.command()(rollback)
app.add_typer(features, name="features")
app.command(name="fine-tune", rich_help_panel="Single stages")(fine_tune)
app.command(rich_help_panel="Single stages")(explain)
app.command(rich_help_panel="Measuring")(board)
app.command(rich_help_panel="Measuring")(compare)
app.command(name="cold-board", rich_help_panel="Measuring")(cold_board)
app.command(name="embedding-board", rich_help_panel="Measuring")(embedding_board)
app.command(name="lite-llm", rich_help_panel="Measuring")(lite_llm)
app.command(name="a-llmrec", rich_help_panel="Measuring")(a_llmrec)
app.command(name="tag-board", rich_help_panel="Measuring")(tag_board)


def main() -> None:
    """Console script: a user's mistake becomes one line and an exit code, never a traceback."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        # Not in its own mode, the parser hands the code of a typer.Exit back in place of raising it.
        code = app(standalone_mode=False)
        if isinstance(code, int) and code:
            sys.exit(code)
    except typer.Exit as exit_request:
        sys.exit(exit_request.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        Console(stderr=True).print("[yellow]interrupted[/]; the same command resumes")
        sys.exit(130)
    except RecsysError as error:
        code = (
            EXIT_CONFIG
            if isinstance(error, ConfigError)
            else EXIT_DATA
            if isinstance(error, DataError)
            else EXIT_RETRY
            if isinstance(error, RetryableError)
            else 1
        )
        Console(stderr=True).print("[bold red]error[/]", end=" ")
        Console(stderr=True, markup=False, highlight=False, soft_wrap=True).print(str(error))
        sys.exit(code)
    except CLICK_ERROR as error:
        error.show()
        sys.exit(EXIT_CONFIG)


def _load_config(path: Path, overrides: list[str] | None) -> Any:
    from pipelines.config import RunConfig

    return RunConfig.read(path, overrides)


def _load_model(uri: str, root: Path) -> Recommender:
    import recsys
    from recsys.tracking import default_tracking_uri

    return recsys.load(uri, tracking_uri=default_tracking_uri(root))


def _ids(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _show_frame(frame: Any, as_json: bool) -> None:
    if as_json:
        _print_json(frame.to_dicts())
        return
    from rich.table import Table

    table = Table(*frame.columns)
    for row in frame.iter_rows():
        table.add_row(*("" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""Pages of measured results: the boards and the benchmarks as they stand in the repository, never retyped."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.docs import results

PARTS = {
    "board": "models",
    "ladder": "ladder",
    "embeddings": "embeddings",
    "cold": "cold items",
    "seeds": "seeds of the main job",
}
"""File of a board -> what it is called in the navigation; others keep their name."""


_WIDE = "---\nhide: [toc]\n---\n\n"


def write(root: Path, folder: Path) -> None:
    """root: of the repository."""
    boards = root / "experiments" / "boards"
    lines = [
        "# Boards",
        "",
        "Made of the records in `experiments/boards/` by `recsys board`, `recsys cold-board` and `recsys embedding-board`; copied here by `make docs`.",
        "What is not listed has not been measured. [How results are measured](../evaluation.md) says what each column means;",
        "each board states the commands that fill it, the commits and the threads of a training. [Results by method](methods.md) puts the same figures",
        "together by method.",
        "",
    ]
    for dataset in sorted(path for path in boards.iterdir() if path.is_dir()):
        named = sorted(dataset.glob("*.md"), key=lambda path: (list(PARTS).index(path.stem) if path.stem in PARTS else len(PARTS), path.stem))
        for path in named:
            text = path.read_text(encoding="utf-8")
            told = PARTS.get(path.stem, path.stem.replace("_", " "))
            name = f"{dataset.name}-{path.stem}.md"
            (folder / name).write_text(_WIDE + (text if text.startswith("# ") else f"# {dataset.name}: {told}\n\n{text}"), encoding="utf-8")
            lines.append(f"- {dataset.name}: [{told}]({name})")
    for path in sorted(boards.glob("*.md")):
        (folder / f"{path.stem}-record.md").write_text(_WIDE + path.read_text(encoding="utf-8"), encoding="utf-8")
        lines.append(f"- [{path.stem.replace('_', ' ')}]({path.stem}-record.md)")
    (folder / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "methods.md").write_text(_WIDE + results.page(boards), encoding="utf-8")
    timings = root / "benchmarks" / "results"
    (folder / "benchmarks.md").write_text(_benchmarks((timings / "README.md").read_text(encoding="utf-8")), encoding="utf-8")
    for picture in timings.glob("*.png"):
        shutil.copyfile(picture, folder / picture.name)


def _benchmarks(text: str) -> str:
    head = "\n\n".join(
        [
            "# Benchmarks",
            "Copied from `benchmarks/results/README.md` by `make docs`. Cores, Python and torch stand in each section. To repeat them, with the machine"
            " left alone:",
            "```sh\nmake bench-peers                       # once: the peers, in an environment of their own\nmake bench"
            "                             # all; RECSYS_DATA names the folder of the data sets\n"
            ".venv/bin/python -m benchmarks scaling  # one\n```",
        ]
    )
    return head + "\n\n" + text.partition("\n")[2].lstrip()

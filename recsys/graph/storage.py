"""A graph as files: `graph.safetensors` with its tensors and `graph.json` with what is no tensor. No pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from recsys.artifacts.atomic import read_json, write_bytes, write_json
from recsys.errors import ArtifactError

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

FORMAT = 1
_BETWEEN = "|"


def save_graph(data: HeteroData, folder: Path) -> None:
    facts: dict[str, Any] = {"format": FORMAT, "nodes": [[kind, int(data[kind].num_nodes)] for kind in data.node_types]}
    facts["edges"] = [list(kind) for kind in data.edge_types]
    facts |= {"split_hash": data.split_hash, "spaces": data.spaces}
    write_bytes(folder / "graph.safetensors", safetensors.torch.save(_tensors(data)))
    write_json(folder / "graph.json", facts)


def load_graph(folder: Path) -> HeteroData:
    """Raises ArtifactError: files missing, or written by another version."""
    from torch_geometric.data import HeteroData

    try:
        facts = read_json(folder / "graph.json")
        tensors = safetensors.torch.load((folder / "graph.safetensors").read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder}: no saved graph ({Path(error.filename).name} is missing)") from None
    if facts["format"] != FORMAT:
        raise ArtifactError(f"{folder}: graph format {facts['format']}, this code reads {FORMAT}")
    data = HeteroData()
    data.split_hash, data.spaces = facts["split_hash"], facts["spaces"]
    for kind, count in facts["nodes"]:  # a list: their order is that of their numbers in a flat graph
        data[kind].num_nodes = count
        if (features := tensors.get(f"x{_BETWEEN}{kind}")) is not None:
            data[kind].x = features
    for kind in map(tuple, facts["edges"]):
        data[kind].edge_index = tensors[_BETWEEN.join(("edge_index", *kind))]
        data[kind].edge_weight = tensors[_BETWEEN.join(("edge_weight", *kind))]
    return data


def graph_digest(data: HeteroData) -> str:
    """sha256 over nodes, edges, weights and features."""
    running = hashlib.sha256(repr(sorted((kind, int(data[kind].num_nodes)) for kind in data.node_types)).encode())
    for name, tensor in sorted(_tensors(data).items()):
        running.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        running.update(tensor.numpy().data)
    return running.hexdigest()


def _tensors(data: HeteroData) -> dict[str, torch.Tensor]:
    tensors = {f"x{_BETWEEN}{kind}": data[kind].x for kind in data.node_types if "x" in data[kind]}
    for kind in data.edge_types:
        for name in ("edge_index", "edge_weight"):
            tensors[_BETWEEN.join((name, *kind))] = data[kind][name]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}

"""Opens a workflow of ComfyUI as its editor saves it, and runs it: each node gets its links and what stands in it.

A workflow names the values of a node's widgets by their order alone. So here, as in the editor, they are given to the
inputs of the schema in order: the required ones first, and after a number that ComfyUI may count up, how it does so.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PREFIX = "FantasyID_"
_NUMBERS = {"INT": int, "FLOAT": (int, float)}
_AFTER_GENERATING = ("fixed", "increment", "decrement", "randomize")


@dataclass(frozen=True)
class Node:
    """One node of a workflow.

    Attributes:
        kind: Its id in ComfyUI.
        values: What stands in it, by input.
        links: Node and number of the output that an input comes from, by input.
    """

    kind: str
    values: dict[str, Any]
    links: dict[str, tuple[int, int]]


Plain = Callable[..., tuple[Any, ...]]
"""A node of ComfyUI's own, as far as a test needs it: given its widgets in their order, and its links by name."""


def open_workflow(path: Path, nodes: Mapping[str, Any], plain: Mapping[str, Plain]) -> dict[int, Node]:
    """Read a workflow, and check it against the nodes' schemas.

    Args:
        path: The .json file.
        nodes: Our nodes, by id without prefix.
        plain: ComfyUI's own nodes.

    Returns:
        The nodes by number, each after those that it needs.
    """
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert workflow["version"] == 0.4
    links = {
        number: (source, slot, target, place, kind) for number, source, slot, target, place, kind in workflow["links"]
    }
    by_number = {node["id"]: node for node in workflow["nodes"]}
    assert len(by_number) == len(workflow["nodes"])
    assert workflow["last_node_id"] == max(by_number)
    assert workflow["last_link_id"] == max(links)
    opened: dict[int, Node] = {}
    for node in sorted(workflow["nodes"], key=lambda node: node["order"]):
        connected = {place["name"]: links[place["link"]] for place in node["inputs"] if place.get("link") is not None}
        for name, (source, slot, target, place, kind) in connected.items():
            assert (target, node["inputs"][place]["name"]) == (node["id"], name)
            assert node["inputs"][place]["type"] in (kind, "*")
            out = by_number[source]["outputs"][slot]
            assert out["type"] == kind
            assert node["inputs"][place]["link"] in out["links"]
            assert source in opened, "the order is not that of the links"
        sources = {name: (source, slot) for name, (source, slot, *_) in connected.items()}
        values = _values_in_order(node["widgets_values"], node)
        ours = nodes.get(node["type"].removeprefix(PREFIX))
        if ours is not None:
            values = _values_of(node, ours.GET_SCHEMA(), set(sources))
        else:
            assert node["type"] in plain
        opened[node["id"]] = Node(node["type"], values, sources)
    return opened


def _values_in_order(values: list[Any], node: dict[str, Any]) -> dict[str, Any]:
    names = [place["name"] for place in node["inputs"] if "widget" in place]
    return dict(zip(names, values, strict=False))


def _values_of(node: dict[str, Any], schema: Any, linked: set[str]) -> dict[str, Any]:
    """What stands in one of our nodes, by input; checked as ComfyUI checks it."""
    ordered = sorted(schema.inputs, key=lambda asked: asked.optional)
    places = {place["name"]: place for place in node["inputs"]}
    assert [place["name"] for place in node["inputs"]] == [
        asked.id for asked in sorted(ordered, key=lambda asked: _has_widget(asked))
    ]
    assert [(out["name"], out["type"]) for out in node["outputs"]] == [
        (out.display_name, out.io_type) for out in schema.outputs
    ]
    left, values = list(node["widgets_values"]), {}
    for asked in ordered:
        assert places[asked.id]["type"] == asked.get_io_type()
        if not _has_widget(asked):
            assert asked.optional or asked.id in linked, f"{asked.id} is not connected"
            continue
        assert places[asked.id]["widget"] == {"name": asked.id}
        assert left, f"there is no value for {asked.id}"
        value = left.pop(0)
        check_value(asked, value)
        values[asked.id] = value
        if getattr(asked, "control_after_generate", None):
            assert left.pop(0) in _AFTER_GENERATING
    assert not left, f"{node['type']} has more values than widgets: {left}"
    return values


def _has_widget(asked: Any) -> bool:
    return asked.get_io_type() in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def check_value(asked: Any, value: Any) -> None:
    """Refuse what ComfyUI refuses in a widget."""
    kind = asked.get_io_type()
    if kind == "COMBO":
        assert value in asked.options, f"{asked.id}: {value!r} is none of {asked.options}"
    elif kind in _NUMBERS:
        assert isinstance(value, _NUMBERS[kind]), f"{asked.id}: {value!r}"
        assert not isinstance(value, bool), f"{asked.id}: {value!r}"
        assert asked.min <= value <= asked.max, f"{asked.id}: {value!r}"
    else:
        assert isinstance(value, bool if kind == "BOOLEAN" else str), f"{asked.id}: {value!r}"


def run_workflow(
    workflow: Mapping[int, Node],
    nodes: Mapping[str, Any],
    plain: Mapping[str, Plain],
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[str, tuple[Any, ...]]:
    """Run every node, as ComfyUI does: without gradients, in PyTorch's inference mode.

    Args:
        workflow: Of `open_workflow`.
        nodes: Our nodes, by id without prefix.
        plain: ComfyUI's own nodes.
        changes: What stands in nodes of a kind instead, by their ids and inputs.

    Returns:
        The outputs of the last node of each kind.
    """
    made: dict[int, tuple[Any, ...]] = {}
    with torch.inference_mode():
        for number, node in workflow.items():
            linked = {name: made[source][slot] for name, (source, slot) in node.links.items()}
            values = {**node.values, **changes.get(node.kind, {}), **linked}
            if node.kind in plain:
                made[number] = plain[node.kind](**values)
                continue
            made[number] = nodes[node.kind.removeprefix(PREFIX)].execute(**values).result
    return {node.kind: made[number] for number, node in workflow.items()}

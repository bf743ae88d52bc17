"""Residual blocks of a graph: sums of a value with what is computed from it, which may be left out."""

import operator
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import fx, nn

from supernet.networks.graph import where

SUMS = (operator.add, torch.add)


class Block(NamedTuple):
    """A sum `node` of its `shortcut` and of a branch that may be left out: `own` are the nodes that nothing else reads. All by name."""

    node: str
    shortcut: str
    branch: str
    own: frozenset[str]


class Fixed(NamedTuple):
    """What could not be made elastic. kind: `width` or `depth`."""

    kind: str
    what: str
    reason: str


def blocks_of(graph: fx.Graph, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> tuple[list[Block], list[Fixed]]:
    """Sums of a value with what is computed from it."""
    before: dict[fx.Node, set[fx.Node]] = {}
    for node in graph.nodes:
        before[node] = set().union(*(before[n] | {n} for n in node.all_input_nodes))
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(node.target, []).append(node)
    blocks, fixed = [], []
    for node in graph.nodes:
        is_sum = (node.op == "call_function" and node.target in SUMS) or (node.op == "call_method" and node.target == "add")
        sides = [a for a in node.args if isinstance(a, fx.Node) and a.name in shapes]
        if not is_sum or len(sides) != 2 or node.kwargs:
            continue
        shortcut, branch = sides if sides[0] in before[sides[1]] else reversed(sides)
        inner = {n for n in before[branch] if shortcut in before[n]} | {branch}
        own = _only_for(graph, inner, node)
        parametric = [n for n in inner if n.op == "call_module" and any(True for _ in model.get_submodule(n.target).parameters())]
        name = f"{where(node)} ({' + '.join(map(where, sides))})"
        if shortcut not in before[branch]:
            if all(any(m.op == "call_module" for m in before[side] | {side}) for side in sides):
                fixed.append(Fixed("depth", name, "neither side of the sum is computed from the other"))
        elif shapes[shortcut.name] != shapes[branch.name]:
            fixed.append(Fixed("depth", name, f"its sides have shapes {shapes[shortcut.name][1:]} and {shapes[branch.name][1:]}"))
        elif any(user not in inner and user is not node for n in inner for user in n.users):
            fixed.append(Fixed("depth", name, "something else reads what the branch computes"))
        elif any(m not in inner and m is not shortcut and m.name in shapes and m.op != "get_attr"
                 for n in inner for m in n.all_input_nodes):
            fixed.append(Fixed("depth", name, "its branch reads something else than the other side"))
        elif any(len(calls[n.target]) > 1 for n in parametric):
            fixed.append(Fixed("depth", name, "its branch shares a layer with another place"))
        elif parametric:
            blocks.append(Block(node.name, shortcut.name, branch.name, frozenset(n.name for n in own)))
    return blocks, fixed


def block_name(graph: fx.Graph, block: Block) -> str:
    """The layers of its branch, the first and the last."""
    names = [str(n.target) for n in graph.nodes if n.name in block.own and n.op == "call_module"]
    return names[0] if names[0] == names[-1] else f"{names[0]} to {names[-1]}"


def _only_for(graph: fx.Graph, inner: set[fx.Node], end: fx.Node) -> set[fx.Node]:
    """`inner`, and what nothing else reads."""
    own = set(inner)
    for node in reversed(graph.nodes):
        if node not in own and node is not end and node.op not in ("placeholder", "output") and node.users and set(node.users) <= own:
            own.add(node)
    return own

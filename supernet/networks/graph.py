"""A network's graph, traced by torch.fx with modules of `torch.nn` kept whole, in training and in evaluation."""

import inspect
import operator
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

DRAWING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
DRAWING_FUNCTIONS = (F.dropout, F.dropout2d, torch.dropout)
DRAWING_NAMES = ("torchvision.ops.stochastic_depth.stochastic_depth",)
IN_PLACE = {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul, operator.itruediv: operator.truediv,
            torch.relu_: torch.relu, F.relu_: torch.relu}


class UnreadableImages(ValueError):
    """A network cannot read images of a size. The message is one line."""


def graphs_of(model: nn.Module) -> dict[bool, fx.Graph]:
    """In training and in evaluation, with nodes of the same names. Raises ValueError, one line: forward has control flow that depends on
    the input, or computes another graph in training."""
    graphs = {mode: _graph(model.train(mode)) for mode in (True, False)}
    _check_alike(model, graphs)
    return graphs


def draws(node: fx.Node, modules: nn.Module) -> bool:
    """Whether a node draws random numbers in training, and is its own input in evaluation."""
    if node.op == "call_module":
        return type(modules.get_submodule(node.target)) in DRAWING
    return node.op == "call_function" and (node.target in DRAWING_FUNCTIONS or path_of(node.target) in DRAWING_NAMES)


def where(node: fx.Node) -> str:
    """A node in the user's words: the module or the value, as fx names it."""
    return str(node.target) if node.op in ("call_module", "get_attr") else node.name


def path_of(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', '')}"


def _graph(model: nn.Module) -> fx.Graph:
    tracer = fx.Tracer()
    try:
        graph = tracer.trace(model, concrete_args=_defaults(model))
    except Exception as error:  # what stops it is in the user's forward, and of any type
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if f"{Path(torch.__file__).parent}" not in frame.filename
                 and Path(frame.filename) != Path(__file__)]
        at = f" at {Path(where[-1].filename).name}, line {where[-1].lineno} ({where[-1].line})" if where else ""
        raise ValueError(f"the graph of {type(model).__name__} cannot be traced{at}: "
                         f"{' '.join(str(error).split())[:160] or type(error).__name__}") from error
    _tidied(graph, model)
    return graph


def _defaults(model: nn.Module) -> dict[str, Any]:
    """Arguments of forward behind the first, at their defaults. They are not the network's to be called with."""
    arguments = list(inspect.signature(model.forward).parameters.values())[1:]
    return {p.name: p.default for p in arguments if p.default is not p.empty}


def _tidied(graph: fx.Graph, model: nn.Module) -> None:
    """Without identities and what nobody reads, and without what changes its input: a block that is left out gives that on, to others who
    read it too."""
    for node in reversed(graph.nodes):
        if node.op not in ("placeholder", "output") and not node.users and node.target is not torch._assert:
            graph.erase_node(node)
    for node in graph.nodes:
        if node.op == "call_module" and type(model.get_submodule(node.target)) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.op == "call_function":
            node.target = IN_PLACE.get(node.target, node.target)
        elif node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            node.target = node.target.rstrip("_")
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}


def _check_alike(model: nn.Module, graphs: Mapping[bool, fx.Graph]) -> None:
    told = [[(node.op, node.name, str(node.target), [a.name for a in node.all_input_nodes]) for node in graph.nodes]
            for graph in graphs.values()]
    if told[0] != told[1]:
        differs = next((a or b for a, b in zip([*told[0], None], [*told[1], None]) if a != b), None)
        raise ValueError(f"{type(model).__name__} computes another graph in training than in evaluation (the first node that differs: "
                         f"{differs[1]}): leave heads out that training alone has")


def tensor_of(module: nn.Module, target: str) -> Tensor:
    """What a `get_attr` node names."""
    owner, _, name = target.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def called(node: fx.Node, modules: nn.Module, env: Mapping[str, Any]) -> Any:
    """What a node gives that is neither input nor output. env: by name, what nodes before it gave."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n.name])
    if node.op == "call_module":
        return modules.get_submodule(node.target)(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    if node.op == "get_attr":
        return tensor_of(modules, node.target)
    return node.target(*args, **kwargs)


@torch.no_grad()
def shapes_of(model: nn.Module, graph: fx.Graph, image: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Of the tensor that each node gives, for a batch of 2 images (C, H, W), in evaluation. Raises ValueError, one line: it cannot read
    such images, gives something else than a tensor, or computes something else than its graph."""
    like = next(model.parameters())
    x = torch.randn(2, *image, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        wanted = model(x.clone())
    except Exception as error:  # the layers' own words have many types
        raise UnreadableImages(f"{type(model).__name__} cannot read images of {'x'.join(map(str, image))}: "
                               f"{' '.join(str(error).split())[:160]}") from error
    if not isinstance(wanted, Tensor):
        raise ValueError(f"{type(model).__name__} must give one tensor, (N, classes), got {type(wanted).__name__}")
    try:
        single = model(x[:1].clone()).shape
    except Exception as error:
        raise ValueError(f"{type(model).__name__} must read batches of any size, and reads 2 images but not one: "
                         f"{' '.join(str(error).split())[:160]}") from error
    if single != (1, *wanted.shape[1:]):
        raise ValueError(f"{type(model).__name__} must give a row for each image: it gives {tuple(wanted.shape)} for 2 and {tuple(single)} "
                         "for one")
    env: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            env[node.name] = x
        elif node.op == "output":
            env[node.name] = env[node.args[0].name]
        else:
            env[node.name] = called(node, model, env)
    if not torch.equal(env["output"], wanted) and not (env["output"].isnan() & wanted.isnan()).any():
        raise ValueError(f"{type(model).__name__} changes tensors in place that are read again (a call whose result is not used), or "
                         "gives another result at each call: its graph computes something else")
    return {name: tuple(value.shape) for name, value in env.items() if isinstance(value, Tensor)}

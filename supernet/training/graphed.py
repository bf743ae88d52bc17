"""The bilevel step as two CUDA graphs, one for alpha and one for w: a GPU then takes a step at two launches instead of thousands.

What is captured is `Bilevel`'s own step, over tensors that stay where they are. A new batch, the noise of a draw and the learning rates
are copied into them; results are copied out. Only what is `static` can be captured (`check_graphable`).
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supernet.bilevel import ALPHA_NORM, TRAINING_LOSS, Bilevel, statistics_held
from supernet.hypergradients.base import is_static, name_of
from supernet.monitors.base import Monitor
from supernet.optim.flat import FlatDescent
from supernet.optim.optimizers import check_static, make_static
from supernet.relaxations.base import Noise, Relaxation, known_masks
from supernet.space import Mask
from supernet.tasks.base import Batch

Outputs = dict[str, Tensor]


class Graph:
    """A captured function; `outputs` hold the results of the last replay."""

    def __init__(self, graph: torch.cuda.CUDAGraph, outputs: Outputs):
        self._graph, self.outputs = graph, outputs

    def replay(self) -> None:
        self._graph.replay()

    def release(self) -> None:
        self._graph.reset()

    def nodes(self) -> int | None:
        """How many there are; None without the package cuda-python, which counts them."""
        try:
            from cuda.bindings import runtime
        except ImportError:
            return None
        error, _, number = runtime.cudaGraphGetNodes(self._graph.raw_cuda_graph(), numNodes=0)
        if error != runtime.cudaError_t.cudaSuccess:
            raise RuntimeError(f"the graph's nodes cannot be counted: {error}")
        return number


class Capturing:
    """How functions without arguments become graphs of one CUDA device. They share a pool of memory, since they never run together."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.pool: Any = None

    def warm_up(self, run: Callable[[], Outputs]) -> Outputs:
        """Runs it, where it will be captured."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = run()
        current.wait_stream(self.stream)
        return outputs

    def capture(self, run: Callable[[], Outputs], generators: Sequence[torch.Generator] = ()) -> Graph:
        """Captures it. It does not run, though it has been called: what it left on the host stays. generators: those that it draws from, on
        the device; each replay draws on, as a run would."""
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph(keep_graph=True)  # so that its nodes can be counted
        for generator in generators:
            graph.register_generator_state(generator)
        # thread_local: a thread of a loader may pin memory meanwhile
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            outputs = run()
        return Graph(graph, outputs)

    def settle(self) -> None:
        """Before one graph of several is released."""
        torch.cuda.synchronize(self.device)

    def forget(self) -> None:
        """Before all graphs are released."""
        self.settle()
        self.pool = None


class Half:
    """A function of tensors without arguments, `run`, over copies of its inputs: eager for the first `warm_up` calls, then captured, then
    replayed. Warming up lets libraries choose their kernels and optimizers make their state, neither of which can be captured; it
    takes the same steps as a replay, so that there is nothing to take back. `trained`: the parameters whose gradients `run` sets.
    generators: those that it draws from.
    """

    def __init__(self, run: Callable[[], Outputs], inputs: Sequence[Tensor], trained: Sequence[Tensor], warm_up: int,
                 generators: Sequence[torch.Generator] = ()):
        self.run, self.inputs, self.trained, self.warm_up, self.generators = run, inputs, trained, warm_up, generators
        self.calls = 0
        self.graph: Graph | None = None
        self.gradients: list[Tensor | None] = []

    def __call__(self, values: Sequence[Tensor], capturing: Capturing | None) -> Outputs:
        """`run` with these values; later calls leave what it returns alone. Raises ValueError where a shape is not that of the first."""
        shapes, first = [tuple(v.shape) for v in values], [tuple(v.shape) for v in self.inputs]
        if shapes != first:
            raise ValueError(f"compile=graph needs whole batches to have one shape, got {shapes} after {first}")
        for mine, value in zip(self.inputs, values):
            mine.copy_(value, non_blocking=True)
        self.calls += 1
        if capturing is None:
            return self.run()
        if self.calls <= self.warm_up:
            return capturing.warm_up(self.run)
        if self.graph is None:
            self.graph = capturing.capture(self.run, self.generators)
            self.gradients = [p.grad for p in self.trained]
        self.graph.replay()
        for p, g in zip(self.trained, self.gradients):
            if p.grad is not g:  # a batch of another size came between
                p.grad = g
        return {name: value.clone() for name, value in self.graph.outputs.items()}

    def drop(self, capturing: Capturing | None) -> None:
        """For good."""
        if self.graph is not None:
            capturing.settle()
            self.graph.release()

    def forget(self) -> None:
        """The next call warms up once more, the one after it captures anew."""
        if self.graph is not None:
            self.graph.release()
        self.graph, self.gradients = None, []
        self.calls = min(self.calls, self.warm_up - 1)


class Graphed:
    """`Bilevel.step`, captured: the same draws from the same generators, the same updates. The guard sees numbers after their update.

    Batches of `batch_size` go through the graphs, others (the last of an epoch) through `search` itself. A graph has the host's numbers
    (a temperature, a penalty's weight, which weights are trained) burnt in: `refresh`, called before every epoch, forgets graphs where one
    has changed. Learning rates may change at every step. No optimizer's state may be loaded after the first step.

    Where draws run some of the ops alone, each set of ops that is drawn has graphs of its own, captured when it is drawn the
    `warm_up + 1`th time; the `kept` sets that were drawn last are remembered. That pays where few sets are drawn: of a small space, or
    of alphas that are all but decided.

    capturing: None runs the functions as they are, on any device: for tests.
    """

    def __init__(self, search: Bilevel, *, batch_size: int, capturing: Capturing | None, warm_up: int = 3, kept: int = 0):
        if warm_up < 2:
            raise ValueError(f"warm_up must be at least 2, so that a captured alpha step finds the momenta of w, got {warm_up}")
        for reason in refusals(search, kept):
            raise ValueError(reason)
        self.search, self.batch_size, self.capturing, self.warm_up = search, batch_size, capturing, warm_up
        self.sampled, self.kept = not search.relaxation.static, max(1, kept)
        search.net_draws = False
        self.halves: dict[str, dict[Hashable, Half]] = {"alpha": {}, "w": {}}  # by set of ops, that drawn last at the end
        self._inputs: dict[str, list[Tensor]] = {}
        self._numbers: list[Any] = []

    def refresh(self) -> None:
        """To be called once the numbers of an epoch are set."""
        numbers = host_numbers(self.search)
        if numbers != self._numbers:
            self._numbers = numbers
            self.release()

    def release(self) -> None:
        """Frees the graphs and their memory; further steps warm up once and capture anew."""
        if self.capturing is not None:
            self.capturing.forget()
        for half in self.all_halves():
            half.forget()

    def step(self, train_batch: Batch, val_batch: Batch | None) -> Outputs:
        """As `Bilevel.step`."""
        search = self.search
        if val_batch is not None and search.alpha:
            noise = search.relaxation.noise(search.generators["alpha"])
            if self._is_whole(train_batch) and self._is_whole(val_batch):
                values, names = [*train_batch, *val_batch, *noise.values()], tuple(noise)
                half = self._half("alpha", noise, values, lambda t: self._alpha(t[0:2], t[2:4], dict(zip(names, t[4:]))), search.alpha)
                search.guard(ALPHA_NORM, half(values, self.capturing)["norm"], val_batch)
            else:
                search.alpha_step(train_batch, val_batch, noise)
        noise = search.relaxation.noise(search.generators["alpha"])
        if not self._is_whole(train_batch):
            return search.w_step(train_batch, search.draw_for_w(train_batch, noise))
        values, names = [*train_batch, *noise.values()], tuple(noise)
        half = self._half("w", noise, values, lambda t: self._w(t[0:2], dict(zip(names, t[2:]))), search.w)
        stats = half(values, self.capturing)
        search.guard(TRAINING_LOSS, stats.pop("to guard"), train_batch)
        return stats

    def nodes(self) -> dict[str, int | None]:
        """Of each half, how many nodes its graph has (`Graph.nodes`); where there are several, that of the set drawn last."""
        return {name: half.graph.nodes() for name, halves in self.halves.items() for half in halves.values() if half.graph is not None}

    def all_halves(self) -> list[Half]:
        return [half for halves in self.halves.values() for half in halves.values()]

    def _is_whole(self, batch: Batch) -> bool:
        return len(batch[1]) == self.batch_size

    def _half(self, name: str, noise: Noise, values: Sequence[Tensor], run: Callable[[Sequence[Tensor]], Outputs],
              trained: Sequence[Tensor]) -> Half:
        search, halves = self.search, self.halves[name]
        if not self._inputs:  # later than a checkpoint is loaded
            for optimizer in (search.w_optimizer, search.alpha_optimizer):
                if optimizer is not None:
                    make_static(optimizer)
        if name not in self._inputs:
            self._inputs[name] = [v.to(trained[0].device, copy=True) for v in values]
        inputs, masks = self._inputs[name], self._masks(noise)
        # A virtual step tells weights that have a momentum from those that have none yet.
        drawn = (masks, tuple(p in search.w_optimizer.state for p in search.w)) if self.sampled else None
        if drawn not in halves:
            if len(halves) >= self.kept:
                halves.pop(next(iter(halves))).drop(self.capturing)
            halves[drawn] = Half(lambda: self._knowing(masks, lambda: run(inputs)), inputs, trained, self.warm_up)
        halves[drawn] = halves.pop(drawn)
        return halves[drawn]

    @torch.no_grad()
    def _masks(self, noise: Noise) -> tuple[Mask, ...]:
        """Which ops a draw runs, by kind; nothing where it runs all."""
        return tuple(w.active for w in self.search.relaxation.weights(noise).values()) if self.sampled else ()

    def _knowing(self, masks: tuple[Mask, ...], run: Callable[[], Outputs]) -> Outputs:
        if not masks:
            return run()
        with known_masks(masks):
            return run()

    def _alpha(self, train_batch: Batch, val_batch: Batch, noise: Noise) -> Outputs:
        grads, norm = self.search.alpha_gradient(train_batch, val_batch, noise)
        self.search.alpha_update(grads)
        return {"norm": norm}

    def _w(self, train_batch: Batch, noise: Noise) -> Outputs:
        loss, stats, _ = self.search.w_loss(train_batch, self.search.draw_for_w(train_batch, noise))
        self.search.w_update(loss)
        return {"to guard": loss.detach(), **stats}


def host_numbers(search: Bilevel) -> list[Any]:
    """What a step may read from the host: plain attributes of the network's and the relaxation's modules and of the penalties, the
    options of the optimizers but the learning rate, and which parameters are trained."""
    plain = (bool, int, float, str, tuple, type(None))
    owners: list[object] = [*search.net.modules(), *search.relaxation.modules(), *search.penalties]
    found = [(name, value) for owner in owners for name, value in vars(owner).items() if type(value) in plain]
    for optimizer in (search.w_optimizer, search.alpha_optimizer):
        groups = [] if optimizer is None else optimizer.param_groups
        found += [(name, value) for group in groups for name, value in group.items() if type(value) in plain and name not in MADE_STATIC]
    return [*found, *(p.requires_grad for p in (*search.w, *search.alpha))]


MADE_STATIC = {"lr", "fused", "foreach", "capturable"}  # what `make_static` changes


def refusals(search: Bilevel, kept: int = 0) -> Iterable[str]:
    """Why a graph cannot hold a search's step, a line for each reason. kept: as of `Graphed`; 0 where draws are to run all ops."""
    refused = [m for m in search.relaxation.modules() if isinstance(m, Relaxation) and not (m.static or (kept and m.static_by_draw))]
    if refused:  # a wrapper is refused for what it holds
        yield _line(f"{type(refused[-1]).__name__}, in whose draws the host takes part (sampled paths, perturbed weights, decisions)")
    elif not search.relaxation.static and type(search.w_optimizer) is torch.optim.SGD and type(search.descend) is not FlatDescent:
        yield (f"sampled_graphs={kept} needs flat_weights=true: PyTorch's static step of SGD cannot take first steps together with later "
               "ones")
    if not search.alpha:
        yield _line("a search without architecture parameters, whose paths are sampled")
    if not is_static(search.hypergradient):
        yield _line(f"the hypergradient {name_of(search.hypergradient)}, which differentiates twice or draws anew")
    for penalty in search.penalties:
        if not penalty.static:
            yield _line(f"the penalty {type(penalty).__name__}, which copies from the host or keeps a state")
    for added in search.w_penalties:
        yield _line(f"the penalty {type(added).__name__} on the step of w, which adds to its gradients")
    if search.passes is not None:
        yield _line(f"{type(search.passes).__name__}, whose steps run several architectures")
    if search.task.streams:
        yield _line("a task whose batches go on from one another")
    for optimizer in (search.w_optimizer, search.alpha_optimizer):
        if optimizer is not None:
            try:
                check_static(optimizer)
            except ValueError as error:
                yield _line(f"this optimizer: {error}")


def check_graphable(search: Bilevel, monitors: Iterable[Monitor], example: Tensor, kept: int = 0) -> None:
    """Raises ValueError, one line, where a graph cannot hold the search's step. example: one input of the network, which is called.
    kept: as of `Graphed`."""
    for reason in refusals(search, kept):
        raise ValueError(reason)
    for monitor in monitors:
        if type(monitor).after_step is not Monitor.after_step:
            raise ValueError(_line(f"a step with the monitor {type(monitor).__name__}, which acts in it"))
        if monitor.keeps:
            raise ValueError(_line(f"the monitor {type(monitor).__name__} with retry, which loads the optimizers' states anew"))
    check_draws_nothing(search.net, search, torch.cat([example, example]))


@torch.no_grad()
def check_draws_nothing(net: nn.Module, search: Bilevel, x: Tensor) -> None:
    """Raises ValueError where a training forward draws (drop path, dropout, noise ops): without a generator it refuses."""
    with statistics_held(search.norms):
        training = net.training
        try:
            net.train()(x, search.relaxation.mean(), generator=None)
        except ValueError as error:
            raise ValueError(_line(f"this network ({error})")) from error
        finally:
            net.train(training)


def _line(what: str) -> str:
    return f"compile=graph cannot hold {what}: pass compile=none"

"""Zero-cost proxies: scores of a network at initialisation, from one batch and no training.

As Abdelfattah et al. 2021 ("Zero-cost proxies for lightweight NAS", Sec. 3.2) apply them to architectures. Each is a function of a
network, a batch and a task, with a yaml in conf/proxy; higher is meant to be better.
"""

import math
import random
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ops.kernels import on_plain_path
from ops.op import Op, ReLU
from supernet.errors import Mendable, UsageError
from supernet.evaluators.base import Offer, SearchEvaluator
from supernet.genotype import Genotype
from supernet.networks.measure import multiply_adds_an_item, parameters
from supernet.networks.stacked import batch_norms
from supernet.ranges import Range, ranged
from supernet.tasks.base import Batch, Task
from supernet.trials import Evaluation

Proxy = Callable[[nn.Module, Batch, Task], float]
RELUS = (F.relu, F.relu6)  # what makes codes


class ProxyError(Mendable, TypeError):
    """A proxy gives something else than a number. The message is one line."""


def synflow(net: nn.Module, batch: Batch, task: Task) -> float:
    """Sum over weights of |w dR/dw|, R the sum of the outputs for an input of ones with all weights replaced by their absolute values
    and batch norms left out (Tanaka et al. 2020, eq. 1 to 3; Abdelfattah et al. 2021). Biases do not count. In float64: values
    reach 1e50."""
    x = torch.ones_like(batch[0][:1], dtype=torch.float64)
    weights = [p for p in net.parameters() if p.dim() > 1]
    with _restored(net), _without_norms(net), on_plain_path():
        net.double().eval()
        with torch.no_grad():
            for p in net.parameters():
                p.abs_()
        grads = torch.autograd.grad(net(x, generator=torch.Generator(x.device)).sum(), weights, allow_unused=True)
        return sum((p * g).abs().sum().item() for p, g in zip(weights, grads) if g is not None)


def naswot(net: nn.Module, batch: Batch, task: Task) -> float:
    """log |det K| of the Hamming kernel of ReLU codes, K_ij = number of ReLUs on which images i and j agree (Mellor et al. 2021, eq. 2;
    official code: summed over layers, batch norms by the batch's statistics). -inf where two images have the same codes, or there is no
    ReLU.

    Published networks apply a ReLU in each op; here ops that read one node share it, and it counts once for each of them. So the published
    values of NAS-Bench-201 are met (Spearman 0.996 over 100 cells; 0.89 to 0.92 if it counted once).
    """
    outputs: list[Tensor] = []
    readers: dict[int, int] = {}  # by the identity of a ReLU's output: how many ops begin with it

    def count(body: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        readers[id(inputs[0])] = readers.get(id(inputs[0]), 0) + 1

    begin = [m for m in net.modules() if isinstance(m, Op) and m.prefix == ReLU() and m.body is not None]
    handles = [op.body.register_forward_pre_hook(count) for op in begin]
    try:
        with _restored(net), torch.no_grad(), on_plain_path(), _Watch(RELUS, outputs.append):
            net.train()(batch[0], generator=torch.Generator(batch[0].device))
    finally:
        for handle in handles:
            handle.remove()
    if not outputs:
        return -float("inf")
    kernel = torch.zeros(len(batch[0]), len(batch[0]), dtype=torch.float64)
    for output in outputs:
        on = (output > 0).flatten(1).double().cpu()
        kernel += readers.get(id(output), 1) * (on @ on.T + (1 - on) @ (1 - on).T)
    return torch.linalg.slogdet(kernel).logabsdet.item()


def grad_norm(net: nn.Module, batch: Batch, task: Task) -> float:
    """Sum over weights of the Euclidean norm of the loss's gradient (Abdelfattah et al. 2021, Sec. 3.2.1)."""
    return sum(g.norm().item() for _, g in _gradients(net, batch, task))


def snip(net: nn.Module, batch: Batch, task: Task) -> float:
    """Sum of |w dL/dw| (Lee et al. 2019, eq. 4, summed as by Abdelfattah et al. 2021)."""
    return sum((w * g).abs().sum().item() for w, g in _gradients(net, batch, task))


def jacob_cov(net: nn.Module, batch: Batch, task: Task) -> float:
    """-sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlation matrix of the images' input gradients, k = 1e-5 (Mellor
    et al. 2020, eq. 4; the gradient is that of the sum of the outputs)."""
    with _restored(net):
        x = batch[0].detach().clone().requires_grad_()
        (jacobian,) = torch.autograd.grad(net.train()(x, generator=torch.Generator(x.device)).sum(), x, allow_unused=True)
    if jacobian is None:
        return -float("inf")  # no path from the images to the output
    rows = jacobian.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    norms = rows.norm(dim=1, keepdim=True)
    if (norms == 0).any():
        return -float("inf")  # an image without influence: its correlations are not defined
    rows = rows / norms
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp(min=0) + 1e-5
    return -(values.log() + 1 / values).sum().item()


def num_parameters(net: nn.Module, batch: Batch, task: Task) -> float:
    return float(parameters(net))


def num_multiply_adds(net: nn.Module, batch: Batch, task: Task) -> float:
    """Of one image."""
    return float(multiply_adds_an_item(net, batch[0][:1]))


class ZeroCost:
    """An evaluator: builds the network of a genotype by `make` (initialised alike for all of them) and scores it by `proxies`, by name."""

    def __init__(self, make: Callable[[Genotype], nn.Module], batch: Batch, task: Task, proxies: Mapping[str, Proxy]):
        self.make, self.batch, self.task, self.proxies = make, batch, task, proxies

    def __call__(self, genotype: Genotype) -> dict[str, float]:
        """Raises ProxyError."""
        net = self.make(genotype)
        return {name: _number(name, proxy(net, self.batch, self.task)) for name, proxy in self.proxies.items()}


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float):
        shape = f" {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        raise ProxyError(f"proxy {name} must return a number (of a tensor its .item()), got {type(value).__name__}{shape}")
    return float(value)


def _gradients(net: nn.Module, batch: Batch, task: Task) -> list[tuple[Tensor, Tensor]]:
    """Of all weights with more than one axis (convolutions and products; no norms, no biases), with the loss in training mode."""
    weights = [p for p in net.parameters() if p.dim() > 1]
    with _restored(net):
        net.train()
        grads = torch.autograd.grad(task(net, batch, generator=torch.Generator(batch[0].device)).loss, weights, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(weights, grads) if g is not None]


@contextmanager
def _restored(net: nn.Module) -> Iterator[None]:
    """Afterwards the network is as before: values, dtype and mode."""
    training = net.training
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    dtype = next(net.parameters()).dtype
    try:
        yield
    finally:
        net.to(dtype).train(training)
        net.load_state_dict(kept)


@contextmanager
def _without_norms(net: nn.Module) -> Iterator[None]:
    """Within, batch norms hand on what they are given."""
    norms = batch_norms(net)
    for norm in norms:
        norm.forward = lambda x, scale=None: x if scale is None else x * scale  # shadows the method of this one module
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Watch(TorchFunctionMode):
    """Within, `see` gets every result of `functions`."""

    def __init__(self, functions: Collection[Callable[..., Tensor]], see: Callable[[Tensor], object]):
        super().__init__()
        self.functions, self.see = functions, see

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in self.functions:
            self.see(result)
        return result


@ranged
class Proxies(SearchEvaluator):
    """The proxies by name for the trials of a search (`searcher=...`), of the network of each architecture alone, initialised alike, on the
    first `batch` validation images.

    Several have a `vote` as well: the mean of what each gives, in units of its own spread. For this a value v becomes sign(v) log(1 +
    |v|), which keeps the order and bounds what the largest ones weigh, and is standardised by mean and standard deviation over `voters`
    random architectures. So a vote needs no ranks among those that are compared, and is the same whoever else was evaluated. Raises
    UsageError: there are fewer images.
    """

    def __init__(self, offer: Offer, *, proxies: Mapping[str, Callable[..., Any]], batch: Annotated[int, Range(2, 65_536)] = 64,
                 voters: Annotated[int, Range(2, 10_000)] = 20):
        if not proxies:
            raise UsageError("evaluator.proxies must name proxies, at least one, got none")
        self.offer, self.proxies, self.voters = offer, dict(proxies), voters
        self.score = ZeroCost(offer.network, first_items(offer.loaders.val_eval, batch, "evaluator.batch"), offer.task, self.proxies)
        self.batch, votes = batch, len(self.proxies) > 1
        self.gives = frozenset({*self.proxies, *(["vote"] if votes else [])})
        self.images_before = voters * batch if votes else 0

    def __call__(self, genotype: Genotype, fidelity: float = 1.0) -> Evaluation:
        if fidelity != 1:
            raise ValueError(f"a proxy trains nothing, so that a share of {fidelity:g} of a training means nothing")
        self.offer.working()
        found = self.score(genotype)
        if len(self.proxies) > 1:
            found["vote"] = self._vote(found)
        return Evaluation(found, images=self.batch)

    def _vote(self, found: Mapping[str, float]) -> float:
        return sum((compressed(found[name]) - mean) / spread for name, (mean, spread) in self._scales.items()) / len(self.proxies)

    @cached_property
    def _scales(self) -> dict[str, tuple[float, float]]:
        """Mean and spread of each over random architectures; what does not differ there tells nothing, and has an infinite spread."""
        rng, values = random.Random(f"{self.offer.seed}/voters"), {name: [] for name in self.proxies}
        for _ in range(self.voters):
            self.offer.working()
            for name, value in self.score(self.offer.space.sample(rng)).items():
                if math.isfinite(value):
                    values[name].append(compressed(value))
        return {name: scale(known) for name, known in values.items()}


def compressed(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


def scale(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; an infinite one where there is none."""
    if len(values) < 2:
        return 0.0, math.inf
    return statistics.fmean(values), statistics.stdev(values) or math.inf


def first_items(loader: Any, size: int, option: str) -> Batch:
    """The first `size` images of a part as one batch. Raises UsageError: it has fewer."""
    batches, have = [], 0
    for batch in loader:
        batches.append(batch)
        have += len(batch[0])
        if have >= size:
            break
    loader.restart()
    if have < size:
        raise UsageError(f"{option} must be at most the {have} validation images, got {size}")
    images, labels = (torch.cat(part)[:size] for part in zip(*batches))
    return images, labels

"""The ways to compute that are compared on a GPU: who computes, in which precision, captured or not.

A new alternative is one entry of `VARIANTS`; the parts `networks`, `graphs`, `speed` and `determinism` take it from there. What cannot be
captured, or is not installed, is skipped with its reason.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.gpu.checks import Skipped
from ops import kernels
from supernet.bilevel import Bilevel
from supernet.optim.flat import FlatDescent
from supernet.runs.device import precision, prepare


def as_made(search: Bilevel) -> None:
    """A search is used as it is."""


def flat(search: Bilevel) -> None:
    """Its weights descend in one buffer."""
    search.descend = FlatDescent(search.w_optimizer)


@dataclass(frozen=True)
class Variant:
    """backend: as `ops.kernels.use` takes it. network: options of a space's network. w_optimizer: makes the optimizer of w from parameters
    and options. change: changes a search once it is made. final: whether a final network has it too. options: of the command line, what
    the other fields do not say."""

    name: str
    about: str
    backend: str = "plain"
    channels_last: bool = True
    amp: str = "none"
    tf32: bool = False
    graph: bool = False
    network: Mapping[str, Any] = field(default_factory=dict)
    w_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    change: Callable[[Bilevel], None] = as_made
    final: bool = True
    options: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether products are of float32."""
        return self.amp == "none" and not self.tf32

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @contextmanager
    def computing(self, device: torch.device, deterministic: bool = False) -> Iterator[None]:
        """Within, this process computes so. Raises Skipped: the backend is not here."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
        try:
            try:
                kernels.use(self.backend, device=device.type)
            except ValueError as error:
                raise Skipped(str(error)) from error
            prepare(device, threads=None, deterministic=deterministic, tf32=self.tf32)
            yield
        finally:
            kernels.use("plain")
            torch.use_deterministic_algorithms(False)
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]

    def context(self, device: torch.device) -> Callable[[], Any]:
        return precision(self.amp, device)


PLAIN = Variant("plain", "PyTorch's operations, NCHW, float32", channels_last=False)
VARIANTS = (
    PLAIN,
    Variant("channels_last", "the same in channels_last"),
    Variant("tf32", "products in TF32", tf32=True),
    Variant("bf16", "forward passes in bf16 (amp=bf16)", amp="bf16"),
    Variant("native", "Triton kernels (backend=native)", backend="native"),
    Variant("native_bf16", "Triton kernels in bf16", backend="native", amp="bf16"),
    Variant("graph", "captured steps (compile=graph)", graph=True, final=False),
    Variant("graph_tf32", "captured steps, products in TF32", graph=True, tf32=True, final=False),
    Variant("graph_bf16", "captured steps in bf16", graph=True, amp="bf16", final=False),
    Variant("graph_native", "captured steps of Triton kernels", graph=True, backend="native", final=False),
    Variant("graph_native_bf16", "captured steps of Triton kernels in bf16", graph=True, backend="native", amp="bf16", final=False),
    Variant("packed", "alike ops of a node in few large calls (backend=packed)", backend="packed"),
    Variant("merged", "the same, depthwise and 1x1 as one dense convolution (backend=merged)", backend="merged"),
    Variant("graph_packed", "captured steps of packed ops", graph=True, backend="packed", final=False),
    Variant("graph_merged", "captured steps of merged ops", graph=True, backend="merged", final=False),
    Variant("flat", "weights, gradients and momenta in one buffer each (flat_weights=true), Triton kernels", backend="native", change=flat,
            final=False, options=("flat_weights=true",)),
    Variant("graph_flat", "the same, captured", graph=True, backend="native", change=flat, final=False, options=("flat_weights=true",)),
)
BY_NAME = {variant.name: variant for variant in VARIANTS}

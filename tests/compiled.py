"""Compiles the Triton kernels for an H100 or H200 on a machine without one: `python -m tests.compiled` (not with TRITON_INTERPRET=1).

Every launch ends before it would reach the device. Prints a line for each variant: registers and bytes of stack a thread. What the
functions return is not defined.
"""

import itertools
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ops.kernels import Norm
from ops.kernels import triton_kernels as fused


class Absent:
    """The driver of a GPU that is not there. capability: ten times its major version and the minor one."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0


def resources(cubin: bytes) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        printed = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    (used,), (stack,) = (re.findall(pattern, printed) for pattern in (r"REG:(\d+)", r"STACK:(\d+)"))
    return f"{used} registers, {stack} bytes of stack"


def compile_only(capability: int = 90) -> None:
    driver.set_active(Absent(capability))
    run, seen = JITFunction.run, set()

    def compiled(self: JITFunction, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        if kernel.hash not in seen:
            seen.add(kernel.hash)
            print(f"{self.fn.__module__}.{self.fn.__name__}: {resources(kernel.asm['cubin'])}", flush=True)
        return kernel

    JITFunction.run = compiled


def leaf(*shape: int) -> torch.Tensor:
    return torch.zeros(shape).requires_grad_()


def call_everything(channels: int, dtype: torch.dtype) -> None:
    x = leaf(4, channels, 32, 32).detach().to(dtype, memory_format=torch.channels_last).requires_grad_()
    kinds = [(3, 1), (3, 1), (5, 1), (5, 1), (3, 2), (5, 2)]
    depthwise, pointwise = [leaf(channels, 1, k, k) for k, _ in kinds], [leaf(channels, channels, 1, 1) for _ in kinds]
    weight, bias, alpha = leaf(channels), leaf(channels), leaf(14)
    for stride in (1, 2):
        ys = fused.separable_many([x] * 6, depthwise, pointwise, stride=stride, dilations=[d for _, d in kinds], norms=[None] * 6)
        mean, variance = fused.moments_many(ys)
        norms = [Norm(mean[m], variance[m]) for m in range(6)]
        zs = fused.separable_many(ys[:4], depthwise[:4], pointwise[:4], dilations=[1] * 4, norms=norms[:4])
        parts = [fused.max_pool(x, 3, stride), *itertools.islice(itertools.cycle(ys + zs), 13)]
        out = fused.mix(parts, [norms[i % 6] if i % 7 < 6 else None for i in range(14)], list(alpha))
        torch.autograd.grad(out.sum(), [x, alpha, *depthwise, *pointwise])
    for by_batch in (True, False):
        norm = Norm(mean[0], variance[0], by_batch, weight, bias)
        y = fused.separable(x, depthwise[0], pointwise[0], norm=norm)
        torch.autograd.grad(fused.mix([y, y], [norm, None], [None, alpha[0]]).sum(), [x, alpha, weight, bias, depthwise[0]])


if __name__ == "__main__":
    compile_only()
    for channels, dtype in ((16, torch.float32), (36, torch.bfloat16)):
        call_everything(channels, dtype)

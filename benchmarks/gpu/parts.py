"""The parts, in order of worth: what each does, how long it may take, and which module does it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

WHOLE_S = 480.0  # of which the parts' limits are shares: eight minutes


@dataclass(frozen=True)
class Part:
    """module: of `package`, with `run(bench, report)`. limit_s: of a whole of eight minutes; what a part leaves goes to those after it.
    rest: the share of what is left at its turn, for parts that can use any time, in place of a limit. least_s: with less left it is not
    begun. stall_s: without a result for so long it hangs. env: of its process, where that must be known before it starts."""

    name: str
    module: str
    about: str
    limit_s: float = 0.0
    rest: float = 0.0
    least_s: float = 5.0
    stall_s: float = 60.0
    env: Mapping[str, str] = field(default_factory=dict)
    package: str = "benchmarks.gpu"

    def limit(self, whole_s: float, left_s: float) -> float:
        return self.rest * left_s if self.rest else min(left_s, self.limit_s * whole_s / WHOLE_S)


# What cuBLAS asks for before it gives the same bits again; read when its first handle is made.
REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

PARTS = (
    Part("kernels", "kernels", "every Triton kernel against plain PyTorch in float64: float32 and bf16, forward and backward, odd sizes",
         limit_s=75),
    Part("networks", "networks", "losses and gradients of whole supernets under every variant against plain PyTorch in float64",
         limit_s=50, stall_s=90),
    Part("graphs", "graphs", "captured steps against eager ones over 20 steps: every relaxation, hypergradient and variant", limit_s=50),
    Part("tests", "marked", "the tests that are marked `cuda`", limit_s=50, stall_s=90),
    Part("speed", "speed", "weight, alpha and second-order steps and the final network's under every variant, beside the published loop",
         limit_s=80, stall_s=90),
    Part("where", "where", "launches, top kernels, gaps between launches; peak memory beside the dry run's prediction",
         limit_s=25, stall_s=90),
    Part("loading", "loading", "images a second of the data path", limit_s=8),
    Part("checkpoints", "checkpoints", "steps with checkpoints written in their midst and by a thread, and without", limit_s=15),
    Part("determinism", "determinism", "deterministic=true: two runs, and a kill and resume, to the same bits", limit_s=60,
         stall_s=200, env=REPEATABLE),
    Part("presets", "presets", "every preset, shrunk, three steps", limit_s=50),
    Part("final", "final", "DARTS_V2 by the published recipe: seconds an epoch in float32, TF32, bf16, NCHW, with kernels, compiled",
         rest=0.4, least_s=20, stall_s=240),
    Part("nasbench201", "nasbench201", "DARTS, GDAS and DrNAS on NAS-Bench-201, published schedules: true accuracy and regret an epoch",
         rest=0.6, least_s=15, stall_s=150),
    Part("fast", "fast", "`recipe=fast` from scratch to 96 %: time", rest=0.6, least_s=30, stall_s=150),
    Part("cifar10", "cifar10", "DARTS, first order, on CIFAR-10: seconds an epoch, all 50 if they fit, the genotype kept",
         rest=1.0, least_s=15, stall_s=150),
)

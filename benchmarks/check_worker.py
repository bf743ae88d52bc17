"""A step of the tree that PYTHONPATH names, for `benchmarks.check`: builds it, says "ready", and for each line it is given takes the step
once and says how many CPU seconds it took. It is run from a file, and uses no more of a tree than trees of several ages have."""

import gc
import sys
import time
from collections.abc import Callable

import torch

from benchmarks import final, sides
from ops import kernels


def step_of(work: str, batch: int) -> Callable[[], object]:
    """work: the space, or `final`; the step; and what is not the default, a relaxation or a backend."""
    space, step, *how = work.split(":")
    kernels.use("plain" if "plain" in how else "auto")
    device = torch.device("cpu")
    if space == "final":
        both = final.make_sides("darts_v2", sides.Sizes(8, 36, batch, 32), device)
        final.set_drop_path(both, 0.2)
        return both["ours"].steps[step]
    method = "gdas" if "gdas" in how else "softmax"
    return sides.make_sides(sides.Sizes(8, 16, batch, 32), device, space=space, method=method)["ours"].steps[step]


def main() -> None:
    torch.set_num_threads(1)
    step = step_of(sys.argv[1], int(sys.argv[2]))
    for _ in range(2):  # the first one makes the optimizers' state
        step()
    gc.collect()
    gc.freeze()  # as a training does
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        step()
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()

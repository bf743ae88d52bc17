"""What a step costs, in numbers that no busy machine changes: reads by the host, kernels, bytes kept for the backward pass."""

import pytest
import torch

from benchmarks import final
from benchmarks.counting import addresses, kernels, saved_bytes
from benchmarks.sides import Sizes, make_sides
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts
from supernet.training.guard import Guard
from supernet.training.records import Position, Totals, Trajectory

CPU = torch.device("cpu")
SPACES = {"small": (darts.make(nodes=2), Sizes(cells=3, channels=4, batch=4, image_size=8)),
          "nasbench201": ("nasbench201", Sizes(cells=5, channels=4, batch=4, image_size=8))}
FINAL_SIZES = Sizes(cells=3, channels=4, batch=4, image_size=32)
READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__")

# Kernels and bytes kept by ours on the plain path, as counted with torch 2.13. A change that lowers a number lowers it here; one that
# raises it says why (depthwise convolutions' gradients take more kernels than one, and a fraction of its time: `ops.depthwise`). SLACK is
# for other versions of torch.
COUNTED = {
    ("small", "softmax", "w"): (1563, 795332), ("small", "softmax", "alpha"): (1274, 501044),
    ("small", "softmax", "second"): (5785, 2635680),
    ("nasbench201", "softmax", "w"): (488, 163324), ("nasbench201", "softmax", "alpha"): (652, 176378),
    ("small", "gdas", "w"): (382, 197092), ("small", "gdas", "alpha"): (320, 101588), ("small", "pc_darts", "w"): (1659, 315916),
}
FINAL = (291, 4708200)
SLACK = 1.05


def refuse_reads(monkeypatch, *optimizers):
    """From now on the host may not read a tensor, apart from the step counts of optimizers, which live on the host."""
    counts = {id(state["step"]) for optimizer in optimizers for state in optimizer.state.values() if "step" in state}

    def refusing(name, original):
        def read(tensor, *arguments):
            if id(tensor) in counts:
                return original(tensor, *arguments)
            raise AssertionError(f"the host reads a tensor: {name}")

        return read

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, refusing(name, getattr(torch.Tensor, name)))


def counts(side, step):
    side.steps[step]()  # makes the optimizer's state
    return kernels(side.steps[step]).total(), saved_bytes(side.steps[step], addresses(side.held()))


@pytest.mark.parametrize("space, method, step", COUNTED)
def test_a_search_step_dispatches_and_keeps_no_more_than_before(space, method, step):
    made, sizes = SPACES[space]
    sides = make_sides(sizes, CPU, space=made, method=method)
    ours, theirs = (counts(sides[name], step) for name in ("ours", "reference"))
    for mine, other, limit in zip(ours, theirs, COUNTED[space, method, step]):
        assert mine <= SLACK * limit and mine < 0.75 * other


def test_a_final_step_dispatches_and_keeps_no_more_than_before():
    sides = final.make_sides("darts_v2", FINAL_SIZES, CPU)
    final.set_drop_path(sides, 0.2)
    ours, theirs = (counts(sides[name], "train") for name in ("ours", "reference"))
    for mine, other, limit in zip(ours, theirs, FINAL):
        assert mine <= SLACK * limit and mine < other


def test_both_counts_count():
    x, w = torch.ones(4, 8), torch.ones(8, 2, requires_grad=True)

    def step():
        (x @ w).relu().view(8).sum().backward()

    found = kernels(step)
    assert (found["mm"], found["relu"], found["threshold_backward"], found["view"], found["detach"]) == (2, 1, 1, 0, 0)
    assert saved_bytes(step, set()) == 4 * (x.numel() + 4 * 2)  # x for the product, and the result of the ReLU
    assert saved_bytes(step, addresses([x])) == 4 * 4 * 2


@pytest.mark.parametrize("step", ["w", "alpha", "second"])
def test_no_search_step_waits_for_the_device(step, monkeypatch):
    space, sizes = SPACES["small"]
    side = make_sides(sizes, CPU, space=space)["ours"]
    side.steps[step]()
    refuse_reads(monkeypatch, *side.optimizers)
    side.steps[step]()
    with pytest.raises(AssertionError, match="the host reads a tensor: item"):
        torch.ones(()).item()


def test_what_the_loops_do_around_a_step_does_not_wait_either(monkeypatch):
    side = final.make_sides("darts_v2", FINAL_SIZES, CPU)["ours"]
    space = darts.make()
    relaxation = Softmax(space, torch.Generator().manual_seed(0))
    totals, position, trajectory = Totals(CPU), Position(), Trajectory()
    guard = Guard(side.net, torch.device("cuda"), 50, position, lambda batch, otherwise: "")  # looks as seldom as on a GPU
    with monkeypatch.context() as patch:
        refuse_reads(patch)
        for _ in range(49):
            guard("training loss", torch.ones(()), side.batches[0])
        totals.add({"loss": torch.ones(()), "correct": torch.ones(()), "count": torch.full((), 4)})
        trajectory.add(0.0, relaxation)
    assert totals.means() == {"loss": 0.25, "accuracy": 25.0}
    assert trajectory.arrays()["alpha.normal"].shape == (1, 14, 8)

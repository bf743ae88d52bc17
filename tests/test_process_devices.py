"""What processes tell each other stays on the device that it is on, and a group of one is no other computation. NCCL takes tensors of GPUs
alone; a stand-in looks at where each message lies, so that a mistake is seen without a GPU."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from supernet.errors import UsageError
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.implicit import neumann
from supernet.processes import joined, together
from supernet.processes.group import ALONE, Slice
from supernet.processes.launched import Place
from supernet.processes.together import Together
from supernet.relaxations.dirichlet import Dirichlet
from tests import ranks


@pytest.fixture
def lies_on(monkeypatch):
    """Where the tensors of messages lie that the first of two processes sends; nobody answers, so that each is what it was."""
    seen = []

    def all_reduce(tensor, *how):
        seen.append(tensor.device.type)

    def broadcast(tensor, rank):
        seen.append(tensor.device.type)
        if rank and tensor.dtype == torch.uint8:
            tensor.fill_(ord("?"))

    monkeypatch.setattr(together, "dist", SimpleNamespace(
        all_reduce=all_reduce, broadcast=broadcast, ReduceOp=dist.ReduceOp, PrefixStore=dist.PrefixStore,
        init_process_group=lambda *a, **how: None))
    return seen


def batches(group, device, seed):
    for batch in ranks.loader(group, seed):
        inputs, targets = (part.to(device) for part in batch)
        yield group.batch((inputs, targets), batch.cut) if type(batch) is Slice else (inputs, targets)


@pytest.mark.parametrize("how", [
    {"hypergradient": finite_difference}, {"task": "weighing"},
    *(pytest.param(how, marks=pytest.mark.slow) for how in (
        {"hypergradient": partial(neumann, terms=1)}, {"relaxation_of": ranks.adversarial},
        {"synchronised": True, "w_penalty": ranks.LayerAlignment, "layers": 3}))], ids=lambda how: "-".join(how))
def test_what_a_step_sums_up_never_leaves_its_device(how, lies_on):
    """The device is one without values, so that nothing can be read back either."""
    group = Together(0, 2, dist.HashStore())
    if how.get("task") == "weighing":
        how = {"task": ranks.Classification(class_weights=[0.5, 1.0, 3.0]).for_classes([5, 5, 5], torch.device("meta"))}
    search, _ = ranks.made(group, device="meta", **({"synchronised": False} | how))
    for train_batch, val_batch in zip(batches(group, "meta", 1), batches(group, "meta", 2)):
        search.step(train_batch, val_batch)
    assert set(lies_on) == {"meta"} and len(lies_on) > 8


def test_what_is_said_goes_from_host_to_host(lies_on):
    group = Together(0, 2, dist.HashStore())
    assert group.texts("words") == ["words", "?????"]
    group.largest(1.0, 2.0), group.first(lambda: [1]), group.wait()
    assert set(lies_on) == {"cpu"} and len(lies_on) == 8


CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")])


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), CUDA])
@pytest.mark.parametrize("how", [{"hypergradient": finite_difference}, {"relaxation_of": Dirichlet}], ids=lambda how: "-".join(how))
def test_a_group_of_one_takes_the_steps_of_a_process_alone(device, how):
    """By gloo on CPUs, to the bit; by NCCL on a GPU, whose sums may come in another order."""
    def steps(group):
        search, _ = ranks.made(group, device=device, **how)
        for train_batch, val_batch in zip(batches(group, device, 1), batches(group, device, 2)):
            search.step(train_batch, val_batch)
        return [*search.net.state_dict().values(), *search.relaxation.state_dict().values()]

    alone = steps(ALONE)
    group = Together(0, 1, dist.HashStore(), backend="cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", patience_s=60)
    try:
        one, (number, messages) = steps(group), group.traffic
    finally:
        group.leave()
    assert messages > 9 and number > 0
    for own, theirs in zip(one, alone, strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=0 if device == "cpu" else 1e-9)


def test_each_process_takes_the_gpu_of_its_place_on_its_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    gpu = torch.device("cuda")
    assert joined.device_of(gpu, Place(3, 4, 1, 2)) == torch.device("cuda", 1) and taken == [1]
    assert joined.device_of(gpu, Place()) == gpu and joined.device_of(torch.device("cpu"), Place(3, 4, 1, 2)).type == "cpu"
    with pytest.raises(UsageError, match="^3 processes on this machine need a GPU each, and PyTorch sees 2: pass --nproc-per-node"):
        joined.device_of(gpu, Place(2, 3, 2, 3))
    with pytest.raises(UsageError, match="^2 processes need a GPU each, got device=cuda:1: pass device=cuda$"):
        joined.device_of(torch.device("cuda", 1), Place(0, 2, 0, 2))
    assert taken == [1]

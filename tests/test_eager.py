"""PyTorch's optimizers without the import of `torch.compile`, in processes of their own: this one has it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STEPS = """
import json, sys, torch
from torch.optim import SGD, Adam, AdamW
if {without}:
    from supernet.optim.eager import without_compiler
    without_compiler()
found = []
for make in (lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3), lambda p: Adam(p), lambda p: AdamW(p)):
    torch.manual_seed(0)
    net = torch.nn.Linear(5, 3)
    optimizer = make(net.parameters())
    for n in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    assert all(p.requires_grad and p.grad_fn is None for p in net.parameters()) and torch.is_grad_enabled()
    found.append([p.flatten().tolist() for p in net.parameters()])
w = torch.ones(2, requires_grad=True)
v = w.clone()
v.grad = 3 * w
SGD([w], lr=0.5)
optimizer = SGD([torch.ones(2, requires_grad=True)], lr=0.5, differentiable=True)
optimizer.param_groups[0]["params"] = [v]
optimizer.step()
found.append(torch.autograd.grad(v.sum(), w)[0].tolist())
print(json.dumps([found, "torch._dynamo" in sys.modules, SGD.step.__name__, SGD.step.__doc__ is None]))
"""


def steps(without: bool) -> list:
    done = subprocess.run([sys.executable, "-c", STEPS.replace("{without}", str(without))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_optimizers_take_the_same_steps_without_the_compiler_which_is_not_imported():
    (theirs, imported, *name), (ours, imported_here, *name_here) = steps(False), steps(True)
    assert ours == theirs and ours[-1] == [1 - 0.5 * 3] * 2 and name == name_here
    assert imported and not imported_here


def test_nothing_changes_where_the_compiler_was_imported():
    import torch
    import torch._dynamo

    from supernet.optim.eager import without_compiler

    before = torch.optim.SGD.step
    without_compiler()
    assert torch.optim.SGD.step is before


def test_the_wrappers_are_those_of_this_version_of_pytorch():
    import torch

    from supernet.optim import eager

    assert all(eager._made_by(eager._GUARD, getattr(torch.optim.Optimizer, name)) for name in eager._GUARDED)
    wrapped = [torch.optim.Rprop.step, eager._step(torch.optim.Rprop.step.__wrapped__)]  # the second where another test was here before
    assert eager._made_by(eager._STEP, wrapped[0]) or wrapped[0].__code__ is wrapped[1].__code__

"""The learning rate of DARTS-PT's fine-tuning against that of the official code (tests/oracles/darts_pt.npz)."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch

from supernet.processes.group import ALONE
from supernet.relaxations.softmax import Softmax
from supernet.select import perturbation
from supernet.select.perturbation import Perturbation
from supernet.spaces import darts, nasbench201
from supernet.training.records import Position

ORACLE = Path(__file__).parent / "oracles" / "darts_pt.npz"


def learning_rates(space, monkeypatch, search_lr, **options):
    """Of each epoch of fine-tuning, and after how many epochs each round of decisions came; no network is trained."""
    relaxation, lrs, decided = Softmax(space, torch.Generator()), [], []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], search_lr)

    class Epoch:
        def __iter__(self):
            lrs.append(optimizer.param_groups[0]["lr"])
            return iter(())

    search = types.SimpleNamespace(relaxation=relaxation, norms=(), w_optimizer=optimizer, net=types.SimpleNamespace(train=lambda: None),
                                   task=None, context=None, alpha=(1,), group=ALONE)
    recorder = types.SimpleNamespace(working=lambda: None, line=lambda text: decided.append(len(lrs)))
    loop = types.SimpleNamespace(space=space, search=search, generators={"alpha": torch.Generator().manual_seed(0), "net": None}, val=[0],
                                 drawn=lambda batch_size: [0],
                                 lr=(search_lr, 3e-4), train=Epoch(), recorder=recorder, alpha_batches=None,
                                 guard=types.SimpleNamespace(look=lambda: None), position=Position())
    monkeypatch.setattr(perturbation, "evaluate", lambda *args: {"accuracy": 50.0})
    Perturbation(**options)(loop)
    return lrs, decided


@pytest.mark.equation("darts_pt")
def test_fine_tuning_has_the_learning_rate_of_the_official_code(monkeypatch):
    with np.load(ORACLE, allow_pickle=False) as file:
        official, search_lr, ops = file["finetune_lr"], float(file["search_lr"]), file["ops"].tolist()
        assert int(file["epochs_between"]) == 5
    lrs, decided = learning_rates(darts.make(ops=ops), monkeypatch, search_lr)
    np.testing.assert_allclose(lrs, official[:80], rtol=1e-9)
    assert len(official) == 81, "the official code has one epoch more, after the last decision, which changes no genotype"
    assert decided == list(range(0, 81, 5))


@pytest.mark.equation("darts_pt")
def test_on_nasbench201_the_last_edge_is_decided_after_four_epochs(monkeypatch):
    """Official code: `for epoch in range(25)` a decision where `epoch % 5 == 0 or epoch == 24`, before the epoch's training."""
    _, decided = learning_rates(nasbench201.make(), monkeypatch, 0.025, finetune_last=4)
    assert decided == [epoch for epoch in range(25) if epoch % 5 == 0 or epoch == 24]

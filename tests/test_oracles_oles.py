"""OLES against numbers of the official code (tests/oracles/oles.npz): cosines of made-up gradients, and what is frozen when."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch

from ops.op import Normalisation
from supernet.monitors.freezing import OpFreezing, cosine, cosine_along_outputs
from supernet.processes.group import ALONE
from supernet.spaces import darts

ORACLE = Path(__file__).parent / "oracles" / "oles.npz"


@pytest.fixture(scope="module")
def official():
    with np.load(ORACLE, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


class Fed:
    """The official run with our monitor in it: a network whose gradients are those of the file, pair by pair."""

    def __init__(self, official, **options):
        self.names = official["ops"].tolist()
        space = darts.make(nodes=1, ops=[name.split(".")[-1] for name in self.names[:4]])
        self.net = space.network(space.candidates(), layers=3, channels=2, num_classes=10, norm=Normalisation(False, True)).double()
        self.ops = [list(self.net.get_submodule(name).parameters()) for name in self.names]
        assert [sum(p.numel() for p in ps) for ps in self.ops] == official["sizes"].tolist()
        self.parameters = [p for ps in self.ops for p in ps]
        self.train, self.val = (self.gradients(official[name]) for name in ("g_train", "g_val"))
        self.monitor = OpFreezing(space, **options)

    def gradients(self, rows):
        """By pair, the tensors of all ops one after the other."""
        return [[g.view(p.shape) for g, p in zip(row.split([p.numel() for p in self.parameters]), self.parameters)]
                for row in torch.from_numpy(rows).double()]

    def by_op(self, gradients):
        left = iter(gradients)
        return [[next(left) for _ in ps] for ps in self.ops]

    def run(self):
        """After which pair each op was frozen, and the means that were looked at, by pair and op."""
        relaxation = types.SimpleNamespace(evaluated=lambda generator: None)
        search = types.SimpleNamespace(net=self.net, relaxation=relaxation, val_loss_under=None, generators={"alpha": torch.Generator()},
                                       group=ALONE)
        self.monitor.before_epoch(search)
        frozen, looked = [-1] * len(self.names), np.full((len(self.train), len(self.names)), np.nan)
        for k, (train, val) in enumerate(zip(self.train, self.val)):
            for p, g in zip(self.parameters, train):
                p.grad = g.clone() if p.requires_grad else None
            pairs = [(p, g) for p, g in zip(self.parameters, val) if p.requires_grad]
            search.val_loss_under = lambda batch, weights, pairs=pairs: sum((p * g).sum() for p, g in pairs)
            self.monitor.means.clear()
            self.monitor.after_step(search, None, (None, None), k)
            for i, name in enumerate(self.names):
                looked[k, i] = self.monitor.means.get(name, np.nan)
                if name in self.monitor.frozen and frozen[i] < 0:
                    frozen[i] = k
        return frozen, looked


@pytest.mark.equation("oles")
def test_agreements_are_those_of_the_official_code(official):
    fed = Fed(official)
    known = ~np.isnan(official["cosine"])
    for k, (train, val) in enumerate(zip(fed.train, fed.val)):
        found = torch.stack(cosine_along_outputs(fed.by_op(train), fed.by_op(val))).numpy()
        np.testing.assert_allclose(found[known[k]], official["cosine"][k][known[k]], rtol=0, atol=1e-9)
    assert known.sum() == 366


@pytest.mark.equation("oles")
def test_ops_are_frozen_when_the_official_code_freezes_them(official):
    frozen, looked = Fed(official, threshold=float(official["threshold"])).run()
    assert frozen == official["frozen_after_pair"].tolist() == [-1, 41, 41, 20, 20, -1, 41, -1]
    np.testing.assert_allclose(looked, official["mean_when_looked_at"], rtol=0, atol=1e-9)


@pytest.mark.equation("oles")
def test_the_cosine_itself_has_its_own_name_and_is_of_whole_vectors(official):
    fed = Fed(official, agreement="cosine", threshold=-2.0)
    _, looked = fed.run()
    want = np.zeros(looked.shape)
    for k, sides in enumerate(zip(fed.train, fed.val)):
        for i, (train, val) in enumerate(zip(*map(fed.by_op, sides))):
            a, b = (torch.cat([g.flatten() for g in side]) for side in (train, val))
            want[k, i] = torch.dot(a, b) / (a.norm() * b.norm())
    for k in range(len(want)):
        assert np.isnan(looked[k]).all() == ((k + 1) % 20 != 0)
        if (k + 1) % 20 == 0:
            np.testing.assert_allclose(looked[k], want[k - 19: k + 1].mean(0), rtol=0, atol=1e-9)
    orthogonal = [[torch.tensor([[1.0, 0.0]]).T]], [[torch.tensor([[0.0, 1.0]]).T]]
    assert cosine(*orthogonal)[0] == 0 and cosine_along_outputs(*orthogonal)[0] == pytest.approx(0.5**0.5)


def test_an_unknown_agreement_is_refused():
    with pytest.raises(ValueError, match="agreement must be along_outputs or cosine, got 'angle'"):
        OpFreezing(darts.make(nodes=1), agreement="angle")

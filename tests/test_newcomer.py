"""What somebody gets wrong who adds a part of his own: one line says whose it is, what was expected and what was seen."""

import sys

import pytest
from hydra.errors import HydraException

from ops import OPS
from supernet.app import compose
from supernet.app.command_line import composing, one_line
from supernet.errors import Mendable
from supernet.interfaces import InterfaceError
from tests.searches import composed, searched

MINE = '''
import torch
from torch import nn

from ops import OPS
from ops.op import Op
from supernet.costs.additive import counted
from supernet.data.digits import Digits
from supernet.monitors.base import Monitor, Signal
from supernet.penalties.base import Penalty
from supernet.relaxations.base import Relaxation, TableRelaxation, Wrapper
from supernet.relaxations.softmax import Softmax
from supernet.select.base import FinalSelection
from supernet.spaces import toy
from supernet.tasks.classification import Classification
from supernet.weights import EdgeWeights, Weights


class Good(Softmax):
    def __init__(self, space, generator, *, scale: float, power=1):
        super().__init__(space, generator)


class NoMean(Relaxation):
    def noise(self, generator):
        return {}

    def weights(self, noise):
        return {}


class Tables(Softmax):
    def weights(self, noise):
        return {kind: self.logits(kind).softmax(-1) for kind in self.alpha}


class Bare(Softmax):
    def weights(self, noise):
        return EdgeWeights({kind: self.logits(kind).softmax(-1) for kind in self.alpha})


class Transposed(Softmax):
    def weights(self, noise):
        return EdgeWeights({kind: Weights(self.logits(kind).softmax(-1).T) for kind in self.alpha})


class Kindless(Softmax):
    def weights(self, noise):
        return EdgeWeights({})


class Infinite(Softmax):
    def weights(self, noise):
        return EdgeWeights({kind: Weights(self.logits(kind) / 0) for kind in self.alpha})


class Cut(Softmax):
    def weights(self, noise):
        return super().weights(noise).detach()


class Noiseless(Softmax):
    def noise(self, generator):
        return None


class OtherMean(Softmax):
    def weights(self, noise):
        return EdgeWeights({kind: Weights(self.logits(kind).softmax(-1)) for kind in self.alpha})

    def mean(self):
        return None


class ShortAnneal(Softmax):
    def anneal(self, progress):
        pass


class LongEdges(Wrapper):
    def __init__(self, inner, space, generator):
        super().__init__(inner)

    def weights(self, noise):
        return EdgeWeights({kind: Weights(w.ops, torch.ones(99)) for kind, w in self.inner.weights(noise).items()})


def no_relaxation(space, generator, init_scale):
    return nn.Linear(1, 1)


def one_gradient(problem):
    return (torch.zeros(1),)


def no_gradient(problem):
    return None


class Vector(Penalty):
    def __init__(self, space, cost):
        pass

    def __call__(self, loss, weights, relaxation):
        return torch.ones(3)


def bare_penalty(space, cost):
    return lambda loss, weights, relaxation: loss


class Quiet(Monitor):
    def __init__(self, space):
        pass

    def after_epoch(self, look):
        return {"a": 1.0}


class ShortStep(Monitor):
    def __init__(self, space):
        pass

    def after_step(self, search, step):
        pass


class NoMonitor:
    def __init__(self, space):
        pass


def no_genotype(space, weights):
    return [1, 2]


class NoCheck:
    def __call__(self, loop):
        return None


class Late(FinalSelection):
    def check(self, loop):
        pass

    def __call__(self, loop):
        return None


class Names:
    name = "names"
    class_names = ("a",)

    def train(self):
        return None

    def test(self):
        return None


class NoRows(Classification):
    def rows(self):
        return []


class NoUnit:
    name = "mine"

    def __init__(self, space, **sizes):
        pass

    def __call__(self, genotype):
        return 1.0


def with_op(op):
    OPS["mine"] = op
    import supernet.spaces.listed as listed

    return listed.make(inputs=1, cells={"cell": {"edges": [[0, 1, ["skip_connect", "mine"]]], "keep": None, "outputs": [1]}})


def widening():
    return with_op(lambda channels, stride, norm: Op(nn.Conv2d(channels, 2 * channels, 1, stride)))


def shrinking():
    return with_op(lambda channels, stride, norm: Op(nn.Conv2d(channels, channels, 3, stride)))


def bare_op():
    return with_op(lambda channels, stride, norm: nn.Conv2d(channels, channels, 1, stride))
'''
CONFIGS = {"relaxation/own": "_target_: mine.Good\n_partial_: true\nscale: 1.0\n",
           "relaxation/empty": "_target_: mine.Good\n_partial_: true\n",
           "relaxation/whole": "_target_: mine.Good\nscale: 1.0\n", "relaxation/nested": "nested:\n  _target_: mine.Good\n",
           "monitor/flat": "_target_: mine.Quiet\n_partial_: true\n", "wrapper/flat": "_target_: mine.LongEdges\n_partial_: true\n",
           "monitor/quiet": "quiet:\n  _target_: mine.Quiet\n  _partial_: true\n",
           "wrapper/long": "long:\n  _target_: mine.LongEdges\n  _partial_: true\n",
           "penalty/vector": "vector:\n  _target_: mine.Vector\n  _partial_: true\n",
           "penalty/bare": "bare:\n  _target_: mine.bare_penalty\n  _partial_: true\n",
           "monitor/text": "text: mine.Quiet\n",
           "monitor/none": "none:\n  _target_: mine.NoMonitor\n  _partial_: true\n",
           "monitor/short": "short:\n  _target_: mine.ShortStep\n  _partial_: true\n",
           "final_select/unchecked": "_target_: mine.NoCheck\n", "final_select/partial": "_target_: mine.Late\n_partial_: true\n",
           "final_select/late": "_target_: mine.Late\n",
           "cost/unit": "_target_: mine.NoUnit\n_partial_: true\n", "task/rows": "_target_: mine.NoRows\n"}
# options; words of the line
WRONG = {
    "a module that is not there": ("relaxation._target_=min.Good", ["relaxation._target_=min.Good", "no module 'min',", "start from"]),
    "a class that is not there": ("relaxation._target_=mine.Goood", ["mine.py) has no Goood", "did you mean Good"]),
    "a module that cannot be imported": ("relaxation._target_=broken.X", ["importing broken fails with SyntaxError", "broken.py, line 1"]),
    "a module that needs another": ("relaxation._target_=needy.X", ["importing needy fails with ModuleNotFoundError", "nothing_like_this"]),
    "no name of a module": ("relaxation._target_=Good", ["relaxation._target_=Good", "no module 'Good'"]),
    "an option misspelt": ("relaxation=own +relaxation.powr=2", ["relaxation.powr: mine.Good", "takes space, generator, scale, power",
                                                                  "did you mean power"]),
    "an option of another type": ("relaxation=own relaxation.scale=much", ["relaxation.scale must be a number, got much"]),
    "an option that its yaml lacks": ("relaxation=empty", ["relaxation: mine.Good(space, generator)", "'scale'"]),
    "a yaml that is not partial": ("relaxation=whole", ["relaxation: mine.Good(scale=...)", "space", "_partial_: true"]),
    "a yaml that is partial": ("final_select=partial", ["final_select: mine.Late", "leave _partial_ out"]),
    "a nested yaml where a flat one is needed": ("relaxation=nested", ["relaxation must be a node with a _target_", "nested"]),
    "a flat monitor": ("monitor=[flat]", ["monitor: the yaml of mine.Quiet is flat", "under a name", "conf/monitor"]),
    "a flat wrapper beside another": ("wrapper=[edge_normalised,flat]", ["wrapper: the yaml of mine.LongEdges is flat"]),
    "a monitor that is a text": ("monitor=[text]", ["monitor.text must be a node with a _target_, got 'mine.Quiet'"]),
    "a choice of a list that is not there": ("monitor=[quie]", ["monitor=[quie]", "did you mean quiet"]),
    "a relaxation without a method": ("relaxation._target_=mine.NoMean", ["NoMean", "mean"]),
    "no relaxation": ("relaxation._target_=mine.no_relaxation", ["relaxation: Linear lacks", "weights",
                                                                 "supernet.relaxations.base.Relaxation"]),
    "a method that takes less": ("relaxation._target_=mine.ShortAnneal",
                                 ["ShortAnneal.anneal must take (progress, epoch)", "got (progress)"]),
    "tables instead of edge weights": ("relaxation._target_=mine.Tables", ["Tables.weights must return EdgeWeights", "cell", "got dict"]),
    "tables in edge weights": ("relaxation._target_=mine.Bare", ["Bare.weights must give Weights for 'cell'", "got Tensor (3, 3)"]),
    "tables of another shape": ("space=nasbench201 relaxation._target_=mine.Transposed",
                                ["Transposed.weights", "(E, O) = (6, 5)", "got Tensor (5, 6) of float32"]),
    "a kind of cell that is missing": ("relaxation._target_=mine.Kindless", ["Kindless.weights must cover", "cell, got none"]),
    "numbers that are none": ("relaxation._target_=mine.Infinite", ["Infinite.weights", "'cell' must be finite, got 9"]),
    "weights that nothing can learn": ("relaxation._target_=mine.Cut", ["Cut.weights must depend on its parameters"]),
    "no noise": ("relaxation._target_=mine.Noiseless", ["Noiseless.noise must return tensors by name", "got NoneType"]),
    "another mean": ("relaxation._target_=mine.OtherMean", ["OtherMean.mean must return EdgeWeights", "got NoneType"]),
    "a wrapper with other edges": ("wrapper=[long]", ["LongEdges.weights: edges of 'cell' must be (E,) = (3,), or None, got Tensor (99,)"]),
    "a gradient that is missing": ("hypergradient._target_=mine.one_gradient", ["hypergradient one_gradient must return one gradient for",
                                                                                 "[(1,), (2,)], got [(1,)]"]),
    "no gradients": ("hypergradient._target_=mine.no_gradient", ["hypergradient no_gradient", "got NoneType"]),
    "a penalty of three numbers": ("penalty=[vector]", ["penalty Vector must return a scalar tensor", "got Tensor (3,)"]),
    "a penalty that is a function": ("penalty=[bare]", ["penalty: bare_penalty.<locals>.<lambda> lacks", "after_step",
                                                         "supernet.penalties.base.Penalty"]),
    "no monitor": ("monitor=[none]", ["monitor.none: NoMonitor lacks gives, spacing", "supernet.monitors.base.Monitor"]),
    "a monitor's method that takes less": ("monitor=[short]",
                                           ["monitor.short: ShortStep.after_step must take (search, train_batch, val_batch"]),
    "a selection without a genotype": ("select._target_=mine.no_genotype", ["a selection must return a Genotype", "got list"]),
    "a final selection that is none": ("final_select=unchecked", ["final_select: NoCheck lacks check", "FinalSelection"]),
    "a cost that lacks two": ("cost=unit", ["cost: NoUnit lacks", "expected", "least", "unit", "supernet.costs.base.Cost"]),
    "a task's method that takes less": ("task=rows", ["task: NoRows.rows must take (metrics)"]),
    "a source without a method": ("dataset.source._target_=mine.Names", ["dataset.source: Names lacks", "check", "image_size", "std",
                                                                          "supernet.data.base.Source"]),
    "an op that widens": ("space=custom space._target_=mine.widening", ["op 'mine' with 4 channels and stride 1", "(2, 4, 8, 8)",
                                                                         "got Tensor (2, 8, 8, 8)"]),
    "an op that shrinks": ("space=custom space._target_=mine.shrinking", ["op 'mine'", "(2, 4, 8, 8), got Tensor (2, 4, 6, 6)"]),
    "an op that is a bare module": ("space=custom space._target_=mine.bare_op",
                                    ["op 'mine': its factory must return", "Op(module)", "Conv2d"]),
}
TINY = ["space=toy", "layers=3", "channels=4", "threads=1", "epochs=1",
        "batch_size=8", "split.max_train=32", "split.max_val=32", "table=none"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder outside the project, with a module and configs, that is the working directory."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def X(:\n    pass\n")
    (tmp_path / "needy.py").write_text("import nothing_like_this\n")
    for name, text in CONFIGS.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mine", "broken", "needy"):
        sys.modules.pop(name, None)
    OPS.pop("mine", None)


@pytest.mark.parametrize("options, words", [pytest.param(*case, id=name) for name, case in WRONG.items()])
def test_what_a_newcomer_gets_wrong_is_one_line(own, options, words):
    with pytest.raises((Mendable, HydraException)) as caught:
        cfg = composed(*TINY, *options.split())
        with composing():
            compose.search_stages(cfg, compose.search_parts(cfg))
    line = one_line(caught.value)
    assert [word for word in words if word not in line] == [] and "\n" not in line and len(line) < 400, line


@pytest.mark.parametrize("options, told", [
    ("monitor=[quiet]", "monitor.quiet: Quiet.after_epoch must return a Signal, got dict"),
    ("final_select=late", "a selection must return a Genotype, which space.genotype(cells) makes, got NoneType"),
])
def test_what_shows_only_after_an_epoch_is_one_line_too(own, options, told):
    with pytest.raises(InterfaceError) as caught:
        searched(*TINY, *options.split())
    assert str(caught.value) == told


def test_what_is_right_is_let_through(own):
    _, records, genotype = searched(*TINY, "relaxation=own", "+relaxation.power=2")
    assert len(records) == 1 and genotype.space == "toy"

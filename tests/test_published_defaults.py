"""What options begin with are the numbers of the papers, and of their official codes; docstrings name the places."""

import inspect

import pytest

from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.reinforce import reinforce
from supernet.penalties.alphas import BetaDecay, DirichletKL
from supernet.penalties.cost import CostLog, CostPower
from supernet.penalties.layer_alignment import LayerAlignment
from supernet.penalties.weights import ZeroOne
from supernet.relaxations.auxiliary_skip import AuxiliarySkip
from supernet.relaxations.concrete import Concrete
from supernet.relaxations.controller import Controller
from supernet.relaxations.greedy import Greedy
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.perturbed import Adversarial, RandomPerturbed
from supernet.relaxations.softmax import Softmax
from supernet.select.limited_skips import limited_skips
from supernet.select.perturbation import Perturbation
from supernet.select.threshold import threshold

PUBLISHED = [
    (Softmax, {"init_scale": 1e-3}),  # quark0/darts, model_search.py
    (GumbelHard, {"temperature": 10.0, "temperature_end": 0.1}),  # D-X-Y/AutoDL-Projects, GDAS
    (Concrete, {"temperature": 1.0, "temperature_end": 0.03}),  # SNAS
    (Controller, {"hidden": 64, "lstm_layers": 1, "tanh_constant": 1.1, "op_tanh_reduce": 2.5, "favoured_bias": 10.0,
                  "favoured_lean": 0.25}),  # melodyguan/enas, micro_controller.py
    (RandomPerturbed, {"epsilon": 0.03, "epsilon_end": 0.3, "clip": True}),  # SmoothDARTS: 0.03 + 0.27 epoch / epochs
    (Adversarial, {"epsilon": 0.03, "epsilon_end": 0.3, "steps": 7, "step_share": 2 / 7, "clip": True}),
    (AuxiliarySkip, {"beta": 1.0}),  # DARTS-
    (Greedy, {"criterion": 1, "warm_up": 9, "every": 5, "history": 4}),  # SGAS, train_search.py
    (finite_difference, {"radius": 1e-2}),  # DARTS, Sec. 2.3, footnote
    (reinforce, {"samples": 10, "baseline_decay": 0.99, "entropy_weight": 1e-4}),  # ENAS, micro search
    (BetaDecay, {"weight": 25.0}), (DirichletKL, {"weight": 1e-3}), (ZeroOne, {"weight": 10.0, "form": "l2"}),
    (LayerAlignment, {"weight": 0.25, "radius": 1e-3}),  # Lambda-DARTS, run_search.sh
    (CostLog, {"alpha": 0.2, "beta": 0.6}), (CostPower, {"exponent": 0.07}),  # FBNet, MnasNet
    (Perturbation, {"finetune_epochs": 5, "lr_factor": 0.1, "lr_minimum": 1e-3, "train_alpha": True}),  # DARTS-PT
    (limited_skips, {"most": 2, "kinds": ("normal",)}), (threshold, {"value": 0.85}),  # P-DARTS, FairDARTS
]


@pytest.mark.parametrize("part, options", PUBLISHED, ids=lambda value: getattr(value, "__name__", ""))
def test_options_begin_with_the_published_numbers(part, options):
    taken = inspect.signature(part).parameters
    assert {name: taken[name].default for name in options} == options

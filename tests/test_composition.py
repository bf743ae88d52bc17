"""Parts that know nothing of each other, put together: by one command line, and in any order."""

import contextlib
import json
import random

import pytest
import torch

from supernet.genotype import Genotype
from supernet.penalties.alphas import BetaDecay
from supernet.penalties.layer_alignment import LayerAlignment
from supernet.relaxations.greedy import Greedy
from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from supernet.select.argmax import argmax
from tests import groups
from tests.builders import small_search
from tests.helpers import run
from tests.searches import searched

# As a user types it. No line of code is written for any pair of these.
COMMAND = ["profile=smoke", "space.nodes=2", "relaxation=dirichlet", "wrapper=[edge_normalised,adversarial]", "network={partial:4}",
           "cost=multiply_adds", "penalty=[beta_decay,cost_limit]", "penalty.cost_limit.limit=1e6", "monitor=[eigenvalue]",
           "final_select=perturbation", "final_select.finetune_epochs=1"]


def test_one_command_line_composes_six_methods_and_its_cell_is_retrained(tmp_path):
    """PC-DARTS' partial channels and edge weights, DrNAS' draws, SDARTS' adversary, a FLOPs target, beta decay, DARTS-ES' eigenvalue and
    DARTS-PT's selection."""
    ended = run("train_search", *COMMAND, "split.max_train=32", "split.max_val=32", cwd=tmp_path, report=False)  # sooner
    assert ended.code == 0, ended.err
    (path,) = tmp_path.glob("runs/*_search_*")
    folder = RunFolder(path)
    parts = checkpoint.load(folder.checkpoints).state["parts"]
    alphas = set(parts["relaxation"])
    assert {"inner.inner.alpha.normal", "inner.beta.normal.0"} <= alphas, "Dirichlet within edge weights within the adversary"
    assert parts["net"]["cells.0.mixed.edges.0-2.sep_conv_3x3.body.pointwise1.weight"].shape == (2, 2, 1, 1), "8 channels, a quarter"
    assert parts["penalty_1"]["multiplier"] > 0, "the limit binds"
    records = Journal.read(folder.metrics)
    assert len(parts["monitor_eigenvalue"]["values"]) == 1 and records[0]["alpha_eigenvalue"] == parts["monitor_eigenvalue"]["values"][0]
    assert records[0]["cost/multiply_adds_expected"] > 1e6
    assert sum(line.startswith("decision ") for line in ended.err.splitlines()) == 6, "five edges and a node, both cells at once"
    genotype = Genotype.load(folder.genotype)
    options = f"genotype={folder.genotype}", "dataset=digits", "epochs=1", "split.max_train=64"
    final = run("train_final", *options, cwd=tmp_path, report=False)
    assert final.code == 0, final.err
    (trained,) = tmp_path.glob("runs/*_final_*")
    rows = dict(json.loads((trained / "summary.json").read_text())["rows"])
    told = dict(json.loads((path / "summary.json").read_text())["rows"])["cost, multiply_adds"]
    assert f"{float(told.split()[0].replace(',', '')) / 1e6:.3f} M per image" == rows["multiply-adds"]
    assert genotype.digest in rows["genotype"]


@pytest.mark.parametrize("preset", ["fbnet_cifar10", "proxyless_cifar10"])
def test_searches_of_chains_take_the_published_cost_terms(preset):
    """The command that the presets' comments give, shrunk."""
    _, records, genotype = searched(f"experiment={preset}", "profile=smoke", "cost=multiply_adds", "cost.channels=8", "penalty=[cost_log]",
                                    "penalty.cost_log.beta=0.3", "penalty.cost_log.reference=1e6", "alpha_optimizer.lr=0.3",
                                    "alpha_every=1")
    sizes = [r["cost/multiply_adds_expected"] for r in records]
    assert sizes[-1] < sizes[0] and len(genotype["layers"]) == 8


QUICK = {"adversarial": {"steps": 2}, "greedy": {"warm_up": 0, "every": 1}}  # options of wrappers, so that all act within three epochs


@pytest.mark.parametrize("choice", groups.choices("relaxation"))
def test_wrappers_compose_in_any_order_around_any_relaxation(choice):
    """Steps of alphas and weights on partial channels with auxiliary skips and a penalty of the weights; what is selected is valid."""
    wrappers, order = groups.choices("wrapper"), random.Random(choice)
    for names in [order.sample(wrappers, len(wrappers)) for _ in range(2)]:
        def relaxation_of(space, g, names=names):
            relaxation = groups.made("relaxation", choice)(space, g)
            simplex = {"edge_normalised": {"form": "simplex"}} if relaxation.on_simplex else {}
            for name in names:
                relaxation = groups.made("wrapper", name, **QUICK.get(name, {}), **simplex.get(name, {}))(relaxation, space, g)
            return relaxation

        search, batch, space = small_search(relaxation_of, auxiliary_skip=True, partial=2)
        with contextlib.suppress(ValueError):
            search.relaxation.tables()  # has none: no penalty on them
            search.penalties = [BetaDecay(space, weight=0.1)]
        search.w_penalties = [LayerAlignment(space)]
        for epoch in range(3):
            search.anneal(epoch / 4, epoch)
            before = [p.detach().clone() for p in (*search.alpha, *search.w)]
            search.step(batch, batch)
            assert all(torch.isfinite(p).all() for p in (*search.alpha, *search.w)), names
            assert any(not torch.equal(p, q) for p, q in zip(search.w, before[len(search.alpha):])), names
            betas = [(p, q) for (n, p), q in zip(search.relaxation.named_parameters(), before) if "beta" in n]
            assert len(betas) == 4 and (epoch or any(not torch.equal(p, q) for p, q in betas)), names
        draw = search.relaxation(torch.Generator().manual_seed(0))
        assert all(w.skip is not None and w.edges is not None for w in draw.values()), names
        decided = next(m for m in search.relaxation.modules() if type(m) is Greedy)
        assert all(sum(row >= 0 for row in rows) == 2 for rows in decided.rows.values()), names
        space.validate(argmax(space, search.relaxation.mean()))
        state = search.relaxation.state_dict()
        search.relaxation.load_state_dict(state)

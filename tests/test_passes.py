"""Steps of the weights that run several architectures, against the losses written out."""

import dataclasses
import random

import pytest
import torch
import torch.nn.functional as F

from ops.op import Normalisation
from supernet.attentive import Attentive
from supernet.bilevel import Bilevel
from supernet.costs.chain import chain_costs
from supernet.errors import UsageError
from supernet.hypergradients.first_order import first_order
from supernet.passes import Sandwich, Step, check_passes, extremes
from supernet.relaxations.controller import Controller
from supernet.relaxations.dirichlet import Dirichlet
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.policy import genotype_of
from supernet.relaxations.reinmax import ReinMax
from supernet.relaxations.softmax import Softmax
from supernet.relaxations.steered import Steered
from supernet.relaxations.uniform import Uniform
from supernet.spaces import darts, layerwise, nasbench_macro, ofa_mobilenet
from supernet.tasks.classification import Classification
from supernet.tasks.mixing import MixUp
from supernet.weights import one_hot, replaced
from tests.reference import close

SPACE = ofa_mobilenet.make(kernels=(3, 5), expansions=(2, 4), depths=(1, 2), strides=(1, 2, 1, 1, 1), stem_stride=1)
NORM = Normalisation(affine=False, after_pools=True)
SIZES = {"layers": SPACE.sizes["layers"], "channels": 8, "num_classes": 5}


def search_of(task=None, passes=Sandwich, relaxation=Uniform, lr=1.0, **options):
    torch.manual_seed(0)
    net = SPACE.network(SPACE.candidates(), norm=NORM, **SIZES).double()
    generators = {name: torch.Generator().manual_seed(n) for n, name in enumerate(("alpha", "net"))}
    relaxation = relaxation(SPACE, generators["alpha"]).double()
    return Bilevel(net, relaxation, first_order, task or Classification(), torch.optim.SGD(net.parameters(), lr=lr), None, generators,
                   passes=passes(SPACE, net, **options))


def batch():
    g = torch.Generator().manual_seed(3)
    return torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=g), torch.arange(6) % 5


@pytest.mark.equation
@pytest.mark.parametrize("distillation, temperature", [(1.0, 1.0), (0.5, 2.0)])
def test_the_step_descends_on_the_largest_ones_labels_and_the_others_distance_to_it(distillation, temperature):
    """Yu et al. 2020, Sec. 3.1; by a step of SGD with learning rate 1."""
    search, (x, y) = search_of(draws=2, distillation=distillation, temperature=temperature), batch()
    before = [p.detach().clone() for p in search.w]
    slow = search_of()
    noise = [slow.relaxation.noise(slow.generators["alpha"]) for _ in range(2)]
    small, large = (one_hot(SPACE, g, dtype=torch.float64) for g in extremes(SPACE, chain_costs(SPACE, **SIZES)["multiply_adds"]))
    slow.net.train()
    logits = slow.net(x, large)
    loss = F.cross_entropy(logits, y)
    target = (logits.detach() / temperature).softmax(1)
    for weights in (small, *(slow.relaxation.weights(n) for n in noise)):
        own = slow.net(x, weights)
        distance = temperature**2 * (target * (target.log() - (own / temperature).log_softmax(1))).sum(1).mean()
        loss = loss + distillation * distance + (1 - distillation) * F.cross_entropy(own, y)
    gradients = torch.autograd.grad(loss, slow.w, allow_unused=True, materialize_grads=True)
    search.net.train()
    stats = search.w_step((x, y))
    for p, start, g in zip(search.w, before, gradients):
        close(start - p.detach(), g, 1e-9)
    close(stats["loss"] / 6, F.cross_entropy(logits, y), 1e-9)
    for name, value in slow.net.state_dict().items():
        if "running" in name:
            close(search.net.state_dict()[name], value, 1e-9)


def test_mixed_images_are_the_same_in_all_passes_and_the_generator_stands_where_one_pass_leaves_it():
    seen = []

    class Watching(MixUp):
        def __call__(self, x, y, generator):
            mixed = super().__call__(x, y, generator)
            seen.append(mixed.images)
            return mixed

    search = search_of(Classification(mixing=Watching(alpha=1.0)), draws=2)
    search.net.train()
    search.w_step(batch())
    assert len(seen) == 4 and all(torch.equal(images, seen[0]) for images in seen)
    alone = search_of(Classification(mixing=Watching(alpha=1.0)))
    alone.passes = None
    alone.net.train()
    alone.w_step(batch())
    assert torch.equal(alone.generators["net"].get_state(), search.generators["net"].get_state())


@pytest.mark.parametrize("space", [SPACE, nasbench_macro.make(), layerwise.make(stages=[[1, 2], [2, 2]])],
                         ids=["ofa", "macro", "layerwise"])
def test_the_extremes_are_those_of_all_architectures(space):
    cost = chain_costs(space, layers=space.sizes["layers"], channels=8, num_classes=5)["multiply_adds"]
    least, most = extremes(space, cost)
    values = [cost(space.sample(random.Random(seed))) for seed in range(200)]
    assert cost(least) <= min(values) and cost(most) >= max(values)
    assert all(cost(least) <= cost(g) for g in space.neighbours(least)) and all(cost(most) >= cost(g) for g in space.neighbours(most))


def test_cells_have_no_extremes():
    space = darts.make(nodes=2)
    with pytest.raises(UsageError, match="chains of decisions, space darts is none"):
        extremes(space, lambda genotype: 0.0)


def test_a_space_of_one_architecture_is_trained_once():
    """As the first of the stages that open a space."""
    space = ofa_mobilenet.make(kernels=(3,), expansions=(2,), depths=(1,), strides=(1, 2, 1, 1, 1), stem_stride=1)
    sandwich = Sandwich(space, space.network(space.candidates(), norm=NORM, layers=5, channels=8, num_classes=5))
    ran = []
    step = Step(torch.nn.Identity(), Classification(), None, lambda: pytest.fail("drew another"), lambda w, task: ran.append(w), None)
    assert list(sandwich(step)) == [None] and len(ran) == 1


# ---- the best or the worst of several draws


@pytest.mark.equation
@pytest.mark.parametrize("train", ["best", "worst"])
def test_what_is_drawn_is_the_best_or_worst_by_loss_of_those_that_cost_nearly_the_same(train):
    """Wang et al. 2021, against losses of each in a network of the same state."""
    trained, (x, y) = [], batch()
    search = search_of(passes=Attentive, train=train, candidates=3, pool=8, draws=2)
    run_as = search._of_step

    def watched(own, draw):
        step = run_as(own, draw)
        return dataclasses.replace(step, run=lambda weights, task: trained.append(weights) or step.run(weights, task))

    search._of_step = watched
    search.net.train()
    search.w_step((x, y))
    slow = search_of(draws=2)
    slow.net.train()
    cost = chain_costs(SPACE, **SIZES)["multiply_adds"]
    draws = [slow.relaxation(slow.generators["alpha"]) for _ in range(16)]
    assert len(trained) == 4
    for chosen, pool in zip(trained[2:], (draws[:8], draws[8:])):
        genotypes = [genotype_of(SPACE, weights) for weights in pool]
        near = sorted(genotypes, key=lambda g: abs(cost(g) - cost(genotypes[0])))[:3]
        losses = [F.cross_entropy(slow.net(x, one_hot(SPACE, g, dtype=torch.float64)), y).item() for g in near]
        assert len(set(losses)) > 1
        assert genotype_of(SPACE, chosen) == near[losses.index(min(losses) if train == "best" else max(losses))]


def test_looking_at_candidates_leaves_no_trace():
    """With one candidate a step is the sandwich's under the same draws, bit for bit; with several, statistics see only what is trained."""
    plain = search_of(draws=2)
    attentive = search_of(passes=Attentive, candidates=1, pool=1, draws=2)
    more = search_of(passes=Attentive, candidates=4, pool=4, draws=2)
    for search in (plain, attentive, more):
        search.net.train()
        search.w_step(batch())
    for (name, a), b in zip(plain.net.state_dict().items(), attentive.net.state_dict().values()):
        assert torch.equal(a, b), name
    assert torch.equal(plain.generators["net"].get_state(), more.generators["net"].get_state())
    seen = search_of(passes=Attentive, candidates=4, pool=4, draws=2)
    before = {name: value.clone() for name, value in seen.net.state_dict().items()}
    seen.net.train()
    step = seen._of_step(batch(), seen.draw_for_w(batch(), seen.relaxation.noise(seen.generators["alpha"])))
    assert step.loss(step.draw).requires_grad is False
    assert all(torch.equal(before[name], value) for name, value in seen.net.state_dict().items())


@pytest.mark.parametrize("options, message", [({"pool": 2}, "passes.pool must be at least the 3 candidates"),
                                              ({"train": "middle"}, "passes.train must be best or worst, got 'middle'")])
def test_what_attention_cannot_do_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        search_of(passes=Attentive, **options)


# ---- draws that follow the alphas


def relaxed(kind):
    return lambda space, generator: Steered(kind(space, generator), space, generator)


@pytest.mark.parametrize("kind", [Softmax, Dirichlet, ReinMax, GumbelHard], ids=lambda kind: kind.__name__)
def test_what_is_trained_beside_the_extremes_is_drawn_by_the_alphas(kind):
    """The mean of the one-hot draws of the steps against the relaxation's mean weights, within 5 standard errors."""
    search = search_of(relaxation=relaxed(kind), draws=1)
    with torch.no_grad():
        for alpha in search.relaxation.tables().values():
            alpha += torch.tensor([0.0, 1.5])
    count, trained = 200, {kind: 0.0 for kind in SPACE.cells}
    for _ in range(count):
        draw = search.draw_for_w(batch(), search.relaxation.noise(search.generators["alpha"]))
        for name, w in draw.items():
            assert all(sum(row) == 1 for row in w.active) and torch.equal(w.ops, torch.tensor(w.active, dtype=w.ops.dtype))
            trained[name] = trained[name] + w.ops / count
    for name, w in search.relaxation.mean().items():
        p = w.ops.detach()
        assert (p[:, 1] > 0.6).all()
        assert ((trained[name] - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-3).all()


def test_the_draws_of_the_passes_are_those_of_the_steered_relaxation():
    trained = []
    for passes in (Sandwich, Attentive):
        search = search_of(passes=passes, relaxation=relaxed(Softmax), draws=2)
        with torch.no_grad():
            for alpha in search.relaxation.tables().values():
                alpha += torch.tensor([0.0, 60.0])  # the second choice of each decision, for sure
        run_as = search._of_step

        def watched(own, draw, run_as=run_as):
            step = run_as(own, draw)
            return dataclasses.replace(step, run=lambda weights, task: trained.append(weights) or step.run(weights, task))

        search._of_step = watched
        search.net.train()
        search.w_step(batch())
    assert len(trained) == 8
    for weights in trained[2:4] + trained[6:]:
        assert all(row == (False, True) for w in weights.values() for row in w.active)


def test_exploring_gives_each_op_its_share_and_pruned_edges_run_nothing():
    space = layerwise.make(stages=[[1, 2], [2, 2]])
    inner = Softmax(space, torch.Generator())
    with torch.no_grad():
        for alpha in inner.tables().values():
            alpha[:, 0] = 80.0
    inner = inner.double()
    steered = Steered(inner, space, torch.Generator(), explore=0.5).double()
    generator, count = torch.Generator().manual_seed(0), 600
    mean = {kind: 0.0 for kind in space.cells}
    for _ in range(count):
        for kind, w in steered.drawn(inner.mean(), generator).items():
            mean[kind] = mean[kind] + w.ops / count
    for kind, spec in space.cells.items():
        own = torch.tensor(spec.selectable, dtype=torch.float64)
        p = 0.5 * inner.mean()[kind].ops.detach() + 0.5 * own / own.sum(1, keepdim=True)
        assert ((mean[kind] - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-9).all()
    pruned = replaced(inner.mean().detach(), lambda kind, w: {"ops": w.ops * torch.arange(len(w.ops))[:, None].clamp(max=1)})
    for w in steered.drawn(pruned, generator).values():
        assert not any(w.active[0]) and all(sum(row) == 1 for row in w.active[1:])


def test_a_policy_steers_by_itself():
    """The controller's draws are architectures. Its scores are squashed to +-0.44 [1.1 / 2.5]: the favoured of two has p = 0.707."""
    search = search_of(relaxation=Controller, draws=1)
    with torch.no_grad():
        search.relaxation.head.bias.copy_(torch.tensor([-90.0, 90.0]).repeat(3))  # of depth, expansion, kernel
    search.net.train()
    search.w_step(batch())
    rows = [row for _ in range(40) for w in search.draw_for_w(batch(), search.relaxation.noise(search.generators["alpha"])).values()
            for row in w.active]
    assert all(sum(row) == 1 for row in rows)
    assert sum(row[1] for row in rows) / len(rows) == pytest.approx(1 / (1 + 2.718281828 ** -0.88), abs=0.06)


def test_mixtures_are_refused_where_passes_choose_among_architectures():
    generator = torch.Generator()
    mixture, drawn = Softmax(SPACE, generator), Steered(Softmax(SPACE, generator), SPACE, generator)
    attentive = search_of(passes=Attentive).passes
    check_passes(attentive, Classification(), drawn.samples(generator))
    check_passes(search_of().passes, Classification(), mixture.samples(generator))
    with pytest.raises(UsageError, match="wrapper=.steered."):
        check_passes(attentive, Classification(), mixture.samples(generator))

"""Steps of the weights that run several architectures, against the losses written out."""

import random

import pytest
import torch
import torch.nn.functional as F

from ops.op import Normalisation
from supernet.bilevel import Bilevel
from supernet.costs.chain import chain_costs
from supernet.errors import UsageError
from supernet.hypergradients.first_order import first_order
from supernet.passes import Sandwich, extremes
from supernet.relaxations.uniform import Uniform
from supernet.spaces import darts, layerwise, nasbench_macro, ofa_mobilenet
from supernet.tasks.classification import Classification
from supernet.tasks.mixing import MixUp
from supernet.weights import one_hot
from tests.reference import close

SPACE = ofa_mobilenet.make(kernels=(3, 5), expansions=(2, 4), depths=(1, 2), strides=(1, 2, 1, 1, 1), stem_stride=1)
NORM = Normalisation(affine=False, after_pools=True)
SIZES = {"layers": SPACE.sizes["layers"], "channels": 8, "num_classes": 5}


def search_of(task=None, **options):
    torch.manual_seed(0)
    net = SPACE.network(SPACE.candidates(), norm=NORM, **SIZES).double()
    generators = {name: torch.Generator().manual_seed(n) for n, name in enumerate(("alpha", "net"))}
    relaxation = Uniform(SPACE, generators["alpha"]).double()
    return Bilevel(net, relaxation, first_order, task or Classification(), torch.optim.SGD(net.parameters(), lr=1.0), None, generators,
                   passes=Sandwich(SPACE, net, **options))


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

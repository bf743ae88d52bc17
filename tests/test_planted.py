"""Every method on a task with a known best architecture (tests/planted.py), within STEPS updates of the weights.

One seed each by default; all five with `-m slow`, which says in the junit report how many were solved. `python -m benchmarks.methods`
makes a table of such reports.
"""

import pytest

from tests import planted
from tests.planted import ADAM, METHODS, STEPS, TASK
from tests.searches import searched

# Methods that solve fewer than four of five seeds, and why. Strict: one that comes to solve them fails its test until it is taken out.
#
# What gdas and reinmax miss (seed 4 of 5; 1 and 4 of 20) has other reasons, told in docs/methods.md. In seed 4 the path through the
# convolution, untrained, costs at first (0.96 nats, where nothing at all costs 0.69), the alphas leave it as they should, and from then on
# it is drawn in one draw of sixteen or none, so that it never learns what would bring it back. gdas finds all if the weights learn first.
FEWER = {
    "fair_darts": "the convolution's weight goes to 1 in every seed, but a skip or a pool may end nearer to it: the zero-one loss alone "
                  "drives those, and Adam takes larger steps for them",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "stripes.npz"
    planted.write_images(path)
    return path


def planted_search(method, seed, images, *more):
    alphas = [] if "optimizer@alpha_optimizer=exponentiated_gradient" in METHODS[method] else ADAM
    zero = ["alpha_optimizer.weight_decay=0"] if not alphas else []
    stages, records, genotype = searched(*TASK, f"dataset.path={images}", f"seed={seed}", *alphas, *METHODS[method], *zero, *more)
    assert records[-1]["step"] <= STEPS
    return stages.loop.search.relaxation.mean(), genotype


def solves(method, seed, images, *more):
    return planted.solved(planted_search(method, seed, images, *more)[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_op_is_found(method, images, record_property):
    record_property("planted", method)
    assert solves(method, 0, images)


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param(method, marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason=FEWER[method]))
                                    if method in FEWER else method for method in METHODS])
def test_the_planted_op_is_found_over_five_seeds(method, images, record_property):
    found = [solves(method, seed, images) for seed in range(5)]
    record_property("planted_seeds", method)
    record_property("solved", f"{sum(found)} of 5")
    assert sum(found) >= 4


@pytest.mark.slow
def test_gdas_finds_all_where_the_weights_learn_before_the_alphas(images):
    assert all(solves("gdas", seed, images, "alpha_begin=4") for seed in range(5))


@pytest.mark.slow
def test_fair_darts_has_found_the_op_also_where_another_ends_stronger_and_ranks_it_first_without_its_penalty(images):
    spec = planted.make().cells["cell"]
    edge, op = spec.edges.index((0, 1)), spec.ops.index("nor_conv_3x3")
    assert all(planted_search("fair_darts", seed, images)[0]["cell"].ops[edge, op] > 0.9 for seed in range(5))
    assert all(solves("fair_darts", seed, images, "penalty.zero_one.weight=0") for seed in range(5))

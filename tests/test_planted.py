"""Every method on a task with a known best architecture (tests/planted.py), within STEPS updates of the weights.

One seed each by default; all five with `-m slow`, which says in the junit report how many were solved. `python -m benchmarks.methods`
makes a table of such reports.
"""

import pytest

from tests import planted
from tests.test_presets import searched

EPOCHS, STEPS = 15, 15 * 8
TASK = ["space=custom", "space._target_=tests.planted.make", "dataset=npz", "dataset.source.layout=NHW", "dataset.augment.pad=0",
        "dataset.augment.flip=false", "split.mode=stratified", f"epochs={EPOCHS}", "batch_size=32", "channels=4", "layers=1", "threads=1",
        "w_optimizer.lr=0.1", "w_optimizer.weight_decay=0", "lr_minimum=0.01"]
ADAM = ["alpha_optimizer.lr=0.05", "alpha_optimizer.weight_decay=0"]
METHODS = {
    "darts_first_order": [],
    "darts_second_order": ["hypergradient=finite_difference"],
    "darts_unrolled": ["hypergradient=unrolled"],
    "gdas": ["relaxation=gumbel"],
    "snas": ["relaxation=concrete", "hypergradient=single_level"],
    "fbnet": ["relaxation=concrete", "relaxation.decay=exponential", "relaxation.temperature=5", "relaxation.temperature_end=0.1"],
    "reinmax": ["relaxation=reinmax"],
    "pc_darts": ["wrapper=[edge_normalised]", "network={partial:2}"],
    "p_darts": ["skip_dropout=p_darts", "select=limited_skips", "select.kinds=[cell]", "stage.keep=[2]", "stage.epochs=[7,8]",
                "stage.layers=[1,2]", "stage.skip_dropout=[0,0.4]"],
    "fair_darts": ["relaxation=sigmoid", "penalty=[zero_one]", "penalty.zero_one.weight=1", "select=threshold"],
    "sdarts_rs": ["wrapper=[random_perturbed]"],
    "sdarts_adv": ["wrapper=[adversarial]"],
    "r_darts_l2": ["hypergradient=finite_difference", "w_optimizer.weight_decay=81e-4"],
    "r_darts_dp": ["hypergradient=finite_difference", "drop_path_prob=0.2"],
    "darts_es": ["hypergradient=finite_difference", "monitor=[eigenvalue]", "monitor.eigenvalue.stop=true"],
    "darts_ada": ["hypergradient=finite_difference", "w_optimizer.weight_decay=3e-4", "monitor=[eigenvalue]",
                  "monitor.eigenvalue.retry=10"],
    "darts_minus": ["wrapper=[auxiliary_skip]", "network={auxiliary_skip:true}"],
    "darts_pt": ["final_select=perturbation", "final_select.finetune_epochs=1"],
    "dr_nas": ["relaxation=dirichlet"],
    "dr_nas_progressive": ["relaxation=dirichlet", "stage.keep=[2]", "stage.epochs=[7,8]", "stage.network={partial:[2,1]}",
                           "stage.inherit=weights", "stage.schedules=search"],
    "oles": ["monitor=[op_freezing]"],
    "beta_darts": ["penalty=[beta_decay]", "penalty.beta_decay.weight=1"],
    "lambda_darts": ["w_penalty=[layer_alignment]", "layers=2"],  # one cell has nothing to align
    "sgas": ["wrapper=[greedy]", "wrapper.greedy.warm_up=6", "wrapper.greedy.every=2"],
    "gaea": ["relaxation=simplex", "hypergradient=single_level", "optimizer@alpha_optimizer=exponentiated_gradient",
             "alpha_optimizer.lr=0.1"],
    "gaea_pc_darts": ["relaxation=simplex", "wrapper=[edge_normalised]", "wrapper.edge_normalised.form=simplex", "network={partial:2}",
                      "optimizer@alpha_optimizer=exponentiated_gradient", "alpha_optimizer.lr=0.1"],
    "idarts": ["hypergradient=neumann", "hypergradient.step=0.1"],
    "conjugate_gradient": ["hypergradient=conjugate_gradient"],
    "proxyless": ["relaxation=binary_gates"],
    "spos": ["relaxation=uniform", "final_select=sampled", "final_select.n=30", "final_select.statistics=recalibrated"],
    "random_ws": ["relaxation=uniform", "final_select=sampled", "final_select.n=30"],
    "enas": ["relaxation=controller", "hypergradient=reinforce", "hypergradient.samples=4", "final_select=sampled", "final_select.n=20",
             "final_select.source=relaxation"],
}


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

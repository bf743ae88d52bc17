import functools
import math
import random

import numpy as np
import pytest
import torch

from ops.op import Normalisation
from supernet.app import compose
from supernet.bilevel import ALPHA_NORM, TRAINING_LOSS
from supernet.data.augment import Augment
from supernet.data.digits import Digits
from supernet.data.loader import final_loaders
from supernet.data.split import make_split
from supernet.hypergradients.base import constant
from supernet.optim.groups import weight_groups
from supernet.optim.schedules import Constant, Cosine, CosineAfterWarmUp, CosineRestarts, Exponential, Linear
from supernet.relaxations.softmax import Softmax
from supernet.spaces import darts
from supernet.tasks.classification import Classification
from supernet.training.evaluate import evaluate
from supernet.training.final import FinalLoop, fit_final
from supernet.training.guard import Diverged, Guard, first_nonfinite
from supernet.training.records import Generators, Position, Totals, Trajectory, Verdict, snapshots
from tests.searches import composed


class Records(list):
    def step(self, images, totals):
        pass

    def epoch(self, record, genotype):
        self.append(record)


def final_loop(lr=0.05, call=None, task=None):
    cpu = torch.device("cpu")
    generators = Generators.from_seed(0, {"net": cpu, "train": cpu})
    source = Digits()
    split = make_split(source.train().labels, mode="stratified", train_portion=0.9, max_train=64, max_val=32,
                       generator=generators["net"])
    loaders = final_loaders(source, split, batch_size=32, augment=Augment(pad=1), generator=generators["train"], device=cpu)
    space = darts.make(nodes=1)
    torch.manual_seed(0)
    genotype = space.sample(random.Random(1))
    net = space.network(space.candidates(genotype), layers=2, channels=2, num_classes=10, in_channels=1, image_size=(8, 8),
                        norm=Normalisation(True, False), auxiliary=True)
    position = Position()
    guard = Guard(net, cpu, 50, position, lambda batch, otherwise: "described")
    sgd = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    return FinalLoop(net, task or Classification(auxiliary_weight=0.4), sgd, loaders.train, loaders.val, None, lr, Cosine(),
                     drop_path_prob=0.3, clip_norm=5.0, generators=generators, guard=guard, totals=Totals(cpu), position=position,
                     call=call and call(net))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's tracer looks at what it then warns about
def test_a_compiled_network_trains_like_itself():
    """Through the tracer alone (backend eager): the same graph breaks and calls, without a C++ compiler."""
    plain, compiled = final_loop(), final_loop(call=functools.partial(torch.compile, backend="eager"))
    records = Records(), Records()
    fit_final(plain, 2, records[0]), fit_final(compiled, 2, records[1])
    for a, b in zip(plain.net.parameters(), compiled.net.parameters()):
        torch.testing.assert_close(a, b)
    assert [r["train_loss"] for r in records[1]] == pytest.approx([r["train_loss"] for r in records[0]])


def test_drop_path_rises_and_lr_falls_over_the_epochs():
    records = Records()
    fit_final(final_loop(), 3, records)
    assert [r["drop_path_prob"] for r in records] == pytest.approx([0.0, 0.1, 0.2])
    assert [r["lr"] for r in records] == pytest.approx([0.05, 0.0375, 0.0125])


@pytest.mark.equation("r_darts_dp")
@pytest.mark.parametrize("rises, want", [("true", [0.0, 0.1, 0.2, 0.3, 0.4]), ("false", [0.4] * 5)])
def test_drop_path_of_a_search_rises_to_its_end_in_the_last_epoch_or_is_constant(rises, want):
    """RobustDARTS' train_search.py: p e / (E - 1); SNAS' model_search.py: p."""
    cfg = composed("space.nodes=1", "layers=3", "channels=2", "split.max_train=64", "split.max_val=64", "batch_size=32", "threads=1",
                   "table=none", "drop_path_prob=0.4", f"drop_path_rises={rises}")
    loop = compose.search_stages(cfg, compose.search_parts(cfg)).loop
    seen = []
    for epoch in range(5):
        loop.set_epoch(epoch, 5)
        seen.append(loop.search.net.drop_path_prob)
    assert seen == pytest.approx(want) and seen[-1] == 0.4
    loop.set_epoch(0, 1)
    assert loop.search.net.drop_path_prob == want[0], "one epoch is the first"
    assert composed("experiment=r_darts_dp_cifar10").drop_path_rises and not composed("experiment=snas_cifar10").drop_path_rises


def test_weights_that_broke_in_the_last_step_end_the_run():
    loop = final_loop(lr=1e38)
    loop.clip_norm = None
    records = Records()
    with pytest.raises(Diverged, match="loss is|not finite"):
        fit_final(loop, 1, records)
    assert not records


def test_guard_refuses_to_save_what_is_not_finite():
    loop = final_loop()
    loop.guard.before_save()
    with torch.no_grad():
        loop.net.classifier.bias[0] = math.nan
    with pytest.raises(Diverged, match="a weight is not finite in epoch 0, step 0 of the run"):
        loop.guard.before_save()


def test_guard_on_a_gpu_looks_now_and_then_but_names_the_first_bad_step():
    position = Position()
    guard = Guard(torch.nn.Linear(1, 1), torch.device("cuda"), 4, position, lambda batch, otherwise: f"batch {batch}, {otherwise}")
    for step, loss in enumerate([1.0, math.inf, math.nan]):
        position.step = step
        guard("training loss", torch.tensor(loss), step)
    position.step = 3
    with pytest.raises(Diverged, match="training loss is inf in epoch 0, step 1 .* batch 1, so it is the loss itself"):
        guard.look()


def test_a_gradient_that_overflows_is_not_called_the_loss():
    net, batch = final_loop().net, (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
    guard = Guard(net, torch.device("cpu"), 1, Position(), lambda batch, otherwise: first_nonfinite(net, None, batch, otherwise))
    with pytest.raises(Diverged, match="gradient's norm is inf .* every output of the network is finite, so it is the gradient, which"):
        guard(ALPHA_NORM, torch.tensor(math.inf), batch)
    with pytest.raises(Diverged, match="training loss is inf .* every output of the network is finite, so it is the loss itself"):
        guard(TRAINING_LOSS, torch.tensor(math.inf), batch)


def test_generators_are_independent_of_each_other_and_resume():
    cpu = torch.device("cpu")
    one, two = Generators.from_seed(3, {"a": cpu, "b": cpu}), Generators.from_seed(3, {"b": cpu})
    draw = lambda g: torch.rand(3, generator=g)
    assert torch.equal(draw(one["b"]), draw(two["b"])) and not torch.equal(draw(one["a"]), draw(one["b"]))
    state = one.state_dict()
    first = draw(one["a"])
    one.load_state_dict(state)
    assert torch.equal(first, draw(one["a"]))


def test_a_long_search_has_fewer_snapshots_an_epoch_but_always_one():
    assert [snapshots(20, epochs) for epochs in (0, 1, 50, 100, 200, 1000, 10**6)] == [20, 20, 20, 20, 10, 2, 1]
    assert snapshots(3, 200) == 3


def test_a_record_of_the_alphas_that_was_saved_and_gone_on_with_is_that_of_an_unbroken_search():
    relaxation = Softmax(darts.make(nodes=1), torch.Generator().manual_seed(0))
    whole, broken = Trajectory(), Trajectory()
    for n in range(6):
        with torch.no_grad():
            for p in relaxation.parameters():
                p += n
        whole.add(n, relaxation), broken.add(n, relaxation)
        if n in (1, 3):
            state, broken = broken.state_dict(), Trajectory()
            broken.load_state_dict(state)
            assert all(len(pieces) == 1 for pieces in broken.tables.values()), "one array a table, however many snapshots"
    assert broken.epochs == whole.epochs and broken.arrays().keys() == whole.arrays().keys()
    for name, array in whole.arrays().items():
        assert np.array_equal(array, broken.arrays()[name]), name
    assert broken.arrays()["alpha.normal"].shape == (6, 2, 8)


def test_the_genotype_of_an_epoch_that_is_as_the_one_before_is_kept_once():
    space, verdict = darts.make(nodes=1), Verdict()
    one, other = (space.sample(random.Random(seed)) for seed in (0, 1))
    for genotype in (one, one, other, one):
        verdict.add(genotype)
    first, second, third, fourth = verdict.genotypes
    assert first is second and first == fourth == one.to_json() and third == other.to_json()


def test_evaluate_averages_over_images_not_batches():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, weights=None, *, generator=None):
            return x * self.scale

    batches = [(torch.eye(3) * 9, torch.tensor([0, 1, 2])), (torch.eye(3)[:1] * 9, torch.tensor([1]))]
    assert evaluate(Net(), Classification(), batches, lambda: None, torch.Generator())["accuracy"] == 75


def test_constant_gives_back_each_flag():
    a, frozen = torch.ones(1, requires_grad=True), torch.ones(1)
    with constant((a, frozen)):
        assert not a.requires_grad
    assert a.requires_grad and not frozen.requires_grad


def test_schedules():
    assert [Cosine(0.001)(0.025, e, 50) for e in (0, 25, 50)] == pytest.approx([0.025, 0.013, 0.001])
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(sgd := torch.optim.SGD([torch.zeros(1)], lr=0.025), 50, 0.001)
    for epoch in range(50):
        assert Cosine(0.001)(0.025, epoch, 50) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        sgd.step(), reference.step()
    assert Constant()(0.1, 7, 10) == 0.1 and Linear()(0.1, 5, 10) == pytest.approx(0.05)
    assert Exponential(0.97)(0.1, 2, 9) == pytest.approx(0.09409)


def test_a_cosine_over_its_own_epochs_comes_back_up_as_torch_has_it():
    sgd = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    reference = torch.optim.lr_scheduler.LambdaLR(sgd, lambda e: (5e-4 + (0.05 - 5e-4) * (1 + math.cos(math.pi * e / 10)) / 2) / 0.05)
    found = []
    for epoch in range(35):
        assert Cosine(5e-4, over=10)(0.05, epoch, 250) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9)
        found.append(Cosine(5e-4, over=10)(0.05, epoch, 250))
        sgd.step(), reference.step()
    assert found[10] == pytest.approx(5e-4) and found[20] == pytest.approx(0.05) and found[30] == pytest.approx(5e-4)
    assert Cosine(0.001, over=50)(0.025, 24, 25) == pytest.approx(Cosine(0.001)(0.025, 24, 50)), "a shorter run is stopped on the way"


def test_a_cosine_restarts_as_torch_has_it():
    sgd = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(sgd, 10, 2, 5e-4)
    for epoch in range(150):
        assert CosineRestarts(minimum=5e-4)(0.05, epoch, 150) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-9), epoch
        sgd.step(), reference.step()


def test_a_warm_up_has_a_cosine_of_its_own():
    schedule = CosineAfterWarmUp(warm_up_epochs=40, warm_up_lr=0.05)
    assert [schedule(0.025, e, 160) for e in (0, 20, 40, 100)] == pytest.approx([0.05, 0.025, 0.025, 0.0125])
    assert schedule(0.025, 39, 160) < 1e-4 and schedule(0.025, 159, 160) < 1e-4
    assert schedule(0.025, 1, 2) > 0.049, "a run that ends in its warm-up"
    for make in (lambda: CosineAfterWarmUp(-1, 0.1), lambda: CosineAfterWarmUp(1, 0.0), lambda: CosineRestarts(first=0),
                 lambda: Cosine(over=0)):
        with pytest.raises(ValueError, match="must be"):
            make()


def test_norms_and_biases_may_be_left_out_of_the_decay():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    assert all(a is b for a, b in zip(weight_groups(net), net.parameters(), strict=True))
    sgd = torch.optim.SGD(weight_groups(net, decay_norms_and_biases=False), lr=0.1, momentum=0.9, weight_decay=1e-2)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    sgd.step()
    for name, p in net.named_parameters():
        decays = name in ("0.weight", "3.weight")
        torch.testing.assert_close(p.detach(), before[name] * (1 - 1e-3 if decays else 1))
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False))
    assert len(weight_groups(plain, decay_norms_and_biases=False)) == 1, "no group is empty"


@pytest.mark.parametrize("size", [(32, 64), (16, 8), (8, 8), (40, 24)])
def test_auxiliary_head_takes_any_shape(size):
    space = darts.make(nodes=1)
    net = space.network(space.candidates(space.sample(random.Random(0))), layers=3, channels=2, num_classes=4, image_size=size,
                        norm=Normalisation(True, False), auxiliary=True)
    assert net(torch.randn(2, 3, *size), auxiliary=True)[1].shape == (2, 4)

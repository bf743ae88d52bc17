"""What a GPU could do otherwise than a CPU, on the GPU where there is one: the same tests elsewhere, on the CPU."""

import copy

import pytest
import torch

from supernet.bilevel import Bilevel
from supernet.data.augment import Augment
from supernet.data.cifar10 import CIFAR10
from supernet.data.loader import Loader
from supernet.data.random import Random
from supernet.hypergradients.finite_difference import finite_difference
from supernet.hypergradients.first_order import first_order
from supernet.networks.build import initial_weights, search_normalisation
from supernet.networks.measure import live_tensors, peak_memory
from supernet.relaxations.gumbel import GumbelHard
from supernet.relaxations.softmax import Softmax
from supernet.runs import checkpoint
from supernet.runs.checkpoint_writer import Writer
from supernet.runs.device import precision
from supernet.runs.dry_run import available_memory, live_bytes, report
from supernet.spaces import darts, nasbench201
from supernet.tasks.classification import Classification
from supernet.training.guard import Diverged, Guard
from supernet.training.records import Generators, Position, Totals

pytestmark = pytest.mark.cuda
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CPU = torch.device("cpu")


def test_a_checkpoint_by_a_thread_is_of_the_moment_at_which_it_was_asked_for(tmp_path):
    writer, wanted = Writer(tmp_path, keep=100, background=True), []
    w, turn = torch.randn(500, 500, device=DEVICE), torch.linalg.qr(torch.randn(500, 500, device=DEVICE))[0]
    for step in range(5):
        for _ in range(50):  # work that the device has not done when the checkpoint is asked for
            w.copy_(turn @ w)
        kept = w.clone()
        writer.save({"w": w, "again": w}, f"step_{step}")
        w.mul_(1.5)
        wanted.append(kept)
    writer.wait()
    found = [checkpoint.load_file(path)["w"] for path in checkpoint.all_files(tmp_path)]
    assert all(torch.equal(a, b.cpu()) for a, b in zip(found, wanted, strict=True))


def search(device, *, space=None, relaxation=Softmax, hypergradient=first_order, dtype=torch.float64, amp="none"):
    """Always the same."""
    space = space or darts.make(nodes=1)
    with initial_weights(0):
        net = space.network(space.candidates(), layers=3 if "normal" in space.cells else 5, channels=4, num_classes=3,
                            norm=search_normalisation("search", "running"))
    net = net.to(device, dtype, memory_format=torch.channels_last).train()
    alphas = relaxation(space, torch.Generator().manual_seed(1)).to(device, dtype)
    generators = {"alpha": torch.Generator().manual_seed(2), "net": torch.Generator(device).manual_seed(3)}
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=3e-4)
    return Bilevel(net, alphas, hypergradient, Classification(), sgd,
                   torch.optim.Adam(alphas.parameters(), lr=1e-2), generators, clip_norm=5.0, context=precision(amp, device))


def batches(device, dtype=torch.float64, size=6):
    g = torch.Generator().manual_seed(7)
    drawn = [(torch.randn(size, 3, 8, 8, generator=g, dtype=torch.float64), torch.randint(3, (size,), generator=g)) for _ in range(2)]
    return [(x.to(device, dtype, memory_format=torch.channels_last), y.to(device)) for x, y in drawn]


def assert_near(mine, theirs, tolerance):
    for a, b in zip(mine, theirs, strict=True):
        scale = max(b.abs().max().item(), 1e-9)
        assert (a.cpu().double() - b.cpu().double()).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("name, how", {"darts": {}, "second order": {"hypergradient": finite_difference},
                                       "one op an edge": {"relaxation": GumbelHard}, "nasbench201": {"space": nasbench201.make()}}.items())
def test_steps_are_those_of_the_cpu(name, how):
    """Two pairs of steps in float64: weights, alphas and running statistics."""
    ours, theirs = search(DEVICE, **how), search(CPU, **how)
    for s, device in ((ours, DEVICE), (theirs, CPU)):
        for _ in range(2):
            s.step(*batches(device))
    tolerance = 1e-6 if name == "second order" else 1e-9
    assert_near(ours.w, theirs.w, tolerance)
    assert_near(ours.alpha, theirs.alpha, tolerance)
    assert_near([n.running_var for n in ours.norms], [n.running_var for n in theirs.norms], tolerance)


def test_bf16_comes_near_and_leaves_weights_and_alphas_in_float32():
    mixed, plain = (search(DEVICE, dtype=torch.float32, amp=amp) for amp in ("bf16", "none"))
    losses = [s.step(*batches(DEVICE, torch.float32))["loss"].item() for s in (mixed, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in (*mixed.w, *mixed.alpha))


def test_batches_lie_on_the_device_and_are_those_of_the_cpu_without_draws():
    images = Random(num_train=40, image_size=8).train()
    made = {}
    for device in (DEVICE, CPU):
        transform = Augment().for_training(CIFAR10.mean, CIFAR10.std, device=device, channels_last=True)
        made[device.type] = list(Loader(images, torch.arange(40), batch_size=16, transform=transform,
                                        generator=torch.Generator(device).manual_seed(0), shuffle=False, drop_last=False, device=device))
    for (x, y), (want, labels) in zip(made[DEVICE.type], made["cpu"], strict=True):
        assert x.device.type == y.device.type == DEVICE.type and x.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(x.cpu(), want, rtol=1e-6, atol=1e-6)
        assert torch.equal(y.cpu(), labels)


def test_augmentation_draws_on_the_device_and_repeats():
    pixels = Random(num_train=64, image_size=32).train().pixels.to(DEVICE)
    transform = Augment(pad=4, flip=True, cutout=16).for_training(CIFAR10.mean, CIFAR10.std, device=DEVICE, channels_last=True)
    first, again, other = (transform(pixels, torch.Generator(DEVICE).manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    holes = (first == 0).all(1).flatten(1).sum(1)
    assert first.shape == (64, 3, 32, 32) and (holes >= 64).all() and holes.float().mean() > 100


def test_a_checkpoint_of_the_device_goes_on_on_the_cpu_and_back(tmp_path):
    """Weights, alphas, momenta; read where there is no GPU."""
    ours = search(DEVICE)
    ours.step(*batches(DEVICE))
    parts = ("net", "relaxation", "w_optimizer", "alpha_optimizer")
    state = {"parts": {name: getattr(ours, name).state_dict() for name in parts}}
    checkpoint.save(tmp_path, state, name="epoch_0000")
    read = checkpoint.load(tmp_path).state["parts"]
    assert {t.device.type for t in read["net"].values()} == {"cpu"}
    for device in (CPU, DEVICE):
        other = search(device)
        for name in parts:
            getattr(other, name).load_state_dict(copy.deepcopy(read[name]))
        mine = copy.deepcopy(ours)
        for s, where in ((other, device), (mine, DEVICE)):
            s.step(*batches(where))
        assert_near(other.w, mine.w, 1e-9)
        assert_near(other.alpha, mine.alpha, 1e-9)


def test_generators_of_the_device_are_saved_and_put_back():
    made = Generators.from_seed(3, {"net": DEVICE, "alpha": CPU})
    state = made.state_dict()
    first = torch.rand(4, generator=made["net"], device=DEVICE)
    made.load_state_dict(state)
    assert torch.equal(first, torch.rand(4, generator=made["net"], device=DEVICE))


def test_sums_over_an_epoch_stay_on_the_device_until_they_are_asked_for():
    totals = Totals(DEVICE)
    s = search(DEVICE)
    for _ in range(2):
        totals.add(s.step(*batches(DEVICE)))
    assert totals.sums.device.type == DEVICE.type
    assert totals.means()["loss"] > 0 and 0 <= totals.means()["accuracy"] <= 100


def test_a_loss_that_is_not_finite_is_found_at_the_next_look():
    position = Position()
    guard = Guard(torch.nn.Linear(1, 1).to(DEVICE), DEVICE, 3, position, lambda batch, otherwise: otherwise)
    batch = (torch.zeros(1, 1, device=DEVICE), torch.zeros(1, device=DEVICE))
    with pytest.raises(Diverged, match="training loss is nan"):
        for step, value in enumerate((1.0, float("nan"), 1.0)):
            position.step = step
            guard("training loss", torch.tensor(value, device=DEVICE), batch)


def test_peak_memory_is_that_of_the_highest_moment():
    entries = 2**20
    held = torch.zeros(entries, device=DEVICE)

    def step():
        large = torch.ones(3 * entries, device=DEVICE)
        held.copy_(large[:entries])

    before = live_bytes(DEVICE)
    peak = peak_memory(step, DEVICE, live_tensors(DEVICE))
    assert 3 * 4 * entries <= peak - before < 3.5 * 4 * entries
    assert available_memory(DEVICE) > 0


@GPU
def test_a_dry_run_of_more_than_the_device_has_says_what_would_fit():
    s = search(DEVICE)

    def step():
        torch.empty(2**50, dtype=torch.uint8, device=DEVICE)

    rows = dict(report(s.net, step, example=batches(DEVICE)[0][0][:1], item="image", batch_size=64, steps_per_epoch=1, epochs=1,
                       device=DEVICE, remedies=["batch_size=32"]))
    assert "more than the device has" in rows["peak memory"] and rows["to make it fit"] == "batch_size=32"


def test_a_step_asks_the_device_for_nothing_but_which_ops_run():
    """Every read makes a GPU wait. A softmax needs none; drawn paths are read once a table."""
    asked = []
    usual = torch.Tensor.tolist

    def told(tensor):
        asked.append(tuple(tensor.shape))
        return usual(tensor)

    reads = {name: getattr(torch.Tensor, name) for name in ("item", "cpu", "numpy", "__bool__", "__float__", "__int__")}
    for relaxation, want in ((Softmax, 0), (GumbelHard, 2)):
        s = search(DEVICE, relaxation=relaxation)
        data = batches(DEVICE)
        s.step(*data)  # makes the optimizers' states, whose step counts live on the host
        asked.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", told)
            counts = {id(state["step"]) for o in (s.w_optimizer, s.alpha_optimizer) for state in o.state.values() if "step" in state}
            for name, original in reads.items():
                patch.setattr(torch.Tensor, name, lambda tensor, *rest, original=original, name=name: original(tensor, *rest) if id(
                    tensor) in counts or not tensor.is_cuda else pytest.fail(f"the host reads a tensor: {name}"))
            draw = s.relaxation(s.generators["alpha"])
            s.w_step(data[0], draw.detach())
        assert len(asked) == want

"""Augmentation as a graph holds it, against the transform itself. Without a GPU a stand-in for a graph replays it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from supernet.data.augment import Augment
from supernet.data.base import DataError, Images
from supernet.data.digits import Digits
from supernet.data.images import ImageData
from supernet.data.loader import Forever, Loader
from supernet.training.graphed import Capturing
from supernet.training.graphed_images import GraphedTransform, augment_in_graphs

BATCH = 8
MEAN, STD = (0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)
AUGMENTS = {"published": Augment(pad=4, flip=True, cutout=16), "crop": Augment(pad=2, flip=True, cutout=6, crop=20), "nothing": Augment()}


class StandIn:
    """A graph on the CPU: capturing calls the function and takes its draws back, for a captured function does not run; a replay calls it
    and writes into the same outputs. Only from the generators that it was told may it draw."""

    def __init__(self):
        self.captured = self.warmed = 0

    def warm_up(self, run):
        self.warmed += 1
        return run()

    def capture(self, run, generators=()):
        states = [g.get_state() for g in generators]
        outputs = run()
        assert any(not torch.equal(g.get_state(), state) for g, state in zip(generators, states))
        for g, state in zip(generators, states):
            g.set_state(state)
        self.captured += 1
        return StandInGraph(run, outputs)


class StandInGraph:
    def __init__(self, run, outputs):
        self.run, self.outputs = run, outputs

    def replay(self):
        for name, value in self.run().items():
            self.outputs[name].copy_(value)


def loader(augment, device="cpu", channels_last=True, items=3 * BATCH + 3, seed=1, **how):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (items, 3, 32, 32), generator=draw, dtype=torch.uint8)
    images = Images(pixels, torch.randint(10, (items,), generator=draw))
    device = torch.device(device)
    transform = augment.for_training(MEAN, STD, device=device, channels_last=channels_last)
    return Loader(images, torch.arange(items), batch_size=BATCH, transform=transform, shuffle=True, drop_last=False, device=device,
                  generator=torch.Generator(device).manual_seed(seed), **how)


def in_graphs(made, capturing):
    augment_in_graphs(capturing, ImageData(Digits(), Augment()), made)
    return made


def assert_same_batches(mine, theirs, passes):
    for _ in range(passes):
        for (x, y), (a, b) in zip(mine, theirs, strict=True):
            assert torch.equal(x, a) and torch.equal(y, b) and x.stride() == a.stride() and x.dtype == a.dtype


@pytest.mark.parametrize("capturing", [lambda: None, StandIn])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", AUGMENTS)
def test_the_batches_are_the_same_bits(name, channels_last, capturing):
    """Of seven passes, each with a smaller last batch; orders and augmentations draw from one generator."""
    captures = capturing()
    mine, theirs = (loader(AUGMENTS[name], channels_last=channels_last) for _ in range(2))
    assert_same_batches(in_graphs(mine, captures), theirs, 7)
    assert torch.equal(mine.generator.get_state(), theirs.generator.get_state())
    if captures is not None:
        assert (captures.warmed, captures.captured) == (2, 1)


def test_a_batch_outlives_the_next():
    """The training batch is at work while the validation batch is made, and a stream may be read ahead."""
    batches = Forever(in_graphs(loader(AUGMENTS["published"]), StandIn()))
    held = [next(batches)[0] for _ in range(6)]
    theirs = Forever(loader(AUGMENTS["published"]))
    assert all(torch.equal(x, next(theirs)[0]) for x in held)


@pytest.mark.parametrize("first, second", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("at", [1, 3, 5, 9])
def test_a_position_of_either_way_is_gone_on_with_in_the_other(first, second, at):
    """In the middle of a pass, wherever the graph stands by then."""
    unbroken, begun, other = (loader(AUGMENTS["published"], seed=s) for s in (1, 1, 2))
    streams = [Forever(made) for made in (unbroken, in_graphs(begun, StandIn()) if first else begun)]
    for _ in range(at):
        assert torch.equal(*(next(stream)[0] for stream in streams))
    went_on = Forever(in_graphs(other, StandIn()) if second else other)
    went_on.load_state_dict(streams[1].state_dict())
    for _ in range(7):
        assert torch.equal(next(went_on)[0], next(streams[0])[0])


def test_a_stream_apart_draws_from_its_own_generator_and_leaves_the_graph_alone():
    made, plain = in_graphs(loader(AUGMENTS["published"]), StandIn()), loader(AUGMENTS["published"])
    for _, (x, _), (a, _) in zip(range(3), made, plain):
        assert torch.equal(x, a)
    state = made.generator.get_state()
    streams = (part.apart(5, torch.Generator().manual_seed(4)) for part in (made, plain))
    for (x, _), (a, _) in zip(*streams, strict=True):
        assert torch.equal(x, a)
    assert torch.equal(made.generator.get_state(), state)


def test_words_are_no_images():
    class Words:
        item, name = "word", "novel"

    with pytest.raises(DataError, match="^graph_augmentation=true is for images, and novel is read as words"):
        augment_in_graphs(None, Words())


class Capturable(TorchDispatchMode):
    """Within, what a CUDA graph cannot hold fails: reading a value, data from the host, drawing from the device's own generator."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "item", "lift_fresh", "lift_fresh_copy"}, name
        if name.startswith("rand"):
            assert kwargs["generator"] is not None, f"{name} draws from elsewhere"
        self.ops.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["published", "crop"])
def test_what_is_captured_holds_nothing_that_a_graph_cannot(name):
    made = loader(AUGMENTS[name])
    pixels = made.images.read(torch.arange(BATCH))
    seen = []
    for _ in range(2):
        with Capturable() as mode:
            made.transform(pixels, made.generator)
        seen.append(mode.ops)
    assert seen[0] == seen[1] and len(seen[0]) > 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", AUGMENTS)
def test_on_a_gpu_the_batches_are_the_same_bits(name):
    """Draws, orders, and where the generator stands, also after its state was loaded."""
    device = torch.device("cuda")
    mine, theirs = (loader(AUGMENTS[name], device) for _ in range(2))
    in_graphs(mine, Capturing(device))
    assert_same_batches(mine, theirs, 4)
    assert torch.equal(mine.generator.get_state(), theirs.generator.get_state())
    for made in (mine, theirs):
        made.generator.manual_seed(11)
    assert_same_batches(mine, theirs, 2)
    assert type(mine.transform) is GraphedTransform

"""Sizes that meet a budget: EfficientNet's compound rule, and `train_final.py fit=...`."""

import math
import random

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from supernet.app.build import build
from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.fitting import choose_sizes
from supernet.app.options import CONF
from supernet.errors import UsageError
from supernet.genotype import find
from supernet.networks.build import final_normalisation
from supernet.networks.measure import multiply_adds_of, parameters
from supernet.networks.scaling import Compound, Sizes, cost_of, fit
from supernet.spaces.named import named_space
from tests.helpers import only_error, run
from tests.photographs import photographs

NORM = final_normalisation("never", "running")
BASE = Sizes(200, 3600, 2240)  # large, so that rounding is small


def products(sizes: Sizes) -> float:
    """Multiply-adds, up to a constant: layers, channels squared, pixels."""
    return sizes.layers * sizes.channels**2 * sizes.side**2


def test_a_doubling_is_the_papers():
    """alpha = 1.2, beta = 1.1, gamma = 1.15 (Tan & Le 2019, Sec. 4); their product is 1.92, about 2 (eq. 3)."""
    once = Compound()(BASE, 1.0)
    assert once == Sizes(240, 3960, 2576)
    assert products(once) / products(BASE) == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    assert Compound()(BASE, -1.0).layers == round(200 / 1.2) and Compound()(BASE, 0.0) == BASE


@pytest.mark.parametrize("free", [(True, True, False), (False, True, False), (True, False, False), (True, False, True)])
def test_what_may_not_change_leaves_its_share_to_the_others(free):
    for phi in (1.0, 2.5, -1.5):
        found = Compound()(BASE, phi, free=free)
        assert all(may or a == b for may, a, b in zip(free, found, BASE))
        assert math.log(products(found) / products(BASE)) == pytest.approx(phi * math.log(1.2 * 1.1**2 * 1.15**2), abs=0.02)
    depth, width = (math.log(a / b) for a, b in zip(Compound()(BASE, 3.0, free=(True, True, False)), BASE[:2]))
    assert depth / width == pytest.approx(math.log(1.2) / math.log(1.1), rel=0.01)


@pytest.mark.parametrize("budget", [1e3, 12_345.0, 20 * 36**2, 1e6, 3.3e7])
@pytest.mark.parametrize("free", [(True, True, False), (False, True, False)])
def test_the_found_sizes_meet_the_budget_and_a_channel_more_does_not(budget, free):
    found = fit(lambda sizes: sizes.layers * sizes.channels**2, Sizes(20, 36, 32), budget, free=free)
    assert found.layers * found.channels**2 <= budget < found.layers * (found.channels + 1) ** 2
    assert free[0] or found.layers == 20


def test_with_fixed_channels_the_layers_are_as_many_as_meet_the_budget():
    assert fit(lambda sizes: 10 * sizes.layers, Sizes(20, 36, 32), 155.0, free=(True, False, False)) == Sizes(15, 36, 32)


def test_a_budget_that_no_network_meets_is_said():
    with pytest.raises(UsageError, match="a budget of 3 is too small: 20 layers with C=2 cost 80"):
        fit(lambda sizes: sizes.layers * sizes.channels**2, Sizes(20, 36, 32), 3.0, free=(False, True, False))

    def picky(sizes):
        if sizes.layers < 5:
            raise ValueError("a network needs 5 layers")
        return sizes.layers

    with pytest.raises(UsageError, match="is too small: .* layers with C=.* cost .*, and smaller ones are not built: a network needs 5"):
        fit(picky, Sizes(20, 36, 32), 3.0)


@pytest.mark.parametrize("name", ["s4", "nasbench201", "nasbench_macro", "layerwise", "darts_rnn"])
def test_costs_of_a_network_without_memory_are_those_of_a_real_one(name):
    space = named_space(name)
    genotype = space.sample(random.Random(0))
    text = name == "darts_rnn"
    options = {"norm": NORM, **({"vocabulary": 9, "batch_norm": False} if text else
                                {"num_classes": 5, "in_channels": 1, "image_size": (9, 8)})}
    asked = Sizes(space.sizes.get("layers", 3), 6, 1)
    torch.manual_seed(0)
    net = space.network(space.candidates(genotype), layers=asked.layers, channels=asked.channels, **options)
    x = torch.zeros(1, 1, dtype=torch.int64) if text else torch.zeros(1, 1, 9, 8)
    assert cost_of(space, genotype, "multiply_adds", asked, **options) == multiply_adds_of(net, x) > 0
    assert cost_of(space, genotype, "parameters", asked, **options) == parameters(net)


@pytest.mark.parametrize("dataset, crop, asked", [("folder", None, "doublings=1.5"), ("imagenet", 28, "doublings=0.5"),
                                                  ("imagenet", 28, "fit=multiply_adds:1.5e6")])
def test_the_resolution_takes_part_where_files_are_read(dataset, crop, asked, tmp_path):
    """Costs are those of the network that is built, on the images that are read."""
    photographs(tmp_path, per_class=2, test=1)
    words = [f"dataset={dataset}", f"dataset.root={tmp_path}", "dataset.source.test=val", "dataset.source.val=null", "layers=6",
             "channels=8", "dataset.image_size=32", asked, "free_resolution=true"]
    words += [] if crop is None else [f"dataset.augment.crop={crop}"]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("final", overrides=words)
    validate(cfg, "train_final")
    space, genotype, before = named_space("darts"), find("darts_v2"), crop or 32

    def data_of(cfg):
        return build(cfg.dataset.data)

    def products_of(cfg):
        sizes = data_of(cfg).sizes
        net = space.network(space.candidates(genotype), layers=cfg.layers, channels=cfg.channels, norm=NORM, **sizes)
        return multiply_adds_of(net, torch.zeros(1, 3, *sizes["image_size"]))

    base = products_of(cfg)
    line, data = choose_sizes(cfg, space, genotype, data_of, {"norm": NORM}, lambda name: False)
    (high, wide), cost = data.sizes["image_size"], products_of(cfg)
    assert high == wide and f"{cfg.layers} layers with C={cfg.channels} at {high}x{wide} pixels, {cost:,} multiply-adds" in line
    assert cfg.dataset.image_size == round(32 * high / before) and (crop is None or cfg.dataset.augment.crop == high)
    if asked.startswith("doublings"):
        phi = float(asked.partition("=")[2])
        assert (cfg.layers, high) == (round(6 * 1.2**phi), round(before * 1.15**phi)) and cfg.channels == round(8 * 1.1**phi)
        assert math.log2(cost / base) == pytest.approx(phi, abs=0.4)  # sizes are whole numbers
        return
    assert cost <= 1.5e6 and high != before
    cfg.channels += 1
    assert products_of(cfg) > 1.5e6
    cfg.dataset.source.image_size = cfg.dataset.data.source.image_size = 50
    cfg.dataset.augment.crop = cfg.dataset.data.augment.crop = None
    with pytest.raises(UsageError, match="images are 50 pixels whatever it says"):
        choose_sizes(cfg, space, genotype, data_of, {"norm": NORM}, lambda name: name != "layers")


def test_a_scaled_training_reads_its_images_in_the_size_that_was_chosen(tmp_path):
    photographs(tmp_path / "images", per_class=4, test=1)
    options = ("genotype=darts_v2", "dataset=imagenet", "dataset.root=images", "dataset.image_size=20", "dataset.augment.crop=16",
               "layers=2", "channels=2", "doublings=2", "free_resolution=true", "batch_size=4", "epochs=1", "recipe=darts")
    done = run("train_final", *options, cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    side = round(16 * (1.2 * 1.1**2 * 1.15**2) ** 1.0)  # two doublings, which the side alone takes part in, squared
    assert f"scaled by 2 doublings: 2 layers with C=2 at {side}x{side} pixels" in done.err
    (where,) = tmp_path.glob("runs/*")
    dataset = yaml.safe_load((where / "config.yaml").read_text())["dataset"]
    assert dataset["augment"]["crop"] == side and dataset["image_size"] == round(20 * side / 16)
    facts = torch.load(where / "weights.pt", weights_only=True)["data"]
    assert facts["crop"] == side and facts["image_size"] == [round(20 * side / 16)] * 2


SMALL = ("genotype=darts_v2", "dataset=digits", "split.max_train=64", "batch_size=32", "epochs=1", "backend=plain")


def test_a_training_takes_the_sizes_that_meet_its_budget_and_is_known_again(tmp_path):
    done = run("train_final", *SMALL, "layers=3", "fit=parameters:2e4", cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    (where,) = tmp_path.glob("runs/*")
    config = yaml.safe_load((where / "config.yaml").read_text())
    assert config["layers"] == 3 and config["channels"] == int(done.err.split("3 layers with C=")[1].split(",")[0])
    assert f"fit parameters of at most 20,000: 3 layers with C={config['channels']}, " in done.err
    again = run("train_final", *SMALL, "layers=3", "fit=parameters:2e4", "resume=auto", cwd=tmp_path, report=False)
    assert again.code == 0 and len(list(tmp_path.glob("runs/*"))) == 1, again.err


@pytest.mark.parametrize("options, message", [
    (("fit=flops:3",), "fit must be multiply_adds:NUMBER or parameters:NUMBER, as multiply_adds:600e6, got 'flops:3'"),
    (("fit=parameters:-1",), "got 'parameters:-1'"), (("fit=600e6",), "got '600"),
    (("fit=parameters:1e4", "layers=3", "channels=4"), "fit has nothing to choose: layers and channels are both given"),
    (("fit=parameters:5", "layers=3"), "fit=parameters:5: a budget of 5 is too small: 3 layers with C="),
    (("doublings=13",), "doublings must be at least 0 and at most 12, or null, got 13"), (("doublings=x",), "doublings"),
    (("doublings=1", "layers=3", "channels=4"), "doublings has nothing to choose: layers and channels are both given"),
    (("doublings=1", "fit=parameters:1e4"), "doublings=1 and fit=parameters:1e4 both choose layers and channels: pass one of them"),
    (("free_resolution=true",), "free_resolution=true says what fit and doublings may change, and neither is given"),
    (("free_resolution=true", "fit=parameters:1e4"), "free_resolution=true needs fit=multiply_adds:NUMBER"),
    (("free_resolution=true", "doublings=1"), "free_resolution=true is for data sets of files, which are read in the size of "
     "dataset.image_size, and images of digits have one size"),
])
def test_a_wrong_budget_is_said_in_one_line_before_anything_is_made(options, message, tmp_path):
    assert message in only_error(run("train_final", *SMALL, *options, cwd=tmp_path, report=False))
    assert not list(tmp_path.iterdir())

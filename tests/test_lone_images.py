"""A batch of one image is refused before any work where a batch norm of the network could not train on it, and nowhere else."""

import hydra
import pytest

from supernet.app import compose
from supernet.app.build import space_of
from supernet.errors import UsageError
from supernet.genotype import find
from tests.searches import configs

FINAL = ["genotype=darts_v2", "layers=3", "channels=4", "threads=1", "dataset=digits"]
SEARCH = ["layers=3", "channels=4", "threads=1", "space.nodes=1", "table=none"]


@pytest.fixture(autouse=True)
def known_configs():
    with configs():
        yield


def training(*options):
    genotype = find("darts_v2")
    return compose.final_parts(hydra.compose("final", overrides=[*FINAL, *options]), space_of(genotype), genotype)


def searching(*options):
    cfg = hydra.compose("search", overrides=[*SEARCH, *options])
    return compose.search_stages(cfg, compose.search_parts(cfg))


@pytest.mark.parametrize("options", [
    ["split.max_train=65", "batch_size=64", "task.auxiliary_weight=0.4"],
    ["split.max_train=8", "batch_size=1", "task.auxiliary_weight=0.4"],
])
def test_a_last_batch_of_one_image_is_one_line(options):
    with pytest.raises(UsageError, match="(65 images in batches of 64 leave a last batch of one image|batch_size=1), and a batch norm"):
        training(*options)


@pytest.mark.parametrize("options", [
    ["split.max_train=64", "batch_size=64", "task.auxiliary_weight=0.4"],
    ["split.max_train=65", "batch_size=64", "task.auxiliary_weight=0"],
])
def test_where_every_norm_sees_more_than_one_value_nothing_is_refused(options):
    training(*options)


def test_a_search_whose_last_map_is_one_pixel_is_refused_and_a_larger_one_is_not():
    options = ["dataset=random", "split.mode=index_order", "dataset.source.num_train=66", "batch_size=32", "split.train_portion=0.5"]
    searching(*options, "dataset.source.image_size=16")
    with pytest.raises(UsageError, match="33 images in batches of 32 leave a last batch of one image.*split.max_train=32"):
        searching(*options, "dataset.source.image_size=4")

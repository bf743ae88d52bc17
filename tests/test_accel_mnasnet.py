"""The space of Accel-NASBench against its table."""

import csv
import gzip

import numpy as np
import pytest

from ops.op import Normalisation
from supernet.costs.chain import chain_costs
from supernet.networks.measure import multiply_adds, parameters
from supernet.spaces import accel_mnasnet
from supernet.tables.accel import genotype_of
from supernet.tables.files import read_table
from supernet.tables.table import TableError
from tests.shared import DATA, needs

TABLE = DATA / "nas" / "accel_nasbench_imagenet.csv.gz"
SPACE = accel_mnasnet.make()
FINAL = Normalisation(affine=True, after_pools=False)
SIZES = {"layers": 7, "channels": 32, "num_classes": 1000, "image_size": (224, 224)}


def norms_and_pools(genotype):
    """What the table's counter (thop) adds to the multiply-adds: four for each number that a batch norm makes in training, and for each
    average the numbers that it reads and one."""
    choice = {kind: [int(e.op.rpartition("_")[2]) if kind != "squeeze" else int(e.op == "se") for e in genotype[kind]]
              for kind in SPACE.cells}
    side, channels, total = 112, 32, 4 * 32 * 112**2
    for n, (width, stride) in enumerate(accel_mnasnet.STAGES):
        for layer in range(choice["depth"][n]):
            hidden = channels * choice["expansion"][n]
            if choice["expansion"][n] > 1:
                total += 4 * hidden * side**2
            side //= stride if layer == 0 else 1
            total += 4 * (hidden + width) * side**2 + (choice["squeeze"][n] and hidden * side**2 + hidden)
            channels = width
    return total + 4 * 1280 * side**2 + 1280 * side**2 + 1280


@needs(TABLE)
def test_parameters_and_multiply_adds_of_all_networks_equal_the_table():
    """To the last digit that it states; ours count convolutions and matrix products, as papers do."""
    costs = chain_costs(SPACE, **SIZES)
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    genotypes = [genotype_of(SPACE, row) for row in rows]
    assert len(rows) == 5138
    assert [costs["parameters"](g) for g in genotypes] == [round(float(row["params_m"]) * 1e6) for row in rows]
    assert [costs["multiply_adds"](g) + norms_and_pools(g) for g in genotypes] == [round(float(row["macs_m"]) * 1e6) for row in rows]
    net = SPACE.network(SPACE.candidates(genotypes[7]), norm=FINAL, **SIZES)
    assert parameters(net) == costs["parameters"](genotypes[7])
    assert multiply_adds(net, (3, 224, 224)) == costs["multiply_adds"](genotypes[7])


@needs(TABLE)
def test_its_table_is_read_and_repeated_networks_are_their_mean():
    table = read_table(TABLE, SPACE)
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    by_text = {}
    for row in rows:
        by_text.setdefault(SPACE.text(genotype_of(SPACE, row)), []).append(float(row["val_top1"]))
    assert len(table) == len(by_text) == 5125 and sum(len(v) - 1 for v in by_text.values()) == 13
    text, values = next((t, v) for t, v in by_text.items() if len(v) > 1)
    assert table.value(SPACE.parse(text), "val_top1") == pytest.approx(np.mean(values), abs=1e-12) and values[0] != values[1]
    assert table.dataset("imagenet").test == "val_top1" and np.isnan(table.column("latency_vck190_ms")).sum() <= 2
    assert "throughput_a100_images_s" in table.names()


def test_a_table_with_a_wrong_choice_is_refused(tmp_path):
    fields = [f"block{n}_{f}" for n in range(7) for f in ("e", "k", "l", "se")]
    path = tmp_path / "t.csv"
    row = ["4", "5", "2", "1"] * 6 + ["4", "7", "2", "1", "70", "1"]
    path.write_text(",".join([*fields, "val_top1", "train_seconds"]) + "\n" + ",".join(row) + "\n")
    with pytest.raises(TableError, match="kernel_7"):
        read_table(path, SPACE)
    path.write_text(path.read_text().replace("4,7,2", "4,5,2"))
    assert read_table(path, SPACE).column("val_top1").tolist() == [70.0]

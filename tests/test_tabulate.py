"""A table of our own, end to end: tabulate, killed and resumed; a search that is measured with it; the ranking of its supernet."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from supernet.runs.journal import Journal
from supernet.spaces import nasbench201, toy
from supernet.tables.files import read_table
from tests.helpers import python, until

SPACE = toy.make()
TRAINING = "options={layers:3,channels:2,epochs:1,split.max_train:48,batch_size:16,threads:1}"
TABULATE = ["-m", "supernet.tabulate", "space=toy", "seeds=[0,1]", "output=toy.csv.gz", TRAINING]
SEARCH = ["space=toy", "layers=3", "channels=2", "epochs=2", "split.max_train=64", "split.max_val=64", "threads=1", "wandb.mode=disabled",
          "keep_checkpoints=5"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(*options, cwd, check=True):
    done = python(*options, cwd=cwd)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the table, whose making was killed once."""
    cwd = tmp_path_factory.mktemp("tabulate")
    process = subprocess.Popen([sys.executable, *TABULATE, "processes=2"], cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    first, journal = process.stdout.readline(), cwd / "toy.csv.gz.journal"
    until(lambda: journal.read_bytes().count(b"\n") >= 7, "seven trainings", 200)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(), process.stdout.close()
    time.sleep(2)  # workers notice that they are alone
    kept = len(journal.read_text().splitlines())
    assert "54 of 54 trainings left" in first and 7 <= kept < 54 and not (cwd / "toy.csv.gz").exists()
    done = command(*TABULATE, cwd=cwd)
    assert f"{54 - kept} of 54 trainings left" in done.stdout
    return cwd


def test_the_table_of_a_resumed_run_is_complete_and_the_same_as_of_an_unbroken_one(folder, tmp_path):
    table = read_table(folder / "toy.csv.gz", SPACE)
    assert len(table) == SPACE.count() == 27
    names = [name for name in table.names() if "seconds" not in name]
    assert {"val_accuracy", "test_accuracy_seed1", "parameters", "multiply_adds"} <= set(names)
    some = [line for line in (folder / "toy.csv.gz.journal").read_text().splitlines()][:50]
    (tmp_path / "toy.csv.gz.journal").write_text("\n".join(some)[:-10])  # the last line cut off, as by a power cut
    done = command(*TABULATE, cwd=tmp_path)
    assert "5 of 54 trainings left" in done.stdout
    again = read_table(tmp_path / "toy.csv.gz", SPACE)
    for name in names:
        np.testing.assert_array_equal(table.column(name), again.column(name))
    seeds = [table.column(f"test_accuracy_seed{seed}") for seed in (0, 1)]
    np.testing.assert_allclose(table.column("test_accuracy"), sum(seeds) / 2)


def test_a_search_is_measured_with_the_table_and_never_led_by_it(folder, tmp_path):
    script = str(Path(__file__).parents[1] / "train_search.py")
    command(script, *SEARCH, "table.path=toy.csv.gz", cwd=folder)
    (run,) = folder.glob("runs/*_search_*")
    records = Journal.read(run / "metrics.jsonl")
    table = read_table(folder / "toy.csv.gz", SPACE)
    best = table.column("test_accuracy").max()
    for record, found in zip(records, Journal.read(run / "genotypes.jsonl")):
        genotype = SPACE.genotype({"cell": [_edge(row) for row in found["genotype"]["cells"]["cell"]]})
        assert record["table/digits/test_accuracy"] == table.value(genotype, "test_accuracy")
        assert record["table/digits/regret"] == pytest.approx(best - table.value(genotype, "test_accuracy"))
    assert "Against the table" in (run / "report.html").read_text()
    # the same search with a table that ranks by test accuracy the other way round takes the same steps, and ends with the same genotype
    lines = read_lines(folder / "toy.csv.gz")
    place = lines[1].split(",").index("test_accuracy")
    turned = lambda row: [repr(100 - float(v)) if i == place else v for i, v in enumerate(row)]
    head = json.loads(lines[0].removeprefix("#"))
    del head["sha256"]  # of the rows as they were
    rows = [",".join(turned(line.split(","))) for line in lines[2:]]
    (tmp_path / "toy.csv").write_text("\n".join([f"# {json.dumps(head)}", lines[1], *rows]) + "\n")
    command(script, *SEARCH, "table.path=toy.csv", cwd=tmp_path)
    (other,) = tmp_path.glob("runs/*_search_*")
    strip = lambda r: {k: v for k, v in r.items() if not k.startswith("table/") and k not in ("seconds", "items_per_s", "elapsed_s")}
    assert [strip(r) for r in Journal.read(other / "metrics.jsonl")] == [strip(r) for r in records]
    assert (other / "genotype.json").read_bytes() == (run / "genotype.json").read_bytes()
    assert Journal.read(other / "metrics.jsonl")[-1]["table/digits/test_accuracy"] == 100 - records[-1]["table/digits/test_accuracy"]


def test_rank(folder):
    (run,) = folder.glob("runs/*_search_*")
    done = command("-m", "supernet.rank", f"run={run}", "n=12", "table.path=toy.csv.gz", "by=[shared_weights,parameters,naswot]",
                   "checkpoints=all", "calibration_batches=2", "proxy_batch=16", "threads=1", "resamples=50", cwd=folder)
    assert done.stdout.count("Kendall tau") >= 4  # two epochs of shared weights, two proxies
    result = json.loads((run / "rank.json").read_text())
    assert result["scores"]["parameters"]["architectures"] == 12
    with open(run / "rank.csv") as file:
        rows = list(csv.DictReader(file))
    table = read_table(folder / "toy.csv.gz", SPACE)
    assert len({row["arch"] for row in rows}) == 12
    for row in rows:
        genotype = SPACE.parse(row["arch"])
        assert float(row["truth"]) == table.value(genotype, "test_accuracy")
    assert (run / "scatter.png").exists() and "Along the run" in (run / "rank.html").read_text()


@pytest.mark.parametrize("options, message", [
    (["-m", "supernet.rank"], "needs the folder of a search"),
    (["-m", "supernet.rank", "run=nowhere"], "expected the folder of a search"),
    (["-m", "supernet.rank", "options={space:toy}"], "needs a trained supernet"),
    (["-m", "supernet.rank", "options={space:toy}", "by=[magic]"], "by must list"),
    (["-m", "supernet.rank", "options={space:toy}", "by=[synflo]"], "got ['synflo']; did you mean synflow?"),
    (["-m", "supernet.rank", "options={space:toy}", "by=[snip]", "proxy=[snip,naswot]"], "which by=['snip'] does not list"),
    (["-m", "supernet.rank", "options={space:toy}", "by=[snip]"], "no table for space toy"),
    (["-m", "supernet.rank", "options={space:toy}", "by=[snip]", "n=2"], "n must be at least 3"),
    (["-m", "supernet.rank", "options={space:toy}", "by=[snip]", "table.path=x.csv"], "cannot read the table"),
    (["-m", "supernet.tabulate", "space=darts"], "more than limit"),
    (["-m", "supernet.tabulate", "options={split.val_portion:0}"], "split.val_portion above 0"),
    (["-m", "supernet.tabulate", "options={epochs:x}"], "epochs"),
    (["-m", "supernet.tabulate", "seeds=[]"], "seeds must be"),
    (["-m", "supernet.tabulate", "options=epochs:1", "options=layers:3"], "options must be {name: value, ...}, in quotes"),
])
def test_wrong_options_are_one_line(options, message, tmp_path):
    done = command(*options, cwd=tmp_path, check=False)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def read_lines(path):
    import gzip

    return gzip.decompress(path.read_bytes()).decode().splitlines()


def _edge(row):
    from supernet.genotype import Edge

    op, source, destination = row
    return Edge(destination, source, op)


def test_a_sample_of_a_space_that_is_too_large_grows(tmp_path):
    large = ["-m", "supernet.tabulate", "space=nasbench201", "seeds=[0]", "output=nb.csv", TRAINING.replace("layers:3", "layers:5")]
    done = command(*large, "limit=1000", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "more than limit=1,000: pass n=... for a sample of them" in done.stderr
    command(*large, "limit=1000", "n=3", cwd=tmp_path)
    done = command(*large, "limit=1000", "n=4", cwd=tmp_path)
    assert "4 architectures, 1 seed, 1 of 4 trainings left" in done.stdout
    assert len(read_table(tmp_path / "nb.csv", nasbench201.make())) == 4

import dataclasses
import gzip
import json
import random
import time

import numpy as np
import pytest

from supernet.commands.nats_import import main
from supernet.evaluators.tabular import Tabular
from supernet.genotype import Edge
from supernet.spaces import darts, layerwise, nasbench201, nasbench_macro, toy
from supernet.tables.files import open_table, read_table, write_table
from supernet.tables.nats_import import import_api
from supernet.tables.table import Columns, Table, TableError
from supernet.tables.yardstick import Yardstick, expected_best_of
from supernet.trials import Evaluation
from tests.shared import MACRO, NB201, needs

NB, TOY = nasbench201.make(), toy.make()
TEXTS = [TOY.text(g) for g in TOY.enumerate()]
COLUMNS = {"digits": Columns("val", "test", "seconds", 0.5)}


def table(**changes):
    rng = np.random.default_rng(0)
    columns = {"val": rng.normal(80, 5, 27), "test": rng.normal(80, 5, 27), "seconds": np.arange(27.0)} | changes
    return Table(TOY, TEXTS, columns, COLUMNS)


@pytest.fixture(scope="module")
def nb201():
    return read_table(NB201, NB)


@needs(NB201)
def test_golden_rows_of_nas_bench_201(nb201):
    assert [round(float(nb201.column(f"{data}_test_200").max()), 2) for data in ("c10", "c100", "in16")] == [94.37, 73.51, 47.31]
    skips = NB.genotype({"cell": [Edge(d, s, "skip_connect") for s, d in NB.cells["cell"].edges]})
    row = [round(nb201.value(skips, f"{data}_test_200"), 2) for data in ("c10", "c100", "in16")]
    assert row == [54.30, 15.61, 16.32]  # the published row of DARTS
    assert nb201.value(NB.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"), "c10_test_200") == 10


@needs(NB201)
def test_every_architecture_goes_to_its_index_and_back(nb201):
    for row in range(15_625):
        assert nb201.row(nb201.genotype(row)) == row
    assert nb201.texts[0] == "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"


@needs(NB201)
def test_companion_files_are_found_when_a_column_is_asked_for(nb201):
    assert nb201.value(nb201.genotype(0), "help_fpga_ms") == 2.573 and np.isneginf(nb201.column("c10_naswot")).any()
    assert len([name for name in nb201.names() if name.startswith(("help_", "hw360_"))]) == 34
    with pytest.raises(TableError, match="has no column 'speed'"):
        nb201.column("speed")


@needs(NB201)
def test_isomorphic_cells_have_their_own_rows_unless_asked_otherwise(nb201):
    rows = np.flatnonzero(nb201.column("iso_rep") == nb201.column("iso_rep")[np.argmax(np.bincount(nb201.column("iso_rep").astype(int)))])
    genotype, values = nb201.genotype(int(rows[-1])), nb201.column("c10_test_200")
    assert nb201.value(genotype, "c10_test_200") == values[rows[-1]]
    representative = int(nb201.column("iso_rep")[rows[-1]])
    assert nb201.value(genotype, "c10_test_200", isomorphic="representative") == values[representative]
    same = nb201.column("iso_rep") == representative
    assert nb201.value(genotype, "c10_test_200", isomorphic="mean") == pytest.approx(values[same].mean())


@needs(NB201)
def test_missing_values_are_errors_or_nan_as_asked(nb201):
    genotype = nb201.genotype(3989)
    with pytest.raises(TableError, match="has no value in column 'c10_latency_s'"):
        nb201.value(genotype, "c10_latency_s")
    assert np.isnan(nb201.value(genotype, "c10_latency_s", missing="nan"))


@needs(NB201)
def test_lookups_are_fast(nb201):
    """A bound far above what is measured (10 us), so that only a change of kind fails: parsing the table at each lookup, say."""
    genotypes = [nb201.genotype(row) for row in range(300)]
    started = time.process_time()
    for genotype in genotypes:
        nb201.value(genotype, "c10_test_200")
    assert (time.process_time() - started) / 300 < 0.005


@needs(MACRO)
def test_nas_bench_macro():
    space = nasbench_macro.make()
    macro = read_table(MACRO, space)
    best = macro.genotype(int(macro.column("test_accuracy").argmax()))
    assert len(macro) == 6561 and "".join(str(space.cells["layers"].ops.index(e.op)) for e in best["layers"]) == "22212220"
    assert round(macro.value(best, "test_accuracy"), 2) == 93.13 and macro.value(best, "params") == 1_985_514


@pytest.mark.parametrize("space, key, message", [
    (nasbench_macro.make(), "0123", "expected keys of 8 digits 0 to 2, one for each layer of 'nasbench_macro', got '0123'"),
    (nasbench_macro.make(), "00000003", "expected keys of 8 digits 0 to 2"),
    (nasbench_macro.make(), "0000000²", "expected keys of 8 digits"),
    (layerwise.make(), "00000000", "chains of one choice a layer; those of 'layerwise' are not"),
    (NB, "000000", "those of 'nasbench201' are not"),
])
def test_a_table_of_nas_bench_macro_is_for_its_chains_alone(tmp_path, space, key, message):
    path = tmp_path / "macro.json"
    path.write_text(json.dumps({key: {"mean_acc": 1.0, "std": 0.0, "params": 1, "flops": 1}}))
    with pytest.raises(TableError, match=message) as error:
        read_table(path, space)
    assert "\n" not in str(error.value)


def test_own_tables_round_trip_to_the_same_bytes(tmp_path):
    ours = table(val=np.where(np.arange(27) == 3, np.nan, np.linspace(0, 1, 27)))
    columns = {name: ours.column(name) for name in ours.names()}
    for name in ("a.csv.gz", "b.csv.gz", "c.csv"):
        write_table(tmp_path / name, TOY, TEXTS, columns, COLUMNS)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == (tmp_path / "c.csv").read_bytes()
    for name in ("a.csv.gz", "c.csv"):
        again = read_table(tmp_path / name, TOY)
        assert again.texts == TEXTS and again.datasets == COLUMNS
        for column in again.names():
            np.testing.assert_array_equal(again.column(column), columns[column])
    assert not list(tmp_path.glob("*.part"))


def test_a_digit_of_a_table_of_ours_that_changed_is_told(tmp_path):
    path = tmp_path / "toy.csv"
    write_table(path, TOY, TEXTS, {"val": np.arange(27.0), "test": np.ones(27), "seconds": np.full(27, 1234.0)}, COLUMNS)
    assert read_table(path, TOY).value(TOY.parse(TEXTS[3]), "val") == 3.0
    text = path.read_text()
    for there, here in ((",3.0,", ",7.0,"), ("1234.0", "1235.0"), ('"seconds_factor": 0.5', '"seconds_factor": 0.4')):
        path.write_text(text.replace(there, here, 1))
        assert path.read_text() != text
        with pytest.raises(TableError, match="toy.csv: is not what was written .sha256 differs."):
            read_table(path, TOY)
    first, _, rest = text.partition("\n")
    head = json.loads(first.removeprefix("#"))
    del head["sha256"]
    path.write_text(f"# {json.dumps(head)}\n{rest.replace(',3.0,', ',7.0,', 1)}")
    assert read_table(path, TOY).value(TOY.parse(TEXTS[3]), "val") == 7.0, "one that is edited on purpose has none"


def test_a_table_is_found_by_the_name_of_its_space(tmp_path):
    assert open_table(TOY, folder=str(tmp_path)) is None and open_table(TOY, path=None) is None
    write_table(tmp_path / "toy.csv", TOY, TEXTS, {"val": np.ones(27), "test": np.ones(27), "seconds": np.ones(27)}, COLUMNS)
    assert len(open_table(TOY, folder=str(tmp_path))) == 27


@pytest.mark.parametrize("content, message", [
    (b"", "not a table"), (b"\x1f\x8bxx", "cannot read|not a table"), (b"a,b\n1,2\n", "not a table"), (b"{", "not a table"),
    (b"\xff\xfe", "not a table"),
    (b'# {"format": "other"}\narch\n', "expected format 'supernet.table/1'"), (b"# {}\narch\n", "expected format"),
    (b"index,arch,c10_test_200,c10_val_12\n0,|a~0|,1,2\n", "of another space"), (b"index,arch\n5,|a~0|\n", "count the rows"),
    (b"index,arch\n0\n", "must have 2 fields"), (b'{"01": {"mean_acc": 1}}', "a table of NAS-Bench-Macro, .* those of 'toy' are not"),
])
def test_a_file_that_is_no_table_is_one_line(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=message) as error:
        read_table(path, TOY)
    assert "\n" not in str(error.value)


def test_tables_of_other_spaces_are_refused(tmp_path):
    write_table(tmp_path / "t.csv", TOY, TEXTS, {"val": np.ones(27), "test": np.ones(27), "seconds": np.ones(27)}, COLUMNS)
    with pytest.raises(TableError, match="is of space 'toy'"):
        read_table(tmp_path / "t.csv", darts.make())
    with pytest.raises(TableError, match="cannot read"):
        read_table(tmp_path / "none.csv", TOY)
    with pytest.raises(TableError, match="every architecture must stand once"):
        Table(TOY, [TEXTS[0]] * 2, {"val": np.ones(2)}, {})
    with pytest.raises(TableError, match="expected 27 rows"):
        Table(TOY, TEXTS, {"val": np.ones(3)}, {})
    with pytest.raises(TableError, match="rows are 0 to 26"):
        table().genotype(27)
    with pytest.raises(TableError, match="knows the data sets digits"):
        table().dataset("cifar10")


def test_an_architecture_that_is_not_in_the_table_is_an_error():
    part = Table(TOY, TEXTS[:5], {"val": np.ones(5)}, {})
    with pytest.raises(TableError, match="has no architecture"):
        part.value(TOY.parse(TEXTS[9]), "val")


def test_a_searchs_evaluator_never_sees_the_test_columns():
    for row in range(27):
        genotype = TOY.parse(TEXTS[row])
        seen = Tabular(table(), "digits")(genotype)
        assert seen == Tabular(table(test=np.full(27, np.nan)), "digits")(genotype)
        assert seen == Evaluation({"accuracy": table().column("val")[row]}, simulated_s=0.5 * row)


def test_a_row_that_does_not_say_what_its_training_took_counts_as_the_mean_of_the_others():
    seconds = np.arange(27.0)
    seconds[3] = np.nan
    evaluate = Tabular(table(seconds=seconds), "digits", columns={"latency_ms": "test"})
    found = evaluate(TOY.parse(TEXTS[3]))
    assert found.simulated_s == pytest.approx(0.5 * np.nanmean(seconds)) and evaluate.gives == {"accuracy", "latency_ms"}
    assert found.metrics["latency_ms"] == table().column("test")[3]
    with pytest.raises(TableError, match="has no column 'watts'"):
        Tabular(table(), "digits", columns={"energy_mj": "watts"})


def test_the_yardstick_is_what_sorting_says():
    values = np.round(np.random.default_rng(1).normal(80, 3, 27))  # with ties
    yardstick = Yardstick(table(test=values))
    for row, text in enumerate(TEXTS):
        found = yardstick(TOY.parse(text))
        assert found["table/digits/rank"] == 1 + sum(v > values[row] for v in values)
        assert found["table/digits/percentile"] == pytest.approx(100 * sum(v <= values[row] for v in values) / 27)
        assert found["table/digits/regret"] == max(values) - values[row] and found["table/digits/test_accuracy"] == values[row]
        assert found["table/digits/benchmark_seconds"] == row / 2
    holed = Yardstick(table(test=np.where(values == values.max(), np.nan, values)))
    assert "table/digits/rank" not in holed(TOY.parse(TEXTS[int(values.argmax())]))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_expected_best_of_random_search(n):
    values, rng = np.array([3.0, 1, 2, 2, np.nan]), random.Random(0)
    drawn = np.mean([max(rng.choices(values[:4], k=n)) for _ in range(20_000)])
    assert expected_best_of(values, n) == pytest.approx(drawn, abs=0.02)
    with pytest.raises(ValueError, match="at least 1"):
        expected_best_of(values, 0)


def test_columns_are_plain_data():
    assert json.loads(json.dumps(dataclasses.asdict(COLUMNS["digits"]))) == vars(COLUMNS["digits"])


class FakeApi:
    """The part of the official object that the importer asks, with numbers that tell where they came from."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def arch(self, index):
        return self.texts[index]

    def get_more_info(self, index, dataset, hp, is_random):
        assert is_random is False
        return {"12": {"valid-accuracy": index + len(dataset)},
                "200": {"test-accuracy": 2 * index, "train-all-time": None if index == 1 else 100.0}}[hp]

    def get_cost_info(self, index, dataset, hp):
        return {"params": 0.1, "flops": 0.2, "latency": 0.3}


def test_the_importer_writes_what_the_official_object_says(tmp_path):
    genotypes = [NB.sample(random.Random(seed)) for seed in range(4)]
    import_api(FakeApi([NB.text(g) for g in genotypes]), NB, tmp_path / "nats.csv.gz")
    imported = read_table(tmp_path / "nats.csv.gz", NB)
    assert imported.value(genotypes[2], "cifar10_val_12") == 2 + len("cifar10-valid")
    assert imported.value(genotypes[3], "cifar100_test_200") == 6
    assert np.isnan(imported.value(genotypes[1], "cifar10_train_time_200_s", missing="nan"))
    assert Tabular(imported, "cifar10")(genotypes[2]).simulated_s == pytest.approx(3)
    assert Tabular(imported, "cifar100")(genotypes[2]).simulated_s == pytest.approx(6)
    with pytest.raises(TableError, match="not of the topology"):
        import_api(FakeApi(["|sep_conv~0|"]), NB, tmp_path / "x.csv")


@pytest.mark.parametrize("name, short, seconds", [("cifar10", "c10", 3.0), ("cifar100", "c100", 6.0), ("imagenet16", "in16", 6.0)])
def test_a_search_pays_for_the_images_that_its_validation_accuracy_comes_from(tmp_path, name, short, seconds):
    """CIFAR-10's is one after training on 25,000 images; the column is the time of training on all 50,000, as CIFAR-100's is."""
    (path := tmp_path / "nb.csv").write_text(f"index,arch,{short}_val_12,{short}_test_200,{short}_train_time_200_s\n"
                                             f"0,{NB.text(NB.sample(random.Random(0)))},60,90,100\n")
    table = read_table(path, NB)
    assert Tabular(table, name)(table.genotype(0)).simulated_s == pytest.approx(seconds)
    assert Yardstick(table)(table.genotype(0))[f"table/{name}/benchmark_seconds"] == pytest.approx(seconds)


def test_the_importer_says_what_it_needs(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2 and "the following arguments are required: source, table" in capsys.readouterr().err
    assert main([str(tmp_path / "no"), "x.csv"]) == 2 and "no such file" in capsys.readouterr().err
    assert main([str(tmp_path), "x.csv"]) == 2 and "pip install nats_bench" in capsys.readouterr().err

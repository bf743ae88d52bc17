"""A trained network made smaller: its parts, the command that makes them, and the table of what each is worth and takes."""

import csv
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from torch import nn

from ops import plain
from ops.forms import NoPlainForm, form_of
from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.commands import compress, compressing
from supernet.compression import methods
from supernet.compression.magnitude import mask_smallest, unmask
from supernet.compression.measuring import side_by_side
from supernet.compression.methods import METHODS, Settings, name_of, steps_of, told, with_prefixes
from supernet.compression.networks import NotPractical, block_of, module_of, parameter_count, refilled, resized
from supernet.compression.results import JOURNAL, Result, digests, free_name, read_results
from supernet.compression.structured import prune_channels
from supernet.data.augment import Augment
from supernet.data.digits import Digits
from supernet.data.images import ImageData
from supernet.errors import UsageError
from supernet.exports import formats
from supernet.exports.folder import plain_module
from supernet.exports.source import source_of
from supernet.networks.build import final_normalisation
from supernet.report import compression as report
from supernet.report.compression import Compression, Row
from supernet.report.statistics import Interval, paired_shares, share_interval
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from supernet.runs.run import Interrupted
from supernet.runs.weights import save_weights
from supernet.spaces.named import named_space
from tests import helpers
from tests.builders import with_statistics

EXTRA = formats.missing([*methods.ONNX, "torch_pruning", "torchao"])
needs_extra = pytest.mark.skipif(bool(EXTRA), reason=f"needs the extra 'compress': {', '.join(EXTRA)}")


def network(name="darts", seed=0, **sizes):
    """A network of a space, as after a training."""
    space = named_space(name)
    found = space.sample(random.Random(seed))
    genotype = space.genotype({kind: [e._replace(op=e.op.replace("noise", "sep_conv_3x3")) for e in edges] for kind, edges in found.cells})
    torch.manual_seed(0)
    given = {"layers": 3, "channels": 8, **space.sizes, "num_classes": 10, "in_channels": 1, "image_size": (8, 8)} | sizes
    return with_statistics(space.network(space.candidates(genotype), norm=final_normalisation("never", "running"), **given)).eval()


# ---- methods by name


def test_methods_stand_behind_each_other_and_are_made_in_that_order():
    assert steps_of("prune+int8") == ("prune", "int8")
    assert with_prefixes([steps_of("prune+magnitude+int8"), steps_of("prune"), steps_of("int8")]) == [
        (), ("prune",), ("prune", "magnitude"), ("prune", "magnitude", "int8"), ("int8",)]


@pytest.mark.parametrize("text, said", [("prun", "method must be of prune, magnitude, int8, qat, or several joined as prune\\+int8, got "
                                                 "'prun'; did you mean prune\\?"),
                                        ("int8+prune", "before prune there can be nothing, got int8"),
                                        ("magnitude+qat", "before qat there can be prune, got magnitude"), ("", "got ''"),
                                        ("prune+prune", "before prune there can be nothing, got prune")])
def test_a_method_that_is_none_or_cannot_stand_there_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        steps_of(text)


def test_names_say_what_was_asked_for_and_whether_a_teacher_taught():
    asked = Settings(share=0.25, sparsity=0.9)
    assert name_of((), asked, True) == "float32"
    assert name_of(("prune", "int8"), asked, True) == "prune_0.25_int8_distilled"
    assert name_of(("int8",), asked, True) == "int8"  # nothing is trained, so nobody is taught
    assert told(("prune", "magnitude"), asked, False, 1) == (
        "25 % of the channels taken out, 1 epoch further, then 90 % of the weights zero, 1 epoch further")


# ---- single weights


def test_the_smallest_weights_are_zero_and_stay_so_while_they_are_trained():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    mask_smallest(module, 0.7)
    for _ in range(3):
        module.zero_grad()
        module(torch.randn(8, 1, 8, 8)).square().mean().backward()
        with torch.no_grad():
            for p in module.parameters():
                p -= 0.1 * (p.grad + 0.1 * p)
    unmask(module)
    after = module.state_dict()
    assert list(after) == list(before)
    weights = torch.cat([before[name].abs().flatten() for name in ("0.weight", "3.weight")])
    zero = torch.cat([(after[name] == 0).flatten() for name in ("0.weight", "3.weight")])
    assert int(zero.sum()) == round(0.7 * weights.numel()) and weights[zero].max() <= weights[~zero].min()
    assert not torch.equal(after["0.weight"], before["0.weight"]) and after["3.bias"].count_nonzero() == 3
    assert parameter_count(module)[1] == parameter_count(module)[0] - int(zero.sum()) - int((after["1.bias"] == 0).sum())


# ---- other widths


def narrowed(module: nn.Module, widths: dict[str, tuple[int, int]]) -> nn.Module:
    """`module` with other convolutions (in, out channels by name) and norms (by the same, out counts)."""
    for name, (reads, gives) in widths.items():
        layer = getattr(module, name)
        made = nn.BatchNorm2d(gives) if isinstance(layer, nn.BatchNorm2d) else nn.Conv2d(
            reads, gives, layer.kernel_size, layer.stride, layer.padding, layer.dilation, reads if layer.groups > 1 else 1, bias=False)
        setattr(module, name, made)
    return module.double().eval()


WIDTHS = {
    "separable": (plain.SeparableConv(6, 3), {"depthwise1": (4, 4), "pointwise1": (4, 3), "norm1": (3, 3), "depthwise2": (3, 3),
                                              "pointwise2": (3, 5)}, 4),
    "dilated": (plain.DilatedConv(6, 5, 2), {"depthwise": (4, 4), "pointwise": (4, 7)}, 4),
    "skip": (plain.HalvedSkip(6, 6), {"even": (4, 1), "odd": (4, 4)}, 4),
    "halving": (plain.HalvingBlock(4, 8), {"conv1": (3, 2), "norm1": (2, 2), "conv2": (2, 5), "norm2": (5, 5), "shortcut": (3, 5)}, 3),
    "bottleneck": (plain.InvertedBottleneck(4, 12, 4, 3), {"expand": (3, 7), "norm1": (7, 7), "depthwise": (7, 7), "norm2": (7, 7),
                                                           "project": (7, 2)}, 3),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_a_part_whose_layers_have_other_widths_is_written_with_them(name):
    module, widths, reads = WIDTHS[name]
    module = narrowed(module, widths)
    x = torch.randn(2, reads, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(form_of(module).module()(x), module(x))
        inside = plain.Residual(nn.Sequential(nn.Conv2d(reads, reads, 1).double(), nn.ReLU()))
        assert torch.equal(form_of(inside).module()(x), inside(x))


def test_parts_that_hold_for_one_width_alone_are_refused_by_name():
    with pytest.raises(NoPlainForm, match="ResidualOfWidth has no plain form"):
        form_of(plain.ResidualOfWidth(nn.Identity(), 3))
    with pytest.raises(NotPractical, match=r"padded or cut to a width \(FirstChannels\)"):
        prune_channels(nn.Sequential(plain.FirstChannels(4)), torch.randn(2, 3, 8, 8), 0.5)


def test_a_network_is_made_again_from_its_tensors_alone(tmp_path):
    """As from weights.pt of a pruned network: by hand, with every layer half as wide."""
    block = network().plain()
    half = network(channels=4).plain()
    small = module_of(half)
    half = block_of(half, small)  # the order in which a network of other widths is written
    assert len(half.tensors) == len(block.tensors)
    small.double()
    made = resized(module_of(block), half.tensors).double().eval()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(made(x), small(x), rtol=0, atol=1e-12)
    again = block_of(block, made)
    assert "nn.BatchNorm2d(4)" in (text := source_of(again)) and "class SeparableConv" not in text
    with torch.no_grad():
        torch.testing.assert_close(module_of(again).double()(x), small(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="expected .* tensors, got 1"):
        resized(module_of(block), {"a": torch.zeros(1)})
    wrong = dict(half.tensors) | {next(iter(half.tensors)): torch.zeros(4)}
    with pytest.raises(ValueError, match="must have 4 dimensions"):
        resized(module_of(block), wrong)


def test_blocks_that_differ_in_many_numbers_say_their_own():
    block = network(layers=3, seed=3).plain()
    module = module_of(block)
    cells = [getattr(module, name) for name, part in block.parts.items() if "input" not in name and name.startswith("cell")]
    for n, cell in enumerate(cells):  # each layer another width: nobody would compute with it, but it can be written
        for k, layer in enumerate(layer for layer in cell.modules() if isinstance(layer, nn.BatchNorm2d)):
            layer.eps = 1e-5
            layer.num_features = 3 + n * 7 + k * k
            for name in ("weight", "bias"):
                setattr(layer, name, nn.Parameter(torch.ones(layer.num_features)))
            layer.running_mean, layer.running_var = torch.zeros(layer.num_features), torch.ones(layer.num_features)
    text = source_of(block_of(block, module))
    kinds = {name for name in block.parts if name.startswith("cell") and "input" not in name}
    assert len([line for line in text.split("\n") if line.startswith("class ") and "Cell" in line]) == len(kinds)


def test_a_network_of_the_same_widths_is_written_as_an_export_writes_it():
    block = network().plain()
    module = module_of(block)
    with torch.no_grad():
        for p in module.parameters():
            p *= 1.5
    again = refilled(block, module)
    assert source_of(again) == source_of(block) and list(again.tensors) == list(block.tensors)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(module_of(again)(x), module(x), rtol=0, atol=0)


@needs_extra
@pytest.mark.parametrize("name, seed, share", [("darts", 1, 0.5), ("darts", 2, 0.3), ("nasbench201", 1, 0.5), ("nasbench_macro", 0, 0.7),
                                               ("gdas", 4, 0.5), ("toy", 3, 0.9), ("accel_mnasnet", 0, 0.5)])
def test_a_pruned_network_is_a_smaller_one_that_the_written_file_computes(name, seed, share):
    net = network(name, seed)
    module = module_of(block := net.plain())
    sizes = net.built.sizes
    x = torch.randn(2, sizes["in_channels"], *sizes["image_size"])
    before = parameter_count(module)[0]
    prune_channels(module, x, share)
    assert parameter_count(module)[0] < before * (1 - share) ** 0.7
    again = block_of(block, module)
    with torch.no_grad():
        wanted = module.double()(x.double())
        for made in (module_of(again), resized(module_of(block), again.tensors).eval()):
            torch.testing.assert_close(made.double()(x.double()), wanted, rtol=0, atol=1e-12)
    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == sizes["in_channels"] and wanted.shape == (2, 10)


@needs_extra
def test_of_a_layer_the_smallest_channels_are_taken_out():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
    with torch.no_grad():
        net[0].weight[[1, 4]] *= 0.01
        net[0].bias.zero_()
        net[3].weight[:, [n for c in (1, 4) for n in range(36 * c, 36 * c + 36)]] *= 0.01
    kept = net[0].weight.detach().clone()[[0, 2, 3, 5]]
    prune_channels(net, torch.randn(2, 1, 8, 8), 0.34)
    assert torch.equal(net[0].weight, kept) and net[3].in_features == 4 * 36


@needs_extra
@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.999])
def test_the_share_is_taken_to_the_nearest_channel_and_one_is_left(share):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 3))
    prune_channels(net, torch.randn(2, 1, 8, 8), share)
    assert [net[n].out_channels for n in (0, 2)] == [max(1, round(c * (1 - share))) for c in (4, 16)]


# ---- numbers


def test_times_are_medians_of_calls_in_turn():
    now, order = [0.0], []

    def call(name, seconds):
        def called():
            order.append(name)
            now[0] += next(seconds)
        return called

    slow = iter([9.0] * 2 + [0.5, 0.3, 40.0] * 10)
    found = side_by_side({"a": call("a", slow), "b": call("b", iter([1.0] * 99))}, clock=lambda: now[0])
    assert found == {"a": 500.0, "b": 1000.0} and order[4:] == ["a", "b"] * (len(order[4:]) // 2)


# ---- the table


def row(name, accuracy, disk, ms, **more):
    n = 400
    right = round(accuracy * n / 100)
    given = {"interval": share_interval(right, n), "change": paired_shares(4, 9, n), "top5": 99.0, "parameters": 1000, "nonzero": 1000,
             "multiply_adds": 2_000_000, "packed": disk - 1, "torch_ms": {1: ms, 32: 9 * ms}, "onnx_ms": {1: ms / 2, 32: 4 * ms},
             "live": 2**20, "grown": 3 * 2**20, "seconds": 1.0} | more
    return Row(name, f"how {name} was made", accuracy=accuracy, disk=disk, **given)


@pytest.fixture
def compared():
    rows = [row("float32", 90.0, 9000, 1.0), row("pruned", 89.0, 5000, 0.6, multiply_adds=1_000_000), row("worse", 80.0, 6000, 0.7),
            row("zeros", 88.5, 9000, 1.0, nonzero=200), row("int8", 89.5, 3000, 1.5, of="float32", torch_ms=None, live=None),
            Row("qat", "8 bits, trained so", failed="it would take 99 minutes")]
    return Compression("digits, made smaller", rows, 400, (1, 32), "Times are of a table that a test made.", {"run": "runs/a"})


def test_the_front_holds_those_that_no_other_beats(compared):
    found = report.members(compared)
    assert found == {"size on disk (kB)": ["float32", "int8"], "multiply-adds (M)": ["float32", "pruned"],
                     "ONNX Runtime, batch 1 (ms)": ["float32", "pruned"]}
    without = replace(compared, rows=[replace(row, onnx_ms=None) for row in compared.rows])
    assert "PyTorch, batch 1 (ms)" in report.members(without)


def test_the_table_says_in_words_where_8_bits_are_slower_and_what_could_not_be_made(compared):
    said = report.text(compared)
    assert "int8 is slower at batch 1 (0.75 against 0.5 ms) and slower at batch 32 (6 against 4 ms) than float32 in ONNX Runtime" in said
    assert "Weights that are zero (zeros) count like others" in said
    assert "qat is not practical: it would take 99 minutes." in said
    assert "-1.25" in said and "400 test images" in said
    faster = replace(compared, rows=[*compared.rows[:4], replace(compared.rows[4], onnx_ms={1: 0.4, 32: 5.0})])
    assert "int8 is faster at batch 1 (0.4 against 0.5 ms) and slower at batch 32" in report.text(faster)


def test_the_files_of_a_table_hold_the_same_numbers(compared, tmp_path):
    assert [path.name for path in report.write(tmp_path, compared)] == list(report.NAMES)
    data = json.loads((tmp_path / "compression.json").read_text())
    rows = list(csv.DictReader((tmp_path / "compression.csv").read_text().splitlines()))
    assert [r["name"] for r in data["results"]] == [r["name"] for r in rows] == [r.name for r in compared.rows]
    assert float(rows[1]["accuracy"]) == data["results"][1]["accuracy"] == 89.0 and rows[5]["accuracy"] == ""
    assert data["results"][1]["front"] == ["multiply-adds (M)", "ONNX Runtime, batch 1 (ms)"]
    page = (tmp_path / "compression.html").read_text()
    assert page.count("<svg") == 1 and "int8 is slower" in page and "not practical" in page
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    report.write(tmp_path, compared)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_results_are_used_again_only_while_their_files_are_what_was_written(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "weights.pt").write_bytes(b"weights")
    result = Result("k1", "a", "told", ("prune",), False, {"x": 1.0}, "weights.pt", digests(tmp_path / "a"))
    journal = Journal(tmp_path / JOURNAL)
    journal.append({"something": "else"})
    journal.append(result.record())
    journal.append(result.record() | {"key": "k2", "name": "../a"})
    assert read_results(tmp_path) == {"k1": replace(result, steps=["prune"])}
    assert free_name("b", "k1", [result], tmp_path) == "b" and free_name("a", "other_key", [result], tmp_path) == "a_other_"
    (tmp_path / "a" / "weights.pt").write_bytes(b"others")
    assert read_results(tmp_path) == {}


# ---- the command


@pytest.fixture(scope="module", autouse=True)
def hydra():
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    where = tmp_path_factory.mktemp("final")
    done = helpers.run("train_final", "genotype=darts_v2", "layers=3", "channels=4", "split.max_train=160", "epochs=2", "batch_size=32",
                       "task.auxiliary_weight=0.4", cwd=where, report=False)
    assert done.code == 0, done.err
    return next(where.glob("runs/*"))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Times are not what is tested."""
    monkeypatch.setattr("supernet.compression.measuring.ROUNDS", 1)
    monkeypatch.setattr("supernet.compression.measuring.MOST", 1)
    if not EXTRA:
        monkeypatch.setattr(compressing, "missing", lambda packages: ["none wanted"])  # no export to ONNX beside each


def work(*options):
    cfg = compose("compress", overrides=compress.words(list(map(str, options))))
    validate(cfg, "compress")
    return compressing.prepared(cfg, compress.chosen_methods(cfg))


def results(output):
    return {result.name: result for result in read_results(output).values()}


def test_what_is_made_can_be_used_and_the_same_command_makes_nothing_twice(trained, tmp_path, capsys):
    options = (trained, "method=magnitude", "sparsity=0.5", "epochs=1", "threads=1", f"output={tmp_path / 'out'}")
    said = work(*options).done()
    summary = json.loads((trained / "summary.json").read_text())["values"]
    found = results(tmp_path / "out")
    assert set(found) == {"float32", "magnitude_0.5"} and "magnitude_0.5" in said
    assert found["float32"].values["test_accuracy"] == pytest.approx(summary["test_accuracy"])
    assert found["float32"].values["test_top5_accuracy"] == pytest.approx(summary["test_top5_accuracy"])
    assert found["float32"].values["multiply_adds"] == summary["multiply_adds"]
    values = found["magnitude_0.5"].values
    assert values["nonzero"] < 0.65 * values["parameters"] == 0.65 * found["float32"].values["parameters"]
    assert values["packed"] < found["float32"].values["packed"] and values["live"] > 0 and values["train"]["epoch"] == 0
    net = plain_module(tmp_path / "out" / "magnitude_0.5")
    x, labels = Digits().test().pixels, Digits().test().labels
    prepared = json.loads((tmp_path / "out" / "magnitude_0.5" / "preprocessing.json").read_text())
    with torch.no_grad():
        answers = net((x.float() / 255 - prepared["mean"][0]) / prepared["std"][0]).argmax(1)
    assert 100 * (answers == labels).float().mean().item() == pytest.approx(values["test_accuracy"], abs=0.3)
    before = helpers.contents(tmp_path / "out")
    capsys.readouterr()
    assert work(*options).done().partition("written")[0] == said.partition("written")[0]
    assert "magnitude_0.5: there already" in capsys.readouterr().out and helpers.contents(tmp_path / "out") == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_a_teacher_others(trained, tmp_path, capsys):
    options = (trained, "method=magnitude", "epochs=1", "threads=1")
    for name in ("a", "b"):
        work(*options, f"output={tmp_path / name}").done()
    a, b = (results(tmp_path / name)["magnitude_0.8"] for name in ("a", "b"))
    assert a.files["weights.pt"] == b.files["weights.pt"] and a.key == b.key
    work(*options, f"output={tmp_path / 'a'}", "distil=true").done()
    taught = results(tmp_path / "a")["magnitude_0.8_distilled"]
    assert taught.files["weights.pt"] != a.files["weights.pt"] and taught.told.endswith("taught by the teacher")
    assert work(*options, f"output={tmp_path / 'a'}", "seed=1").key(("magnitude",)) not in (a.key, taught.key)


def test_what_was_broken_off_is_made_again_and_what_was_finished_stays(trained, tmp_path, monkeypatch, capsys):
    options = (trained, "method=[magnitude]", "epochs=2", "threads=1")
    work(*options, f"output={tmp_path / 'whole'}").done()
    broken = work(*options, f"output={tmp_path / 'broken'}")
    told_epoch = compressing.Told.epoch

    def epoch(self, record, genotype):
        self.interrupt.signal = signal.SIGINT
        told_epoch(self, record, genotype)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(compressing.Told, "epoch", epoch)
        broken.done()
    assert broken.stopped() == "interrupted; finished and kept: float32; the same command does the rest"
    assert broken.interrupt.exit_code == 130
    assert set(results(tmp_path / "broken")) == {"float32"} and not list((tmp_path / "broken").glob("*.part"))
    work(*options, f"output={tmp_path / 'broken'}").done()
    whole, again = (results(tmp_path / name)["magnitude_0.8"] for name in ("whole", "broken"))
    assert whole.files["weights.pt"] == again.files["weights.pt"]


@pytest.mark.slow
def test_other_options_make_another_folder_and_a_damaged_one_is_made_again(trained, tmp_path, capsys):
    options = (trained, "method=magnitude", "threads=1", f"output={tmp_path}")
    work(*options, "epochs=0").done()
    work(*options, "epochs=1").done()
    names = set(results(tmp_path))
    (other,) = names - {"float32", "magnitude_0.8"}
    assert other.startswith("magnitude_0.8_") and other in (tmp_path / "compression.md").read_text()
    (tmp_path / "magnitude_0.8" / "weights.pt").write_bytes(b"damaged")
    capsys.readouterr()
    work(*options, "epochs=0").done()
    assert "magnitude_0.8: 80 % of the weights zero" in capsys.readouterr().out and set(results(tmp_path)) == names


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(trained, tmp_path):
    said = work(trained, "method=[magnitude]", "epochs=3", "threads=1", f"output={tmp_path / 'out'}", "dry_run=true").rehearsed()
    assert re.search(r"magnitude_0.8 +80 % of the weights zero, 3 epochs further", said)
    assert "peak memory" in said and "for 3 epochs" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_that_would_take_too_long_is_not_practical_and_the_table_says_so(trained, tmp_path, monkeypatch, capsys):
    slow = replace(METHODS["magnitude"], apply=lambda module, bench, path: bench.tune(module, budget_s=1e-6))
    monkeypatch.setitem(METHODS, "magnitude", slow)
    said = work(trained, "method=magnitude", "epochs=1", "threads=1", f"output={tmp_path}").done()
    assert "magnitude_0.8 is not practical: its 5 steps would take" in said and "float32" in said


OTHERS = {"a search": ("train_search", "expected the folder of a final training, got one of train_search"),
          "half": ("train_final", "that training has not finished: weights.pt is written at its end")}


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_that_has_no_trained_network_is_refused(name, trained, tmp_path):
    script, said = OTHERS[name]
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("weights.pt", "compressed"))
    folder = RunFolder(tmp_path / "run")
    status = folder.status()
    folder.start(script=script, command="", config_hash=status["config_hash"], status="stopped")
    with pytest.raises(UsageError, match=said):
        work(tmp_path / "run")


@pytest.mark.slow
def test_a_run_of_text_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    space = named_space("darts_rnn")
    space.sample(random.Random(0)).save(tmp_path / "cell.json")
    done = helpers.run("train_final", "genotype=cell.json", "dataset=text", "dataset.path=text.txt", "epochs=1", "batch_size=4",
                       "channels=8", cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    with pytest.raises(UsageError, match="expected a network of images, this one reads text"):
        work(next(tmp_path.glob("runs/*")), "method=magnitude")


REFUSED = {
    "no run": (["method=prune"], "compress needs the folder of a final training"),
    "nothing there": (["nowhere"], "run=nowhere: expected the folder of a final training; there is no run.json"),
    "a wrong method": (["x", "method=int4"], "method must be of prune, .* got 'int4'; did you mean int8"),
    "a method that is a number": (["x", "method=[1]"], "method must list some of prune"),
    "no method": (["x", "method=[]"], "method must list some of prune"),
    "all channels": (["x", "share=1.0"], "share must be above 0 and below 1, got 1.0"),
    "more than all weights": (["x", "sparsity=1.5"], "sparsity must be above 0 and below 1, got 1.5"),
    "no calibration images": (["x", "method=int8", "calibration=0"], "method=int8 finds the ranges of activations on training images"),
    "a way to calibrate": (["x", "calibrate=mean"], "calibrate must be minmax, entropy or percentile, got mean"),
    "a pupil that is not trained": (["x", "method=int8", "distil=true"], "distil=true teaches what is trained further"),
    "no epochs for it": (["x", "method=prune", "distil=true", "epochs=0"], "distil=true teaches what is trained further"),
    "a teacher of nobody": (["x", "teacher=y"], "teacher=y teaches nobody: pass distil=true"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_line_before_any_work(name):
    options, said = REFUSED[name]
    with pytest.raises(UsageError, match=said):
        work(*options)


def test_a_teacher_of_other_classes_is_refused(trained, tmp_path):
    class Letters(ImageData):
        def facts(self):
            return super().facts() | {"class_names": list("abcdefghij")}

    space = named_space("toy")
    genotype = space.sample(random.Random(2))
    save_weights(tmp_path / "letters.pt", network("toy", 2), Letters(Digits(), Augment(pad=1)), genotype, "hash")
    with pytest.raises(UsageError, match="it must tell the classes of digits apart .*, got 10: a, b, c"):
        work(trained, "method=magnitude", "distil=true", f"teacher={tmp_path / 'letters.pt'}")


def test_methods_whose_packages_are_missing_say_what_to_install(monkeypatch):
    monkeypatch.setattr(formats, "missing", lambda packages: list(packages))
    with pytest.raises(UsageError, match="method=prune needs torch_pruning, not installed here: pip install torch-pruning, or the extra "
                                         "'compress'"):
        formats.need("method=prune", methods.packages([("prune",)]), methods.EXTRA)
    assert methods.packages([("magnitude",)]) == []


def test_the_folder_of_the_run_stands_by_itself():
    assert compress.words(["runs/a b", "method=[prune]", "--cfg", "job"]) == ['run="runs/a b"', "method=[prune]", "--cfg", "job"]
    assert compress.words(["--cfg", "job", "runs/a", "share=0.3"]) == ["--cfg", "job", "run=runs/a", "share=0.3"]
    assert compress.words(["run=x", "-c", "job"]) == ["run=x", "-c", "job"]


@pytest.mark.slow
@needs_extra
def test_every_method_makes_a_network_that_classifies(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compressing, "missing", formats.missing)
    said = work(trained, "method=[prune,magnitude,int8,qat,prune+int8]", "share=0.25", "epochs=1", "calibration=64", "threads=1",
                f"output={tmp_path}").done()
    found = results(tmp_path)
    assert set(found) == {"float32", "prune_0.25", "magnitude_0.8", "int8", "qat", "prune_0.25_int8"}
    accuracy = {name: result.values["test_accuracy"] for name, result in found.items()}
    assert abs(accuracy["int8"] - accuracy["float32"]) < 5 and min(accuracy.values()) > 5
    assert all(result.values["grown"] is None or result.values["grown"] > 0 for result in found.values())
    assert "int8 is " in said and " than float32 in ONNX Runtime" in said
    Image.fromarray(Digits().test().pixels[0, 0].numpy()).save(tmp_path / "digit.png")
    for name in ("prune_0.25", "int8", "qat"):
        done = subprocess.run([sys.executable, tmp_path / name / "classify.py", tmp_path / "digit.png"], capture_output=True, text=True)
        assert done.returncode == 0 and "%" in done.stdout, done.stderr


def test_intervals_of_the_table_are_those_of_the_predictions(compared):
    assert compared.rows[0].interval == share_interval(360, 400) and isinstance(compared.rows[0].interval, Interval)
    assert np.isclose(compared.rows[1].change.difference, -5 / 400)

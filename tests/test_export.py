"""A network that leaves: the plain file, its folder, and the command that writes them."""

import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ops import OPS
from ops.forms import Form, NoPlainForm, form_of
from ops.op import Op
from supernet import genotype as genotypes
from supernet.commands import export
from supernet.data.augment import Augment
from supernet.data.digits import Digits
from supernet.data.images import ImageData
from supernet.data.preprocess import ImagePreprocessing
from supernet.data.text import Text
from supernet.errors import UsageError
from supernet.exports import examples, folder, formats, writing
from supernet.exports.comparison import apart, in_batches
from supernet.exports.readers import reader_of
from supernet.exports.source import source_of
from supernet.exports.writing import as_tuple
from supernet.genotype import Edge
from supernet.interfaces import InterfaceError
from supernet.networks.build import final_normalisation, search_normalisation
from supernet.networks.written import Block, class_name, identifier
from supernet.runs.loading import load
from supernet.runs.weights import save_weights
from supernet.spaces import darts, layerwise, nasbench201
from supernet.spaces.named import named_space, names, space_again
from tests.builders import with_statistics
from tests.helpers import ROOT, contents, run

NORM = final_normalisation("never", "running")
IMAGES = {"num_classes": 10, "in_channels": 1, "image_size": (8, 8)}
READ = {"darts_rnn": {"vocabulary": 11, "batch_norm": False}, "gpt": {"vocabulary": 11}}  # by spaces that read no images
DATA = ImageData(Digits(), Augment(pad=1))
HAS_ONNX = not any(__import__("importlib").util.find_spec(name) is None for name in formats.FORMATS["onnx"].packages)


def network(space, genotype, norm=NORM, **sizes):
    """A network of any space, as after a training."""
    side = space.arguments.get("side", 8)
    given = {"layers": 3, "channels": 6, **space.sizes, **READ.get(space.name, IMAGES | {"image_size": (side, side)})}
    torch.manual_seed(0)
    return with_statistics(space.network(space.candidates(genotype), norm=norm, **given | sizes)).eval()


def written(net, where: Path):
    """The network of the file that is written of `net`, in single precision."""
    where.mkdir(parents=True, exist_ok=True)
    block = net.plain()
    (where / "network.py").write_text(source_of(block))
    torch.save(dict(block.tensors), where / "weights.pt")
    return folder.plain_module(where)


def single(inputs):
    return tuple(x.float() if x.is_floating_point() else x for x in inputs)


def assert_same(net, where: Path) -> None:
    """The file computes what the network computes."""
    plain, reader = written(net, where), reader_of(net.plain())
    inputs = reader.noise(net, None, 3, 5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        near = apart(reader.ours(net, single(inputs)), as_tuple(plain(*single(inputs))))
        nearer = apart(reader.ours(net.double(), inputs), as_tuple(plain.double()(*inputs)))
    assert near.of < 1e-6 and nearer.of < 1e-12 and nearer.agree == nearer.count > 0


def quiet(space, seed):
    """A random genotype, with a convolution for each op that draws."""
    found = space.sample(random.Random(seed))
    return space.genotype({kind: [e._replace(op=e.op.replace("noise", "sep_conv_3x3")) for e in edges] for kind, edges in found.cells})


# ---- the file computes what the network computes


@pytest.mark.parametrize("name", names())
def test_the_plain_file_of_every_space_computes_what_its_network_computes(name, tmp_path):
    space = named_space(name)
    net = network(space, quiet(space, 1))
    assert_same(net, tmp_path)


@pytest.mark.slow
def test_every_published_cell_is_written_without_loss(tmp_path):
    refused = set()
    for name in genotypes.published_names():
        genotype = genotypes.find(name)
        net = network(space_again(genotype.space, dict(genotype.arguments)), genotype, channels=4)
        try:
            assert_same(net, tmp_path / name)
        except NoPlainForm:
            refused.add(name)
            assert any(edge.op == "noise" for _, edges in genotype.cells for edge in edges)
    assert len(refused) < 10


@pytest.mark.parametrize("sizes", [{"stem": "large", "image_size": (33, 47)}, {"last_norm": True, "image_size": (9, 7)},
                                   {"auxiliary": True}, {"norm": search_normalisation("always", "running")},
                                   {"norm": search_normalisation("always", "batch")}],
                         ids=["large_stem", "last_norm", "auxiliary", "search_norms", "by_batch"])
def test_every_way_to_build_a_network_of_cells_is_written_without_loss(sizes, tmp_path):
    space = darts.make(nodes=2)
    assert_same(network(space, quiet(space, 3), **sizes), tmp_path)


def test_batch_norms_of_a_recurrent_cell_are_written(tmp_path):
    space = named_space("darts_rnn")
    net = network(space, space.sample(random.Random(0)), batch_norm=True)
    assert_same(net, tmp_path)
    assert "self.norm1(self.node1(" in (tmp_path / "network.py").read_text()


def test_a_layer_that_is_skipped_or_narrower_than_its_input_is_written(tmp_path):
    space = layerwise.make(stages=((1, 3), (2, 2)))
    for seed in range(6):
        assert_same(network(space, space.sample(random.Random(seed))), tmp_path / f"{seed}")
    text = "".join((tmp_path / f"{seed}" / "network.py").read_text() for seed in range(6))
    assert all(word in text for word in ("FirstChannels(", "ResidualOfWidth(", "= Residual(", "nn.Dropout2d(0.2)", "nn.MaxPool2d(2, 2"))


def test_two_ops_on_an_edge_and_parallel_edges_are_written(tmp_path):
    ops = ("none", "skip_connect", "max_pool_3x3", "nor_conv_1x1")
    for n, space in enumerate((darts.make(nodes=3, ops=ops, ops_per_edge=2, edges_per_node=3), darts.make(nodes=3, ops=ops, parallel=2))):
        for seed in range(3):
            assert_same(network(space, quiet(space, seed), layers=1), tmp_path / f"{n}{seed}")


def test_a_network_runs_where_this_package_cannot_be_imported(tmp_path):
    wanted = {}
    for name in ("darts", "nasbench_macro", "darts_rnn"):
        net = network(space := named_space(name), quiet(space, 1))
        written(net, tmp_path / name)
        reader = reader_of(net.plain())
        inputs = single(reader.noise(net, None, 3, 5, torch.Generator().manual_seed(0)))
        with torch.no_grad():
            wanted[name] = reader.ours(net, inputs)
        torch.save(inputs, tmp_path / name / "inputs.pt")
    (tmp_path / "use.py").write_text('''
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("supernet", "ops"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Refuse())
import importlib, torch
for name in sys.argv[1:]:
    sys.path.insert(0, name)
    net = importlib.import_module("network").Network().eval()
    net.load_state_dict(torch.load(f"{name}/weights.pt", weights_only=True))
    with torch.no_grad():
        found = net(*torch.load(f"{name}/inputs.pt", weights_only=True))
    torch.save(found, f"{name}/found.pt")
    sys.path.remove(name), sys.modules.pop("network")
''')
    done = subprocess.run([sys.executable, "-I", "use.py", *wanted], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name, ours in wanted.items():
        found = as_tuple(torch.load(tmp_path / name / "found.pt", weights_only=True))
        assert apart(ours, found).of < 1e-6


# ---- the file is one that a person reads


def test_a_cell_is_one_class_for_all_widths_and_a_line_a_node():
    genotype = genotypes.find("darts_v2")
    net = network(space_again(genotype.space, dict(genotype.arguments)), genotype, layers=6)
    text = source_of(net.plain())
    assert re.findall(r"^class (\w+)", text, re.M) == ["SeparableConv", "DilatedConv", "HalvedSkip", "NormalCell", "ReduceCell", "Network"]
    assert "\n".join(["    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:",
                      "        s2 = self.sep_conv_3x3_0_2(s0) + self.sep_conv_3x3_1_2(s1)",
                      "        s3 = self.sep_conv_3x3_0_3(s0) + self.sep_conv_3x3_1_3(s1)",
                      "        s4 = self.skip_connect_0_4(s0) + self.sep_conv_3x3_1_4(s1)",
                      "        s5 = self.skip_connect_0_5(s0) + self.dil_conv_3x3_2_5(s2)",
                      "        return torch.cat([s2, s3, s4, s5], 1)"]) in text
    assert [re.findall(rf"self.cell{n} = (.*)", text)[0] for n in range(6)] == [
        "NormalCell(6)", "NormalCell(6)", "ReduceCell()", "NormalCell(12)", "ReduceCell()", "NormalCell(24)"]
    assert "self.dil_conv_3x3_2_5 = nn.Sequential(nn.ReLU(), DilatedConv(channels, 3), nn.BatchNorm2d(channels))" in text
    assert max(map(len, text.split("\n"))) <= 140 and "supernet" not in text and "ops" not in text


def test_the_page_shows_what_is_written():
    genotype = genotypes.find("darts_v2")
    text = source_of(network(space_again(genotype.space, dict(genotype.arguments)), genotype, layers=6).plain())
    shown = re.findall(r"```python\n(class .*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    assert len(shown) == 2 and all(code in text for code in shown)


def test_what_reaches_no_output_is_left_out_and_an_empty_node_is_zeros(tmp_path):
    space = nasbench201.make()
    ops = {(0, 1): "nor_conv_3x3", (0, 2): "none", (1, 2): "none", (0, 3): "nor_conv_1x1", (1, 3): "none", (2, 3): "skip_connect"}
    net = network(space, space.genotype({"cell": [Edge(d, s, op) for (s, d), op in ops.items()]}))
    assert_same(net, tmp_path)
    text = (tmp_path / "network.py").read_text()
    assert "nor_conv_3x3" not in text and "s2 = torch.zeros_like(s0)" in text and "s3 = self.nor_conv_1x1_0_3(s0)" in text


def test_names_from_elsewhere_become_names_of_python(monkeypatch, tmp_path):
    assert identifier("os.system('true')") == "os_system__true__" and identifier("3x3") == "op_3x3" and identifier("") == "op_"
    assert class_name("my reduce") == "MyReduceCell" and class_name("cell") == "Cell"
    for name in ('a""" import os', "a-b", "a_b"):
        monkeypatch.setitem(OPS, name, lambda channels, stride, norm: Op(torch.nn.Conv2d(channels, channels, 3, stride, 1)))
    space = darts.make(ops=('a""" import os', "a-b", "a_b"), parallel=2)
    net = network(space, space.sample(random.Random(0)))
    assert_same(net, tmp_path)
    assert "import os" not in (tmp_path / "network.py").read_text()


def test_an_op_without_a_plain_form_is_refused_with_its_edge():
    space = named_space("s4")
    edges = [Edge(d, s, "noise" if (s, d) == (1, 2) else "sep_conv_3x3") for d in range(2, 6) for s in (0, 1)]
    cells = dict.fromkeys(space.cells, edges)
    with pytest.raises(NoPlainForm, match="op 'noise' on edge 1 -> 2 of cell 'normal': noise is drawn"):
        network(space, space.genotype(cells)).plain()


def test_more_steps_than_a_transformer_sees_are_refused(tmp_path):
    space = named_space("gpt", context=4)
    net = network(space, space.sample(random.Random(0)))
    with pytest.raises(UsageError, match="steps must be at most the 4 items that this network sees at once, got 5"):
        reader_of(net.plain()).noise(net, None, 2, 5, torch.Generator())


@pytest.mark.parametrize("name, message", [("layerwise", "layer 0: decision .* is a supernet's"), ("nasbench_macro", "holds identity, ir_"),
                                           ("vit", "decision 'embedding' holds embedding_64"),
                                           ("darts_rnn", "node 1 of cell 'recurrent' holds 4 activations")])
def test_a_supernet_of_layers_has_no_plain_form(name, message):
    with pytest.raises(NoPlainForm, match=message):
        network(named_space(name), None).plain()
    with pytest.raises(NoPlainForm, match="partial connections"):
        network(darts.make(), None, partial=2).plain()


# ---- files for other programs


@pytest.mark.parametrize("name", ["layerwise", "darts_rnn", "gpt"])
@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=pytest.mark.skipif(not HAS_ONNX, reason="needs the extra 'export'"))])
def test_files_of_other_programs_compute_the_same_for_any_batch(name, format, tmp_path):
    spaces = {"layerwise": layerwise.make(stages=((1, 1), (2, 1)))}
    net = network(space := spaces.get(name) or named_space(name), quiet(space, 0))
    plain, reader, kind = written(net, tmp_path), reader_of(net.plain()), formats.FORMATS[format]
    g = torch.Generator().manual_seed(0)
    shown, *tried = (single(reader.noise(net, None, batch, 2, g)) for batch in (3, 1, 5))
    kind.write(plain, shown, reader.inputs, reader.outputs, True, tmp_path / kind.file)
    call = kind.read(tmp_path / kind.file, 1)
    for inputs in tried:
        with torch.no_grad():
            assert apart(reader.ours(net, inputs), call(inputs)).of < 1e-5


def test_a_format_whose_packages_are_missing_says_what_to_install(monkeypatch, tmp_path, capsys, weights):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert "format onnx needs onnx, onnxscript, onnxruntime, not installed here: pip install onnx" in refused(
        capsys, weights, "-o", tmp_path / "net", "--formats", "onnx")


def test_distances_are_of_the_largest_logit_and_infinite_where_something_is_not_finite():
    a = torch.tensor([[4.0, -8.0], [1.0, 2.0]])
    assert apart((a,), (a + torch.tensor([[0.0, 2.0], [0.0, 0.0]]),)) == (seen := apart((a,), (a + torch.tensor([[0, 2.0], [0, 0]]),)))
    assert (seen.of, seen.agree, seen.count) == (0.25, 2, 2)
    assert apart((a,), (a.flip(1),)).agree == 0
    assert apart((a,), (a * torch.nan,)).of == apart((a * torch.inf,), (a,)).of == apart((a,), (a[:1],)).of == float("inf")


def test_batches_of_one_size_are_joined_in_order():
    tokens, hidden = torch.arange(14).view(2, 7), torch.arange(7).view(7, 1)
    sizes = []

    def call(inputs):
        sizes.append(inputs[0].shape[1])
        return tuple(x + 1 for x in inputs)

    found = in_batches(call, (tokens, hidden), (1, 0), 3)
    assert torch.equal(found[0], tokens + 1) and torch.equal(found[1], hidden + 1) and sizes == [3, 3, 3]


# ---- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    where = tmp_path_factory.mktemp("final")
    done = run("train_final", "genotype=darts_v2", "dataset=digits", "layers=3", "channels=2", "split.max_train=64", "epochs=1",
               "batch_size=32", "task.auxiliary_weight=0.4", "backend=plain", cwd=where, report=False)
    assert done.code == 0, done.err
    return next(where.glob("runs/*"))


@pytest.fixture
def weights(tmp_path):
    """Of a small network that nobody trained."""
    genotype = (space := named_space("toy")).sample(random.Random(2))
    save_weights(tmp_path / "toy.pt", network(space, genotype), DATA, genotype, "hash")
    return tmp_path / "toy.pt"


def refused(capsys, *arguments) -> str:
    assert export.main([*map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and len(said.err) < 500
    return said.err


def test_a_trained_run_becomes_a_folder_that_classifies_images_by_itself(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    net = tmp_path / "deep" / "net"
    assert export.main([str(trained), "-o", str(net)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"float64 +\d\.\de-1\d +4 of 4", said.replace("0.0e+00", "1.0e-16")) and "plain" in said and f"written   {net}" in said
    assert sorted(p.name for p in net.iterdir()) == ["classify.py", "export.json", "network.py", "preprocess.py", "preprocessing.json",
                                                     "weights.pt"]
    assert [p.name for p in net.parent.iterdir()] == ["net"]
    record = json.loads((net / "export.json").read_text())
    assert record["genotype"]["cells"] and record["differences"]["plain"] < 1e-6 and set(record["milliseconds"]) == {"network", "plain"}
    assert json.loads((net / "preprocessing.json").read_text())["class_names"] == list(Digits.class_names)
    test, loaded = Digits().test(), load(trained)
    for n in range(3):
        Image.fromarray(test.pixels[n, 0].numpy()).save(tmp_path / f"{n}.png")
    done = subprocess.run([sys.executable, net / "classify.py", *(f"{n}.png" for n in range(3))], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120)
    with torch.no_grad():
        chances = loaded.network(loaded.preprocess(test.pixels[:3])).softmax(1)
    wanted = [f"{n}.png  {loaded.class_names[row.argmax()]}  {100 * row.max():.1f} %" for n, row in enumerate(chances)]
    assert done.stdout.splitlines() == wanted

    mine = net / "notes.txt"
    mine.write_text("kept")
    before = contents(net)
    assert export.main([str(trained), "-o", str(net)]) == 0, "the same command twice"
    after = contents(net)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {"export.json"} and after.keys() == before.keys(), "but for times the same files, and those of the user"


def test_formats_come_and_go_with_the_option_and_are_told_with_their_distance(weights, tmp_path, capsys):
    net = tmp_path / "net"
    for n in range(2):
        Image.fromarray(np.full((20, 30, 3), 40 * n, np.uint8)).save(tmp_path / f"{n}.png")
    files = map(str, tmp_path.glob("*.png"))
    assert export.main([str(weights), "-o", str(net), "--formats", "plain,pt2", "--batch", "2", "--images", *files]) == 0
    said = capsys.readouterr().out
    assert "compared on 2 image files, in batches of 2" in said and re.search(r"pt2 +\d\.\de[-+]\d\d +2 of 2 +[\d.]+ +[\d.]+ s\n", said)
    assert (net / "network.pt2").exists()
    assert export.main([str(weights), "-o", str(net)]) == 0
    assert not (net / "network.pt2").exists()


@pytest.mark.parametrize("name, arguments", [("darts_rnn", {}), ("gpt", {"context": 6})])
def test_a_language_model_goes_on_with_a_text_by_itself(name, arguments, tmp_path):
    (tmp_path / "text.txt").write_text("abba cab " * 60)
    data = Text(name="text", path=str(tmp_path / "text.txt"), level="character", bptt=6)
    genotype = (space := named_space(name, **arguments)).sample(random.Random(2))
    save_weights(tmp_path / "w.pt", network(space, genotype, **data.sizes), data, genotype, "hash")
    assert export.main([str(tmp_path / "w.pt"), "-o", str(tmp_path / "net"), "--steps", "3"]) == 0
    done = subprocess.run([sys.executable, tmp_path / "net" / "continue.py", "abba", "9"], cwd="/", capture_output=True, text=True,
                          timeout=120)
    assert done.stderr == "" and done.stdout.startswith("abba") and len(done.stdout.replace("<unk>", "?")) == 14


def test_what_cannot_be_exported_is_said_in_one_line_and_leaves_nothing(trained, weights, tmp_path, capsys):
    net = tmp_path / "net"
    half = shutil.copytree(trained, tmp_path / "half")
    (half / "weights.pt").unlink()
    assert "that training has not finished: weights.pt is written at its end" in refused(capsys, half, "-o", net)
    (tmp_path / "empty").mkdir()
    assert "expected the folder of a run, or a weights.pt; there is neither here" in refused(capsys, tmp_path / "empty", "-o", net)
    assert "no-such" in refused(capsys, tmp_path / "no-such", "-o", net)
    (tmp_path / "not.pt").write_text("weights")
    assert "not a file of weights" in refused(capsys, tmp_path / "not.pt", "-o", net)
    assert "pt2, onnx (plain is always written), got 'tflite'" in refused(capsys, weights, "-o", net, "--formats", "tflite")
    assert "--batch must be a whole number of 1 to 4096, got 0" in refused(capsys, weights, "-o", net, "--batch", "0")
    assert "not.pt cannot be read as an image" in refused(capsys, weights, "-o", net, "--images", tmp_path / "not.pt")
    assert "there is no file in" in refused(capsys, weights, "-o", net, "--images", tmp_path / "empty")
    assert not net.exists() and not list(tmp_path.glob(".*"))


def test_weights_of_another_space_are_refused(weights, tmp_path, capsys):
    state = torch.load(weights, weights_only=True)
    from supernet.runs.weights import _digest

    state["network"] |= {"space": "nasbench201", "fingerprint": nasbench201.make().fingerprint}
    torch.save(state | {"sha256": _digest(state)}, weights)
    assert "does not describe a network of space nasbench201" in refused(capsys, weights, "-o", tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_search_is_told_to_be_trained_first(tmp_path, capsys):
    done = run("train_search", "layers=3", "channels=2", "space.nodes=1", "split.max_train=32", "split.max_val=32", "epochs=1",
               "backend=plain", cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    assert "is a search, whose network still mixes its candidates" in refused(capsys, *tmp_path.glob("runs/*"), "-o", tmp_path / "net")


def test_a_folder_with_other_things_in_it_is_left_as_it_was(weights, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for name in "abcd":
        (other / name).write_text(name)
    before = contents(tmp_path)
    assert "it holds 'a', 'b', 'c', ..." in refused(capsys, weights, "-o", other)
    assert "there is a file of that name" in refused(capsys, weights, "-o", other / "a")
    (other / "export.json").write_text('{"format": "supernet.export/1", "files": ["../a"]}')
    assert "is not that of an earlier export" in refused(capsys, weights, "-o", other)
    (other / "export.json").unlink()
    assert "cannot write there" in refused(capsys, weights, "-o", other / "a" / "b")
    assert contents(tmp_path) == before


def test_an_interrupt_leaves_the_earlier_export_whole(weights, tmp_path, capsys, monkeypatch):
    net = tmp_path / "net"
    assert export.main([str(weights), "-o", str(net)]) == 0
    before = contents(tmp_path)
    monkeypatch.setattr(writing, "plain_module", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))  # as Python's own handler
    assert export.main([str(weights), "-o", str(net)]) == 130
    assert capsys.readouterr().err == "interrupted: nothing in the output folder was changed\n" and contents(tmp_path) == before


def test_a_full_disk_leaves_the_earlier_export_whole(weights, tmp_path, capsys, monkeypatch):
    net = tmp_path / "net"
    assert export.main([str(weights), "-o", str(net)]) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    monkeypatch.setattr(folder, "save_file", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "cannot write there (No space left on device)" in refused(capsys, weights, "-o", net)
    assert contents(tmp_path) == before


def test_a_plain_form_that_computes_something_else_is_found_out(weights, tmp_path, capsys, monkeypatch):
    class Doubled(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    form_of.register(Doubled, lambda module: Form(torch.nn.Identity))
    monkeypatch.setitem(OPS, "nor_conv_3x3", lambda channels, stride, norm: Op(Doubled()))
    space = named_space("toy")
    genotype = space.genotype({"cell": [Edge(1, 0, "nor_conv_3x3"), Edge(2, 0, "skip_connect"), Edge(2, 1, "skip_connect")]})
    save_weights(weights, network(space, genotype), DATA, genotype, "hash")
    assert "the plain network does not compute the same" in refused(capsys, weights, "-o", tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_network_of_ones_own_space_is_exported_from_python_and_must_say_how_it_is_written(weights, tmp_path):
    loaded = load(weights)
    lines = list(writing.export(loaded, tmp_path / "net"))
    assert lines[-1].startswith(f"\nwritten   {tmp_path / 'net'}: ") and (tmp_path / "net" / "network.py").exists()
    own = replace(loaded, network=torch.nn.Identity())
    with pytest.raises(InterfaceError, match="the network of space toy: Identity lacks plain of supernet.networks.written.WritesItself"):
        list(writing.export(own, tmp_path / "other"))
    own.network.plain = lambda: Block("Network", "", {}, ["a", "b"], ["return a"])
    with pytest.raises(UsageError, match="its forward must read \\(x\\), \\(tokens, hidden\\) or \\(tokens\\), got \\(a, b\\)"):
        list(writing.export(own, tmp_path / "other"))
    with pytest.raises(UsageError, match="formats must be of pt2, onnx, got 'tflite'"):
        list(writing.export(loaded, tmp_path / "other", formats=["tflite"]))
    with pytest.raises(ValueError, match="batch must be at least 1"):
        list(writing.export(loaded, tmp_path / "other", batch=0))
    assert not (tmp_path / "other").exists()


# ---- pre-processing


@pytest.mark.parametrize("channels, crop", [(1, None), (3, 6)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
@pytest.mark.parametrize("size", [(17, 40), (40, 17), (5, 6)])
def test_an_image_file_is_prepared_as_in_training(mode, size, channels, crop):
    made: dict = {}
    exec(compile(examples.PREPROCESS, "preprocess.py", "exec"), made)  # ours, as it is written
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    ours = ImagePreprocessing((0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.1)[:channels], (8, 10), crop, background=90)
    facts = {"mean": ours.mean, "std": ours.std, "image_size": ours.image_size, "crop": crop, "background": 90}
    torch.testing.assert_close(made["preprocessed"](image, facts), ours(image).contiguous(), rtol=1e-6, atol=1e-6)


def test_an_image_of_16_bits_is_refused_by_the_example():
    made: dict = {}
    exec(compile(examples.PREPROCESS, "preprocess.py", "exec"), made)
    with pytest.raises(ValueError, match="mode I;16: bring it to 8 bits"):
        made["preprocessed"](Image.fromarray(np.zeros((9, 9), np.uint16)), {"image_size": (8, 8), "mean": [0.5]})



"""The door for who uses the project as a library: `supernet.use`, `.space` and `.load`, and the example scripts."""

import json
import pickle
import random
import re
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import supernet
from ops.op import Normalisation
from supernet import errors
from supernet.data.augment import Augment
from supernet.data.base import DataError
from supernet.data.digits import Digits
from supernet.data.folder import Folder
from supernet.data.images import ImageData
from supernet.data.loader import test_loader as loader_of
from supernet.data.preprocess import ImagePreprocessing, preprocessing
from supernet.data.text import Text
from supernet.errors import Mendable, UsageError
from supernet.genotype import Genotype
from supernet.networks.build import final_normalisation, search_normalisation
from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from supernet.runs.weights import FORMAT, description, read_weights, save_weights
from supernet.runs.weights import _digest as digest_of
from supernet.spaces import darts, named, robust
from tests.helpers import ROOT, run

SIZES = {"layers": 3, "channels": 2, "num_classes": 10, "in_channels": 1, "image_size": (8, 8)}
DATA = ImageData(Digits(), Augment(pad=1))
CPU = torch.device("cpu")


# ---- runs, as the scripts leave them


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    where = tmp_path_factory.mktemp("search")
    done = run("train_search", "layers=3", "channels=2", "space.nodes=1", "split.max_train=32", "split.max_val=32", "epochs=1",
               "wrapper=[edge_normalised]", "backend=plain", cwd=where, report=False)
    assert done.code == 0, done.err
    return next(where.glob("runs/*"))


@pytest.fixture(scope="module")
def trained(searched, tmp_path_factory):
    where = tmp_path_factory.mktemp("final")
    done = run("train_final", f"genotype={searched}/genotype.json", "layers=3", "channels=4", "split.max_train=128", "epochs=1",
               "batch_size=32", "task.auxiliary_weight=0.4", "backend=plain", cwd=where, report=False)
    assert done.code == 0, done.err
    return next(where.glob("runs/*"))


def test_a_final_network_is_loaded_as_it_was_tested(trained, searched):
    loaded = supernet.load(trained)
    test = Digits().test()
    with torch.no_grad():
        found = loaded.network(loaded.preprocess(test.pixels), loaded.weights).argmax(1)
    accuracy = 100 * (found == test.labels).double().mean().item()
    assert accuracy == pytest.approx(json.loads((trained / "summary.json").read_text())["values"]["test_accuracy"], abs=1e-4)
    assert not loaded.network.training and loaded.weights is None and loaded.class_names == tuple("0123456789")
    assert loaded.genotype == Genotype.load(searched / "genotype.json") and loaded.space.name == "darts"
    assert loaded.options["layers"] == 3 and type(loaded.options["dataset"]["source"]) is dict


def test_a_supernet_is_loaded_with_the_mean_edge_weights_of_its_last_checkpoint(searched):
    loaded = supernet.load(str(searched))
    with np.load(searched / "alphas.npz") as arrays:
        for kind, weights in loaded.weights.items():
            np.testing.assert_array_equal(weights.ops.numpy(), arrays[f"weights.{kind}"][-1])
            torch.testing.assert_close(weights.edges.sum(), torch.ones(()))  # two edges into the one node
    record = json.loads((searched / "metrics.jsonl").read_text().splitlines()[-1])
    with np.load(searched / "split.npz") as split:
        chosen = torch.from_numpy(split["val"])
    train = Digits().train()
    with torch.no_grad():
        logits = loaded.network(loaded.preprocess(train.pixels[chosen]), loaded.weights)
    assert torch.nn.functional.cross_entropy(logits, train.labels[chosen]).item() == pytest.approx(record["val_loss"], rel=1e-5)
    assert loaded.genotype == Genotype.load(searched / "genotype.json") and loaded.options["relaxation"]


def test_nothing_of_hydra_is_needed_and_a_target_in_a_folder_is_not_run(trained, searched, tmp_path):
    """In a process where Hydra, OmegaConf and the composing part cannot be imported, on folders whose configs name code to run."""
    for name, folder in (("final", trained), ("search", searched)):
        copy = shutil.copytree(folder, tmp_path / name)
        config = yaml.safe_load((copy / "config.yaml").read_text())
        for node, key in ((config["dataset"], "data"), (config, "relaxation"), (config, "space")):
            node[key] = {"_target_": "os.mkdir", "_args_": [str(tmp_path / "was here")]}
        RunFolder(copy).write(copy / "config.yaml", yaml.safe_dump(config).encode())  # with its digest, as whoever means harm would
    code = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hydra", "omegaconf") or name.startswith("supernet.app"):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
import supernet
assert "torch" not in sys.modules and "yaml" not in sys.modules
print(supernet.space("darts", nodes=2).arguments["nodes"], "torch" in sys.modules)
for name in ("final", "search"):
    run = supernet.load(name)
    print(run.options["space"], tuple(run.network(run.preprocess(sys.modules["torch"].zeros(1, 8, 8).byte()), run.weights).shape))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 False" and done.stdout.count("os.mkdir") == 2 and done.stdout.count("(1, 10)") == 2
    assert not (tmp_path / "was here").exists()


def test_weights_alone_say_what_they_are_of(trained, tmp_path):
    file = shutil.copy(trained / "weights.pt", tmp_path / "mine.pt")
    alone, whole = supernet.load(file), supernet.load(trained)
    assert alone.options is None and alone.genotype == whole.genotype and alone.class_names == whole.class_names
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(alone.network(x), whole.network(x), rtol=0, atol=0)
    state = torch.load(file, weights_only=True)
    assert state["format"] == str(FORMAT) and state["config_hash"] == json.loads((trained / "run.json").read_text())["config_hash"]
    assert not re.search(re.escape(str(trained.parent)), repr({k: v for k, v in state.items() if k != "state_dict"}))  # may be passed on


# ---- every space


ARGUMENTS = {"sequential": {"side": 8}}
SPACES = {"darts_rnn": {"layers": 1, "channels": 4, "vocabulary": 7, "batch_norm": True}, "gpt": {"vocabulary": 7},
          "layerwise": SIZES | {"layers": 6}, "nasbench_macro": SIZES | {"layers": 8}}


@pytest.mark.parametrize("name", named.names())
@pytest.mark.parametrize("searching", [False, True])
def test_networks_of_every_space_come_back_with_what_they_compute(name, searching, tmp_path):
    if searching and name == "sequential":
        pytest.skip("there is no supernet of chains that share no weights")
    space = supernet.space(name, **ARGUMENTS.get(name, {}))
    sizes = SPACES.get(name, SIZES) | space.sizes
    genotype = space.sample(random.Random(3))
    norm = search_normalisation("search", "running") if searching else final_normalisation("search", "running")
    net = space.network(space.candidates(None if searching else genotype), norm=norm, **sizes).eval()
    net.to(memory_format=torch.channels_last)  # the noise of S4 is drawn in the order of memory
    save_weights(tmp_path / "weights.pt", net, DATA, genotype, "hash")
    before = torch.get_rng_state()
    loaded = supernet.load(tmp_path / "weights.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.space == space and loaded.genotype == genotype and loaded.network.state_dict().keys() == net.state_dict().keys()
    generator = lambda: torch.Generator().manual_seed(0)
    text = "vocabulary" in sizes
    x = torch.randint(7, (5, 2)) if text else torch.rand(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    made, again = (n(x, generator=generator()) for n in (net, loaded.network))
    made, again = (made.logits, again.logits) if text else (made, again)
    torch.testing.assert_close(again, made, rtol=1e-5, atol=1e-5)
    assert all(p.requires_grad and not p.is_meta for p in loaded.network.parameters())


def test_a_search_in_stages_is_loaded_with_the_candidates_that_are_left(tmp_path):
    done = run("train_search", "space=toy", "layers=3", "channels=2", "split.max_train=16", "split.max_val=16", "batch_size=16",
               "backend=plain", "stage.keep=[2]", "stage.epochs=1", "stage.channels=[2,4]", cwd=tmp_path, report=False)
    assert done.code == 0, done.err
    loaded = supernet.load(next(tmp_path.glob("runs/*")))
    assert loaded.network.classifier.in_features == 16  # four times the channels of the second stage
    assert [sum(row) for row in loaded.network.built.candidates["cell"]] == [2, 2, 2]
    assert loaded.space.cells["cell"].present == ((True,) * 3,) * 3


def test_a_space_of_ones_own_is_handed_over(tmp_path):
    space = runpy.run_path(str(ROOT / "examples" / "my_space.py"))["make"]()
    genotype = space.sample(random.Random(0))
    net = space.network(space.candidates(genotype), norm=Normalisation(True, False), **SIZES).eval()
    save_weights(tmp_path / "weights.pt", net, DATA, genotype, "hash")
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(supernet.load(tmp_path / "weights.pt", space=space).network(x), net(x), rtol=1e-5, atol=1e-5)
    for given, message in ((None, "has no config here .* pass space="), ("my_space", "space must be a supernet.space.Space"),
                           (supernet.space("toy"), "is of the space 'my_space' .* not of 'toy'")):
        with pytest.raises(Mendable, match=message):
            supernet.load(tmp_path / "weights.pt", space=given)


def test_values_of_numpy_are_kept_as_plain_ones_and_others_as_text(tmp_path):
    space = supernet.space("toy")
    net = space.network(space.candidates(), norm=Normalisation(True, False), **SIZES)
    net.built.sizes["odd"] = {"n": np.int64(3), "x": np.float32(0.5), "what": random}
    (odd,) = [v for k, v in description(net, DATA)["network"]["sizes"].items() if k == "odd"]
    assert odd == {"n": 3, "x": 0.5, "what": repr(random)} and type(odd["n"]) is int and type(odd["x"]) is float


# ---- what cannot be loaded


@pytest.fixture
def weights(tmp_path):
    space = supernet.space("toy")
    genotype = space.sample(random.Random(0))
    net = space.network(space.candidates(genotype), norm=Normalisation(True, False), **SIZES)
    save_weights(tmp_path / "weights.pt", net, DATA, genotype, "hash")
    return tmp_path / "weights.pt"


def refused(path):
    with pytest.raises(Mendable) as error:
        supernet.load(path)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_what_is_no_run_is_said_in_one_line(weights, tmp_path, searched):
    assert "cannot read the weights" in refused(tmp_path / "nowhere")
    assert "there is neither here" in refused((tmp_path / "empty").mkdir() or tmp_path / "empty")
    assert "this is a folder of 1 runs, the newest" in refused(searched.parent) and searched.name in refused(searched.parent)
    torch.save(torch.load(weights, weights_only=True)["state_dict"], tmp_path / "bare.pt")
    assert "bare weights, as earlier versions wrote them" in refused(tmp_path / "bare.pt")
    (tmp_path / "text.pt").write_text("hello")
    assert "not a file of weights" in refused(tmp_path / "text.pt")
    assert "is no regular file" in refused("/dev/zero")
    torch.save(torch.load(weights, weights_only=True) | {"format": "supernet.weights/9"}, tmp_path / "later.pt")
    assert "in format supernet.weights/9, and version" in refused(tmp_path / "later.pt")


def test_every_flipped_bit_of_the_weights_is_seen(weights):
    whole, data = read_weights(weights), weights.read_bytes()
    rng = random.Random(0)
    seen = 0
    for _ in range(150):
        at = rng.randrange(len(data))
        weights.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:])
        try:
            again = read_weights(weights)
        except Mendable:
            seen += 1
        else:  # in what the reader of the archive does not look at
            assert all(torch.equal(again["state_dict"][name], value) for name, value in whole["state_dict"].items())
            assert {k: v for k, v in again.items() if k != "state_dict"} == {k: v for k, v in whole.items() if k != "state_dict"}
    assert seen > 50


def signed(path, change):
    """The file as one who means harm writes it: changed, and its digest made anew."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state | {"sha256": digest_of(state) if all(map(torch.is_tensor, state["state_dict"].values())) else ""}, path)


@pytest.mark.parametrize("change, message", [
    (lambda s: s["network"]["sizes"].update(channels=10**7), "not those of the network"),
    (lambda s: s["network"]["sizes"].update(layers=10**9), "does not describe a network"),
    (lambda s: s["network"]["sizes"].update(surprise=1), "not those of the network"),
    (lambda s: s["network"]["sizes"].update(channels="os.system('true')"), "not those of the network"),
    (lambda s: s["network"].update(space="os.system"), "has no config here"),
    (lambda s: s["network"].update(space="../../evil"), "has no config here"),
    (lambda s: s["network"].update(arguments={"_target_": "os.system"}), "the arguments do not fit"),
    (lambda s: s["network"].update(fingerprint="0"), "is of the space 'toy' \\('0'\\)"),
    (lambda s: s["network"].update(candidates={"cell": [[True]]}), "does not describe a network"),
    (lambda s: s["network"].pop("sizes"), "does not describe a network"),
    (lambda s: s["network"].update(normalisation={"affine": True}), "not those of the network"),
    (lambda s: s["state_dict"].pop("classifier.bias"), "not those of the network"),
    (lambda s: s["state_dict"].update({"classifier.bias": 3}), "must hold tensors alone"),
    (lambda s: s.update(genotype={}), "expected format"),
    (lambda s: s["data"].update(kind="code"), "must be of kind images or text"),
    (lambda s: s["data"].pop("mean"), "does not describe images"),
    (lambda s: s["data"].update(mean=["x"]), "must be a number a channel"),
])
def test_a_strangers_weights_are_refused_in_one_line(weights, change, message):
    signed(weights, change)
    assert re.search(message, refused(weights))


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "was here"), "w")

    torch.save({"format": str(FORMAT), "state_dict": Evil()}, tmp_path / "weights.pt")
    assert "not a file of weights" in refused(tmp_path / "weights.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    assert "not a file of weights" in refused(tmp_path / "plain.pt")
    assert not (tmp_path / "was here").exists()


def test_a_checkpoint_of_an_earlier_version_and_a_training_in_progress_are_named(searched, tmp_path):
    folder = RunFolder(shutil.copytree(searched, tmp_path / "run"))
    state = checkpoint.load(folder.checkpoints).state
    earlier = {key: value for key, value in state.items() if key != "about"}
    shutil.rmtree(folder.checkpoints)
    checkpoint.save(folder.checkpoints, earlier, name="epoch_1")
    assert "an earlier version wrote it" in refused(folder.path)
    del earlier["parts"]["relaxation"]
    checkpoint.save(folder.checkpoints, earlier, name="epoch_2")
    assert "weights.pt is written at its end" in refused(folder.path)
    checkpoint.save(folder.checkpoints, state | {"about": state["about"] | {"mean": {}}}, name="epoch_3")
    assert "has no edge weights of space darts" in refused(folder.path)
    shutil.rmtree(folder.checkpoints)
    assert "stopped before its first checkpoint" in refused(folder.path)


def test_a_damaged_checkpoint_is_passed_over_and_said(searched, tmp_path):
    folder = RunFolder(shutil.copytree(searched, tmp_path / "run"))
    state = checkpoint.load(folder.checkpoints).state
    newest = checkpoint.save(folder.checkpoints, state, name="later")
    newest.write_bytes(newest.read_bytes()[:-100])
    loaded = supernet.load(folder.path)
    assert len(loaded.notes) == 1 and "corrupt" in loaded.notes[0] and loaded.options["epochs"] == 1


def test_weights_beside_the_records_of_another_run_are_refused(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "run")
    status = json.loads((copy / "run.json").read_text())
    del status["sha256"]  # as one that was edited with care
    (copy / "run.json").write_text(json.dumps(status | {"config_hash": "0" * 64}))
    assert "is of other options than run.json beside it" in refused(copy)


@pytest.mark.parametrize("text, message", [
    ("a: [", "cannot read the run's options"), ("3", "expected the options of a run"), ("[" * 2000, "options lie at most"),
    ("a: &a [1]\nb: [*a, *a]", "options have no aliases, and line 2 holds *a"),
    ("a: !!python/object/apply:os.getcwd []", "cannot read the run's options"),
    ("a: 1\n" * 300_000, "at most 300,000 are read"),
])
def test_options_that_are_no_plain_data_are_refused(trained, tmp_path, text, message):
    copy = shutil.copytree(trained, tmp_path / "run")
    RunFolder(copy).write(copy / "config.yaml", text.encode())  # with its digest, as whoever means harm would
    assert message in refused(copy)


# ---- spaces by name


def test_a_space_by_name_is_what_the_scripts_choose():
    assert supernet.space("darts") == darts.make() and supernet.space("s3") == robust.s3()
    smaller = supernet.space("darts", nodes=2, ops=["none", "skip_connect", "sep_conv_3x3"])
    assert len(smaller.cells["normal"].edges) == 5 and smaller.cells["reduce"].ops == ("none", "skip_connect", "sep_conv_3x3")
    assert supernet.space("nasbench201").count() == 15_625 and supernet.space("listed").name == "listed"


@pytest.mark.parametrize("call, message", [
    (lambda: supernet.space("dart"), "there is no space 'dart'; did you mean darts\\? \\(there are accel_mnasnet, darts, "),
    (lambda: supernet.space("custom"), "no space 'custom'.* a space of your own is made by calling its function"),
    (lambda: supernet.space(supernet.space), "there is no space <module"),
    (lambda: supernet.space("darts", node=3), "space darts has no argument 'node'; did you mean nodes\\? \\(it takes nodes, ops, "),
    (lambda: supernet.space("toy", nodes=3), "space toy has no argument 'nodes' \\(it takes none\\)"),
    (lambda: supernet.space("darts", ops=3), "space darts: the arguments do not fit"),
    (lambda: supernet.space("../protocol/cifar10"), "there is no space '../protocol/cifar10'"),
])
def test_a_wrong_space_is_said_in_one_line(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_a_wrong_value_of_an_argument_is_said_by_the_space():
    with pytest.raises(ValueError, match="nodes must be at least 1 and at most 32, got 40"):
        supernet.space("darts", nodes=40)


@pytest.mark.parametrize("change, message", [
    ({"present": ((True,),)}, "present must have 1 rows, one an edge, of 2 truth values, one an op; got rows of \\[1\\]"),
    ({"keep": ()}, "keep must be \\[fewest, most\\] for each of the 1 computed nodes, got \\[\\]"),
    ({"ops": ("a", "a")}, "op names must be unique"), ({"edges": ((1, 2), (0, 1))}, "edges must be ordered by destination"),
])
def test_a_cell_that_does_not_fit_together_is_said_in_words(change, message):
    whole = {"num_inputs": 1, "num_nodes": 1, "edges": ((0, 1),), "ops": ("a", "b"), "present": ((True, True),),
             "selectable": ((True, True),), "keep": ((1, 1),), "outputs": (1,)}
    with pytest.raises(ValueError, match=message):
        supernet.space.CellSpec(**whole | change)


# ---- the settings of the process


def test_use_sets_threads_and_kernels_and_gives_the_device():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        using = supernet.use(backend="plain", device="cpu")
        assert (using.device, using.threads, using.backend) == (CPU, 1, "backend plain PyTorch") and torch.get_num_threads() == 1
        assert supernet.use(threads=3, backend="plain").threads == torch.get_num_threads() == 3
        assert 1 <= supernet.use(threads=None, backend="plain").threads <= 4096
    finally:
        torch.set_num_threads(before)


def test_no_more_threads_than_a_container_grants(monkeypatch):
    from supernet.runs import device

    monkeypatch.setattr(device.os, "sched_getaffinity", lambda pid: set(range(64)))
    for text, cores in (("max 100000\n", 64), ("150000 100000\n", 2), ("20000 100000\n", 1), ("", 64)):
        monkeypatch.setattr(device, "Path", lambda path, text=text: SimpleNamespace(read_text=lambda: text))
        assert device.usable_cores() == cores


@pytest.mark.parametrize("wrong, message", [
    ({"threads": 0}, "threads must be a whole number of at least 1, or None, got 0"), ({"threads": "2"}, "got '2'"),
    ({"threads": True}, "got True"), ({"backend": "fast"}, "backend must be one of auto, plain, native, packed, merged, got 'fast'"),
    ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
])
def test_wrong_settings_change_nothing(wrong, message):
    before = torch.get_num_threads()
    with pytest.raises((ValueError, UsageError), match=message):
        supernet.use(**{"threads": before + 1, "backend": "plain"} | wrong)
    assert torch.get_num_threads() == before


def test_the_package_says_what_it_has_and_what_it_has_not():
    assert {"load", "space", "use", "Loaded"} <= set(dir(supernet)) and supernet.load.__doc__.startswith("The network of a run")
    with pytest.raises(AttributeError, match="has no attribute 'lood'"):
        supernet.lood  # noqa: B018
    assert errors.did_you_mean("nodess", ["nodes"]) == "; did you mean nodes?"


# ---- pre-processing


def test_images_of_a_data_set_become_what_its_loader_gives():
    source, augment = Digits(), Augment(pad=1, crop=6)
    prepare = preprocessing(ImageData(source, augment).facts(), CPU)
    pixels = source.test().pixels[:5]
    (wanted, _), *_ = loader_of(source, batch_size=5, device="cpu", augment=augment)
    for given in (pixels, list(pixels), [Image.fromarray(p[0].numpy()) for p in pixels], [p[0].numpy() for p in pixels]):
        torch.testing.assert_close(prepare(given), wanted, rtol=0, atol=0)
    assert prepare(pixels[0]).shape == (1, 1, 6, 6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("size", [(17, 40), (40, 17), (16, 16), (5, 6)])
def test_files_become_what_training_on_a_folder_reads(tmp_path, channels, mode, size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(noise if mode == "RGBA" else noise[..., :3]).convert(mode)
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        image.save(tmp_path / "train" / label / "x.png")
    source = Folder(str(tmp_path), image_size=16, in_channels=channels)
    prepare = preprocessing(ImageData(source, Augment()).facts(), CPU)
    wanted = Augment().for_evaluation(source.mean, source.std, device=CPU)(source.train().read(torch.tensor([0])))
    torch.testing.assert_close(prepare(Image.open(tmp_path / "train" / "a" / "x.png")), wanted, rtol=0, atol=0)


def test_pictures_that_are_no_eight_bits_are_refused():
    prepare = ImagePreprocessing((0.5,), (0.5,), (8, 8))
    for wrong, message in ((torch.rand(1, 8, 8), "uint8"), (np.zeros((8, 8), np.uint16), "uint8"), ("cat.png", "got str"),
                           (Image.fromarray(np.full((8, 8), 2.5, np.float32)), "mode F"),
                           (np.zeros((8, 8, 2), np.uint8), "must have axes"), (torch.zeros(0, 8, 8, dtype=torch.uint8), "must have axes")):
        with pytest.raises(DataError, match=message):
            prepare([wrong])


def test_a_network_that_reads_other_channels_takes_tensors():
    prepare = ImagePreprocessing((0.5, 0.5), (1.0, 1.0), (4, 4))
    assert prepare(torch.full((2, 4, 4), 255, dtype=torch.uint8)).eq(0.5).all()
    with pytest.raises(DataError, match="this network reads 2 channels"):
        prepare(Image.new("L", (4, 4)))


@pytest.mark.parametrize("level, text, items", [
    ("character", "abba z", ["a", "b", "b", "a", " ", "<unk>"]), ("word", "abba zebra\nc", ["abba", "<unk>", "<eos>", "c", "<eos>"]),
])
def test_text_becomes_what_its_data_set_reads(tmp_path, level, text, items):
    (tmp_path / "text.txt").write_text(" ".join(["abba c cab"] * 40))
    data = Text(name="text", path=str(tmp_path / "text.txt"), level=level, bptt=6)
    prepare = preprocessing(data.facts(), CPU)
    found = prepare(text)
    assert found.dtype == torch.int64 and found.shape == (len(items), 1)
    assert [prepare.vocabulary[n] for n in found[:, 0]] == items and len(prepare.vocabulary) == data.sizes["vocabulary"]


# ---- the example scripts


def example(name, *arguments, monkeypatch, where):
    monkeypatch.chdir(where)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.setattr(supernet, "use", lambda **how: original(**how | {"backend": "plain"}), raising=False)
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")


original = supernet.use


def test_the_example_that_searches_on_tensors(tmp_path, monkeypatch, capsys):
    example("search_on_tensors", monkeypatch=monkeypatch, where=tmp_path)
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss of the last batch (\S+)", printed)]
    assert len(losses) == 4 and losses[-1] < 0.5 * losses[0]
    (found,) = re.findall(r"found +(\S+)", printed)
    assert supernet.space("darts", nodes=2, ops=["none", "skip_connect", "sep_conv_3x3", "max_pool_3x3"]).parse(found)
    assert not list(tmp_path.iterdir())
    assert "hydra" not in (ROOT / "examples" / "search_on_tensors.py").read_text()


def test_the_example_that_classifies_images(trained, searched, tmp_path, monkeypatch, capsys):
    test = Digits().test()
    for n in range(2):
        Image.fromarray(test.pixels[n, 0].numpy()).save(tmp_path / f"{n}.png")
    for folder in (trained, searched, trained / "weights.pt"):
        example("classify_image", folder, tmp_path / "0.png", tmp_path / "1.png", "--top", "2", monkeypatch=monkeypatch, where=tmp_path)
        rows = capsys.readouterr().out.splitlines()
        loaded = supernet.load(folder)
        best = loaded.network(loaded.preprocess(test.pixels[:2]), loaded.weights).argmax(1).tolist()
        assert [re.search(r"png  (\d) \d+\.\d %  \d \d+\.\d %$", row)[1] for row in rows] == [str(n) for n in best]
    with pytest.raises(SystemExit):
        example("classify_image", tmp_path / "no", tmp_path / "0.png", monkeypatch=monkeypatch, where=tmp_path)
    assert "error: " in capsys.readouterr().err


def test_the_example_that_plots_alphas(searched, tmp_path, monkeypatch, capsys):
    example("plot_alphas", searched / "alphas.npz", "a.svg", monkeypatch=monkeypatch, where=tmp_path)
    drawn = (tmp_path / "a.svg").read_text()
    assert "written   a.svg" in capsys.readouterr().out and drawn.count("<!-- reduce, ") == 2 and "<!-- sep_conv_3x3 -->" in drawn
    with pytest.raises(SystemExit):
        example("plot_alphas", searched / "run.json", monkeypatch=monkeypatch, where=tmp_path)
    assert "not the alphas.npz of a search" in capsys.readouterr().err

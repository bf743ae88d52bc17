"""Small valid inputs, made by the project itself."""

import functools
import gzip
import io
import json
import pickle
import random
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from supernet import genotype as genotypes
from supernet import notation
from supernet.app.options import CONF
from supernet.data.augment import Augment
from supernet.data.digits import Digits
from supernet.data.images import ImageData
from supernet.networks.build import final_normalisation, search_normalisation
from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal, to_json
from supernet.runs.predictions import Predictions
from supernet.runs.weights import save_weights, search_description
from supernet.space import Space
from supernet.spaces import darts, darts_rnn, nasbench201, nasbench_macro, toy
from supernet.spaces.named import named_space
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from supernet.trials import Trial
from supernet.weights import one_hot
from tests.runs import OPTIONS, planted_run

SIZES = {"layers": 3, "channels": 2, "num_classes": 10, "in_channels": 1, "image_size": (8, 8)}
DATA = ImageData(Digits(), Augment(pad=1))


def of(space: Space, seed: int = 0):
    return space.sample(random.Random(seed))


@functools.cache
def genotype_files() -> list[bytes]:
    """Of ours."""
    with tempfile.TemporaryDirectory() as where:
        path, found = Path(where) / "genotype.json", []
        for genotype in (of(toy.make()), genotypes.find("darts_v2"), of(nasbench201.make()), of(nasbench_macro.make()),
                         of(darts_rnn.make())):
            genotype.save(path, outputs={kind: [1, 2] for kind, _ in genotype.cells}, num_inputs={kind: 1 for kind, _ in genotype.cells})
            found.append(path.read_bytes())
    return found


@functools.cache
def notations() -> list[bytes]:
    """Cells in the words of others."""
    spaces = (darts.make(), darts_rnn.make(), nasbench201.make(), named_space("sequential"))
    fair = "Genotype(normal=[('skip_connect', 2, 0), ('sep_conv_3x3', 2, 1), ('max_pool_3x3', 3, 0)], normal_concat=range(2, 4), " \
           "reduce=[('skip_connect', 2, 0), ('none', 3, 1)], reduce_concat=[2, 3])"
    return [*(notation.write(space, of(space)).encode() for space in spaces), fair.encode(), b"DARTS_V2 = " + notation.write(
        spaces[0], genotypes.find("darts_v2")).encode()]


@functools.cache
def weights() -> list[bytes]:
    """Of a final network."""
    space = toy.make()
    genotype = of(space, 3)
    net = space.network(space.candidates(genotype), norm=final_normalisation("never", "running"), **SIZES)
    with tempfile.TemporaryDirectory() as where:
        save_weights(Path(where) / "weights.pt", net, DATA, genotype, "hash")
        return [(Path(where) / "weights.pt").read_bytes()]


@functools.cache
def states() -> list[bytes]:
    """Of a network that is one's own: one layer."""
    file = io.BytesIO()
    torch.save(torch.nn.Linear(2, 3).state_dict(), file)
    return [file.getvalue()]


@functools.cache
def checkpoints() -> list[bytes]:
    """What a search that goes on leaves, as far as it is read without going on with it; and any other one."""
    space = toy.make()
    net = space.network(space.candidates(), norm=search_normalisation("search", "running", False), **SIZES)
    ops = torch.full((2, 3, 3), 1 / 3)
    about = search_description(net, DATA, one_hot(space, of(space))) | {"tables": {"cell": {
        "edges": [list(edge) for edge in space.cells["cell"].edges], "ops": list(space.cells["cell"].ops)}}}
    state = {"about": about, "parts": {"net": net.state_dict(), "relaxation": {}, "trajectory": {
        "epochs": [0.5, 1.0], "tables": {"weights.cell": ops, "alpha.cell": ops}}}, "run": {"script": "train_search", "status": "running"}}
    with tempfile.TemporaryDirectory() as where:
        return [checkpoint.save(Path(where), one, name="epoch_0001_step_000002").read_bytes()
                for one in (state, {"step": 1, "w": torch.ones(2), "list": [1, 2.5, None, "a"]})]


@functools.cache
def tables() -> list[bytes]:
    """Of the toy space, without the digest of what they hold: what is changed in them is read, as that of an edited one."""
    space = toy.make()
    texts = [space.text(genotype) for genotype in space.enumerate()][:4]
    columns = {"val_accuracy": [90.0, 91.5, float("nan"), 80.0], "test_accuracy": [89.0, 90.5, 1.0, float("inf")],
               "seconds": [1.0, 2.0, 3.0, 4.0]}
    with tempfile.TemporaryDirectory() as where:
        write_table(Path(where) / "toy.csv", space, texts, columns, {"digits": Columns("val_accuracy", "test_accuracy", "seconds", 0.5)})
        head, rest = (Path(where) / "toy.csv").read_text().split("\n", 1)
        about = json.loads(head.removeprefix("#"))
        del about["sha256"]
        plain = f"# {json.dumps(about, sort_keys=True)}\n{rest}".encode()
        return [plain, gzip.compress(plain, mtime=0)]


@functools.cache
def nasbench201_tables() -> list[bytes]:
    space = nasbench201.make()
    rows = [f"{n},{space.text(of(space, n))},{80 + n},{90 + n},100" for n in range(3)]
    text = "\n".join(["index,arch,c10_val_12,c10_test_200,c10_train_time_200_s", *rows]) + "\n"
    return [text.encode(), gzip.compress(text.encode(), mtime=0)]


@functools.cache
def macro_tables() -> list[bytes]:
    rows = {key: {"test_acc": [92.0, 93.0], "mean_acc": 92.5, "std": 0.5, "params": 1.5, "flops": 20.0}
            for key in ("00000000", "02012100", "22222222")}
    return [json.dumps(rows).encode(), gzip.compress(json.dumps(rows).encode(), mtime=0)]


@functools.cache
def latencies() -> list[bytes]:
    space = toy.make()
    table = {"format": "supernet.latency/1", "space": "toy", "fingerprint": space.fingerprint, "unit": "ms", "constant": 0.5,
             "tables": {"cell": [[0.0, 0.1, 1.5]] * 3}}
    from supernet.costs.latency_table import LATENCY_FORMAT

    return [json.dumps(table | {"format": str(LATENCY_FORMAT)}).encode()]


@functools.cache
def nats_answers() -> list[bytes]:
    """What the official API says of two architectures."""
    space = nasbench201.make()
    info = {"valid-accuracy": 84.0, "test-accuracy": 90.0, "train-all-time": 1000.0}
    return [json.dumps([{"arch": space.text(of(space, n)), "info": info, "cost": {"params": 0.5, "flops": 20.0, "latency": None}}
                        for n in range(2)]).encode()]


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@functools.cache
def data_arrays() -> list[bytes]:
    rng = np.random.default_rng(0)
    images = {f"{part}_images": rng.integers(0, 256, (6, 4, 5, 3)).astype(np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.arange(6) % 3 for part in ("train", "val", "test")}
    deep = {name: (value.astype(np.float32) / 255 if "train" in name else value.astype(np.float32) / 255) for name, value in images.items()}
    return [_npz(**images, **labels, class_names=np.array(["a", "b", "c"])), _npz(**deep, **labels)]


@functools.cache
def predictions() -> list[bytes]:
    p = np.full((5, 3), 1 / 3, np.float32)
    return [Predictions(np.arange(5) % 3, np.zeros(5, np.int64), p, ("a", "b", "c")).as_bytes()]


@functools.cache
def alphas() -> list[bytes]:
    spec = toy.make().cells["cell"]
    weights = np.random.default_rng(0).dirichlet(np.ones(3), (3, 3))
    return [_npz(**{"epoch": np.array([0.5, 1.0, 2.0]), "alpha.cell": weights, "weights.cell": weights, "edges.cell": np.array(spec.edges),
                    "ops.cell": np.array(spec.ops), "edge_weights.cell": np.ones((3, 3))})]


@functools.cache
def pictures() -> list[bytes]:
    """Small ones in every form that a folder of images may hold."""
    rng, found = np.random.default_rng(0), []
    rgb, rgba = (Image.fromarray(rng.integers(0, 256, (7, 9, n)).astype(np.uint8)) for n in (3, 4))
    grey = Image.fromarray(rng.integers(0, 256, (7, 9)).astype(np.uint8))
    deep = Image.fromarray(rng.integers(0, 65_536, (7, 9)).astype(np.uint16))
    floats = Image.fromarray(rng.random((7, 9)).astype(np.float32))
    for image, form in ((rgb, "PNG"), (rgba, "PNG"), (rgb.quantize(8), "PNG"), (deep, "PNG"), (grey.convert("1"), "PNG"), (rgb, "JPEG"),
                        (grey, "JPEG"),
                        (rgb, "BMP"), (rgb, "PPM"), (grey, "PPM"), (rgb, "TIFF"), (deep, "TIFF"), (floats, "TIFF"), (rgba, "WEBP")):
        file = io.BytesIO()
        image.save(file, form)
        found.append(file.getvalue())
    return [*found, b"P2\n3 2\n255\n0 1 2 3 4 255\n", b"P5\n2 2\n65535\n\0\1\0\2\0\3\xff\xff"]


@functools.cache
def cifar_batches() -> list[bytes]:
    pixels = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    return [pickle.dumps({b"data": pixels, b"labels": [3, 7], b"filenames": [b"a.png", b"b.png"], b"batch_label": b"one"},
                         protocol=protocol)
            for protocol in (2, 3, 4)]


@functools.cache
def idx_files() -> list[bytes]:
    plain = struct.pack(">4B3I", 0, 0, 8, 3, 2, 4, 4) + bytes(range(32))
    return [plain, gzip.compress(plain, mtime=0)]


def texts() -> list[bytes]:
    return [b"the quick brown fox\njumps over the lazy dog\n" * 4, "é <unk> <eos>\n\n a\tb\u2028c ".encode() * 8]


@functools.cache
def trials() -> list[bytes]:
    """A journal whose lines are chained."""
    space, found = toy.make(), list(toy.make().enumerate())
    rows = [Trial(0, found[0], (1.0,), {"accuracy": 90.0}, images=10, wall_s=0.5),
            Trial(1, found[1], (float("nan"),), parents=(0,), change="an op", fidelity=0.5),
            Trial(2, found[2], (), refused="too large"), Trial(3, found[0], (1.0,), {"accuracy": 90.0}, repeats=0, sees=2)]
    with tempfile.TemporaryDirectory() as where:
        journal = Journal(Path(where) / "trials.jsonl")
        for trial in rows:
            journal.append(trial.to_json(), chained=True)
        assert space.validate(found[0]) is None
        return [journal.path.read_bytes()]


@functools.cache
def explanations() -> list[bytes]:
    from supernet.report.effects import Carried, Effect, Place, View
    from supernet.report.explanation import Explanation, Margin

    space = toy.make()
    genotype = of(space)
    edge = genotype["cell"][0]
    place = Place("cell", 0, edge.source, edge.destination, edge.op, "0 → 1")
    view = View("table", ("By a table.",), 90.0, (Carried(place, Effect(80.0, -10.0),
                                                          {"none": Effect(70.0, -20.0, 1.0, -22.0, -18.0, True)}),), ())
    margin = Margin("cell 0 → 1", "none", "skip_connect", 0.1, 0.05, 2.0, False)
    with tempfile.TemporaryDirectory() as where:
        Explanation(genotype, space.text(genotype), (view,), (margin,), left_out={"Agreement": "one run"}).save(Path(where) / "e.json")
        return [(Path(where) / "e.json").read_bytes()]


SWEEPS = ("""
script: train_search
fixed: {dataset: digits, epochs: 1}
axes:
  relaxation: [softmax, gumbel]
  w_optimizer.lr: [0.1, 0.025]
seeds: [0, 1]
""", """
axes:
  method:
    one: {relaxation: softmax}
    two: {relaxation: gumbel, epochs: 2}
seeds: [3]
launcher: {name: local, processes: 2}
retrain: {fixed: {epochs: 1}, seeds: [0]}
select: {by: val_accuracy, best: 1, order: largest}
""")


def sweeps() -> list[bytes]:
    return [text.encode() for text in SWEEPS]


COMMANDS = (("epochs=3", "layers=5", "relaxation=softmax"), ("w_optimizer.lr=0.1", "seed=1", "name='a b'", "output=runs/x"),
            ("wrapper=[edge_normalised]", "penalty=[beta_decay]", "penalty.beta_decay.weight=0.5"),
            ("space=nasbench201", "~final_select", "stage.keep=[4,2]", "stage.epochs=2"),
            ("wandb.tags=[a,b]", "wandb.mode=offline", "split.max_train=32", "clip_norm=null"),
            ("experiment=gdas_nasbench201", "profile=smoke"),
            ("searcher=random", "budget.trials=4", "evaluator=tabular"), ("task.auxiliary_weight=0.1", "optimizer@w_optimizer=adam"))


def commands() -> list[bytes]:
    return ["\0".join(words).encode() for words in COMMANDS]


def options_files() -> list[bytes]:
    """Options of runs, small ones and all of a search's."""
    return [yaml.safe_dump(OPTIONS).encode(), (CONF / "search.yaml").read_bytes(), (CONF / "space" / "darts.yaml").read_bytes()]


def rank_tables() -> list[bytes]:
    return [b"arch,test_accuracy,supernet,flops\n|none~0|,90.5,80.0,1.0\n|skip~0|,91.5,81.0,\n"]


def planted(where: Path) -> RunFolder:
    """A finished search with all that a page is made of."""
    found = list(toy.make().enumerate())
    folder = RunFolder(planted_run(where, job="one", accuracy=91.0, validation=90.0, overrides=["epochs=2"]))
    for epoch in (0, 1):
        Journal(folder.genotypes).append({"epoch": epoch, "digest": found[epoch].digest, "genotype": found[epoch].to_json()})
    Journal(folder.metrics).append({"epoch": 1, "val_accuracy": 91.0, "train_loss": 0.5, "elapsed_s": 9.0, "table/digits/regret": 1.0,
                                    "images_per_s": 9.0})
    found[0].save(folder.genotype, outputs={"cell": [2]}, num_inputs={"cell": 1})
    folder.alphas.write_bytes(alphas()[0])
    folder.predictions.write_bytes(predictions()[0])
    (where / "explanation.json").write_bytes(explanations()[0])
    folder.environment.write_text(to_json({"git_commit": "a" * 40, "git_dirty": False, "python": "3.11", "devices": ["cpu"]}))
    folder.genotype_text.write_text("normal cell\n  0 = none\n")
    return folder


@functools.cache
def planted_files() -> dict[str, bytes]:
    """The files of `planted`, by name, and those that other runs have."""
    with tempfile.TemporaryDirectory() as where:
        folder = planted(Path(where) / "run")
        found = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    jobs = {"job": "one", "script": "train_search", "name": "a", "seed": 0, "options": [], "kind": "failed", "error": "it broke"}
    return found | {"trials.jsonl": trials()[0], "rank.csv": rank_tables()[0], "jobs.jsonl": (json.dumps(jobs) + "\n").encode()}


@functools.cache
def spaces() -> dict[str, Space]:
    return {"toy": toy.make(), "nasbench201": nasbench201.make(), "nasbench_macro": named_space("nasbench_macro")}

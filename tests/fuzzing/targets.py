"""Every reader of what comes from outside, as a `Target`. A new reader is a line of TARGETS."""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from supernet import notation
from supernet.app.build import build, space_from
from supernet.app.checks import _leaves, validate
from supernet.app.command_line import check_flags, composing, mendable_errors
from supernet.app.compose import relaxed
from supernet.app.hydra_words import one_line
from supernet.app.options import newest_genotype, override, overrides, plain, read_options
from supernet.app.retraining import retraining_of
from supernet.app.trust import check_targets
from supernet.commands import compare, diff, draw, explain, report, runs, sweep
from supernet.costs.latency_table import load_latency_table, save_latency_table
from supernet.data.arrays import headers, names_in, read_arrays
from supernet.data.cifar import read_batch
from supernet.data.fashion_mnist import read_idx
from supernet.data.image_file import decode, look
from supernet.data.npz import Npz
from supernet.data.pickled import read_pickle
from supernet.data.text import Text
from supernet.errors import Mendable
from supernet.exports.folder import earlier_files
from supernet.genotype import Genotype
from supernet.report import explanation
from supernet.report.html import run_page
from supernet.runs import checkpoint, listing, results
from supernet.runs.folder import RunFolder, earlier_runs, plain_options
from supernet.runs.journal import Journal
from supernet.runs.loading import load
from supernet.runs.predictions import Predictions
from supernet.runs.weights import read_weights
from supernet.spaces import toy
from supernet.spaces.named import space_again
from supernet.spaces.own_model import load_state
from supernet.sweeps.jobs import Job
from supernet.sweeps.plan import points
from supernet.sweeps.states import Watch
from supernet.tables.files import read_table, space_named_in, write_table
from supernet.tables.nats_import import columns_of
from supernet.tables.table import Table, TableError
from supernet.trials import Trial
from tests.fuzzing import seeds
from tests.fuzzing.oracle import Target, check_message
from tests.searches import configs

CANARY_TAG = "<fuzz>"  # stands in inputs, and in no page


def in_file(name: str) -> Callable[[Path, bytes], Path]:
    """An input as a file of that name."""
    def lay(folder: Path, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return lay


def holds(truth: bool, what: str) -> None:
    if not truth:
        raise AssertionError(what)


# ---- genotypes


def again_as_json(genotype: Genotype, folder: Path) -> None:
    genotype.save(folder / "again.json")
    other = Genotype.load(folder / "again.json")
    holds(other == genotype and other.digest == genotype.digest, "a genotype that is saved and loaded is another one")


def genotype_and_space(path: Path) -> tuple[Any, Genotype]:
    genotype = notation.find(str(path))
    space = space_again(genotype.space, dict(genotype.arguments))
    space.validate(genotype)
    return space, genotype


def again_in_words(found: tuple[Any, Genotype], folder: Path) -> None:
    space, genotype = found
    holds(space.parse(space.text(genotype)) == genotype, "the text of a genotype reads as another one")
    holds(notation.read(notation.write(space, genotype), space) == genotype, "its notation reads as another one")


def read_words(path: Path) -> tuple[Any, Genotype]:
    genotype = notation.read(path.read_bytes().decode("utf-8", "replace"))
    return space_again(genotype.space, dict(genotype.arguments)), genotype


# ---- commands that read folders and files


def told(main: Callable[[Sequence[str]], int], *arguments: str) -> str:
    """What a command prints. Its mistakes are one line each; raises Refused with it."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
        out.flush()
    said = err.getvalue()
    if code == 2:
        check_message(said.removesuffix("\n"))
        holds(said.startswith("error: "), f"exit code 2 and {said[:100]!r}")
        raise Refused(said.strip())
    holds(code in (0, 1), f"exit code {code}")
    text = out.buffer.getvalue().decode()
    holds("\x1b" not in text and "\0" not in text, "what is printed holds what a terminal obeys")
    return text


class Refused(Mendable):
    """A command ended with its one line."""


def drawn(path: Path) -> str:
    return told(draw.main, str(path), "-o", str(path.parent / "cell.svg"), "--dpi", "20")


def filmed(path: Path) -> str:
    return told(draw.main, str(path.parent), "-o", str(path.parent / "film.gif"), "--dpi", "20", "--frames", "2")


# ---- PyTorch's files


def in_checkpoints(folder: Path, data: bytes) -> Path:
    """As a checkpoint of a run, named by its digest."""
    folder = folder / "checkpoints"
    folder.mkdir()
    (folder / f"epoch_0001_step_000002.{hashlib.sha256(data).hexdigest()}.pt").write_bytes(data)
    return folder


def checkpoint_again(state: Any, folder: Path) -> None:
    """What was loaded is saved and loaded as the same bits; what a file held that we would not save is said."""
    with contextlib.suppress(checkpoint.CheckpointError):
        checkpoint.save(folder / "again", state, name="epoch_0001")
        holds(_same(state, checkpoint.load(folder / "again").state), "a checkpoint that is saved and loaded is another one")


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and (a.is_meta or a.layout != torch.strided
                                                              or bool(torch.equal(a.nan_to_num(), b.nan_to_num())))
    if isinstance(a, dict):
        return len(a) == len(b) and all(_same(x, y) and _same(a[x], b[y]) for x, y in zip(a, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b or a != a


def loaded(path: Path) -> Any:
    return load(path)


def loaded_runs(found: Any, folder: Path) -> None:
    """A network that was loaded answers, and says of itself what is true."""
    sizes = found.network.built.sizes
    size = sizes["image_size"]
    with torch.no_grad():
        if found.preprocess is not None:
            size = found.preprocess(Image.new("RGB", (9, 7))).shape[2:]
        x = torch.zeros(1, sizes["in_channels"], *size)
        holds(found.network(x, found.weights).shape == (1, sizes["num_classes"]), "its answer has another shape than it says")


# ---- tables


def table(space: str) -> Callable[[Path], Table]:
    return lambda path: read_table(path, seeds.spaces()[space])


def table_again(found: Table, folder: Path) -> None:
    """Every row and column can be asked for, or says in one line why not; our own form of it is the same table."""
    read: dict[str, np.ndarray] = {}
    genotypes = []
    with contextlib.suppress(TableError):
        genotypes = [found.genotype(row) for row in range(len(found))]
    for name in found.names():
        read[name] = found.column(name)
    for where in found.datasets.values():
        for name in (where.validation, where.test):
            for genotype in genotypes:
                with contextlib.suppress(TableError):
                    found.value(genotype, name, isomorphic="mean")
    if genotypes and "arch" not in read:
        write_table(folder / "again.csv", found.space, found.texts, read, found.datasets)
        other = read_table(folder / "again.csv", found.space)
        holds(other.texts == found.texts and sorted(read) == other.names(), "a table that is written and read is another one")
        holds(all(np.array_equal(read[name], other.column(name), equal_nan=True) for name in read), "its numbers are others")


def paged_table(path: Path) -> str:
    return told(report.main, str(path), "--output", str(path.parent / "page.html"))


def named_in_table(path: Path) -> Any:
    name, arguments = space_named_in(path)
    return space_again(name, arguments or {})


def latency_again(cost: Any, folder: Path) -> None:
    save_latency_table(folder / "again.json", cost)
    other, genotype = load_latency_table(folder / "again.json", cost.space), seeds.of(cost.space)
    holds(other(genotype) == cost(genotype), "a latency table that is saved and loaded gives another cost")


class _Api:
    """The official API, answering from JSON."""

    def __init__(self, path: Path) -> None:
        self.rows = json.loads(path.read_bytes())

    def __len__(self) -> int:
        return len(self.rows)

    def arch(self, index: int) -> Any:
        return self.rows[index]["arch"]

    def get_more_info(self, index: int, *about: Any, **more: Any) -> Any:
        return self.rows[index]["info"]

    def get_cost_info(self, index: int, *about: Any, **more: Any) -> Any:
        return self.rows[index]["cost"]


def nats(path: Path) -> Any:
    """Of what is the API's form at all: a list of answers."""
    try:
        api = _Api(path)
    except (ValueError, RecursionError):
        raise Refused("no JSON") from None
    if type(api.rows) is not list or not all(type(row) is dict and {"arch", "info", "cost"} <= set(row) for row in api.rows):
        raise Refused("no answers of the API")
    return columns_of(api, seeds.spaces()["nasbench201"])


# ---- arrays, pictures, text


def all_arrays(path: Path) -> dict[str, np.ndarray]:
    names = list(dict.fromkeys(names_in(path)))
    headers(path, names)
    return read_arrays(path, names, max_mb=64)


def arrays_again(found: dict[str, np.ndarray], folder: Path) -> None:
    holds(all(value.dtype.kind in "biufcUSMmV" and value.nbytes <= 64 * 2**20 for value in found.values()),
          "an array of objects, or a huge one")


def data_set(path: Path) -> Any:
    data = Npz(str(path), max_mb=64)
    data.check()
    parts = data.train(), data.test()
    return parts, data.class_names, data.num_classes, data.in_channels, data.image_size, data.mean, data.std


def data_set_again(found: Any, folder: Path) -> None:
    (train, test), names, classes, channels, size, mean, std = found
    for part in (train, test):
        holds(part.pixels.dtype == torch.uint8 and len(part.pixels) == len(part.labels), "images and labels differ in number")
        holds(bool((0 <= part.labels).all() and (part.labels < classes).all()), "a label names no class")
    holds(train.pixels.shape[1:] == (channels, *size) and len(names) == classes and len(mean) == len(std) == channels, "sizes disagree")
    holds(all(np.isfinite([*mean, *std])) and all(value > 0 for value in std), "mean and std are not finite")


def predictions_again(found: Predictions, folder: Path) -> None:
    (folder / "again.npz").write_bytes(found.as_bytes())
    holds(Predictions.load(folder / "again.npz").digest == found.digest, "predictions that are written and read are others")
    holds(int(found.confusion.sum()) == len(found.true), "the confusion matrix does not count all items")


def picture(path: Path) -> Any:
    return look(path, 8, 3), decode(path, 5, 1, background=0)


def picture_again(found: Any, folder: Path) -> None:
    (pixels, seen), grey = found
    holds(pixels.shape == (3, 8, 8) and grey.shape == (1, 5, 5) and pixels.dtype == grey.dtype == torch.uint8, "a picture of another form")
    holds(seen.width > 0 and seen.height > 0, "a picture without size")


def batch(path: Path) -> Any:
    content = read_pickle(path)
    holds(all(type(key) in (bytes, str, int) for key in content), "a key that is none")
    return read_batch(b"labels")(path, 2)


def batch_again(found: Any, folder: Path) -> None:
    pixels, labels = found
    holds(pixels.shape == (2, 3072) and pixels.dtype == np.uint8 and labels.shape == (2,), "a batch of another form")


def text_data(path: Path) -> Any:
    found = []
    for level in ("character", "word"):
        data = Text(name="text", path=str(path), level=level)
        data.check()
        found.append((data.sizes["vocabulary"], [int(data._encoded(part).max()) for part in ("train", "valid", "test")]))
    return found


def text_again(found: Any, folder: Path) -> None:
    holds(all(0 <= most < size for size, mosts in found for most in mosts), "an item that is not in the vocabulary")


# ---- journals


def journal(path: Path) -> Any:
    """All three readers of lines: what is whole, all of it, and all of it chained, the trials of the toy space."""
    whole = list(Journal.readable(path))
    with contextlib.suppress(Mendable):
        Journal.read(path)
    space, found = toy.make(), []
    for record in Journal(path).read_chained():
        with contextlib.suppress(ValueError):
            found.append(Trial.from_json(record, space))
    return whole, found


def journal_again(found: Any, folder: Path) -> None:
    for trial in found[1]:
        again = Trial.from_json(json.loads(json.dumps(trial.to_json())), toy.make())
        holds(again == trial or str(again) == str(trial), "a trial that is written and read is another one")


# ---- folders of runs


def in_run(name: str) -> Callable[[Path, bytes], Path]:
    """As one file of a stranger's run; the others are whole. Gives its folder."""
    def lay(folder: Path, data: bytes) -> Path:
        run = folder / "runs" / "2026-11-29_00-00-00_search_digits"
        run.mkdir(parents=True)
        for other, content in seeds.planted_files().items():
            if other not in ("trials.jsonl", "jobs.jsonl", "rank.csv"):
                (run / other).write_bytes(content)
        if name in ("config.yaml", "genotype.json"):  # their digests are in run.json, and were made anew too
            kept = json.loads((run / "run.json").read_text())
            del kept["files"], kept["sha256"]
            (run / "run.json").write_text(json.dumps(kept))
        (folder / "runs" / name if name == "jobs.jsonl" else run / name).write_bytes(data)
        return run

    return lay


def foreign_run(run: Path) -> Any:
    """Everybody who looks at runs of others and never raises, or in one line; and what they print."""
    rows = listing.listed(run.parent)
    holds([row.path for row in rows] == [run], "a run is not listed")
    seen = results.read(run)
    folder = RunFolder(run)
    folder.known_status()
    earlier_runs(run.parent, "train_search", "hash of one", "one")
    for act in (folder.check_format, folder.options, lambda: newest_genotype(str(run.parent), "digits"),
                lambda: check_targets(folder.options(), run),
                lambda: retraining_of(str(folder.genotype)), lambda: folder.verify(folder.summary),
                lambda: explanation.read(run / "explanation.json"),
                lambda: plain_options(folder.config)):
        try:
            act()
        except Mendable as error:
            check_message(error)
        except (OSError, ValueError):  # `explanation.read` says so
            pass
    job = Job("train_search", ("epochs=2",), "a", 0, "one", 2)
    Watch(run.parent).look([job])
    printed = []
    for main, arguments in ((runs.main, [str(run.parent)]), (runs.main, [str(run.parent), "--json"]), (compare.main, [str(run.parent)]),
                            (diff.main, [str(run), str(run)]), (diff.main, [str(run), "darts_v1", "--json"])):
        with contextlib.suppress(Refused):
            printed.append(told(main, *arguments))
    return seen, printed


def page_of(run: Path) -> str:
    return run_page(run)


def check_page(html: str, folder: Path) -> None:
    """Nothing of an input is markup, and the data within is JSON."""
    holds(CANARY_TAG not in html, "text of an input stands in the page unescaped")
    for found in re.findall(r'<script type="application/json">(.*?)</script>', html, re.S):
        json.loads(found, parse_constant=lambda name: holds(False, f"{name} in the data of a page"))
    html.encode("utf-8", errors="replace")


def page_of_all(run: Path) -> str:
    told(report.main, str(run.parent), "--output", str(run.parent / "all.html"))
    return (run.parent / "all.html").read_text(encoding="utf-8")


def drawn_run(run: Path) -> str:
    told(draw.main, str(run), "-o", str(run / "cell.dot"))
    return told(draw.main, str(run), "-o", str(run / "cell.svg"), "--dpi", "20")


def explained(run: Path) -> str:
    (run.parent / "toy.csv").write_bytes(seeds.tables()[0])
    return told(explain.main, str(run), "--by", "table", "--table", str(run.parent / "toy.csv"))


# ---- options, sweeps, command lines


def options_file(path: Path) -> Any:
    """As a run's config.yaml is read, and as a file of options."""
    with contextlib.suppress(Mendable):
        check_targets(plain_options(path), path)
    return OmegaConf.to_container(read_options(path))


def options_again(found: Any, folder: Path) -> None:
    json.dumps(found, default=str)


def swept(path: Path) -> Any:
    """A sweep's file, composed and checked; the words that its points become are read as they were meant."""
    known, typed = sweep.file_name[:], sweep.typed[:]

    def composed() -> Any:
        cfg = compose("sweep", overrides=sweep.take_file([str(path)]))
        validate(cfg, "sweep")
        return points(plain(cfg)["axes"])[:100]

    try:
        return as_script(["sweep.py", str(path)], composed)
    finally:
        sweep.file_name[:], sweep.typed[:] = known, typed
        ConfigStore.instance().repo.pop("sweep_file", None)


def swept_again(found: Any, folder: Path) -> None:
    for _, options in found:
        for word, value in zip(overrides(options), options.values()):
            try:
                read = OverridesParser.create().parse_override(word)
            except HydraException:
                continue
            if type(value) is str:
                holds(read.value() == value, f"{value!r} is written as {word!r} and read as {read.value()!r}")


def words_of(folder: Path, data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").split("\0")


def command_line(words: list[str]) -> Any:
    """The options of a search from a command line, as far as they are checked before any work."""
    if any("_target_" in word for word in words):  # the user's own code, which he may name
        raise Refused("not tried")
    def composed() -> Any:
        check_flags()
        cfg = compose("search", overrides=[word for word in words if not word.startswith("-")])
        validate(cfg, "train_search")
        return plain(cfg)

    return as_script(["train_search.py", *words], composed)


def as_script(argv: list[str], act: Callable[[], Any]) -> Any:
    """What the act of a Hydra script gives, with its command line; what ends it in one line is Refused."""
    before, err = sys.argv, io.StringIO()
    sys.argv = argv
    try:
        with contextlib.redirect_stderr(err), configs(), mendable_errors():
            return act()
    except SystemExit as end:
        holds(end.code in (0, 2), f"exit code {end.code}")
        check_message(err.getvalue().removesuffix("\n"))
        raise Refused(err.getvalue().strip()) from None
    finally:
        sys.argv = before


def command_again(found: Any, folder: Path) -> None:
    OmegaConf.to_yaml(OmegaConf.create(found))
    yaml.safe_load(OmegaConf.to_yaml(OmegaConf.create(found)))


SCRIPTS = {"search": "train_search", "final": "train_final", "rank": "rank"}  # by config


@functools.cache
def base_options(config: str) -> DictConfig:
    """All options as by default."""
    with configs():
        return compose(config)


@functools.cache
def default_options() -> list[bytes]:
    """For each script, all options that can be given, with their values."""
    found = []
    for config in SCRIPTS:
        own, told = base_options(config), {}
        for key, value in [*_leaves(own), *((key, OmegaConf.select(own, key)) for key in ("wandb.tags", "stage.keep", "exclude_ops"))]:
            if key.rpartition(".")[2][:1] == "_" or "[" in key:
                continue
            with contextlib.suppress(OmegaConfBaseException):  # what stands for another option can be given there alone
                OmegaConf.update(own.copy(), key, value, merge=False)
                told[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        found.append(json.dumps({"config": config, "options": told}).encode())
    return found


def settings_of(folder: Path, data: bytes) -> tuple[str, dict[str, Any]] | None:
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = json.loads(data)
        if found["config"] in SCRIPTS and all("_" != key.rpartition(".")[2][:1] for key in found["options"]):
            return found["config"], found["options"]
    return None


def checked_options(given: tuple[str, dict[str, Any]] | None) -> Any:
    """Options checked as a script does it before any work, and all that is made of them without data."""
    if given is None:
        raise Refused("no options")
    config, options = given
    own = base_options(config).copy()

    def composed() -> Any:
        for key, value in options.items():
            OmegaConf.update(own, key, value, merge=False)
        validate(own, SCRIPTS[config])
        if config == "search":
            with composing():
                space = space_from(own.space)
                relaxed(own, space, torch.Generator())
                build(own.task), build(own.dataset.data), build(own.hypergradient)
                weight = [torch.nn.Parameter(torch.zeros(2))]
                build(own.w_optimizer)(params=weight), build(own.alpha_optimizer)(params=weight)
        return plain(own)

    return as_script(["train_search.py"], composed)


def written_value(path: Path) -> str:
    """A text, as a word of a command line that Hydra reads back."""
    text = path.read_bytes().decode("utf-8", "replace")
    word = override("name", text)
    try:
        read = OverridesParser.create().parse_override(word).value()
    except HydraException as error:
        raise Refused(one_line(error, "search", [word])) from error
    holds("${" in text or read == text, f"{text!r} is written as {word!r} and read as {read!r}")
    return text


def export_record(folder: Path) -> Any:
    return earlier_files(folder)


def in_export(folder: Path, data: bytes) -> Path:
    (folder / "net").mkdir()
    (folder / "net" / "export.json").write_bytes(data)
    (folder / "net" / "network.py").write_text("")
    return folder / "net"


def check_record(found: Any, folder: Path) -> None:
    """No name leads out of the folder: what an export takes away is there alone."""
    holds(all(os.path.dirname(name) == "" and name not in ("", "..", ".") for name in found), f"an earlier file is called {found}")


RUN_FILES = {"run.json": "run.json", "config.yaml": "yaml", "metrics.jsonl": "lines", "summary.json": "json",
             "genotype.json": "genotype.json",
             "genotypes.jsonl": "lines", "environment.json": "json", "trials.jsonl": "chained", "explanation.json": "explanation.json",
             "alphas.npz": "npz", "predictions.npz": "npz", "jobs.jsonl": "lines"}


def _file(name: str) -> Callable[[], list[bytes]]:
    return lambda: [seeds.planted_files()[name]]


TARGETS: tuple[Target, ...] = (
    Target("genotype", "genotype.json", seeds.genotype_files, in_file("genotype.json"), Genotype.load, again_as_json),
    Target("genotype in its space", "genotype.json", seeds.genotype_files, in_file("genotype.json"), genotype_and_space, again_in_words),
    Target("genotype in words", "text", seeds.notations, in_file("cell.txt"), read_words, again_in_words),
    Target("drawing of a genotype", "genotype.json", seeds.genotype_files, in_file("genotype.json"), drawn, writes=True),
    Target("checkpoint", "torch", seeds.checkpoints, in_checkpoints, lambda folder: checkpoint.load(folder).state, checkpoint_again),
    Target("weights", "torch", seeds.weights, in_file("weights.pt"), read_weights),
    Target("network from weights", "torch", seeds.weights, in_file("weights.pt"), loaded, loaded_runs),
    Target("weights of one's own network", "torch", seeds.states, in_file("weights.pt"),
           lambda path: load_state(torch.nn.Linear(2, 3), str(path), "make")),
    Target("network from a search", "torch", lambda: seeds.checkpoints()[:1], in_checkpoints, lambda folder: load(folder.parent),
           loaded_runs),
    Target("weights over a search that goes on", "torch", lambda: seeds.checkpoints()[:1],
           lambda folder, data: in_checkpoints(folder, data).parent, page_of, check_page),
    Target("table", "table", seeds.tables, in_file("toy.csv"), table("toy"), table_again),
    Target("table of NAS-Bench-201", "table", seeds.nasbench201_tables, in_file("nb201.csv"), table("nasbench201"), table_again),
    Target("table of NAS-Bench-Macro", "macro", seeds.macro_tables, in_file("macro.json"), table("nasbench_macro"), table_again),
    Target("space of a table", "table", seeds.tables, in_file("toy.csv"), named_in_table),
    Target("page of a table", "table", seeds.tables, in_file("toy.csv"), paged_table, writes=True),
    Target("table of latencies", "json", seeds.latencies, in_file("latency.json"),
           lambda path: load_latency_table(path, seeds.spaces()["toy"]), latency_again),
    Target("import of NATS-Bench", "json", seeds.nats_answers, in_file("nats.json"), nats),
    Target("arrays", "npz", seeds.data_arrays, in_file("data.npz"), all_arrays, arrays_again),
    Target("data set of arrays", "npz", seeds.data_arrays, in_file("data.npz"), data_set, data_set_again),
    Target("predictions", "npz", seeds.predictions, in_file("predictions.npz"), Predictions.load, predictions_again),
    Target("picture", "picture", seeds.pictures, in_file("picture.png"), picture, picture_again),
    Target("pickled batch", "pickle", seeds.cifar_batches, in_file("data_batch_1"), batch, batch_again),
    Target("idx file", "idx", lambda: seeds.idx_files()[:1], in_file("images"), lambda path: read_idx(path, (2, 4, 4))),
    Target("packed idx file", "idx", lambda: seeds.idx_files()[1:], in_file("images.gz"),
           lambda path: read_idx(path.with_suffix(""), (2, 4, 4))),
    Target("text", "text", seeds.texts, in_file("text.txt"), text_data, text_again),
    Target("journal of trials", "chained", seeds.trials, in_file("trials.jsonl"), journal, journal_again, writes=True),
    *(Target(f"run with {name}", kind, _file(name), in_run(name), foreign_run) for name, kind in RUN_FILES.items()),
    *(Target(f"page of a run with {name}", kind, _file(name), in_run(name), page_of, check_page)
      for name, kind in RUN_FILES.items() if name != "jobs.jsonl"),
    *(Target(f"page of many runs with {name}", kind, _file(name), in_run(name), page_of_all, check_page, writes=True)
      for name, kind in {"run.json": "run.json", "summary.json": "json", "rank.csv": "csv", "config.yaml": "yaml"}.items()),
    Target("drawing of a run", "genotype.json", _file("genotype.json"), in_run("genotype.json"), drawn_run, writes=True),
    Target("moving picture of a run", "npz", seeds.alphas, lambda folder, data: in_run("alphas.npz")(folder, data) / "alphas.npz", filmed,
           writes=True),
    Target("explanation of a run", "genotype.json", _file("genotype.json"), in_run("genotype.json"), explained, writes=True),
    Target("record of an export", "json",
           lambda: [b'{"format": "supernet.export/1", "files": ["network.py", "export.json"], "source": "runs/a"}'],
           in_export, export_record, check_record),
    Target("options", "yaml", seeds.options_files, in_file("config.yaml"), options_file, options_again),
    Target("sweep", "yaml", seeds.sweeps, in_file("sweep.yaml"), swept, swept_again),
    Target("options of a script", "settings", default_options, settings_of, checked_options, command_again),
    Target("command line", "command", seeds.commands, words_of, command_line, command_again),
    Target("value on a command line", "text", seeds.texts, in_file("value.txt"), written_value),
)
BY_NAME = {target.name: target for target in TARGETS}
assert len(BY_NAME) == len(TARGETS), "two targets have one name"

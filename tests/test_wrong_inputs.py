"""What a user gets wrong: each mistake is one line that says what was expected and what was seen, and leaves everything as it was."""

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from supernet.spaces import toy as toy_space
from tests.helpers import ROOT, At, Ended, contents, only_error, run, run_unforked

TINY = ("split.max_train=32", "split.max_val=32", "layers=3", "channels=2", "batch_size=8", "epochs=1")
TINY_FINAL = ("split.max_train=32", "layers=3", "channels=2", "batch_size=8", "epochs=1")
CIFAR_BYTES = 10_000 * 3073  # of each file of the binary version


def write(path: Path, data: object) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def sparse(path: Path, size: int, start: str = "") -> None:
    """A file of `size` bytes that takes no room on the disk."""
    with open(path, "w") as file:
        file.write(start)
        file.truncate(size)


def changed(genotype: dict, kind: str, row: int, edge: list | None) -> dict:
    """The genotype with one edge replaced, or taken away."""
    edges = [list(e) for e in genotype["cells"][kind]]
    edges[row : row + 1] = [] if edge is None else [edge]
    return genotype | {"cells": genotype["cells"] | {kind: edges}}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with all the files that the cases name."""
    folder = tmp_path_factory.mktemp("here")
    good = json.loads((ROOT / "supernet" / "genotypes" / "darts_v2.json").read_text())
    write(folder / "bad_op.json", changed(good, "normal", 0, ["sep_conv_9x9", *good["cells"]["normal"][0][1:]]))
    write(folder / "cycle.json", changed(good, "reduce", 7, ["skip_connect", 5, 5]))
    write(folder / "missing_node.json", changed(changed(good, "normal", 7, None), "normal", 6, None))
    write(folder / "bad_source.json", changed(good, "normal", 0, ["skip_connect", "0", 2]))
    write(folder / "html_in_it.json", changed(good, "normal", 0, ["<script>alert(1)</script>" * 1000, 0, 2]))
    write(folder / "html.json", "<!doctype html>\n<html><body>404</body></html>\n" * 100)
    sparse(folder / "huge.json", 100_000_000, "[" * 1000)
    write(folder / "deep.json", "[" * 900_000)
    write(folder / "other_space.json", good | {"space": "nasbench201"})
    write(folder / "other_fingerprint.json", good | {"fingerprint": "\x1b[2J" * 10_000})
    write(folder / "long_name.json", good | {"cells": good["cells"] | {"x" * 100_000: []}})
    write(folder / "bad_arguments.json", good | {"arguments": good["arguments"] | {"nodes": "many"}})
    write(folder / "unknown_arguments.json", good | {"arguments": good["arguments"] | {"colour": "red"}})
    write(folder / "code.json", good | {"arguments": {"_target_": "os.mkdir", "path": "pwned"}})
    write(folder / "nested_code.json", good | {"arguments": good["arguments"] | {"concat": {"_target_": "os.mkdir", "path": "pwned"}}})
    write(folder / "old_format.json", {"normal": [], "reduce": []})
    write(folder / "empty.json", "")
    (folder / "folder.json").mkdir()
    write(folder / "file.txt", "kept")

    cifar = folder / "truncated" / "cifar-10-batches-bin"
    cifar.mkdir(parents=True)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        sparse(cifar / name, CIFAR_BYTES - 1000 * (name == "data_batch_3.bin"))
    (folder / "images" / "train" / "empty").mkdir(parents=True)
    (folder / "images" / "train" / "full").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "train" / "full" / "image.png")
    (folder / "others" / "not_ours").mkdir(parents=True)
    write(folder / "others" / "not_ours" / "run.json", "[1, 2")
    write(folder / "my_spaces.py", "def make():\n    return 'a space'\n\n\ndef broken():\n    raise RuntimeError('it\\nbroke')\n")
    return folder


# options; words that the line must have
COMPOSED = {
    "a group's choice misspelt": ("relaxation=sofmax", ["relaxation=sofmax", "did you mean softmax"]),
    "a group misspelt": ("relaxtion=softmax", ["relaxtion", "did you mean relaxation"]),
    "a key misspelt": ("epocs=3", ["epocs", "did you mean epochs"]),
    "a part's key misspelt": ("w_optimizer.momentun=0.9", ["w_optimizer.momentun", "did you mean w_optimizer.momentum"]),
    "no value": ("epochs", ["epochs"]),
    "a value misspelt": ("compat.scheduler_step=middle", ["compat.scheduler_step", "end or start", "middle"]),
    "too few epochs": ("epochs=-1", ["epochs", "at least 0", "-1"]),
    "text for a whole number": ("epochs=many", ["epochs", "many", "Integer"]),
    "a broken number for a whole one": ("batch_size=8.5", ["batch_size", "8.5", "Integer"]),
    "text for a number": ("w_optimizer.lr=fast", ["w_optimizer.lr", "positive", "fast"]),
    "text for a truth value": ("dry_run=perhaps", ["dry_run", "perhaps", "bool"]),
    "not a number": ("w_optimizer.lr=nan", ["w_optimizer.lr", "positive", "nan"]),
    "two values": ("seed=1,2", ["seed=1,2", "--multirun"]),
    "a flag misspelt": ("--multirum", ["--multirum"]),
    "a train portion above 1": ("split.train_portion=1.5", ["split.train_portion", "above 0 and below 1", "1.5"]),
    "a compiler of the other script": ("compile=inductor", ["compile", "none or graph", "inductor"]),
    "a truth value for a compiler": ("compile=true", ["compile", "none or graph", "True"]),
    "drop path in a graph": (("compile=graph", "drop_path_prob=0.1"), ["compile=graph", "drop_path_prob", "compile=none"]),
    "skips that drop out in a graph": (("compile=graph", "skip_dropout=p_darts"), ["compile=graph", "skip_dropout", "compile=none"]),
    "a precision that there is not": ("amp=fp16", ["amp", "none or bf16", "fp16"]),
    "a W&B project that cannot stand in a URL": ("wandb.project=ours/darts", ["wandb.project", "without /", "ours/darts"]),
    "an empty tag for W&B": ("wandb.tags=[cell,'']", ["wandb.tags[1]", "1 to 64", "''"]),
    "a mode that W&B does not have": ("wandb.mode=cloud", ["wandb.mode", "auto", "offline", "cloud"]),
    "a run that is not there": ("resume=runs/nothing", ["resume=runs/nothing", "never, auto or the folder of a run", "no run.json"]),
}
BUILT = {
    "no nodes": ("space.nodes=0", ["space.nodes must be", "1", "got 0"]),
    "text for nodes": ("space.nodes=many", ["nodes", "many"]),
    "an unknown op": ("space.ops=[none,sep_conv_9x9]", ["sep_conv_9x9", "sep_conv_3x3", "skip_connect"]),
    "an unknown argument": ("+space.depth=3", ["depth"]),
    "an unknown argument of a partial": ("+w_optimizer.speed=3", ["speed"]),
    "a space without its function": ("space=custom", ["space._target_"]),
    "a misspelt function": (("space=custom", "space._target_=my_spaces.mak"), ["my_spaces", "mak"]),
    "a function that makes no space": (("space=custom", "space._target_=my_spaces.make"), ["my_spaces.make", "Space", "str"]),
    "a function that fails": (("space=custom", "space._target_=my_spaces.broken"), ["my_spaces.broken", "it broke"]),
    "an option of another space": (("space=nasbench201", "space.nodes=3"), ["space.nodes", "chosen space"]),
    "layers where the space decides them": (("space=nasbench_macro", "layers=5"), ["layers must be 8", "nasbench_macro", "5"]),
    "graphs kept where none are made": (("sampled_graphs=4",), ["sampled_graphs=4", "compile=graph"]),
    "graphs on a CPU": (("compile=graph", "device=cpu"), ["compile=graph", "CUDA", "device=cpu", "compile=none"]),
    "images in graphs on a CPU": (("graph_augmentation=true", "device=cpu"), ["graph_augmentation", "CUDA", "device=cpu"]),
    "cells where there are none": (("space=nasbench_macro", "layers=8", "checkpoint_cells=true"),
                                   ["nasbench_macro", "checkpoint_cells"]),
    "a device misspelt": ("device=gpu", ["device", "cuda", "gpu"]),
    "a batch larger than the split": ("batch_size=64", ["batch_size", "32", "64"]),
    "an optimizer that takes no flat steps": (("flat_weights=true", "optimizer@w_optimizer=adam"), ["flat_weights", "sgd", "Adam"]),
    "an optimizer that second order cannot use": (("hypergradient=finite_difference", "optimizer@w_optimizer=adam"),
                                                  ["w_optimizer=sgd", "Adam"]),
    "an output that is a file": ("output=file.txt", ["file.txt", "run folder"]),
    "an output that cannot be written": ("output=/proc/supernet", ["/proc/supernet", "run folder"]),
}
DATA = {
    "no CIFAR-10": (("dataset=cifar10", "dataset.root=nowhere"),
                    ["nowhere/cifar-10-batches-bin", "nowhere/cifar-10-batches-py", "dataset.download=true", "cs.toronto.edu"]),
    "a truncated CIFAR-10": (("dataset=cifar10", "dataset.root=truncated"),
                             ["truncated/cifar-10-batches-bin/data_batch_3.bin", str(CIFAR_BYTES), str(CIFAR_BYTES - 1000)]),
    "a class without images": (("dataset=folder", "dataset.root=images", "dataset.image_size=8"), ["images/train/empty", "png", "none"]),
    "no file of arrays": (("dataset=npz", "dataset.path=nothing.npz"), ["nothing.npz", "dataset.path"]),
    "a file of other things": (("dataset=npz", "dataset.path=file.txt"), ["file.txt", ".npz"]),
}
GENOTYPES = {
    "an unknown name": ("darts_v3", ["darts_v3", "darts_v2"]),
    "no search to take it from": ("latest", ["latest", "runs", "train_search.py"]),
    "an empty name": ("", ["genotype"]),
    "an unknown op": ("bad_op.json", ["normal", "sep_conv_9x9", "sep_conv_3x3"]),
    "a cycle": ("cycle.json", ["cycle.json", "reduce", "5 -> 5", "cycle"]),
    "a missing node": ("missing_node.json", ["normal", "node 5", "2 edges", "0"]),
    "text for a node": ("bad_source.json", ["bad_source.json", "[op, source, destination]", "'0'"]),
    "HTML for an op": ("html_in_it.json", ["normal", "<script>", "sep_conv_3x3"]),
    "HTML": ("html.json", ["html.json", "JSON"]),
    "100 MB": ("huge.json", ["huge.json", "100,000,000", "1,000,000"]),
    "deep nesting": ("deep.json", ["deep.json", "JSON"]),
    "another space": ("other_space.json", ["nasbench201", "nodes"]),
    "another fingerprint": ("other_fingerprint.json", ["darts"]),
    "a long name of a cell": ("long_name.json", ["normal", "reduce", "xxx"]),
    "text for an argument": ("bad_arguments.json", ["darts", "nodes", "many"]),
    "an unknown argument": ("unknown_arguments.json", ["darts", "colour"]),
    "code for its arguments": ("code.json", ["_target_"]),
    "code for one argument": ("nested_code.json", ["concat"]),
    "another format": ("old_format.json", ["old_format.json", "supernet.genotype/1"]),
    "an empty file": ("empty.json", ["empty.json", "JSON"]),
    "a folder": ("folder.json", ["folder.json"]),
}


METHODS = {
    "a wrapper misspelt": ("wrapper=[edge_normalized]", ["wrapper=[edge_normalized]", "did you mean edge_normalised"]),
    "a penalty without its cost": ("penalty=[cost_log]", ["penalty=cost_log", "cost=multiply_adds"]),
    "a limit on the skip share misspelt": (("monitor=[limits]", "monitor.limits.above={skip_shares:0.5}"), ["skip_shares", "skip_share,"]),
    "a selection within no cost": (("final_select=within_cost", "final_select.limit=1e6"), ["final_select=within_cost", "cost"]),
    "a key of a part that is not the default": (("relaxation=gumbel", "relaxation.temprature=3"),
                                                ["relaxation.temprature", "did you mean relaxation.temperature"]),
}
# The same, asked without a process each: what the composition root refuses before a run folder is made.
PARTS = {
    "text for a number": ("relaxation.init_scale=big", "relaxation.init_scale must be a number, at least 0, got big"),
    "a broken number": ("wrapper=[adversarial] wrapper.adversarial.steps=2.5",
                        "wrapper.adversarial.steps must be a whole number, at least 1, got 2.5"),
    "no truth value": ("monitor=[skips] monitor.skips.stop=maybe", "monitor.skips.stop must be true or false, got maybe"),
    "a cold start": ("relaxation=gumbel relaxation.temperature=0", "relaxation.temperature must be positive, got 0"),
    "an unknown decay": ("relaxation=concrete relaxation.decay=slow", "relaxation.decay must be linear or exponential, got 'slow'"),
    "a draw without gradient": ("relaxation=controller", "no gradient: pass hypergradient=reinforce"),
    "a controller of nothing": ("relaxation=controller hypergradient=reinforce relaxation.hidden=0", "hidden must be at least 1"),
    "a simplex without its optimizer": ("relaxation=simplex", "need optimizer@alpha_optimizer=exponentiated_gradient, got Adam"),
    "edge weights on a simplex without it": ("wrapper=[edge_normalised] wrapper.edge_normalised.form=simplex", "gradient, got Adam"),
    "mirror descent off the simplex": ("optimizer@alpha_optimizer=exponentiated_gradient alpha_optimizer.weight_decay=0",
                                       "relaxation=simplex"),
    "an unknown form": ("wrapper=[edge_normalised] wrapper.edge_normalised.form=sigmoid", "must be softmax or simplex, got 'sigmoid'"),
    "a falling epsilon": ("wrapper=[random_perturbed] wrapper.random_perturbed.epsilon=0.5", "at most epsilon_end, got 0.5 and 0.3"),
    "an auxiliary skip that the network lacks": ("wrapper=[auxiliary_skip]", "pass network={auxiliary_skip:true}"),
    "a third criterion": ("wrapper=[greedy] wrapper.greedy.criterion=3",
                          "wrapper.greedy.criterion must be at least 1 and at most 2, got 3"),
    "a part that does not divide": ("network={partial:3}", "network.partial must divide the channels of every cell, got 3 and 4 channels"),
    "an unknown part of a network": ("network={parts:2}", "unexpected keyword argument 'parts'"),
    "fewer terms than none": ("hypergradient=neumann hypergradient.terms=-1", "hypergradient.terms must be at least 0"),
    "no radius": ("hypergradient=finite_difference hypergradient.radius=0", "hypergradient.radius must be positive, got 0"),
    "a score without a probability": ("hypergradient=reinforce", "relaxation=controller"),
    "layers of a chain": ("space=nasbench_macro layers=8 monitor=[layer_alignment]", "cells that share alphas, got ChainNetwork"),
    "a weights' penalty on a chain": ("space=nasbench_macro layers=8 w_penalty=[layer_alignment]", "needs a network of cells"),
    "no radius of the weights' penalty": ("w_penalty=[layer_alignment] w_penalty.layer_alignment.radius=0",
                                          "w_penalty.layer_alignment.radius must be positive, got 0"),
    "an unknown distance": ("penalty=[zero_one] penalty.zero_one.form=l3", "penalty.zero_one.form must be l1 or l2, got 'l3'"),
    "a negative penalty": ("penalty=[entropy] penalty.entropy.weight=-3", "at least 0, got -3"),
    "a penalty on nothing": ("penalty=[beta_decay] relaxation=uniform", "penalties act on architecture parameters, and Uniform has none"),
    "a divergence of no distribution": ("penalty=[dirichlet_kl]", "Softmax draws from no Dirichlet distribution"),
    "a limit that is not given": ("penalty=[cost_limit] cost=parameters", "penalty.cost_limit.limit needs a value"),
    "a limit that nothing meets": ("penalty=[cost_limit] cost=parameters penalty.cost_limit.limit=10", "every architecture has at least"),
    "a selection that nothing meets": ("final_select=within_cost cost=parameters final_select.limit=10", "every architecture has at least"),
    "an eigenvalue of no alphas": ("monitor=[eigenvalue] relaxation=uniform", "Uniform has no table of alphas"),
    "a weaker regularisation": ("monitor=[eigenvalue] monitor.eigenvalue.retry=0.5", "must be above 1, or null, got 0.5"),
    "nothing to multiply": ("monitor=[skips] monitor.skips.retry=3 w_optimizer.weight_decay=0", "must be positive, got 0"),
    "an unknown kind": ("monitor=[skips] monitor.skips.kind=cell", "monitor.skips.kind must be normal or reduce, or null, got 'cell'"),
    "a limit on nothing": ("monitor=[limits]", "monitor.limits needs a limit"),
    "cosines over no steps": ("monitor=[op_freezing] monitor.op_freezing.count=0", "monitor.op_freezing.count must be at least 1, got 0"),
    "a threshold above 1": ("select=threshold select.value=1.5", "select.value must be at least 0 and at most 1, got 1.5"),
    "skips of an unknown kind": ("select=limited_skips select.kinds=[cell]", "select.kinds must be among normal, reduce"),
    "less than no training": ("final_select=perturbation final_select.finetune_epochs=-1",
                              "final_select.finetune_epochs must be at least 0, got -1"),
    "the best of none": ("final_select=sampled final_select.n=0", "at least 1, got 0"),
    "unknown statistics": ("final_select=sampled final_select.statistics=mean", "recalibrated, batch or running"),
    "no table": ("cost=table cost.path=nothing.csv cost.column=flops", "nothing.csv: cannot read the table"),
    "no latencies": ("cost=latency_table cost.path=nothing.json", "nothing.json: cannot read the latency table"),
    "all skips dropped": ("skip_dropout=p_darts skip_dropout.prob=1", "skip_dropout.prob must be at least 0 and below 1, got 1"),
    "alphas never": ("alpha_every=0", "alpha_every must be at least 1, got 0"),
}


def named(cases: dict) -> list:
    return [pytest.param((options,) if isinstance(options, str) else options, words, id=name) for name, (options, words) in cases.items()]


def refuses(here: Path, words: list[str], script: str, *options: str, start=run, **how) -> None:
    """The script prints one line with these words, and changes nothing under `here`."""
    before = contents(here)
    ended = start(script, *options, cwd=here, **how)
    left = {path: digest for path, digest in contents(here).items() if "__pycache__" not in path}
    for path in sorted(left.keys() - before.keys(), reverse=True):  # what should not be there makes one case fail, not all after it
        (here / path).rmdir() if (here / path).is_dir() else (here / path).unlink()
    line = only_error(ended)
    assert [word for word in words if word not in line] == [] and line.isprintable(), line
    assert left == {path: digest for path, digest in before.items() if "__pycache__" not in path}


@pytest.mark.parametrize("options, words", named(COMPOSED))
def test_options(here, options, words):
    refuses(here, words, "train_search", *TINY, *options)


@pytest.mark.parametrize("options, words", named(BUILT))
def test_values_that_only_a_part_can_judge(here, options, words):
    refuses(here, words, "train_search", *TINY, *options)


@pytest.mark.parametrize("options, words", named(METHODS))
def test_methods(here, options, words):
    refuses(here, words, "train_search", *TINY, *options)


@pytest.mark.parametrize("options, told", [pytest.param(*case, id=name) for name, case in PARTS.items()])
def test_parts(options, told, tmp_path, monkeypatch):
    from hydra.errors import HydraException

    from supernet.app import compose
    from supernet.app.command_line import composing, one_line
    from supernet.errors import Mendable
    from tests.searches import composed

    monkeypatch.chdir(tmp_path)
    tiny = [o for o in TINY if "layers=8" not in options or not o.startswith("layers")]
    with pytest.raises((Mendable, HydraException)) as caught:
        cfg = composed(*tiny, "channels=4", "threads=1", "table=none", *options.split())
        with composing():
            compose.search_stages(cfg, compose.search_parts(cfg))
    line = one_line(caught.value)
    assert told in line and len(line) < 300 and "\n" not in line, line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, words", named(DATA))
def test_data(here, options, words):
    refuses(here, words, "train_search", *TINY, *options)


@pytest.mark.parametrize("options, words", named(GENOTYPES))
def test_genotypes(here, options, words):
    refuses(here, words, "train_final", *TINY_FINAL, f"genotype='{options[0]}'")


def test_a_genotype_of_another_space_than_the_given_one(here):
    refuses(here, ["darts", "nodes"], "train_final", *TINY_FINAL, "genotype=darts_v2", "space=darts", "space.nodes=3")


def test_an_auxiliary_head_where_there_can_be_none(here):
    toy = toy_space.make()
    toy.sample(random.Random(0)).save(here / "toy.json")
    refuses(here, ["task.auxiliary_weight must be 0", "toy", "0.4"], "train_final", *TINY_FINAL, "genotype=toy.json",
            "task.auxiliary_weight=0.4")
    refuses(here, ["genotype is of space 'toy'", "not of 'darts'"], "train_final", *TINY_FINAL, "genotype=toy.json", "space=darts")


@pytest.mark.parametrize("option, words", [
    ("epochs=0", ["epochs", "at least 1", "0"]), ("split.val_portion=1", ["split.val_portion", "below 1", "1"]),
    ("batch_size=64", ["batch_size", "32", "64"]), ("amp=fp16", ["amp", "none or bf16", "fp16"]),
    ("compile=graph", ["compile", "none or inductor", "graph"]),
    ("compile=inductor backend=packed", ["compile=inductor", "backend=packed"]),
])
def test_options_of_the_final_training(here, option, words):
    refuses(here, words, "train_final", *TINY_FINAL, "genotype=darts_v2", *option.split())


def test_a_run_json_that_is_not_ours_is_no_search_to_take_a_genotype_from(here):
    refuses(here, ["latest", "others"], "train_final", *TINY_FINAL, "output=others")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(here):
    refuses(here, ["device=cuda", "0 GPUs", "device=cpu"], "train_search", *TINY, "device=cuda")


def test_wandb_online_without_a_key(here, tmp_path):
    env = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "no"), "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_API_KEY": "", "WANDB_MODE": ""}
    refuses(here, ["W&B", "online", "auto"], "train_search", *TINY, "space.nodes=1", "wandb.mode=online", env=env)


@pytest.mark.parametrize("script, options, words", [
    ("train_search", (COMPOSED["a key misspelt"][0],), COMPOSED["a key misspelt"][1]),
    ("train_search", DATA["no CIFAR-10"][0], DATA["no CIFAR-10"][1]),
    ("train_final", ("genotype=darts_v3",), GENOTYPES["an unknown name"][1]),
])
def test_started_as_a_user_does(here, script, options, words):
    refuses(here, words, script, *options, start=run_unforked)


# ---- a full disk


def told_of_full_disk(ended: Ended, reason: str) -> None:
    """The last line says it; before it are only lines on how the run went."""
    told, line = ended.err.splitlines()[:-1], ended.err.splitlines()[-1]
    assert ended.code == 2 and line.startswith("error: ") and len(line) < 400, ended.err
    assert reason in line and "runs/" in line
    assert not any(word in text for text in told for word in ("Traceback", "rror")), ended.err


@pytest.mark.parametrize("limit", [1_000, 10_000], ids=["the options", "a checkpoint"])
def test_a_file_that_cannot_be_written_whole(tmp_path, limit):
    told_of_full_disk(run("train_search", *TINY, "space.nodes=1", cwd=tmp_path, max_file_bytes=limit), "File too large")


SELDOM = ("/config.yaml", "/environment.json", "/split.npz", "/genotype.json", "/genotypes.jsonl", "/checkpoints", "/cell.svg", "/cell.png",
          "/summary.json", "/report.html")


@pytest.mark.parametrize("name", ["/metrics.jsonl", "/alphas.npz", *(pytest.param(name, marks=pytest.mark.slow) for name in SELDOM)])
def test_a_file_that_cannot_be_begun(tmp_path, name):
    told_of_full_disk(run("train_search", *TINY, "space.nodes=1", cwd=tmp_path, at=At(1, name, None)), "No space left on device")

"""Every command that the README and the pages of docs/ show is run, or it is said why not: a command in neither list fails here.

The default suite checks the words of all of them; `-m slow` runs them, at sizes that the lists add, in a folder with small data of the
formats that the pages speak of.
"""

import gzip
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.options import CONF
from supernet.commands import compare, compress, diff, draw, explain, export, predict, reproduce, runs
from supernet.spaces import nasbench201, nasbench_macro
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from tests.helpers import ROOT
from tests.runs import planted_run

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"extending.md": "tests/test_extending.py runs all blocks of the page"}
PROGRAM = re.compile(r"(\$ )?(\.venv/bin/|\S*/)?"
                     r"(python3?|make|pip|uv|eval|wandb|git|curl|ssh|sbatch|srun|torchrun|ray|mkdocs|supernet-\w+)(?= |$)")

# What makes a search, a final training or another command small enough; all else of a command stays as the page shows it.
SEARCH = "epochs=1 layers=3 channels=4 batch_size=8 split.max_train=16 split.max_val=16 threads=1 wandb.mode=disabled"
FINAL = "epochs=1 layers=3 channels=4 batch_size=8 split.max_train=16 threads=1 wandb.mode=disabled"
PRESET = "profile=smoke epochs=1 threads=1 wandb.mode=disabled"
MAKE = "INSTALLED= RUN=python"  # where there is something installed already
RUN = {
    "make search": f"{MAKE} ARGS='output=$$HERE/runs {SEARCH}'",
    "make final": f"{MAKE} ARGS='output=$$HERE/runs genotype=darts_v2 {FINAL}'",
    "eval $(python train_search.py --shell-completion install=bash)": "",
    "python train_search.py": SEARCH,
    "python train_search.py dataset=cifar10 dataset.root=data": SEARCH,
    "python train_search.py experiment=darts_second_order_cifar10 seed=3": PRESET,
    "python train_search.py experiment=gdas_nasbench201 profile=smoke": "threads=1 wandb.mode=disabled",
    "python train_search.py experiment=gdas_cifar10 dataset.root=data": SEARCH,
    "python train_search.py experiment=dr_nas_cifar10 profile=smoke": "threads=1 wandb.mode=disabled",
    "python train_search.py experiment=pc_darts_cifar10 relaxation=dirichlet wrapper=[edge_normalised,adversarial]": PRESET,
    "python train_search.py network={partial:2} relaxation=dirichlet wrapper=[edge_normalised,adversarial] cost=multiply_adds "
    "penalty=[cost_limit,beta_decay] penalty.cost_limit.limit=1.5e6 monitor=[eigenvalue] final_select=perturbation":
        f"{SEARCH} space.nodes=2 final_select.finetune_epochs=0",
    "python train_search.py space=nasbench201 dataset=cifar10 dataset.root=data layers=8 channels=8": SEARCH,
    "python train_search.py space=nasbench_macro relaxation=uniform final_select=sampled dataset=cifar10 dataset.root=data":
        f"{SEARCH} layers=8 final_select.n=5",
    "python train_search.py space=darts_rnn dataset=text dataset.path=shakespeare.txt":
        "epochs=1 batch_size=8 threads=1 wandb.mode=disabled",
    "python train_search.py space=nasbench201 dataset=cifar10 dataset.root=data table.path=nb201.csv.gz": SEARCH,
    "python train_search.py dataset=cifar10 layers=5 channels=8 batch_size=32 split.mode=stratified split.max_train=2500 "
    "split.max_val=2500 epochs=5 alpha_optimizer.lr=3e-3 threads=1": SEARCH,
    "python train_search.py space=custom space._target_=my_space.make layers=4 channels=8": SEARCH,
    "python train_search.py space=from_model space.model=my_network.make":
        SEARCH.replace("layers=3 channels=4 ", "space.arguments={channels:4} space.divisor=2 "),
    "python train_search.py space=from_model space.model=examples.my_network.make relaxation=uniform passes=sandwich":
        SEARCH.replace("layers=3 channels=4 ", "space.model=my_network.make space.arguments={channels:4} space.divisor=2 "),
    "python train_search.py space=nasbench_macro relaxation=uniform searcher=spos budget.trials=200 dataset=cifar10 dataset.root=data":
        f"{SEARCH} layers=8 budget.trials=3",
    "python train_search.py space=nasbench_macro relaxation=uniform dataset=cifar10 dataset.root=data searcher=spos budget.trials=1000 "
    "processes=2": f"{SEARCH} layers=8 budget.trials=3",
    "python train_search.py space=nasbench201 epochs=0 evaluator=tabular evaluator.dataset=cifar10 table.path=nb201.csv.gz "
    "searcher=regularised_evolution searcher.population=10 searcher.sample=3 budget.simulated_s=12000": f"{SEARCH} epochs=0",
    "python train_search.py space=ofa_mobilenet space.strides=[1,2,2,1,2] space.stem_stride=1 dataset=cifar10 dataset.root=data "
    "relaxation=uniform passes=sandwich searcher=genetic budget.trials=200 cost=multiply_adds cost.channels=16 "
    "objective.at_most={multiply_adds:80e6}": f"{SEARCH} layers=20 channels=8 budget.trials=3",
    "python train_search.py space=gpt dataset=text dataset.path=shakespeare.txt dataset.bptt=128 dataset.random_lengths=false protocol=gpt "
    "relaxation=uniform passes=sandwich searcher=genetic budget.trials=100 objective.at_most={multiply_adds:4e5}":
        "epochs=1 batch_size=1 eval_batch_size=2 split.max_train=600 threads=1 wandb.mode=disabled budget.trials=3 searcher.population=2",
    "python train_search.py space=vit space.patch=2 protocol=vit optimizer@w_optimizer=adamw relaxation=uniform passes=sandwich "
    "final_select=sampled": "epochs=1 batch_size=8 split.max_train=16 split.max_val=16 threads=1 wandb.mode=disabled final_select.n=3",
    "python train_final.py protocol=vit recipe=modern_adamw": FINAL.replace("layers=3 channels=4 ", ""),
    "python train_search.py space=darts epochs=0 evaluator=proxy proxy@evaluator.proxies=[synflow,naswot] objective.maximise=[vote] "
    "searcher=genetic budget.trials=500 objective.at_most={parameters:3.5e6}":
        f"{SEARCH} epochs=0 split.max_val=64 batch_size=16 budget.trials=4 searcher.population=2",
    "python train_search.py space=nasbench201 epochs=20 searcher=genetic searcher.population=20 learned=20 budget.images=2000000":
        f"{SEARCH} budget.images=200 searcher.population=4 learned=2",
    "python train_search.py experiment=spos_cifar10 dataset.root=data": f"{SEARCH} layers=8 budget.trials=3",
    "python train_final.py": f"{FINAL} genotype=darts_v2",
    "python train_final.py space=custom space._target_=my_space.make layers=4 channels=8": f"{FINAL} genotype=own/genotype.json",
    "python train_final.py space=from_model space.model=my_network.make":
        FINAL.replace("layers=3 channels=4 ", "space.arguments={channels:4} space.divisor=2 genotype=network/genotype.json "),
    "python train_final.py genotype=runs/<run>/genotype.json dataset=cifar10": FINAL,
    "python train_final.py genotype=darts_v2 dataset=cifar10": FINAL,
    "python train_final.py genotype=darts_v2 dataset=cifar10 dry_run=true": "batch_size=2 layers=3 channels=4 threads=1",
    "python train_final.py genotype=FILE dataset=cifar10 layers=5 channels=8 batch_size=64 split.max_train=5000 epochs=6 "
    "dataset.augment.cutout=0 drop_path_prob=0 task.auxiliary_weight=0 threads=1": FINAL,
    "python train_final.py genotype=found/genotype.json": FINAL,
    "python -m supernet.tabulate space=toy dataset=digits processes=2":
        "seeds=[0] 'options={layers:3,channels:2,epochs:1,split.max_train:48,batch_size:16,threads:1}'",
    "python train_search.py space=toy table.path=<the table it wrote>": SEARCH,
    "python -m supernet.rank run=runs/<search> table.path=nas_bench_macro_cifar10.json.gz n=120":
        "run=macro n=3 calibration_batches=1 resamples=10",
    "python -m supernet.rank run=runs/<search> checkpoints=all statistics=batch by=[shared_weights,naswot]":
        "run=macro table.path=nas_bench_macro_cifar10.json.gz n=3 resamples=10 proxy_batch=8",
    "python -m supernet.race table.path=nb201.csv.gz searchers=[random,regularised_evolution,local_search] simulated_s=12000":
        "seeds=2 simulated_s=300 resamples=10",
    "python -m supernet.race table.path=nb201.csv.gz searchers=[random,regularised_evolution,reinforce,genetic,annealing,local_search] "
    "options={regularised_evolution:{population:10,sample:3},genetic:{population:20},annealing:{steps:100}} simulated_s=12000 seeds=500 "
    "processes=2": "seeds=2 simulated_s=300 resamples=10",
    "python -m supernet.race table.path=nb201.csv.gz datasets=[cifar10] columns={latency_ms:c10_edgegpu_latency_ms} "
    "objective.at_most={latency_ms:4}": "seeds=2 simulated_s=300 resamples=10 searchers=[random]",
    "python -m supernet.reproduce table=nasbench201 scale=cpu root=data lookup=nb201.csv.gz": "dry_run=true",
    "python -m supernet.reproduce table=darts_cifar10 root=data": "dry_run=true",
    "python -m supernet.compare runs": "",
    "python -m supernet.compare runs --baseline relaxation=uniform --output table": "--of search",
    "python -m supernet.compare runs/*gdas* --of search --value val_accuracy": "",
    "python -m supernet.sweep FILE.yaml": "",
    "python -m supernet.predict runs/<run of make final> digit.png more/": "",
    "python -m supernet.predict runs/<a final training> photo.jpg more/*.png": "",
    "python -m supernet.predict runs/<a final training> folder --top 5": "",
    "python -m supernet.predict weights.pt folder --json --top all > found.jsonl": "",
    "python -m supernet.export runs/<a final training> -o net": "",
    "python -m supernet.compress runs/<a final training>": "method=magnitude epochs=1 threads=1 output=smaller",
    "python -m supernet.explain runs/<search>": "--images 16",
    "python -m supernet.explain runs/<a final training>": "--images 16",
    "python -m supernet.explain cell.txt --table nasbench201.csv.gz --dataset cifar10": "--table nb201.csv.gz",
    "python train_final.py genotype=darts_v2 dataset=cifar10 recipe=modern": FINAL,
    "python -m supernet.runs": "",
    "python -m supernet.runs runs --where state=running --sort best": "",
    "python -m supernet.runs runs --where best>90 --where age<2d --json": "",
    "python -m supernet.draw darts_v2 -o cell.svg": "",
    "python -m supernet.draw runs/<search> -o search.gif": "--dpi 40",
    "python -m supernet.diff runs/<one> runs/<other>": "",
    "python -m supernet.diff darts_v1 darts_v2 --json": "",
}
DIFFERS = ("python -m supernet.diff runs/<one> runs/<other>", "python -m supernet.diff darts_v1 darts_v2 --json")  # exit code 1
INDEX, SERVER = "it installs from a package index", "it needs W&B's server"
NOT_RUN = {
    "make install": INDEX, "make install PIP_ARGS=--extra-index-url https://download.pytorch.org/whl/cpu": INDEX,
    "pip install -c constraints.txt torch": INDEX, "pip install -c constraints.txt -e .[scripts]": INDEX,
    "make bench-check": "minutes, of a measurement; tests/test_bench_check.py runs its parts",
    "make coverage ARGS=tests/test_space.py FLOOR=0": "it is this suite, under coverage",
    "make mutation ARGS=--module supernet.penalties": "many minutes; tests/test_mutation.py runs its parts",
    "make test": "it is this suite", "make test-slow": "it is this suite", "make lint": "it is a check of its own beside this suite",
    "make fuzz SECONDS=60": "it runs for an hour; tests/test_fuzzing.py is its short form",
    "python -m pytest tests/test_select.py": "it is part of this suite",
    "python -m pytest tests/test_relaxations.py -k sigmoid": "it is part of this suite",
    "python -m benchmarks.nasbench201 --root data --table nb201.csv.gz --processes 2": "hours",
    "python -m benchmarks.collapse --root data": "hours; tests/test_collapse.py runs its parts",
    "python -m benchmarks.collapse --draw": "it writes into docs/; tests/test_collapse.py draws elsewhere",
    **{f"python -m benchmarks.gpu{words}": "it needs CUDA; tests/test_gpu_benchmark.py runs it on a stand-in" for words in (
        "", " --parts kernels,speed --minutes 3", " --resume", " --page runs/gpu/gpu.jsonl", " --pack 1,2", " --out OUT --minutes 8",
        " --parts final,nasbench201,fast,cifar10 --minutes 5 --resume FILE --out OUT")},
    "python -m supernet.report RUN_OR_FOLDER...": "it says what its arguments are; tests/test_pages.py runs it",
    "python -m supernet.report runs --serve": "it serves until it is stopped; tests/test_served.py starts it",
    "python train_final.py genotype=darts_v2 dataset=digits name=exported": "a training; tests/test_export.py exports a short one",
    "python -m supernet.export runs/2026-11-29_17-15-45_final_exported_seed0 -o net --formats pt2,onnx --images test":
        "it needs the extra export; tests/test_export.py runs it where that is there",
    **{f"python {words}": "minutes; tests/test_compress.py makes smaller ones" for words in (
        "train_final.py genotype=darts_v2 dataset=digits layers=4 channels=12 epochs=15 threads=1 name=shown",
        "-m supernet.compress runs/<a final training> method=[prune,magnitude,int8,qat,prune+int8]",
        "-m supernet.compress runs/<a final training> method=[prune,magnitude] distil=true")},
    "python -m supernet.deploy runs/<that search> limits={parameters:5e4,latency_ms:1} trust=[examples.my_network.make]":
        "it needs that search; tests/test_deploy.py makes one",
    "python -m supernet.deploy runs/<a search> limits={parameters:1e6,latency_ms:12}":
        "it needs a search in a chain of decisions; tests/test_deploy.py makes one",
    "python -m supernet.ensemble runs/<final seed 0> runs/<final seed 1> runs/<final seed 2>": "tests/test_ensemble.py runs it",
    "python train_search.py space=sequential searcher=genetic evaluator=from_scratch dataset=fashion_mnist dataset.root=data":
        "ten minutes; tests/test_from_scratch.py runs a small one",
    "python train_final.py dataset=fashion_mnist dataset.root=data epochs=20 batch_size=32": "it retrains what the one above found",
    "python -m supernet.explain runs/<search> runs/<other seeds>": "tests/test_explain.py runs it",
    "pip install supernet[serve]": INDEX,
    "wandb artifact get genotype-darts-digits-gumbel:seed-03 --root found": SERVER, "wandb sync runs/*/wandb/offline-run-*": SERVER,
    "wandb sweep conf/sweep/grid.yaml": SERVER, "wandb agent ENTITY/supernet/SWEEP": SERVER,
    **{f"torchrun --nproc-per-node=2 {words}": "tests/test_process_scripts.py runs it in two processes" for words in (
        "train_search.py dataset=cifar10 dataset.root=data", "train_final.py genotype=runs/RUN/genotype.json",
        "train_search.py space=darts_rnn dataset=text dataset.path=corpus.txt",
        "train_search.py space=nasbench_macro relaxation=uniform dataset=cifar10 dataset.root=data searcher=spos budget.trials=1000")},
}


class Shown(NamedTuple):
    page: str
    line: int
    text: str

    @property
    def key(self) -> str:
        """The words, without quotes and remarks, with one name for the interpreter and the clone."""
        words = shlex.split(self.text.removeprefix("$ "), comments=True)
        words[0] = re.sub(r"^(\.venv/bin/|.*/)", "", words[0])
        return " ".join(words).replace("<clone>/", "").replace(".venv/bin/python", "python")


def code(text: str) -> Iterator[tuple[int, str]]:
    """The lines of code of a page, fenced as a shell's or indented, by their numbers; one that goes on in the next is one."""
    fence, before, joined, first = None, "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fence = None if fence is not None else line.removeprefix("```").strip()
            continue
        if fence in ("sh", "bash", "console", "") or fence is None and line.startswith("    ") and (joined or not before.strip() or (
                before.startswith("    "))):
            first = first or number
            joined += f" {line.strip()}" if joined else line.strip()
            if joined.endswith("\\"):
                joined = joined[:-1].rstrip()
                continue
            yield first, joined
        joined, first, before = "", 0, line


def shown(page: Path) -> list[Shown]:
    return [Shown(page.name, line, text) for line, text in code(page.read_text()) if PROGRAM.match(text)]


ALL = {one.key: one for page in PAGES if page.name not in ELSEWHERE for one in shown(page)}


def test_commands_are_found_however_they_are_written():
    page = ("Text\n    python no.py\n\n    $ python a.py x=1 \\\n        'y={b:2}'   # why\n    said: no command\n\n```sh\n"
            "python <clone>/b.py\nmake c\n```\n```python\npython = 3\n```\n\n    .venv/bin/python -m d\n")
    found = [Shown("", *one).key for one in code(page) if PROGRAM.match(one[1])]
    assert found == ["python a.py x=1 y={b:2}", "python b.py", "make c", "python -m d"]


def test_every_command_that_is_shown_is_run_or_it_is_said_why_not():
    assert len(ALL) > 40
    unknown = [f"{one.page}:{one.line}: {one.key}" for key, one in ALL.items() if key not in RUN and key not in NOT_RUN]
    assert not unknown, "enter them in RUN or, with the reason, in NOT_RUN:\n" + "\n".join(unknown)


def test_the_lists_name_nothing_that_no_page_shows_any_more():
    assert not [key for key in (*RUN, *NOT_RUN) if key not in ALL] and not set(RUN) & set(NOT_RUN)


def test_the_readme_fits_two_screens_and_names_every_method():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    table = text.partition("## Methods")[2].partition("## Pages")[0]
    named = set(re.findall(r"`(\w+)`", table.partition("|---|---|")[2]))
    assert named == {path.stem.rpartition("_")[0] for path in (ROOT / "conf" / "experiment").glob("*.yaml")}


@pytest.fixture(scope="module")
def configs():
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


ARGPARSE = {"supernet.compare": compare.parser, "supernet.predict": predict.parser, "supernet.export": export.parser,
            "supernet.explain": explain.parser,
            "supernet.runs": runs.parser, "supernet.draw": draw.parser, "supernet.diff": diff.parser}
HYDRA = {"train_search.py": ("search", "train_search"), "train_final.py": ("final", "train_final"), "supernet.rank": ("rank", "rank"),
         "supernet.race": ("race", "race"), "supernet.compress": ("compress", "compress"),
         "supernet.tabulate": ("tabulate", "tabulate"), "supernet.reproduce": ("reproduce", "reproduce")}


@pytest.mark.parametrize("key", [key for key in RUN if key.startswith("python")])
def test_the_words_of_a_command_are_known(key, configs, monkeypatch):
    """As it is shown, before anything is run."""
    monkeypatch.chdir(ROOT / "examples")  # where my_space.py lies
    monkeypatch.syspath_prepend(ROOT / "examples")
    program, *words = re.sub(r"<.*?>", "it", key).partition(" > ")[0].removeprefix("python ").removeprefix("-m ").split()
    if program in ARGPARSE:
        ARGPARSE[program]().parse_args(words)
    elif program in HYDRA:
        config, script = HYDRA[program]
        if config == "reproduce":
            words = [reproduce.renamed(word, reproduce.SAID, reproduce.OPTION) for word in words]
        words = compress.words(words) if config == "compress" else words
        validate(compose(config, overrides=words), script)
    else:
        assert program == "supernet.sweep"


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder as the pages take it for granted: scripts, data, tables, finished runs."""
    where = tmp_path_factory.mktemp("shown")
    for name in ("train_search.py", "train_final.py", "Makefile"):
        (where / name).symlink_to(ROOT / name)
    for name in ("my_space.py", "my_network.py"):
        (where / name).write_text((ROOT / "examples" / name).read_text())
    rng = np.random.default_rng(0)
    cifar = where / "data" / "cifar-10-batches-bin"
    cifar.mkdir(parents=True)
    records = np.zeros((10_000, 3073), np.uint8)  # as many as the files have, or they are taken for damaged
    records[:, 0] = np.arange(10_000) % 10
    records[:200, 1:] = rng.integers(0, 256, (200, 3072))
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        records.tofile(cifar / f"{name}.bin")
    (where / "cell.txt").write_text("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|")
    (where / "shakespeare.txt").write_text(" ".join((ROOT / "docs" / "methods.md").read_text().split()))
    tabled(where / "nb201.csv.gz", nasbench201.make(), rng, ("cifar10", "cifar100", "imagenet16"))
    tabled(where / "macro.csv.gz", nasbench_macro.make(), rng, ("cifar10",))
    (where / "macro.csv.gz").rename(where / "nas_bench_macro_cifar10.json.gz")  # a table is recognised by its content
    for name, words in (("macro", "space=nasbench_macro layers=8 keep_checkpoints=3"), ("own", "space=custom space._target_=my_space.make"),
                        ("network", "space=from_model space.model=my_network.make space.arguments={channels:4} space.divisor=2 layers=16"),
                        ("found", "space=s4")):
        shell(f"python train_search.py {SEARCH} {words} output=made_{name}", where)
        (made,) = (where / f"made_{name}").iterdir()
        made.rename(where / name)
    for n, relaxation in enumerate(("uniform", "softmax", "gdas")):
        for seed in range(2):
            planted_run(where / f"compared/runs/{relaxation}{seed}", job=f"{relaxation} {seed}", seed=seed, accuracy=90.0 + n + seed,
                        relaxation=relaxation, genotype=2 * n + seed)
    shell(f"python train_final.py genotype=darts_v2 {FINAL} output=made_final", where)
    (made,) = (where / "made_final").iterdir()
    made.rename(where / "final")
    (where / "weights.pt").write_bytes((where / "final" / "weights.pt").read_bytes())
    for name in ("digit.png", "photo.jpg", "more/a.png", "folder/b.png"):
        (where / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(where / name)
    (where / "FILE.yaml").write_text(yaml.safe_dump({"fixed": dict(word.split("=") for word in SEARCH.split()), "axes": {
        "relaxation": ["softmax"]}, "seeds": [0]}))
    return where


def tabled(path, space, rng, datasets):
    genotypes = list(space.enumerate())
    columns = {"c10_edgegpu_latency_ms": rng.uniform(1, 8, len(genotypes)).tolist()}
    for dataset in datasets:
        columns |= {f"{dataset}_{part}": rng.uniform(10, 90, len(genotypes)).tolist() for part in ("val", "test", "seconds")}
    write_table(path, space, [space.text(g) for g in genotypes], columns,
                {name: Columns(f"{name}_val", f"{name}_test", f"{name}_seconds") for name in datasets})
    with gzip.open(path) as file:
        assert file.readline()


def shell(command: str, where: Path, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HERE": str(where),
                                "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=where, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == code, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("key", RUN)
def test_a_command_runs_as_it_is_shown(key, here):
    """But at the size that RUN says, with a finished run in the place of `runs/<run>`, and this Python in that of `.venv/bin/python`."""
    text = ALL[key].text.removeprefix("$ ")
    text = re.split(r"\s+#\s", text)[0].replace(".venv/bin/python", "python").replace("<clone>/", "")
    for name, instead in (("runs/<run>", "found"), ("runs/<run of make final>", "final"), ("runs/<a final training>", "final"),
                          ("runs/<search>", "found"), ("runs/<one>", "found"), ("runs/<other>", "own"),
                          ("<the table it wrote>", "data/tables/toy.csv.gz"), ("genotype=FILE", "genotype=found/genotype.json")):
        text = text.replace(name, instead)
    if key.startswith("make") or key.startswith("eval"):
        text = f"cd {ROOT} && {text}"
    if "supernet.compare" in key or "supernet.runs" in key:
        text = f"cd compared && {text}"  # other commands leave their runs in `runs`, where any were run
    if "<the table it wrote>" in key and not (here / "data/tables/toy.csv.gz").exists():
        shell("python -m supernet.tabulate space=toy dataset=digits seeds=[0] 'options={layers:3,channels:2,epochs:1,split.max_train:48,"
              "batch_size:16,threads:1}' processes=2", here)
    shell(f"{text} {RUN[key]}", here, code=1 if key in DIFFERS else 0)


def test_the_pages_make_a_site_without_a_broken_link(tmp_path):
    """The pages alone: MkDocs is strict, so that a link or an anchor that leads nowhere is an error."""
    pytest.importorskip("material", reason="needs the extra docs: mkdocs-material")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")], cwd=ROOT,
                          capture_output=True, text=True, timeout=300, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    assert "class=\"arithmatex\"" not in (tmp_path / "site" / "methods.html").read_text(), "a formula was not drawn"


def test_every_page_is_found_from_the_readme_and_in_the_site():
    site, readme = (ROOT / "mkdocs.yml").read_text(), (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"[\[ ]{page.name}[,\]\n]", site.partition("nav:")[2]), f"docs/{page.name} is not in the nav of mkdocs.yml"
        assert page.name == "index.md" or f"](docs/{page.name})" in readme, f"the README's table of pages has no docs/{page.name}"


def test_every_link_between_pages_leads_to_a_file():
    """Also where MkDocs is not installed, and for the README."""
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"

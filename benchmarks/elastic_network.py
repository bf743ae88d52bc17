"""A supernet of a small ResNet, trained once, and networks cut out of it beside the same trained alone:

    python -m benchmarks.elastic_network --root data                        # from the repository root
    python -m benchmarks.elastic_network --parts ranks --networks 20 --root data

`limits`: for each share of the largest network's multiply-adds, the best within it that `python -m supernet.deploy` finds, with inherited
weights and statistics of its own, and fine-tuned for `--fine-tuned` epochs. The same network is trained alone, from scratch, on as
many images as the supernet saw, with the same optimizer and augmentation. `ranks`: of networks drawn uniformly, Kendall's tau between the
accuracy with shared weights on validation images and the test accuracy after a training alone, with a bootstrap interval. Test images are
read once for each network, at its end. Reduced sizes, which the file says.

What is done is written as soon as it is done; stopped or killed, the same command goes on.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks.kept import Kept
from supernet.app.build import space_from
from supernet.app.command_line import register
from supernet.app.options import CONF, overrides, plain
from supernet.app.trained import trained
from supernet.commands.drawn import drawn
from supernet.commands.tabulate import train
from supernet.costs.additive import counted
from supernet.costs.base import Cost
from supernet.files import read_text
from supernet.genotype import Genotype
from supernet.passes import extremes
from supernet.report.statistics import kendall, kendall_interval
from supernet.runs.folder import RunFolder

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "benchmarks/results/elastic_network.json"
PARTS = ("limits", "ranks")
MODEL = "examples.my_network.make"
COMMON: Mapping[str, Any] = {"space": "from_model", "space.model": MODEL, "space.widths": [1, 0.75, 0.5, 0.25],
                             "space.divisor": 4, "dataset": "cifar10", "batch_size": 128, "w_optimizer.lr": 0.1,
                             "w_optimizer.weight_decay": 5e-4, "w_optimizer.nesterov": True, "lr_minimum": 0.0, "clip_norm": 5.0,
                             "epochs": 10, "threads": 1}
# In so short a training what all others learn from the largest alone, as published, is that nothing is known yet: after two epochs the
# largest was at 23 % of its training images so, at 32 % where half is learned from the labels.
SEARCH: Mapping[str, Any] = {"relaxation": "uniform", "passes": "sandwich", "passes.distillation": 0.5, "hypergradient": "single_level",
                             "split.mode": "stratified", "split.train_portion": 0.8, "split.max_train": 10_000, "split.max_val": 2_000}
FINAL: Mapping[str, Any] = {"split.max_train": 12_000, "split.val_portion": 1 / 6, "split.mode": "stratified", "drop_path_prob": 0.0,
                            "task.auxiliary_weight": 0.0, "dataset.augment.cutout": 0}
MAX_BYTES = 2**24  # of a file that is read


def command(*words: str) -> float:
    """Runs a command of the project as a user would; the processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, cwd=HERE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Study:
    """kept: the results so far. root: where CIFAR-10 is. work: where the run and the deployed networks go. more: options of trainings."""

    def __init__(self, kept: Kept, root: str, work: Path, more: Mapping[str, Any]):
        self.kept, self.work = kept, work
        self.search = {**COMMON, **SEARCH, **more, "dataset.root": root, "output": str(work), "name": "supernet"}
        self.final = {**COMMON, **FINAL, **more, "dataset.root": root}
        node = compose("search", overrides=overrides(self.search)).space
        self.space_node, self.space = plain(node), space_from(node)

    def cost(self) -> Cost:
        """Multiply-adds of a genotype's network."""
        return counted(self.space, "multiply_adds", num_classes=10, in_channels=3, image_size=(32, 32))

    def supernet(self) -> Path:
        """The folder of its search, which is gone on with where it was broken off."""
        if not (found := self._finished()):
            options = {**self.search, "resume": "auto" if self.work.exists() else "never"}
            self.kept.once("supernet", lambda: {"cpu_s": command("train_search.py", *overrides(options))})
            found = self._finished()
        return found[0]

    def _finished(self) -> list[Path]:
        return [path.parent for path in self.work.glob("*_search_supernet_seed0/genotype.json")]  # written at the end

    def alone(self, name: str, genotype: Genotype) -> dict[str, float]:
        """A training from scratch, and its test."""
        def trained_once() -> dict[str, float]:
            began = time.process_time()
            found = train((self.space.text(genotype), 0), overrides(self.final), self.space_node)
            return {**found, "cpu_s": time.process_time() - began}

        return self.kept.once(f"{name}, alone", trained_once)

    def deployed(self, share: float, limit: int, epochs: int) -> dict[str, Any]:
        """What `supernet.deploy` makes of a limit of multiply-adds. share: of the largest network's."""
        name = f"limit {100 * share:.0f} %" + (f", fine-tuned {epochs}" if epochs else "")

        def found() -> dict[str, Any]:
            folder = f"share_{100 * share:.0f}_further_{epochs}"
            cpu = command("-m", "supernet.deploy", str(self.supernet()), f"limits={{multiply_adds:{limit}}}", f"name={folder}",
                          f"epochs={epochs}", f"trust=[{MODEL}]", "threads=1")
            where = self.supernet() / "deployed" / folder
            said = json.loads(read_text(where / "results.json", MAX_BYTES))
            return {"text": self.space.text(Genotype.load(where / "genotype.json")), "cpu_s": cpu, "limit": limit,
                    **{name: said[name] for name in ("validation", "shared_weights", "test", "costs")}}

        return self.kept.once(name, found)


def largest_of(study: Study) -> int:
    """Multiply-adds of the network as it is."""
    cost = study.cost()
    return round(cost(extremes(study.space, cost)[1]))


def limits(study: Study, shares: Sequence[float], fine_tuned: int) -> list[str]:
    largest, lines = largest_of(study), []
    for share in shares:
        inherited = study.deployed(share, int(share * largest), 0)
        further = study.deployed(share, int(share * largest), fine_tuned)
        alone = study.alone(f"limit {100 * share:.0f} %", study.space.parse(inherited["text"]))
        lines.append(f"at most {share * largest / 1e6:5.1f} M multiply-adds: {alone['multiply_adds'] / 1e6:5.1f} M, "
                     f"{alone['parameters'] / 1e3:5.0f} k parameters; test accuracy inherited {test_of(inherited):.2f}, fine-tuned "
                     f"{test_of(further):.2f}, alone {alone['test_accuracy']:.2f} %")
    return lines


def test_of(found: Mapping[str, Any]) -> float:
    return found["test"]["accuracy"]


def ranks(study: Study, networks: int) -> list[str]:
    genotypes = drawn(study.space, networks, random.Random(0))
    truth = np.array([study.alone(f"network {n}", genotype)["test_accuracy"] for n, genotype in enumerate(genotypes)])
    shared = np.array(study.kept.once(f"{networks} networks, shared", lambda: [found["accuracy"] for found in trained(
        RunFolder(study.supernet()), images=None, seed=0, device="cpu", trusted=[MODEL]).shared.stream(genotypes)]))
    cost = study.cost()
    sizes = np.array([cost(genotype) for genotype in genotypes])
    lines = []
    for name, by in (("shared weights", shared), ("multiply-adds", sizes)):
        low, high = kendall_interval(by, truth, np.random.default_rng(0))
        lines.append(f"{name}: Kendall tau {kendall(by, truth):.3f} [{low:.3f}, {high:.3f}] with the test accuracy of {networks} networks "
                     f"trained alone ({truth.min():.2f} to {truth.max():.2f} %)")
    return lines


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.elastic_network", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    made.add_argument("--root", default="data", help="where CIFAR-10 is")
    made.add_argument("--shares", nargs="+", type=float, default=[0.2, 0.35, 0.5, 0.7, 1.0], help="limits, of the largest's multiply-adds")
    made.add_argument("--networks", type=int, default=20, help="drawn for `ranks`")
    made.add_argument("--fine-tuned", type=int, default=2, metavar="EPOCHS")
    made.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="further options of all trainings")
    made.add_argument("--work", type=Path, default=HERE / "runs/elastic_network")
    made.add_argument("--out", type=Path, default=OUT)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    own = parser()
    given = own.parse_args(arguments)
    if not all(0 < share <= 1 for share in given.shares):
        own.error(f"--shares must be above 0 and at most 1, got {given.shares}")
    if given.networks < 3:
        own.error(f"--networks must be at least 3, got {given.networks}")
    if wrong := [word for word in given.set if "=" not in word]:
        own.error(f"--set takes OPTION=VALUE, got {wrong[0]}")
    more = dict(word.split("=", 1) for word in given.set)
    register()
    try:
        kept = Kept(given.out, "python -m benchmarks.elastic_network", {"common": COMMON, "search": SEARCH, "final": FINAL, "set": more})
    except (ValueError, OSError) as error:
        own.error(str(error))
    lines: list[str] = []
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            study = Study(kept, given.root, given.work, more)
            for part in given.parts:
                lines += [f"{part}:"]
                match part:
                    case "limits":
                        lines += limits(study, given.shares, given.fine_tuned)
                    case "ranks":
                        lines += ranks(study, given.networks)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

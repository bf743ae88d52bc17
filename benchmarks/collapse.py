"""Collapse and its remedies in S2 (skip connection or separable 3x3 on each edge), on a schedule that one CPU core can afford.

    python -m benchmarks.collapse --root data                # 21 searches of a quarter of an hour on an idle core, 42 short retrainings
    python -m benchmarks.collapse --root data --methods darts_first_order darts_minus --seeds 0
    python -m benchmarks.collapse --draw                           # only gathers what has run, draws and writes

Each method is searched with each seed, then the cell of the search's first epoch and the cell that it gives are trained alone. All of
that are runs of `train_search.py` and `train_final.py`, a process of one thread each: stopped or killed, the same command goes on where
they were. After every run benchmarks/results/collapse.json, docs/collapse.png and the tables in docs/collapse.md are written, of as many
runs as there are. Results already in the file count, also those made elsewhere; `--fresh` forgets them.

Every search is of first order, so that a method differs from DARTS by its remedy alone (R-DARTS and DARTS-ES were published with second
order, at about four times the cost).
"""

import argparse
import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import collapse_page
from supernet.genotype import Genotype
from supernet.runs.folder import RunFolder, write_json
from supernet.runs.journal import Journal
from supernet.runs.progress import Counted

HERE = Path(__file__).resolve().parent.parent
OUT = HERE / "benchmarks/results/collapse.json"
# A tenth of the images, and alphas that learn ten times as fast as published: as far as the published schedule, within minutes. An
# eigenvalue costs as much as an epoch, so that where it decides nothing there are half as many; its error is about the square of the bound.
SETTING = {"space": "s2", "layers": 5, "channels": 8, "batch_size": 64, "split.mode": "stratified", "split.max_train": 2500,
           "split.max_val": 2500, "epochs": 60, "alpha_optimizer.lr": 3e-3, "threads": 1, "wandb.mode": "disabled", "keep_checkpoints": 1,
           "monitor": "[eigenvalue]", "monitor.eigenvalue.every": 4, "monitor.eigenvalue.tolerance": 0.03}
FIRST_ORDER = {"hypergradient": "first_order"}
# By preset; what it has of its own here, beside what makes it of first order.
METHODS: dict[str, dict[str, Any]] = {"darts_first_order": {}, "darts_minus": {}, "beta_darts": {},
                                      # by its part alone: its preset also sets the learning rate of an epoch one value ahead
                                      "sdarts_rs": {"experiment": "darts_first_order_cifar10", "wrapper": "[random_perturbed]"},
                                      "r_darts_l2": FIRST_ORDER, "darts_es": FIRST_ORDER | {"monitor.eigenvalue.every": 2},
                                      "r_darts_dp": FIRST_ORDER}
RETRAINING = {"dataset": "cifar10", "layers": 5, "channels": 8, "batch_size": 64, "split.max_train": 5000, "epochs": 10,
              "dataset.augment.cutout": 0, "drop_path_prob": 0, "task.auxiliary_weight": 0, "threads": 1, "wandb.mode": "disabled",
              "keep_checkpoints": 1}
CELLS = ("first", "last")  # of the first epoch; that which the search gives: the last epoch's, or the one that DARTS-ES goes back to
WHERE = ("dataset.root", "output", "genotype", "resume")  # options that do not say what a run computes; a genotype is told by the name
DECIMALS = {"train_accuracy": 2, "val_accuracy": 2, "skip_share": 4, "alpha_eigenvalue": 5}


class Stopped(Exception):
    """A run was asked to stop; the same command goes on with it."""


# ---- runs: a script and its options


def search_options(method: str, seed: int, setting: Mapping[str, Any]) -> dict[str, Any]:
    return {"experiment": f"{method}_cifar10", **setting, **METHODS[method], "name": method, "seed": seed}


def final_options(seed: int, genotype: Genotype) -> dict[str, Any]:
    """Of no method: a cell that two searches of a seed have found is trained once."""
    return {**RETRAINING, "name": f"cell_{genotype.digest}", "seed": seed}


@dataclass(frozen=True)
class Runs:
    """Runs of the two scripts: where they lie, what they read, and whether one was asked to stop, so that no other begins."""

    folder: Path
    root: str | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def of(self, script: str, options: Mapping[str, Any]) -> list[RunFolder]:
        """Those that were started with these options, the newest first."""
        wanted = {f"{key}={value}" for key, value in options.items()}
        found = []
        for path in sorted(self.folder.glob("*/run.json"), reverse=True):
            run = RunFolder(path.parent)
            status = run.status() or {}
            given = {option for option in shlex.split(status.get("command", ""))[2:] if option.partition("=")[0] not in WHERE}
            if (status.get("script"), given) == (script, wanted):
                found.append(run)
        return found

    def finished(self, script: str, options: Mapping[str, Any]) -> RunFolder | None:
        return next((run for run in self.of(script, options) if run.status()["status"] == "finished" and run.summary.exists()), None)

    def finish(self, script: str, options: Mapping[str, Any], **where: Any) -> RunFolder:
        """The finished run: one that is there; else it is run here, or gone on with. A process that works on it, such as one that
        outlived a killed benchmark, is waited for. Raises Stopped, and RuntimeError with the last line of a run that fails."""
        while not self.stopping.is_set() and any(run.is_locked() for run in self.of(script, options)):
            time.sleep(1)
        if self.stopping.is_set():
            raise Stopped(options["name"])
        known = self.finished(script, options)
        if known is not None:
            return known
        where |= {"dataset.root": self.root, "output": self.folder, "resume": "auto"}
        words = [f"{key}={value}" for key, value in {**options, **where}.items()]
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{options['name']}_seed{options['seed']}.log"
        with open(log, "w") as file:  # no pipe: it would break, and the run with it, were this process killed
            code = subprocess.run([sys.executable, str(HERE / f"{script}.py"), *words], stdout=file, stderr=subprocess.STDOUT).returncode
        if code < 0 or code > 128:  # a signal
            self.stopping.set()
            raise Stopped(options["name"])
        if code:
            said = log.read_text().strip().splitlines() or [f"exit code {code}"]
            raise RuntimeError(f"{options['name']}, seed {options['seed']}: {said[-1]} ({log})")
        return self.finished(script, options)

    def search(self, method: str, seed: int, setting: Mapping[str, Any], gathered: Callable[[], Any]) -> None:
        """A search, and its two cells trained alone. `gathered` is called after each."""
        run = self.finish("train_search", search_options(method, seed, setting))
        gathered()
        for cell, genotype in cells(run).items():
            path = run.path / f"{cell}.json"
            genotype.save(path)
            self.finish("train_final", final_options(seed, genotype), genotype=path)
            gathered()


# ---- results: one dict a search


def cells(searched: RunFolder) -> dict[str, Genotype]:
    first = Journal.read(searched.genotypes)[0]["genotype"]
    return {"first": Genotype.from_json(first), "last": Genotype.load(searched.genotype)}


def skip_share(genotype: Genotype) -> float:
    ops = [edge.op for _, edges in genotype.cells for edge in edges]
    return ops.count("skip_connect") / len(ops)


def gather(runs: Runs, method: str, seed: int, setting: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of a search, finished or not, and of its cells; None where it has not begun. Lists run over epochs, with None where
    nothing was measured."""
    wanted = search_options(method, seed, setting)
    run = runs.finished("train_search", wanted) or next(iter(runs.of("train_search", wanted)), None)
    records = [] if run is None or not run.metrics.exists() else Journal.read(run.metrics)
    if not records:
        return None
    environment = json.loads(run.environment.read_text())
    curves = {key: [None if r.get(key) is None else round(r[key], digits) for r in records] for key, digits in DECIMALS.items()}
    found = {"method": method, "seed": seed, "options": METHODS[method], "finished": run.status()["status"] == "finished",
             "epochs": len(records), "minutes": round(records[-1]["elapsed_s"] / 60, 1), "commit": environment["git_commit"],
             "cpu": environment["cpu"], "torch": environment["torch"], "curves": curves}
    if found["finished"]:
        for cell, genotype in cells(run).items():
            found[cell] = {"skip_share": skip_share(genotype), "genotype": genotype.to_json()["cells"]}
            final = runs.finished("train_final", final_options(seed, genotype))
            if final is not None:
                values = json.loads(final.summary.read_text())["values"]
                found[cell] |= {"test_accuracy": values["test_accuracy"], "parameters": values["parameters"],
                                "minutes": round(values["elapsed_s"] / 60, 1)}
    return found


def known(path: Path, setting: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The searches of an earlier file. Raises ValueError: they are of other sizes."""
    if not path.exists():
        return []
    result = json.loads(path.read_text())
    for key, wanted in (("setting", setting), ("retraining", RETRAINING)):
        got = result.get(key, {})
        other = [name for name in {**wanted, **got} if wanted.get(name) != got.get(name)]
        if other:
            told = "; ".join(f"{name}: expected {wanted.get(name)}, got {got.get(name)}" for name in other[:3])
            raise ValueError(f"{path} holds results of another {key} ({told}); name another file with --out, or forget them with --fresh")
    return [run for run in result["runs"] if run["options"] == METHODS.get(run["method"])]


def complete(run: Mapping[str, Any]) -> bool:
    return run["finished"] and all("test_accuracy" in run[cell] for cell in CELLS)


def progress(run: Mapping[str, Any]) -> tuple[int, int]:
    """How far a search and its retrainings are, to be compared."""
    return run["epochs"] if not run["finished"] else 1_000_000, sum("test_accuracy" in run.get(cell, {}) for cell in CELLS)


def merged(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One of each method and seed, that which went further; the newer of equals."""
    best: dict[tuple[str, int], Mapping[str, Any]] = {}
    for run in (*old, *new):
        key = run["method"], run["seed"]
        if key not in best or progress(run) >= progress(best[key]):
            best[key] = run
    return [best[key] for key in sorted(best, key=lambda key: (list(METHODS).index(key[0]), key[1]))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="where CIFAR-10 lies")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=SETTING["epochs"])
    parser.add_argument("--processes", type=int, default=1, help="runs at the same time, of one thread each")
    parser.add_argument("--folder", type=Path, default=Path("runs/collapse"), help="of the runs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--page", type=Path, help="whose tables are rewritten, with the picture beside it; of results elsewhere than "
                                                  f"{OUT.relative_to(HERE)} there is none unless it is named")
    parser.add_argument("--fresh", action="store_true", help="forget the results in --out that are not in --folder")
    parser.add_argument("--draw", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    if not options.draw and options.root is None:
        parser.error("--root must say where CIFAR-10 lies, unless --draw")
    for name, values in (("--epochs", [options.epochs]), ("--processes", [options.processes])):
        if min(values) < 1:
            parser.error(f"{name} must be at least 1, got {values[0]}")
    setting = SETTING | {"epochs": options.epochs}
    page = options.page or (HERE / "docs/collapse.md" if options.out == OUT else None)
    try:
        before = [] if options.fresh else known(options.out, setting)
        if page is not None:
            collapse_page.check(page)
    except ValueError as error:
        parser.error(str(error))
    runs, writing = Runs(options.folder, options.root), threading.Lock()

    def gathered() -> dict[str, Any]:
        """Writes what there is."""
        with writing:
            new = [gather(runs, method, seed, setting) for method in METHODS for seed in options.seeds]
            result = {"command": "python -m benchmarks.collapse", "setting": setting, "retraining": RETRAINING,
                      "runs": merged(before, [run for run in new if run is not None])}
            if result["runs"]:
                write_json(options.out, result)
                if page is not None:
                    collapse_page.write(result, page)
            return result

    there = {(run["method"], run["seed"]) for run in gathered()["runs"] if complete(run)}
    jobs = [] if options.draw else [(m, seed) for seed in options.seeds for m in options.methods if (m, seed) not in there]
    code = run_all(runs, jobs, options.processes, lambda method, seed: runs.search(method, seed, setting, gathered))
    print("\n".join(collapse_page.tables(gathered())))
    return code


def run_all(runs: Runs, jobs: Sequence[tuple[str, int]], processes: int, work: Callable[[str, int], None]) -> int:
    """The exit code: 1 where a job failed, which keeps no other from running; 130 where one was stopped, which does."""
    failed = 0
    with ThreadPoolExecutor(processes) as pool, Counted(len(jobs), "jobs") as progress:
        futures = {pool.submit(work, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                    progress.hide()
                    print("{}, seed {}: finished".format(*futures[future]), flush=True)
                except RuntimeError as error:
                    progress.line(f"error: {error}")
                    failed = 1
                progress.add()
        except (KeyboardInterrupt, Stopped):
            runs.stopping.set()
            pool.shutdown(cancel_futures=True)
            progress.line("stopped; the same command goes on")
            return 130
    return failed


if __name__ == "__main__":
    sys.exit(main())

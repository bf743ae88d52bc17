"""`python -m supernet.tabulate`: every architecture of a small space, trained alone, in a table of our own.

Results are kept one by one in a journal beside the table, so that a run which was stopped, however it was, goes on where it was.
"""

import contextlib
import functools
import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, register, shows_errors
from supernet.app.options import CONF, overrides, plain
from supernet.commands.drawn import drawn
from supernet.commands.pool import Pool
from supernet.errors import UsageError
from supernet.runs.journal import Journal
from supernet.runs.progress import Counted

METRICS = ("val_accuracy", "test_accuracy", "seconds")  # of each seed; the table also has their means
SIZES = ("parameters", "multiply_adds")  # of the architecture


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="tabulate")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "tabulate")
    from supernet.app import compose as composed
    from supernet.app.build import space_from

    with composing():
        space = space_from(cfg.space)
        if cfg.n is None and space.count() > cfg.limit:
            raise UsageError(f"space {space.name} has {space.count():.4g} architectures, more than limit={cfg.limit:,}: pass n=... for a "
                             "sample of them")
        # what the command line says of the data set goes to every training, and the protocol follows the choice
        chosen = plain(cfg)
        options = [o for o in HydraConfig.get().overrides.task if o.startswith("dataset")]
        options += overrides(chosen["training"] | (chosen["options"] or {}))
        final = final_options(options)
        if not final.split.get("val_portion"):
            raise UsageError("a table needs validation accuracies: pass split.val_portion above 0 among the options")
        composed.settle_sizes(final, space)
    output = Path(cfg.output or f"data/tables/{space.name}.csv.gz")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"output={output}: cannot make the folder ({error.strerror})") from error
    key = hashlib.sha256(json.dumps([space.fingerprint, plain(final)], sort_keys=True).encode()).hexdigest()[:16]
    # The sample grows with n: what was trained of a smaller one counts.
    texts = [space.text(g) for g in (space.enumerate() if cfg.n is None else drawn(space, cfg.n, random.Random(0)))]
    jobs = [(text, seed) for seed in cfg.seeds for text in texts]
    with kept(output.with_name(output.name + ".journal"), key) as (done, add):
        left = [job for job in jobs if job not in done]
        print(f"{space.name} on {cfg.dataset.name}: {len(texts)} architectures, {len(cfg.seeds)} seed{'s' if len(cfg.seeds) != 1 else ''}, "
              f"{len(left)} of {len(jobs)} trainings left", flush=True)
        with Counted(len(left), "trainings") as progress:
            for job, metrics in results(left, options, plain(cfg.space), cfg.processes):
                add(job, metrics)
                progress.add(said=f"{job[0]}  seed {job[1]}  validation {metrics['val_accuracy']:.2f} %  test "
                             f"{metrics['test_accuracy']:.2f} %")
        write(output, space, texts, list(cfg.seeds), done, cfg.dataset.name)
    print(f"written   {output}")


def final_options(options: list[str]) -> DictConfig:
    """train_final.py's options. Raises UsageError through `validate`."""
    final = compose("final", overrides=options)
    validate(final, "train_final")
    return final


def results(jobs: list[tuple[str, int]], options: list[str], space: dict[str, Any],
            processes: int) -> Iterator[tuple[tuple[str, int], dict[str, float]]]:
    """Each job with its metrics, as they come."""
    if processes == 1:
        for job in jobs:
            yield job, train(job, options, space)
        return
    with Pool(processes, know_configs) as pool:
        yield from pool.as_they_come(functools.partial(train, options=options, space_node=space), jobs)


def know_configs() -> None:
    """For a worker, which Hydra has not started."""
    register()
    GlobalHydra.instance().clear()
    initialize_config_dir(str(CONF), version_base="1.3")


def train(job: tuple[str, int], options: list[str], space_node: dict[str, Any]) -> dict[str, float]:
    """Trains one architecture from one seed, as train_final.py does, and tests it once."""
    from supernet.app import compose as composed
    from supernet.app.build import space_from
    from supernet.networks.measure import multiply_adds_an_item, parameters
    from supernet.training.evaluate import evaluate
    from supernet.training.final import fit_final

    text, seed = job
    cfg = final_options([*options, f"seed={seed}"])
    space = space_from(OmegaConf.create(space_node))
    parts = composed.final_parts(cfg, space, space.parse(text))
    started, last = time.perf_counter(), Last()
    fit_final(parts.loop, cfg.epochs, last)
    seconds = time.perf_counter() - started
    with parts.loop.evaluated():
        test = evaluate(parts.net, parts.task, parts.test, lambda: None, parts.loop.generators["net"], parts.loop.context)
    return {"val_accuracy": last.record["val_accuracy"], "test_accuracy": test["accuracy"], "seconds": seconds,
            "parameters": parameters(parts.net), "multiply_adds": multiply_adds_an_item(parts.net, parts.data.example(parts.device))}


class Last:
    """A recorder that keeps the last epoch's record."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {}

    def step(self, items: int, totals: Any) -> None:
        pass

    def epoch(self, record: dict[str, Any], genotype: Any) -> None:
        self.record = record


@contextlib.contextmanager
def kept(path: Path, key: str) -> Iterator[tuple[dict[tuple[str, int], dict[str, float]], Any]]:
    """What is done already, and a function that adds to it, on the disk before it returns. Lines of other options (another `key`) are
    left alone; a line that was cut off by a crash is passed over. Raises JournalError: another process works on it, or it cannot be
    written."""
    journal = Journal(path)
    with journal.held():
        done: dict[tuple[str, int], dict[str, float]] = {}
        for entry in journal.readable(path):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                if entry["key"] == key:
                    done[entry["arch"], entry["seed"]] = {name: float(entry["metrics"][name]) for name in (*METRICS, *SIZES)}

        def add(job: tuple[str, int], metrics: dict[str, float]) -> None:
            journal.keep({"key": key, "arch": job[0], "seed": job[1], "metrics": metrics})
            done[job] = metrics

        yield done, add


def write(output: Path, space: Any, texts: list[str], seeds: list[int], done: dict[tuple[str, int], dict[str, float]],
          dataset: str) -> None:
    from supernet.tables.files import write_table
    from supernet.tables.table import Columns

    columns: dict[str, list[float]] = {}
    for name in METRICS:
        columns[name] = [sum(done[text, seed][name] for seed in seeds) / len(seeds) for text in texts]
    for name in SIZES:
        columns[name] = [done[text, seeds[0]][name] for text in texts]
    for name in METRICS:
        for seed in seeds:
            columns[f"{name}_seed{seed}"] = [done[text, seed][name] for text in texts]
    write_table(output, space, texts, columns, {dataset: Columns("val_accuracy", "test_accuracy", "seconds")})


def command() -> None:
    """The console command."""
    cli(main)

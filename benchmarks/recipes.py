"""What the recipes of final training are worth: `python -m benchmarks.recipes`, from the repository root.

    python -m benchmarks.recipes --parts equal_time --root data                        # darts, modern, fast: the same processor time
    python -m benchmarks.recipes --parts proxy --root data --table nb201.csv.gz        # how well short trainings rank 30 cells
    python -m benchmarks.recipes --parts photographs                                   # recipe=imagenet on a folder that is made for it

`equal_time`: one cell is trained by each recipe for as many whole epochs as fit into `--budget` seconds of one processor core, measured
on a few steps beforehand (kept, so that all seeds train as long). Processor time, for a machine may have other work. Reduced sizes, which
the file says. `proxy`: cells of NAS-Bench-201 drawn uniformly are trained briefly by `fast` and, to compare, by `darts` for as many epochs;
Kendall's tau between the accuracy on held-out training images and the table's test accuracy, with a bootstrap interval. `photographs`:
JPEGs are made, a training of two epochs at 224x224 is broken off in the middle and goes on from its state, compared bit for bit with one
that was not, and with one on the same images in tar files; images a second that the loader alone gives with 0, 1 and 2 workers, from files
and from tar files by turns; and the size and time of the published training.

What is done is written as soon as it is done; stopped or killed, the same command goes on.
"""

import argparse
import io
import random
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from benchmarks.kept import Kept
from supernet.app.checks import validate
from supernet.app.command_line import register
from supernet.app.compose import FinalParts, final_parts
from supernet.app.earlier import weights_digest
from supernet.app.options import CONF, overrides
from supernet.commands.drawn import drawn
from supernet.commands.final import dry_run_rows
from supernet.genotype import Genotype, find
from supernet.report.statistics import kendall, kendall_interval, sample
from supernet.space import Space
from supernet.spaces import darts, nasbench201
from supernet.tables.files import read_table
from supernet.training.evaluate import evaluate
from supernet.training.final import fit_final
from supernet.training.records import Silent

OUT = Path(__file__).resolve().parent / "results/recipes.json"
PARTS = ("equal_time", "proxy", "photographs")
RECIPES = ("darts", "modern", "fast")
PROXIES = ("fast", "darts")
# Reduced, so that all of it takes an hour of one core.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "equal_time": {"dataset": "cifar10", "protocol": "fast", "layers": 5, "channels": 8, "batch_size": 96, "split.max_train": 5000,
                   "split.val_portion": 0.1, "split.mode": "stratified", "drop_path_prob": 0.0, "task.auxiliary_weight": 0.0},
    "proxy": {"dataset": "cifar10", "protocol": "fast", "layers": 5, "channels": 8, "batch_size": 64, "epochs": 5, "split.max_train": 4000,
              "split.val_portion": 0.1, "split.mode": "stratified", "drop_path_prob": 0.0, "task.auxiliary_weight": 0.0,
              "dataset.augment.cutout": 0},
    "photographs": {"dataset": "imagenet", "recipe": "imagenet", "layers": 3, "channels": 8, "batch_size": 32, "eval_batch_size": 32,
                    "epochs": 2, "w_optimizer.lr": 0.05},
}


def options_of(sizes: Mapping[str, Any], **more: Any) -> DictConfig:
    cfg = compose("final", overrides=overrides({**sizes, "threads": 1, **more}))
    validate(cfg, "train_final")
    return cfg


def epochs_within(cfg: DictConfig, space: Space, genotype: Genotype, budget_s: float) -> dict[str, float]:
    """How many whole epochs fit into so much processor time, at least one, from ten steps after three."""
    parts = final_parts(cfg, space, genotype)
    batches, began = iter(parts.loop.train), 0.0
    for n in range(13):
        if n == 3:
            began = time.process_time()
        batch = next(batches, None)
        if batch is None:
            batches = iter(parts.loop.train)
            batch = next(batches)
        parts.loop.step(batch)
    step_s = (time.process_time() - began) / 10
    return {"step_s": step_s, "epochs": max(1, int(budget_s / (step_s * len(parts.loop.train))))}


def trained(cfg: DictConfig, space: Space, genotype: Genotype) -> dict[str, float]:
    """One training to its end, and its accuracies in percent."""
    cpu, wall = time.process_time(), time.perf_counter()
    parts = final_parts(cfg, space, genotype)
    fit_final(parts.loop, cfg.epochs, Silent())
    seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    return seconds | {"val_accuracy": measured(parts, parts.loop.val), **{f"test_{key}": value for key, value in tested(parts).items()}}


def tested(parts: FinalParts) -> dict[str, float]:
    loop = parts.loop
    with loop.evaluated():
        found = evaluate(loop.net, parts.task, parts.test, lambda: None, loop.generators["net"], loop.context)
    return {key: found[key] for key in ("accuracy", "loss", "expected_calibration_error") if key in found}


def measured(parts: FinalParts, batches: Any) -> float:
    loop = parts.loop
    with loop.evaluated():
        return evaluate(loop.net, parts.task, batches, lambda: None, loop.generators["net"], loop.context)["accuracy"]


def equal_time(kept: Kept, sizes: Mapping[str, Any], seeds: int, budget_s: float) -> list[str]:
    space, cell, lines = darts.make(), find("darts_v2"), []
    for recipe in RECIPES:
        pace = kept.once(f"pace of {recipe}", lambda: epochs_within(options_of(sizes, recipe=recipe, epochs=1), space, cell, budget_s))
        rows = [kept.once(f"{recipe}, seed {seed}", lambda: trained(
            options_of(sizes, recipe=recipe, epochs=pace["epochs"], seed=seed), space, cell)) for seed in range(seeds)]
        accuracy, cpu = (sample([row[key] for row in rows]) for key in ("test_accuracy", "cpu_s"))
        lines.append(f"{recipe:8} {pace['epochs']:3} epochs  {cpu.mean:6.0f} s of a core  test {accuracy.mean:.2f} +- "
                     f"{accuracy.deviation:.2f} % (n={seeds})")
    return lines


def proxy(kept: Kept, sizes: Mapping[str, Any], cells: int, path: Path) -> list[str]:
    space = nasbench201.make()
    table, lines = read_table(path, space), []
    genotypes = drawn(space, cells, random.Random(0))
    truth = np.array([table.value(g, table.dataset("cifar10").test) for g in genotypes])
    for recipe in PROXIES:
        rows = [kept.once(f"{recipe}, {space.text(g)}", lambda: trained(options_of(sizes, recipe=recipe), space, g)) for g in genotypes]
        short = np.array([row["val_accuracy"] for row in rows])
        low, high = kendall_interval(short, truth, np.random.default_rng(0))
        cpu = np.mean([row["cpu_s"] for row in rows])
        lines.append(f"{recipe:8} Kendall tau {kendall(short, truth):.3f} [{low:.3f}, {high:.3f}] over {cells} cells, {cpu:.0f} s of a "
                     "core each")
    return lines


def make_photographs(root: Path, per_class: int, tested_per_class: int) -> None:
    """JPEGs of several sizes around 300 pixels; three classes, told apart by colour and stripes."""
    rng, picked = np.random.default_rng(0), random.Random(0)
    for n, name in enumerate(("ant", "bee", "cat")):
        for part, count in (("train", per_class), ("val", tested_per_class)):
            (root / part / name).mkdir(parents=True)
            for k in range(count):
                width, height = picked.choice(((320, 260), (256, 400), (375, 500), (300, 300)))
                stripes = 30 * np.sin(np.arange(width) / (n + 4))[None, :, None]
                pixels = rng.normal(100, 30, (height, width, 3)) + 60 * np.eye(3)[n] + stripes
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / part / name / f"{k:04}.jpg", quality=90)


def make_shards(folder: Path, root: Path, images: int = 100) -> None:
    """The same in tar files of so many images, in an order that is drawn, as webdataset advises."""
    for part in sorted(folder.iterdir()):
        paths = sorted(part.rglob("*.jpg"))
        random.Random(0).shuffle(paths)
        (root / part.name).mkdir(parents=True)
        for n in range(0, len(paths), images):
            with tarfile.open(root / part.name / f"{n // images:04}.tar", "w") as tar:
                for path in paths[n : n + images]:
                    tar.add(path, str(path.relative_to(part)))


class Broken(Exception):
    pass


class BreakAfter(Silent):
    """A recorder that ends the training after so many steps, as a kill would after a checkpoint."""

    def __init__(self, steps: int):
        self.left = steps

    def step(self, items: int, totals: Any) -> None:
        self.left -= 1
        if not self.left:
            raise Broken


def resumed_bits(cfg: DictConfig) -> dict[str, Any]:
    """Digests of the weights of an unbroken training, and of one that is broken off in its second epoch and goes on from its state in parts
    that were built anew."""
    space, cell = darts.make(), find("darts_v2")
    whole = final_parts(cfg, space, cell)
    fit_final(whole.loop, cfg.epochs, Silent())
    broken, file = final_parts(cfg, space, cell), io.BytesIO()
    steps = len(broken.loop.train)
    try:
        fit_final(broken.loop, cfg.epochs, BreakAfter(steps - 1 + max(1, steps // 2)))  # no step is told after an epoch's last
    except Broken:
        torch.save({name: part.state_dict() for name, part in broken.loop.stateful().items()}, file)
    file.seek(0)
    again, state = final_parts(cfg, space, cell), torch.load(file, weights_only=True)
    for name, part in again.loop.stateful().items():
        part.load_state_dict(state[name])
    at = again.loop.position.step
    fit_final(again.loop, cfg.epochs, Silent())
    one, other = (weights_digest(parts.net.state_dict()) for parts in (whole, again))
    return {"broken_at_step": at, "of_steps": cfg.epochs * steps, "same_bits": one == other, "digest": one[:16]}


def digest_of(cfg: DictConfig) -> str:
    """Of the weights that a training ends with."""
    parts = final_parts(cfg, darts.make(), find("darts_v2"))
    fit_final(parts.loop, cfg.epochs, Silent())
    return weights_digest(parts.net.state_dict())[:16]


def images_per_second(options: Mapping[str, DictConfig], passes: int = 4) -> dict[str, dict[str, float]]:
    """Of loaders alone: files decoded, cut, resized, and changed. The first pass of each, which reads from the disk, does not count; the
    others take turns, so that what else the machine does meets all alike, and the fastest counts. `wall`, and `cpu`: a second of processor
    time, of workers too."""
    loaders = {name: final_parts(cfg, darts.make(), find("darts_v2")).loop.train for name, cfg in options.items()}
    found = {name: {"wall": 0.0, "cpu": 0.0} for name in loaders}
    for n in range(passes):
        for name, loader in loaders.items():
            wall, cpu = time.perf_counter(), processor_s()
            items = sum(len(labels) for _, labels in loader)
            if n:
                now = {"wall": time.perf_counter() - wall, "cpu": processor_s() - cpu}
                found[name] = {kind: max(best, items / now[kind]) for kind, best in found[name].items()}
    return found


def processor_s() -> float:
    """Of this process and of its children that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def photographs(kept: Kept, sizes: Mapping[str, Any], per_class: int, real: Mapping[str, Any]) -> list[str]:
    with tempfile.TemporaryDirectory() as where:
        folder, tars = Path(where, "folder"), Path(where, "tars")
        make_photographs(folder, per_class, max(2, per_class // 10))
        make_shards(folder, tars)
        kinds = {"files": {**sizes, "dataset.root": str(folder)},
                 "tar files": {**sizes, "dataset": "imagenet_shards", "dataset.root": str(tars)}}
        bits = kept.once("photographs, broken", lambda: resumed_bits(options_of(kinds["files"])))
        packed = kept.once("photographs, tar files", lambda: digest_of(options_of(kinds["tar files"])))
        speeds = {n: kept.once(f"photographs, {n} workers", lambda: images_per_second(
            {kind: options_of(given, workers=n) for kind, given in kinds.items()})) for n in range(3)}

        def published() -> dict[str, str]:
            cfg = options_of({"dataset": "imagenet", "recipe": "imagenet", "dataset.root": str(folder), "genotype": "darts_v2",
                              **real})
            return dict(dry_run_rows(cfg, final_parts(cfg, darts.make(), find("darts_v2"))))
        rows = kept.once("photographs, published size", published)
    return [f"broken off at step {bits['broken_at_step']} of {bits['of_steps']}: {'the same bits' if bits['same_bits'] else 'OTHER BITS'}",
            f"the same images in tar files: {'the same bits' if packed == bits['digest'] else 'OTHER BITS'}",
            *(f"images a second from {kind}: " + ", ".join(
                f"{found[kind]['wall']:.0f} with {n} workers ({found[kind]['cpu']:.0f} a second of processor time)"
                for n, found in speeds.items()) for kind in kinds),
            *(f"{name}: {value}" for name, value in rows.items())]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    made.add_argument("--root", default="data", help="where CIFAR-10 is")
    made.add_argument("--table", type=Path, help="of NAS-Bench-201 (docs/tables.md), for `proxy`")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--budget", type=float, default=180.0, help="seconds of one core for a training of `equal_time`")
    made.add_argument("--cells", type=int, default=30)
    made.add_argument("--per-class", type=int, default=100, help="photographs of each of three classes")
    made.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="further options of the trainings, as train_final.py's")
    made.add_argument("--real", nargs="*", default=["batch_size=16"], metavar="OPTION=VALUE",
                      help="of the published training whose time is measured; a batch of 1,024 images takes 100 GiB")
    made.add_argument("--out", type=Path, default=OUT)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    own = parser()
    given = own.parse_args(arguments)
    for name, least, most in (("seeds", 2, 100), ("cells", 3, 15_625), ("per_class", 20, 10_000)):
        if not least <= getattr(given, name) <= most:
            own.error(f"--{name.replace('_', '-')} must be from {least} to {most}, got {getattr(given, name)}")
    if "proxy" in given.parts and (given.table is None or not given.table.is_file()):
        own.error(f"--table must be a file, a table of NAS-Bench-201, got {given.table}")
    if wrong := [word for word in (*given.set, *given.real) if "=" not in word]:
        own.error(f"--set and --real take OPTION=VALUE, got {wrong[0]}")
    more, real = (dict(word.split("=", 1) for word in words) for words in (given.set, given.real))
    sizes = {part: {**SIZES[part], **more} for part in PARTS}
    how = {"sizes": dict(sizes), "budget_s": given.budget, "per_class": given.per_class, "real": real}
    try:
        kept = Kept(given.out, "python -m benchmarks.recipes", how)
    except (ValueError, OSError) as error:
        own.error(str(error))
    for part in ("equal_time", "proxy"):
        sizes[part] = {"dataset.root": given.root, **sizes[part]} if sizes[part]["dataset"] == "cifar10" else sizes[part]
    register()
    lines: list[str] = []
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for part in given.parts:
                lines += [f"{part}:"]
                match part:
                    case "equal_time":
                        lines += equal_time(kept, sizes[part], given.seeds, given.budget)
                    case "proxy":
                        lines += proxy(kept, sizes[part], given.cells, given.table)
                    case "photographs":
                        lines += photographs(kept, sizes[part], given.per_class, real)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python train_final.py`, `supernet-final`: trains an architecture from scratch and tests it once, at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, shows_errors
from supernet.app.options import CONF, newest_genotype
from supernet.errors import UsageError
from supernet.genotype import Genotype

if TYPE_CHECKING:
    from supernet.app.compose import FinalParts
    from supernet.data.loader import Loader
    from supernet.processes.group import Group
    from supernet.runs.log import Progress
    from supernet.runs.run import Run
    from supernet.tasks.base import Batch


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="final")
@shows_errors
def main(cfg: DictConfig) -> None:
    # Heavy imports wait until the options are known to be good.
    validate(cfg, "train_final")
    from supernet import notation
    from supernet.app.build import space_from
    from supernet.runs.folder import check_in_run

    if cfg.genotype == "latest":
        cfg.genotype = newest_genotype(cfg.output, cfg.dataset.name)
    check_in_run(Path(cfg.genotype))
    genotype = notation.find(cfg.genotype, None if cfg.space is None else space_from(cfg.space))

    from supernet.processes.joined import joined

    with joined(cfg.device) as group:
        train(cfg, genotype, group)


def train(cfg: DictConfig, genotype: Genotype, group: "Group") -> None:
    """By one process, or as one of several, of which the first writes, speaks, and tests at the end."""
    from supernet.app import compose
    from supernet.app.build import space_from, space_of
    from supernet.app.retraining import retraining_of
    from supernet.commands.training import Followed, Recorded, job_of
    from supernet.report.pictures import save_drawings
    from supernet.report.summary import save_genotype
    from supernet.runs import disk
    from supernet.runs.run import table
    from supernet.training.final import fit_final

    # ---- compose: plain objects from the options; nothing is written yet
    with composing():
        space = space_of(genotype) if cfg.space is None else space_from(cfg.space)
        space.validate(genotype)
        job = job_of(cfg, "train_final", space, genotype, group=group)
        parts = compose.final_parts(cfg, space, genotype, group)
    if cfg.extend is not None and Genotype.load(f"{cfg.extend}/genotype.json") != genotype:
        raise UsageError(f"extend={cfg.extend}: that run trains another genotype")
    loop = parts.loop
    if cfg.dry_run:
        rows = dry_run_rows(cfg, parts)
        if group.leads:
            print(table(rows))
        return

    # ---- the run folder, new or gone on with; training, and the test
    moving: dict[str, Any] = {"stateful": loop.stateful(), "before_save": loop.guard.before_save}
    if not group.leads:
        with Followed(group, **moving).begun() as run:
            fit_final(loop, cfg.epochs, run)
        return
    recorded = Recorded(cfg, "train_final", job, parts, **moving, position=loop.position, group=group,
                        later=disk.of_final(loop),
                        rate=lambda: loop.rate(loop.position.epoch, cfg.epochs), genotype=genotype)
    with recorded.begun(first_lines(cfg, parts)) as run:
        save_genotype(run.folder, genotype, space, retraining_of(cfg.genotype))
        save_drawings(run.folder, genotype, space)
        fit_final(loop, cfg.epochs, run)
        with group.apart():
            rows = tested(cfg, parts, genotype, run)
    print(f"\n{table(rows)}\n\nweights   {run.folder.weights}\nreport    {run.folder.report}")


def dry_run_rows(cfg: DictConfig, parts: "FinalParts") -> list[tuple[str, str]]:
    """Sizes, memory and time of the training, measured on a few of its steps."""
    from supernet.report.summary import size_text
    from supernet.runs import disk, dry_run

    loop = parts.loop
    batch = next(iter(loop.train))
    parts.net.drop_path_prob = cfg.drop_path_prob  # as in the last epochs, which need most memory
    rows = dry_run.report(parts.net, lambda: loop.step(batch), evaluation=loop.evaluate_batch, example=parts.data.example(parts.device),
                          item=parts.data.item, batch_size=cfg.batch_size, steps_per_epoch=len(loop.train), epochs=cfg.epochs,
                          device=parts.device, remedies=dry_run.smaller(batch_size=cfg.batch_size, channels=cfg.channels),
                          group=loop.group)
    size = disk.checkpoint_bytes(loop.stateful(), disk.of_final(loop))
    rows.append(("disk", disk.told(size, cfg.keep_checkpoints, Path(cfg.output))))
    return [("final network", f"{cfg.genotype}, {size_text(cfg.layers, cfg.channels)} (auxiliary head not counted)"),
            *([("sizes", parts.fitted)] if parts.fitted else []), *rows]


def first_lines(cfg: DictConfig, parts: "FinalParts") -> list[str]:
    """What a training says of itself before its first step."""
    from supernet.app.retraining import retraining_note
    from supernet.networks.measure import parameters
    from supernet.report.summary import size_text

    data, split = parts.data, parts.loaders.split
    held_out = f"{len(split.val)} held out for validation" if parts.loop.val else "none held out"
    return [*parts.loaders.about, f"data {data.name}: {len(split.train)} training {data.item}s, {held_out} (split {split.digest})",
            f"network {cfg.genotype}: {size_text(cfg.layers, cfg.channels)}, {parameters(parts.net) / 1e6:.3f} M parameters",
            *([parts.fitted] if parts.fitted else []),
            *parts.loop.notes, f"recipe {cfg.recipe}: tested and kept are {parts.loop.average.name}",
            *retraining_note(cfg.genotype, HydraConfig.get().runtime.choices["protocol"], cfg.recipe)]


def tested(cfg: DictConfig, parts: "FinalParts", genotype: "Genotype", run: "Run") -> list[tuple[str, str]]:
    """The test, read once, and what is said of it; weights, predictions, summary and report are written."""
    from supernet.networks.measure import multiply_adds_an_item, parameters
    from supernet.report.summary import class_tables, final_rows, save_summary
    from supernet.runs import dry_run
    from supernet.runs.predictions import Keeping
    from supernet.runs.weights import save_weights
    from supernet.training.evaluate import summed

    loop, net, data, item, folder = parts.loop, parts.net, parts.data, parts.data.item, run.folder
    with loop.evaluated():
        save_weights(folder.weights, net, data, genotype, run.config_hash, which=loop.average.name)
        keeping = Keeping(parts.task, parts.test.num_items, data.facts().get("class_names", ()))
        sums = summed(net, keeping, told(parts.test, run.progress), lambda: None, loop.generators["net"], loop.context)
    result, predictions = parts.task.evaluated(sums), keeping.predictions()
    if predictions is not None:
        folder.write(folder.predictions, predictions.as_bytes())
    last = run.metrics.read(folder.metrics)[-1]
    count = multiply_adds_an_item(net, data.example(parts.device))
    habit = "reported after every epoch (protocol=paper)" if cfg.report_test_every_epoch else "read once, at the end"
    rows = [*final_rows(parts.task, last, result, f"{parts.test.num_items} {item}s, {habit}",
                        f"{len(parts.loaders.split.val)} {item}s" if loop.val else None),
            ("parameters", f"{parameters(net) / 1e6:.6f} M"), ("multiply-adds", f"{count / 1e6:.3f} M per {item}"),
            ("genotype", f"{genotype.digest} ({cfg.genotype})"), ("recipe", f"{cfg.recipe}; tested and kept: {loop.average.name}"),
            ("training time", f"{dry_run.duration(run.elapsed())} on {parts.device}"), ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
    values = {f"test_{key}": value for key, value in result.items()} | {
        f"test_{item}s": parts.test.num_items, "parameters": parameters(net), "multiply_adds": count, "elapsed_s": run.elapsed(),
        "recipe": cfg.recipe, "weights": loop.average.name, "genotype": genotype.to_json()}
    tables = {} if predictions is None else class_tables(sums, predictions.class_names)
    save_summary(folder, f"Final training on {data.name}", rows, values, tables)
    from supernet.report.html import write_report  # Matplotlib waits until there is something to draw

    write_report(folder.path)
    run.results(genotype, values)
    return rows


def told(batches: "Loader", progress: "Progress") -> "Iterator[Batch]":
    """The batches, with a line that says how many are done."""
    for n, batch in enumerate(batches):
        progress.working(n, len(batches), "test batches")
        yield batch


def command() -> None:
    """The console command."""
    cli(main, many=True)

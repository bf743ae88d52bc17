"""`python train_search.py`, `supernet-search`: searches for an architecture.

Trains a supernet by bilevel optimisation, selects a cell, writes genotype.json and a report.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, shows_errors
from supernet.app.options import CONF, choices, override, own_overrides, plain
from supernet.app.searched_on import data_name

if TYPE_CHECKING:
    from supernet.app.compose import SearchParts
    from supernet.genotype import Genotype
    from supernet.processes.group import Group
    from supernet.runs.run import Run
    from supernet.space import Space
    from supernet.training.records import Recorder
    from supernet.training.stages import Stages


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="search")
@shows_errors
def main(cfg: DictConfig) -> None:
    # Heavy imports wait until the options are known to be good.
    validate(cfg, "train_search")
    from supernet.processes.joined import joined

    with joined(cfg.device) as group:
        (search if cfg.searcher is None else search_by_trials)(cfg, group)


def search(cfg: DictConfig, group: "Group") -> None:
    """By one process, or as one of several, of which the first writes and speaks."""
    from supernet.app import compose
    from supernet.app.build import space_from
    from supernet.commands.training import Followed, Recorded, job_of
    from supernet.report.pictures import pictures
    from supernet.report.summary import cost_rows, edge_names
    from supernet.runs import disk
    from supernet.runs.run import table
    from supernet.runs.weights import search_description
    from supernet.training.stages import fit_stages

    # ---- compose: plain objects from the options; nothing is written yet
    with composing():
        job = job_of(cfg, "train_search", space_from(cfg.space), group=group)
        parts = compose.search_parts(cfg, compose.search_machine(cfg, group))
        stages = compose.search_stages(cfg, parts)
    if cfg.dry_run:
        rows = dry_run_rows(cfg, parts, stages)
        if group.leads:
            print(table(rows))
        return

    def work(run: "Recorder") -> tuple["Genotype", list[tuple[str, str]]]:
        """The genotype, and what it costs."""
        fit_stages(stages, run)
        run.begun_work()
        genotype = stages.loop.genotype()
        group.check_same(lambda: {"genotype": genotype.digest})
        return genotype, cost_rows(stages.loop.cost, genotype)

    # ---- the run folder, new or gone on with; search
    moving: dict[str, Any] = {"stateful": stages.stateful(), "before_save": lambda: stages.loop.guard.before_save()}
    if not group.leads:
        with Followed(group, **moving).begun() as run:
            work(run)
        return
    recorded = Recorded(cfg, "train_search", job, parts, **moving, position=stages.loop.position, group=group,
                        later=disk.of_search(stages.loop, cfg.epochs),
                        rate=lambda: stages.loop.rates(stages.loop.position.epoch, cfg.epochs)[0],
                        about=lambda: search_description(stages.loop.search.net, parts.data, stages.loop.search.relaxation.mean())
                        | {"tables": edge_names(parts.space)},
                        images=lambda run, genotype: pictures(run.folder, genotype, parts.space,
                                                              stages.loop.search.relaxation.mean().detach()))
    cost = stages.loop.cost
    with recorded.begun(first_lines(cfg, parts, {} if cost is None else {cost.name: cost})) as run:
        genotype, costs = work(run)
        rows = found(cfg, parts, stages, run, genotype, costs)
    last_lines(cfg, parts.space, genotype, rows, run)


def search_by_trials(cfg: DictConfig, group: "Group") -> None:
    """The same with a searcher, which decides the genotype after the supernet's epochs, of which there may be none."""
    from supernet.commands import trial_search
    from supernet.runs.run import table

    with composing():
        made = trial_search.composed(cfg, group)
    offer, described = made.offer, trial_search.described(made.trials)
    if cfg.dry_run:
        rows = [*(dry_run_rows(cfg, offer.parts, offer.stages) if made.trains else []), *described]
        if group.leads:
            limits = made.trials.objective.at_most
            print("\n".join([*(on_limits(offer.parts, made.trials.costs, limits) if made.trains else []), *trial_search.notes(made.trials),
                             table(rows)]))
        return
    if not group.leads:
        with trial_search.followed(cfg, made).begun() as run:
            trial_search.helped(made, run)
        return
    space = offer.whole
    limits = made.trials.objective.at_most
    nothing = f"space {space.name}: {space.count():.3g} architectures, no supernet"
    lines = first_lines(cfg, offer.parts, made.trials.costs, limits) if made.trains else [nothing]
    lines += [*(f"{name} {text}" for name, text in described), *trial_search.notes(made.trials)]
    with trial_search.recorded(cfg, made).begun(lines) as run:
        genotype, rows = trial_search.decided(cfg, made, run)
    last_lines(cfg, space, genotype, rows, run)


def dry_run_rows(cfg: DictConfig, parts: "SearchParts", stages: "Stages") -> list[tuple[str, str]]:
    """Sizes, memory and time of the search, measured on a few of its steps."""
    from supernet.report.summary import size_text
    from supernet.runs import disk, dry_run, sizes

    while not stages.is_last and stages.plan[stages.index + 1].candidates is not None:  # where stages open a space, the last runs most
        stages.advance()
    loop, space = stages.loop, parts.space
    batches = (next(iter(loop.train)), next(loop.alpha_batches))
    how = {} if loop.graphed is None else {"settling": loop.graphed.warm_up + 1, "graphs": True}
    if parts.relaxation.samples(parts.generators["alpha"]):
        how["steps"] = dry_run.DRAWS
    parts.net.drop_path_prob = cfg.drop_path_prob  # as in the last epochs, which need most memory
    rows = dry_run.report(parts.net, lambda: loop.step(*batches), evaluation=loop.evaluate_batch, example=parts.data.example(parts.device),
                          item=parts.data.item, batch_size=cfg.batch_size, steps_per_epoch=len(parts.loaders.train), epochs=cfg.epochs,
                          device=parts.device, remedies=dry_run.smaller(batch_size=cfg.batch_size, channels=cfg.channels),
                          group=loop.search.group, **how)
    size = disk.checkpoint_bytes(stages.stateful(), disk.of_search(loop, cfg.epochs))
    rows.append(("disk", disk.told(size, cfg.keep_checkpoints, Path(cfg.output))))
    about = [(name, text) for name, _, text in (line.partition(": ") for line in space.about)]
    rows += sizes.rows(sizes.sub_networks(parts.searched, parts.net), parts.searched, parts.net, parts.data.example(parts.device))
    return [("supernet", f"{space.name}, {size_text(cfg.layers, cfg.channels)}, {space.count():.3g} architectures"), *about, *rows]


def on_limits(parts: "SearchParts", costs: "Mapping[str, Callable[[Genotype], float]]", at_most: "Mapping[str, float]") -> list[str]:
    """What the sub-networks of a chain cost, and what that says of limits. costs: known before a training, by name."""
    from supernet.runs import sizes
    from supernet.training.stages import widen_genotype

    subs = sizes.sub_networks(parts.searched, parts.net)
    known = {name: lambda genotype, cost=cost: cost(widen_genotype(parts.space, genotype)) for name, cost in costs.items()}
    return [sizes.line(subs), *sizes.remarks(subs, known, at_most)] if subs else []


def first_lines(cfg: DictConfig, parts: "SearchParts", costs: "Mapping[str, Callable[[Genotype], float]]",
                at_most: "Mapping[str, float] | None" = None) -> list[str]:
    """What a search says of itself before its first step. costs, at_most: as `on_limits`."""
    import torch

    from supernet.networks.measure import parameters
    from supernet.report.summary import size_text

    data, split = parts.data, parts.loaders.split
    lines = [*parts.loaders.about, f"data {data.name}: {len(split.train)} {data.item}s train the weights, {len(split.val)} the alphas "
             f"(split {split.digest}, {'the same for both' if cfg.split.shared else cfg.split.mode})",
             f"supernet {parts.space.name}: {size_text(cfg.layers, cfg.channels)}, {parameters(parts.net) / 1e6:.3f} M parameters",
             *parts.space.about, *on_limits(parts, costs, at_most or {})]
    if parts.table is not None:
        lines.append(f"table {parts.table.source}: the genotype of each epoch is looked up among {len(parts.table):,} architectures")
    if cfg.passes is not None and not parts.relaxation.samples(torch.Generator(parts.generators["alpha"].device)):
        lines.append("note: what is drawn beside the smallest and the largest is a mixture of architectures; wrapper=[steered] draws one "
                     "of them by its weights")
    if not any(True for _ in parts.relaxation.parameters()) and cfg.final_select is None and cfg.searcher is None:
        lines.append("note: nothing learns which architecture is best here, so that the genotype is the first of equals; "
                     "final_select=sampled picks one by the shared weights")
    return lines


def found(cfg: DictConfig, parts: "SearchParts", stages: "Stages", run: "Run", genotype: "Genotype",
          costs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is said of the genotype, its `costs` among it; both are written with the alphas, the drawings and the report."""
    import numpy as np

    from supernet.report import summary, sureness
    from supernet.report.pictures import save_drawings
    from supernet.runs import dry_run

    loop, data, space, folder, position = stages.loop, parts.data, parts.space, run.folder, run.position
    summary.save_genotype(folder, genotype, space, cfg.retrain)
    record = loop.trajectory.arrays()
    np.savez_compressed(folder.alphas, **record, **summary.edge_tables(space))
    save_drawings(folder, genotype, space)
    last = (run.metrics.read(folder.metrics) or [None])[-1]
    known = (last or {}) | dict(loop.yardstick(genotype))  # of this genotype, which need not be the last epoch's
    rows = [("genotype", genotype.digest), *summary.supernet_rows(parts.task, last, len(parts.loaders.split.val), data.item),
            *summary.table_rows(known), *summary.skip_rows(genotype, space), *costs,
            summary.spent_row(position.trials, position.images),
            ("search time", f"{dry_run.duration(run.elapsed())} on {parts.device}"), ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
    sure = None
    if any(True for _ in parts.relaxation.parameters()):
        last_epoch = position.epoch if loop.verdict.stopped is None else loop.verdict.epoch + 1
        sure = sureness.sureness(loop.space, record, first_epoch=loop.first_epoch, last_epoch=last_epoch)
    if sure is not None:
        rows += sureness.rows(sure, sure.decides_for(space, genotype))
    if position.repeated:
        rows.append(("gone back", f"over {position.repeated // len(parts.loaders.train)} epochs"))
    if loop.verdict.stopped is not None:
        rows.append(("ended early", f"after epoch {position.epoch}, with the genotype of epoch {loop.verdict.epoch + 1}: "
                     f"{loop.verdict.stopped}"))
    values: dict[str, Any] = known | {"genotype": genotype.to_json(), "elapsed_s": run.elapsed(),
                                      **summary.spent(position.trials, position.images, run.elapsed()),
                                      **({} if sure is None else {"sureness": sure.to_json()})}
    summary.save_summary(folder, f"Search on {data.name}", rows, values)
    from supernet.report.html import write_report  # Matplotlib waits until there is something to draw

    write_report(folder.path)
    run.results(genotype, values)
    return rows


def last_lines(cfg: DictConfig, space: "Space", genotype: "Genotype", rows: list[tuple[str, str]], run: "Run") -> None:
    """The architecture, the table, and the command that retrains it."""
    from supernet.app.retraining import carried
    from supernet.commands.training import command_beside
    from supernet.report.summary import cell_text
    from supernet.runs.run import table

    kept = carried(own_overrides(), dataset=cfg.dataset.name, retrain=cfg.retrain, task=plain(cfg.task),
                   space=space.name, spaces=choices("space"), searched_on=(data := data_name(cfg)))
    retrain = command_beside("train_final", [override("genotype", str(run.folder.genotype)), *kept])
    if data != cfg.dataset.name and data not in choices("dataset"):  # a table's name for its data
        retrain += f"\n          (there is no dataset={data} here: pass the one that it is)"
    print(f"\n{cell_text(genotype, space)}\n\n{table(rows)}\n\n"
          f"drawing   {run.folder.cell_png}\nreport    {run.folder.report}\nretrain   {retrain}")


def command() -> None:
    """The console command."""
    cli(main, many=True)

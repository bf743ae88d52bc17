"""Searches for an architecture: trains a supernet by bilevel optimisation, selects a cell, writes genotype.json and a report.

`python train_search.py --help` lists the options.
"""

import sys

import hydra
from omegaconf import DictConfig

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, shows_errors
from supernet.app.options import choices, plain, text
from supernet.app.schema import NOT_COMPUTED


@hydra.main(version_base="1.3", config_path="conf", config_name="search")
@shows_errors
def main(cfg: DictConfig) -> None:
    # Heavy imports wait until the options are known to be good.
    validate(cfg, "train_search")
    import numpy as np

    from supernet.app import compose
    from supernet.networks.measure import parameters
    from supernet.report.pictures import pictures, save_drawings
    from supernet.report.summary import (
        cell_text,
        cost_rows,
        edge_tables,
        save_genotype,
        save_summary,
        size_text,
        skip_rows,
        supernet_rows,
        table_rows,
    )
    from supernet.runs import dry_run
    from supernet.runs.folder import config_hash
    from supernet.runs.run import Interrupted, Run, choose_folder, command_line, stopped, table
    from supernet.training.stages import fit_stages

    # ---- compose: plain objects from the options; nothing is written yet

    with composing():
        parts = compose.search_parts(cfg)
        stages = compose.search_stages(cfg, parts)
    device, data, split, space = parts.device, parts.data, parts.loaders.split, parts.space
    position, steps = stages.loop.position, len(parts.loaders.train)

    if cfg.dry_run:
        loop = stages.loop
        batches = (next(iter(loop.train)), next(loop.alpha_batches))
        how = {} if loop.graphed is None else {"settling": loop.graphed.warm_up + 1, "graphs": True}
        if parts.relaxation.samples(parts.generators["alpha"]):
            how["steps"] = dry_run.DRAWS
        parts.net.drop_path_prob = cfg.drop_path_prob  # as in the last epochs, which need most memory
        rows = dry_run.report(parts.net, lambda: loop.step(*batches), evaluation=loop.evaluate_batch, example=data.example(device),
                              item=data.item, batch_size=cfg.batch_size, steps_per_epoch=steps, epochs=cfg.epochs, device=device,
                              remedies=dry_run.smaller(batch_size=cfg.batch_size, channels=cfg.channels), **how)
        print(table([("supernet", f"{space.name}, {size_text(cfg.layers, cfg.channels)}, {space.count():.3g} architectures"), *rows]))
        return

    # ---- the run folder, new or resumed

    options = plain(cfg)
    # CPU and GPU draw other numbers, backends round differently, and the same options may meet other data.
    hash_ = config_hash(options | {"device": device.type, "backend": parts.backend.name, "split": split.digest}, NOT_COMPUTED)
    stem = f"search_{cfg.name or cfg.dataset.name}_seed{cfg.seed}"
    folder, resuming, lines = choose_folder(cfg.resume, output=cfg.output, stem=stem, script="train_search", hash_=hash_)
    run = Run(folder, "train_search", command_line(), hash_, stages.parts(), position, cfg.epochs, steps, cfg.checkpoint_every_s,
              before_save=lambda: stages.loop.guard.before_save(), item=data.item, keep_checkpoints=cfg.keep_checkpoints,
              images=lambda genotype: pictures(folder, genotype, space, stages.loop.search.relaxation.mean().detach()))
    lines += parts.loaders.about
    lines.append(f"data {data.name}: {len(split.train)} {data.item}s train the weights, {len(split.val)} the alphas "
                 f"(split {split.digest}, {cfg.split.mode})")
    lines.append(f"supernet {space.name}: {size_text(cfg.layers, cfg.channels)}, {parameters(parts.net) / 1e6:.3f} M parameters")
    lines.append(parts.backend.line)
    if parts.table is not None:
        lines.append(f"table {parts.table.source}: the genotype of each epoch is looked up among {len(parts.table):,} architectures")
    if not any(True for _ in parts.relaxation.parameters()) and cfg.final_select is None:
        lines.append("note: nothing learns which architecture is best here, so that the genotype is the first of equals; "
                     "final_select=sampled picks one by the shared weights")
    try:
        with run:
            if resuming:
                lines = run.resume() + lines
            run.begin(config_text=text(cfg), options=options, device=device, wandb=options["wandb"], lines=lines)
            split.save(folder.split)

            fit_stages(stages, run)

            # ---- what was found
            loop = stages.loop
            genotype = loop.genotype()
            save_genotype(folder, genotype, space)
            np.savez_compressed(folder.alphas, **loop.trajectory.arrays(), **edge_tables(space))
            save_drawings(folder, genotype, space)
            last = (run.metrics.read(folder.metrics) or [None])[-1]
            known = (last or {}) | dict(loop.yardstick(genotype))  # of this genotype, which need not be the last epoch's
            rows = [("genotype", genotype.digest), *supernet_rows(parts.task, last, len(split.val), data.item),
                    *table_rows(known),
                    *skip_rows(genotype, space), *cost_rows(loop.cost, genotype),
                    ("search time", f"{dry_run.duration(run.elapsed())} on {device}"),
                    ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
            if position.repeated:
                rows.append(("gone back", f"over {position.repeated // steps} epochs"))
            if loop.verdict.stopped is not None:
                rows.append(("ended early", f"after epoch {position.epoch}, with the genotype of epoch {loop.verdict.epoch + 1}: "
                             f"{loop.verdict.stopped}"))
            values = known | {"genotype": genotype.to_json(), "elapsed_s": run.elapsed()}
            save_summary(folder, f"Search on {data.name}", rows, values)
            from supernet.report.html import write_report  # Matplotlib waits until there is something to draw

            write_report(folder.path)
    except Interrupted:
        print(stopped(position), file=sys.stderr)
        sys.exit(run.interrupt.exit_code)
    data = [option for option in sys.argv[1:] if option.startswith(("dataset", "protocol"))]
    if not any(option.startswith("dataset=") for option in data):
        data.insert(0, f"dataset={cfg.dataset.name}")
    if space.name not in choices("space"):  # a space of the user's own, which the genotype alone does not lead to
        data += [option for option in sys.argv[1:] if option.startswith("space")]
    print(f"\n{cell_text(genotype, space)}\n\n{table(rows)}\n\n"
          f"drawing   {folder.cell_png}\nreport    {folder.report}\n"
          f"retrain   python train_final.py genotype={folder.genotype} {' '.join(data)}")


if __name__ == "__main__":
    cli(main)

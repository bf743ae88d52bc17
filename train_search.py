"""Searches for an architecture: trains a supernet by bilevel optimisation, selects a cell, writes genotype.json and a report.

`python train_search.py --help` lists the options.
"""

import sys

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from supernet.config import NOT_COMPUTED, as_space, cli, composing, plain, shows_errors, text, validate


@hydra.main(version_base="1.3", config_path="conf", config_name="search")
@shows_errors
def main(cfg: DictConfig) -> None:
    # Heavy imports wait until the options are known to be good.
    validate(cfg, "train_search")
    import numpy as np
    import torch

    from supernet import dry_run, setup
    from supernet.bilevel import Bilevel, rehearse
    from supernet.data.loader import Forever, search_loaders
    from supernet.data.split import make_split
    from supernet.environment import resolve_device
    from supernet.measure import parameters
    from supernet.report.html import write_report
    from supernet.run import Interrupted, Run, choose_folder, command_line, stopped, table
    from supernet.run_folder import config_hash
    from supernet.train import Generators, Guard, Position, SearchLoop, Totals, first_nonfinite, fit_supernet

    # ---- compose: plain objects from the options; nothing is written yet

    def build(node):
        return instantiate(node, _convert_="all")

    with composing():
        device, cpu = resolve_device(cfg.device), torch.device("cpu")
        setup.prepare(device, threads=cfg.threads, deterministic=cfg.deterministic)
        generators = Generators.from_seed(cfg.seed, {"split": cpu, "alpha_init": cpu, "alpha": cpu, "net": device, "train": device,
                                                     "val": device})
        source, augment, task = build(cfg.dataset.source), build(cfg.dataset.augment), build(cfg.task)
        space = as_space(build(cfg.space), cfg.space._target_)
        source.check()
        split = make_split(source.train().labels, mode=cfg.split.mode, train_portion=cfg.split.train_portion,
                           max_train=cfg.split.max_train, max_val=cfg.split.max_val, generator=generators["split"])
        loaders = search_loaders(source, split, batch_size=cfg.batch_size, eval_batch_size=cfg.eval_batch_size, augment=augment,
                                 augment_val=cfg.compat.augment_val, generators=(generators["train"], generators["val"]),
                                 device=device, workers=cfg.workers, channels_last=cfg.channels_last)
        image = (source.in_channels, *source.image_size)
        with setup.initial_weights(cfg.seed):
            net = space.network(space.candidates(), norm=setup.search_normalisation(cfg.compat.pool_norm, cfg.compat.bn_statistics),
                                channels=cfg.channels, layers=cfg.layers, stem=cfg.stem, num_classes=source.num_classes,
                                in_channels=source.in_channels, image_size=source.image_size)
        net = net.to(device, memory_format=setup.memory_format(cfg.channels_last))
        relaxation = build(cfg.relaxation)(space, generators["alpha_init"]).to(device)
        hypergradient, w_optimizer, select = build(cfg.hypergradient), build(cfg.w_optimizer), build(cfg.select)
        rehearse(hypergradient, w_optimizer)
        position = Position()

        def describe_divergence(batch) -> str:
            with torch.no_grad():
                weights = relaxation(generators["alpha"])
            largest = max(p.abs().max().item() for p in relaxation.parameters())
            where = first_nonfinite(net, weights, batch, generator=generators["net"])
            return f"{where}; learning rate {search.w_optimizer.param_groups[0]['lr']:.4g}, largest |alpha| {largest:.4g}"

        guard = Guard(net, device, cfg.log_every, position, describe_divergence)
        search = Bilevel(net, relaxation, hypergradient, task, w_optimizer(params=net.parameters()),
                         build(cfg.alpha_optimizer)(params=relaxation.parameters()), generators, clip_norm=cfg.clip_norm, guard=guard)
        loop = SearchLoop(
            search, loaders.train, Forever(loaders.val), loaders.val_eval, lr=(cfg.w_optimizer.lr, cfg.alpha_optimizer.lr),
            schedules=(build(cfg.w_schedule), build(cfg.alpha_schedule)), select=lambda weights: select(space, weights),
            generators=generators, guard=guard, totals=Totals(device), position=position, snapshots=cfg.alpha_snapshots,
            shift=int(cfg.compat.scheduler_step == "start"))
        steps = len(loop.train)

    if cfg.dry_run:
        batches = (next(iter(loop.train)), next(loop.alpha_batches))
        rows = dry_run.report(net, lambda: search.step(*batches), image=image, batch_size=cfg.batch_size, steps_per_epoch=steps,
                              epochs=cfg.epochs, device=device, remedies=dry_run.smaller(batch_size=cfg.batch_size, channels=cfg.channels))
        print(table([("supernet", f"{space.name}, {cfg.layers} cells, C={cfg.channels}, {space.count():.3g} architectures"), *rows]))
        return

    # ---- the run folder, new or resumed

    options = plain(cfg)
    # CPU and GPU draw other numbers, and the same options may meet other data.
    hash_ = config_hash(options | {"device": device.type, "split": split.digest}, NOT_COMPUTED)
    stem = f"search_{cfg.name or cfg.dataset.name}_seed{cfg.seed}"
    folder, resuming, lines = choose_folder(cfg.resume, output=cfg.output, stem=stem, script="train_search", hash_=hash_)
    run = Run(folder, "train_search", command_line(), hash_, loop.parts(), position, cfg.epochs, steps, cfg.checkpoint_every_s,
              before_save=guard.before_save, images=lambda genotype: setup.pictures(folder, genotype, space, relaxation.mean().detach()))
    lines.append(f"data {source.name}: {len(split.train)} images train the weights, {len(split.val)} the alphas "
                 f"(split {split.digest}, {cfg.split.mode})")
    lines.append(f"supernet {space.name}: {cfg.layers} cells, C={cfg.channels}, {parameters(net) / 1e6:.3f} M parameters")
    try:
        with run:
            if resuming:
                lines = run.resume() + lines
            run.begin(config_text=text(cfg), options=options, device=device, wandb=options["wandb"], lines=lines)
            split.save(folder.split)

            fit_supernet(loop, cfg.epochs, run)

            # ---- what was found
            genotype = loop.select(relaxation.mean().detach())
            genotype.save(folder.genotype)
            np.savez_compressed(folder.alphas, **loop.trajectory.arrays(), **setup.edge_tables(space))
            setup.save_drawings(folder, genotype, space)
            last = (run.metrics.read(folder.metrics) or [None])[-1]
            rows = [("genotype", genotype.digest),
                    ("supernet validation accuracy", f"{last['val_accuracy']:.2f} % of {len(split.val)} images" if last else "not trained"),
                    ("supernet training accuracy", f"{last['train_accuracy']:.2f} %" if last else "not trained"),
                    ("skip connections", f"{setup.share(genotype, 'skip_connect'):.0f} % of the kept edges"),
                    ("search time", f"{dry_run.duration(run.elapsed())} on {device}"),
                    ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
            values = (last or {}) | {"genotype": genotype.to_json(), "elapsed_s": run.elapsed()}
            setup.save_summary(folder, f"Search on {source.name}", rows, values)
            write_report(folder.path)
    except Interrupted:
        print(stopped(position), file=sys.stderr)
        sys.exit(run.interrupt.exit_code)
    data = [option for option in sys.argv[1:] if option.startswith("dataset")] or [f"dataset={cfg.dataset.name}"]
    print(f"\n{setup.cell_text(genotype, space)}\n\n{table(rows)}\n\n"
          f"drawing   {folder.cell_png}\nreport    {folder.report}\n"
          f"retrain   python train_final.py genotype={folder.genotype} {' '.join(data)}")


if __name__ == "__main__":
    cli(main)

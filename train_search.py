"""Searches for an architecture: trains a supernet by bilevel optimisation, selects a cell, writes genotype.json and a report.

`python train_search.py --help` lists the options.
"""

import sys

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from supernet.config import NOT_COMPUTED, cli, composing, plain, shows_errors, text, validate


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
    from supernet.environment import describe, resolve_device
    from supernet.log import open_tracker
    from supernet.measure import parameters
    from supernet.run import Interrupted, Run, again_with, choose_folder, command_line, table
    from supernet.run_folder import config_hash, write_json
    from supernet.train import Generators, LossGuard, Position, SearchLoop, Totals, first_nonfinite, fit_supernet

    # ---- compose: plain objects from the options; nothing is written yet

    build = lambda node: instantiate(node, _convert_="all")
    with composing():
        device = resolve_device(cfg.device)
        setup.prepare(device, threads=cfg.threads, deterministic=cfg.deterministic)
        cpu = torch.device("cpu")
        generators = Generators.from_seed(cfg.seed, {"split": cpu, "alpha_init": cpu, "alpha": cpu, "net": device, "train": device, "val": device})
        source, augment, space, task = build(cfg.dataset.source), build(cfg.dataset.augment), build(cfg.space), build(cfg.task)
        source.check()
        split = make_split(source.train().labels, mode=cfg.split.mode, train_portion=cfg.split.train_portion, generator=generators["split"],
                           max_train=cfg.split.max_train, max_val=cfg.split.max_val)
        loaders = search_loaders(source, split, batch_size=cfg.batch_size, augment=augment, generators=(generators["train"], generators["val"]),
                                 device=device, workers=cfg.workers, eval_batch_size=cfg.eval_batch_size, augment_val=cfg.compat.augment_val,
                                 channels_last=cfg.channels_last)
        sizes = {"channels": cfg.channels, "layers": cfg.layers, "num_classes": source.num_classes, "in_channels": source.in_channels,
                 "image_size": source.image_size, "stem": cfg.stem}
        with setup.initial_weights(cfg.seed):
            net = space.network(space.candidates(), norm=setup.search_normalisation(cfg.compat.pool_norm, cfg.compat.bn_statistics), **sizes)
        net = net.to(device, memory_format=setup.memory_format(cfg.channels_last))
        relaxation = build(cfg.relaxation)(space, generators["alpha_init"]).to(device)
        position = Position()

        def describe_divergence(batch) -> str:
            with torch.no_grad():
                weights = relaxation(generators["alpha"])
            largest = max(p.abs().max().item() for p in relaxation.parameters())
            where = first_nonfinite(net, weights, batch, generator=generators["net"])
            return f"{where}; learning rate {search.w_optimizer.param_groups[0]['lr']:.4g}, largest |alpha| {largest:.4g}"

        rehearse(build(cfg.hypergradient), build(cfg.w_optimizer))
        guard = LossGuard(device, cfg.log_every, position, describe_divergence)
        search = Bilevel(net, relaxation, build(cfg.hypergradient), task, build(cfg.w_optimizer)(params=net.parameters()),
                         build(cfg.alpha_optimizer)(params=relaxation.parameters()), generators, clip_norm=cfg.clip_norm, guard=guard)
        select = build(cfg.select)
        loop = SearchLoop(search, loaders.train, Forever(loaders.val), loaders.val_eval, (cfg.w_optimizer.lr, cfg.alpha_optimizer.lr),
                          (build(cfg.w_schedule), build(cfg.alpha_schedule)), lambda weights: select(space, weights), generators, guard,
                          Totals(device), position, snapshots=cfg.alpha_snapshots, shift=int(cfg.compat.scheduler_step == "start"))
        steps = len(loop.train)

    if cfg.dry_run:
        batches = (next(iter(loop.train)), next(loop.alpha_batches))
        rows = dry_run.report(net, lambda: search.step(*batches), image=(source.in_channels, *source.image_size), batch_size=cfg.batch_size,
                              steps_per_epoch=steps, epochs=cfg.epochs, device=device,
                              remedies=[f"batch_size={max(1, cfg.batch_size // 2)}", f"channels={max(2, cfg.channels // 2)}", f"layers={max(3, cfg.layers - 2)}"])
        print(table([("supernet", f"{cfg.space._target_.split('.')[-2]}, {cfg.layers} cells, C={cfg.channels}, {space.count():.3e} architectures"), *rows]))
        return

    # ---- the run folder, new or resumed

    options = plain(cfg)
    hash_ = config_hash(options, NOT_COMPUTED)
    stem = f"search_{cfg.name or cfg.dataset.name}_seed{cfg.seed}"
    folder, resuming, lines = choose_folder(cfg.resume, output=cfg.output, stem=stem, script="train_search", hash_=hash_)

    def pictures(genotype, epoch):
        from supernet.report.curves import heat_map
        from supernet.report.names import edge_names

        def drawing():
            setup.save_drawings(folder, genotype, space)
            return folder.cell_png

        mean = relaxation.mean().detach()
        maps = {f"alphas/{kind}": (lambda kind=kind: heat_map(mean[kind].ops.cpu().numpy(), edge_names(space.cells[kind].edges, space.cells[kind].num_inputs), list(space.cells[kind].ops)))
                for kind in space.cells}
        return maps | {"cell": drawing}

    run = Run(folder, "train_search", command_line(), hash_, loop.parts(), position, cfg.epochs, steps, cfg.checkpoint_every_s, pictures)
    if resuming:
        lines += run.resume()
    try:
        with run:
            environment = describe(device)
            if not resuming:
                folder.config.write_text(text(cfg))
                write_json(folder.environment, environment)
                split.save(folder.split)
            run.tracker, line = open_tracker(cfg.wandb.mode, project=cfg.wandb.project, name=folder.path.name, folder=folder.path,
                                             config=options | {"environment": environment}, run_id=folder.path.name, warn=run.line,
                                             timeout_s=cfg.wandb.timeout_s)
            for text_line in [f"run folder {folder.path}", *lines, line,
                              f"data {source.name}: {len(split.train)} images train the weights, {len(split.val)} the alphas (split {split.digest}, "
                              f"{cfg.split.mode}); supernet {parameters(net) / 1e6:.3f} M parameters; {device}, {environment['threads']} threads"]:
                run.line(text_line)

            fit_supernet(loop, cfg.epochs, run)

            # ---- what was found
            genotype = loop.select(relaxation.mean().detach())
            genotype.save(folder.genotype)
            np.savez_compressed(folder.alphas, **loop.trajectory.arrays(), **setup.edge_tables(space))
            setup.save_drawings(folder, genotype, space)
            records = run.metrics.read(folder.metrics)
            last = records[-1] if records else {}
            rows = [("genotype", genotype.digest),
                    ("supernet validation accuracy", f"{last['val_accuracy']:.2f} % of {len(split.val)} images" if last else "not trained"),
                    ("supernet training accuracy", f"{last['train_accuracy']:.2f} %" if last else "not trained"),
                    ("skip connections", f"{setup.share(genotype, 'skip_connect'):.0f} % of the kept edges"),
                    ("search time", f"{dry_run.duration(run.elapsed())} on {device}"),
                    ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
            setup.save_summary(folder, f"Search on {source.name}", rows,
                               {"genotype": genotype.to_json(), "elapsed_s": run.elapsed()} | {k: v for k, v in last.items() if k != "genotype"})
        from supernet.report.html import write_report

        write_report(folder.path)
    except Interrupted:
        print(f"stopped at epoch {position.epoch}, step {position.step}; saved. Go on with:\n  {again_with('resume=auto')}", file=sys.stderr)
        sys.exit(run.interrupt.exit_code)
    print(f"\n{setup.cell_text(genotype, space)}\n\n{table(rows)}\n\n"
          f"drawing   {folder.cell_png}\nreport    {folder.report}\nretrain   python train_final.py genotype={folder.genotype} "
          f"dataset={cfg.dataset.name}")


if __name__ == "__main__":
    cli(main)

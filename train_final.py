"""Trains an architecture from scratch and tests it once, at the end.

`python train_final.py --help` lists the options.
"""

import sys

import hydra
from omegaconf import DictConfig

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, shows_errors
from supernet.app.options import newest_genotype, plain, text
from supernet.app.schema import NOT_COMPUTED


@hydra.main(version_base="1.3", config_path="conf", config_name="final")
@shows_errors
def main(cfg: DictConfig) -> None:
    # Heavy imports wait until the options are known to be good.
    validate(cfg, "train_final")
    from supernet import notation
    from supernet.app.build import space_from, space_of

    if cfg.genotype == "latest":
        cfg.genotype = newest_genotype(cfg.output, cfg.dataset.name)
    genotype = notation.find(cfg.genotype, None if cfg.space is None else space_from(cfg.space))

    from supernet.app import compose
    from supernet.networks.measure import multiply_adds_of, parameters
    from supernet.report.pictures import save_drawings
    from supernet.report.summary import final_rows, save_genotype, save_summary, size_text
    from supernet.runs import checkpoint, dry_run
    from supernet.runs.folder import config_hash
    from supernet.runs.run import Interrupted, Run, choose_folder, command_line, stopped, table
    from supernet.training.evaluate import evaluate
    from supernet.training.final import fit_final

    # ---- compose: plain objects from the options; nothing is written yet

    with composing():
        space = space_of(genotype) if cfg.space is None else space_from(cfg.space)
        space.validate(genotype)
        parts = compose.final_parts(cfg, space, genotype)
    loop, net, task, data, device, split = parts.loop, parts.net, parts.task, parts.data, parts.device, parts.loaders.split
    position, steps = loop.position, len(loop.train)

    if cfg.dry_run:
        batch = next(iter(loop.train))
        net.drop_path_prob = cfg.drop_path_prob  # as in the last epochs, which need most memory
        rows = dry_run.report(net, lambda: loop.step(batch), evaluation=loop.evaluate_batch, example=data.example(device), item=data.item,
                              batch_size=cfg.batch_size, steps_per_epoch=steps, epochs=cfg.epochs, device=device,
                              remedies=dry_run.smaller(batch_size=cfg.batch_size, channels=cfg.channels))
        size = size_text(cfg.layers, cfg.channels)
        print(table([("final network", f"{cfg.genotype}, {size} (auxiliary head not counted)"), *rows]))
        return

    # ---- the run folder, new or resumed

    options = plain(cfg) | {"genotype": genotype.to_json()}  # what is trained counts, not the name of its file
    # CPU and GPU draw other numbers, backends round differently, and the same options may meet other data.
    hash_ = config_hash(options | {"device": device.type, "backend": parts.backend.name, "split": split.digest}, NOT_COMPUTED)
    stem = f"final_{cfg.name or cfg.dataset.name}_seed{cfg.seed}"
    folder, resuming, lines = choose_folder(cfg.resume, output=cfg.output, stem=stem, script="train_final", hash_=hash_)
    run = Run(folder, "train_final", command_line(), hash_, loop.parts(), position, cfg.epochs, steps, cfg.checkpoint_every_s,
              before_save=loop.guard.before_save, item=data.item, keep_checkpoints=cfg.keep_checkpoints)
    held_out = f"{len(split.val)} held out for validation" if loop.val else "none held out"
    lines += parts.loaders.about
    lines.append(f"data {data.name}: {len(split.train)} training {data.item}s, {held_out} (split {split.digest})")
    lines.append(f"network {cfg.genotype}: {size_text(cfg.layers, cfg.channels)}, {parameters(net) / 1e6:.3f} M parameters")
    lines.append(parts.backend.line)
    try:
        with run:
            if resuming:
                lines = run.resume() + lines
            run.begin(config_text=text(cfg), options=options, device=device, wandb=options["wandb"], lines=lines)
            split.save(folder.split)
            save_genotype(folder, genotype, space)
            save_drawings(folder, genotype, space)

            fit_final(loop, cfg.epochs, run)

            # ---- the test, read once
            with loop.average.evaluated(list(net.parameters())):
                checkpoint.save_file(folder.weights, net.state_dict())
                result = evaluate(net, task, parts.test, lambda: None, loop.generators["net"], loop.context)
            last = run.metrics.read(folder.metrics)[-1]
            count = multiply_adds_of(net, data.example(device))
            habit = "reported after every epoch (protocol=paper)" if cfg.report_test_every_epoch else "read once, at the end"
            rows = [*final_rows(task, last, result, f"{parts.test.num_items} {data.item}s, {habit}",
                                      f"{len(split.val)} {data.item}s" if loop.val else None),
                    ("parameters", f"{parameters(net) / 1e6:.6f} M"),
                    ("multiply-adds", f"{count / 1e6:.3f} M per {data.item}"),
                    ("genotype", f"{genotype.digest} ({cfg.genotype})"),
                    ("training time", f"{dry_run.duration(run.elapsed())} on {device}"),
                    ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
            values = {f"test_{key}": value for key, value in result.items()} | {
                f"test_{data.item}s": parts.test.num_items, "parameters": parameters(net), "multiply_adds": count,
                "elapsed_s": run.elapsed(), "genotype": genotype.to_json()}
            save_summary(folder, f"Final training on {data.name}", rows, values)
            from supernet.report.html import write_report  # Matplotlib waits until there is something to draw

            write_report(folder.path)
    except Interrupted:
        print(stopped(position), file=sys.stderr)
        sys.exit(run.interrupt.exit_code)
    print(f"\n{table(rows)}\n\nweights   {folder.weights}\nreport    {folder.report}")


if __name__ == "__main__":
    cli(main)

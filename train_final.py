"""Trains an architecture from scratch and tests it once, at the end.

`python train_final.py --help` lists the options.
"""

import sys
from contextlib import nullcontext

import hydra
from hydra import compose
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig

from supernet.config import (
    NOT_COMPUTED,
    UsageError,
    as_space,
    choices,
    cli,
    composing,
    newest_genotype,
    plain,
    shows_errors,
    text,
    validate,
)


@hydra.main(version_base="1.3", config_path="conf", config_name="final")
@shows_errors
def main(cfg: DictConfig) -> None:
    # Heavy imports wait until the options are known to be good.
    validate(cfg, "train_final")
    from supernet import genotype as genotypes

    if cfg.genotype == "latest":
        cfg.genotype = newest_genotype(cfg.output, cfg.dataset.name)
    genotype = genotypes.find(cfg.genotype)

    def build(node):
        return instantiate(node, _convert_="all")

    with composing():
        space = as_space(build(cfg.space), cfg.space._target_) if cfg.space is not None else space_of(genotype)
    space.validate(genotype)

    import torch

    from supernet import checkpoint, dry_run, setup
    from supernet.data.loader import final_loaders, test_loader
    from supernet.data.split import make_split
    from supernet.environment import resolve_device
    from supernet.measure import multiply_adds, parameters
    from supernet.report.html import write_report
    from supernet.run import Interrupted, Run, choose_folder, command_line, stopped, table
    from supernet.run_folder import config_hash
    from supernet.train import FinalLoop, Generators, Guard, Position, Totals, evaluate, first_nonfinite, fit_final

    # ---- compose: plain objects from the options; nothing is written yet

    with composing():
        device = resolve_device(cfg.device)
        setup.prepare(device, threads=cfg.threads, deterministic=cfg.deterministic)
        generators = Generators.from_seed(cfg.seed, {"split": torch.device("cpu"), "net": device, "train": device})
        source, augment, task = build(cfg.dataset.source), build(cfg.dataset.augment), build(cfg.task)
        source.check()
        split = make_split(source.train().labels, mode=cfg.split.mode, train_portion=1 - cfg.split.val_portion,
                           max_train=cfg.split.max_train, generator=generators["split"])
        how = {"device": device, "workers": cfg.workers, "channels_last": cfg.channels_last, "augment": augment}
        loaders = final_loaders(source, split, batch_size=cfg.batch_size, eval_batch_size=cfg.eval_batch_size,
                                generator=generators["train"], **how)
        test = test_loader(source, batch_size=cfg.eval_batch_size, **how)  # opened now, so that a bad one fails now; read at the end
        image = (source.in_channels, *source.image_size)
        with setup.initial_weights(cfg.seed):
            net = space.network(space.candidates(genotype), norm=setup.final_normalisation(cfg.compat.pool_norm, cfg.compat.bn_statistics),
                                channels=cfg.channels, layers=cfg.layers, stem=cfg.stem, num_classes=source.num_classes,
                                in_channels=source.in_channels, image_size=source.image_size, auxiliary=cfg.task.auxiliary_weight > 0)
        net = net.to(device, memory_format=setup.memory_format(cfg.channels_last))
        position = Position()

        def describe_divergence(batch) -> str:
            where = first_nonfinite(net, None, batch, generator=generators["net"])
            return f"{where}; learning rate {loop.optimizer.param_groups[0]['lr']:.4g}"

        precision = {"none": nullcontext, "bf16": lambda: torch.autocast(device.type, torch.bfloat16)}
        guard = Guard(net, device, cfg.log_every, position, describe_divergence)
        loop = FinalLoop(
            net, task, build(cfg.w_optimizer)(params=net.parameters()), loaders.train, loaders.val,
            test=test if cfg.report_test_every_epoch else None, lr=cfg.w_optimizer.lr, schedule=build(cfg.w_schedule),
            drop_path_prob=cfg.drop_path_prob, clip_norm=cfg.clip_norm, generators=generators, guard=guard, totals=Totals(device),
            position=position, context=precision[cfg.amp], call=torch.compile(net) if cfg.compile else None,
            shift=int(cfg.compat.scheduler_step == "start"))
        steps = len(loop.train)

    if cfg.dry_run:
        batch = next(iter(loop.train))
        rows = dry_run.report(net, lambda: loop.step(batch), image=image, batch_size=cfg.batch_size, steps_per_epoch=steps,
                              epochs=cfg.epochs, device=device, remedies=dry_run.smaller(batch_size=cfg.batch_size, channels=cfg.channels))
        print(table([("final network", f"{cfg.genotype}, {cfg.layers} cells, C={cfg.channels} (auxiliary head not counted)"), *rows]))
        return

    # ---- the run folder, new or resumed

    options = plain(cfg) | {"genotype": genotype.to_json()}  # what is trained counts, not the name of its file
    # CPU and GPU draw other numbers, and the same options may meet other data.
    hash_ = config_hash(options | {"device": device.type, "split": split.digest}, NOT_COMPUTED)
    stem = f"final_{cfg.name or cfg.dataset.name}_seed{cfg.seed}"
    folder, resuming, lines = choose_folder(cfg.resume, output=cfg.output, stem=stem, script="train_final", hash_=hash_)
    run = Run(folder, "train_final", command_line(), hash_, loop.parts(), position, cfg.epochs, steps, cfg.checkpoint_every_s,
              before_save=guard.before_save)
    held_out = f"{len(split.val)} held out for validation" if loaders.val else "none held out"
    lines.append(f"data {source.name}: {len(split.train)} training images, {held_out} (split {split.digest})")
    lines.append(f"network {cfg.genotype}: {cfg.layers} cells, C={cfg.channels}, {parameters(net) / 1e6:.3f} M parameters")
    try:
        with run:
            if resuming:
                lines = run.resume() + lines
            run.begin(config_text=text(cfg), options=options, device=device, wandb=options["wandb"], lines=lines)
            split.save(folder.split)
            genotype.save(folder.genotype)
            setup.save_drawings(folder, genotype, space)

            fit_final(loop, cfg.epochs, run)

            # ---- the test, read once
            checkpoint.save_file(folder.weights, net.state_dict())
            result = evaluate(net, task, test, None, generators["net"], loop.context)
            last = run.metrics.read(folder.metrics)[-1]
            habit = "reported after every epoch (protocol=paper)" if cfg.report_test_every_epoch else "read once, at the end"
            validation = [("validation accuracy", f"{last['val_accuracy']:.2f} % of {len(split.val)} images")] if loaders.val else []
            rows = [("test accuracy", f"{result['accuracy']:.2f} % of {test.num_images} images, {habit}"),
                    ("test error", f"{100 - result['accuracy']:.2f} %"),
                    ("training accuracy", f"{last['train_accuracy']:.2f} %"), *validation,
                    ("parameters", f"{parameters(net) / 1e6:.6f} M"),
                    ("multiply-adds", f"{multiply_adds(net, image) / 1e6:.3f} M an image"),
                    ("genotype", f"{genotype.digest} ({cfg.genotype})"),
                    ("training time", f"{dry_run.duration(run.elapsed())} on {device}"),
                    ("epochs, seed", f"{cfg.epochs}, {cfg.seed}")]
            values = {"test_accuracy": result["accuracy"], "test_loss": result["loss"], "test_images": test.num_images,
                      "parameters": parameters(net), "multiply_adds": multiply_adds(net, image), "elapsed_s": run.elapsed(),
                      "genotype": genotype.to_json()}
            setup.save_summary(folder, f"Final training on {source.name}", rows, values)
            write_report(folder.path)
    except Interrupted:
        print(stopped(position), file=sys.stderr)
        sys.exit(run.interrupt.exit_code)
    print(f"\n{table(rows)}\n\nweights   {folder.weights}\nreport    {folder.report}")


def space_of(genotype):
    """The space that a genotype names, from its config and the genotype's arguments."""
    known = choices("space")
    if genotype.space not in known:
        raise UsageError(f"the genotype is of space {genotype.space[:40]!r}, which has no config here (there are {', '.join(known)}): pass "
                         "space=custom space._target_=your_module.make")
    target = compose(config_name="search", overrides=[f"space={genotype.space}"]).space._target_
    try:
        # Called, not instantiated: a genotype's arguments are data, and must not name code to run.
        return get_method(target)(**genotype.arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the genotype's arguments do not make a {genotype.space!r} space: {error}") from error


if __name__ == "__main__":
    cli(main)

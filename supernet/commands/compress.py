"""`python -m supernet.compress RUN method=[prune,magnitude,int8,qat]`: the network of a final training made smaller, several ways, and what
each is worth and takes.

Can be stopped at any time: what is finished is kept, and the same command does the rest. What is done is in `compressing.py`.
"""

import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import carry_out, cli, composing, shows_errors
from supernet.app.hydra_words import flags_and_overrides
from supernet.app.options import CONF, override
from supernet.compression.methods import EXTRA, METHODS, Steps, packages, steps_of, trains
from supernet.errors import UsageError


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="compress")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "compress")
    chosen = chosen_methods(cfg)
    from supernet.exports.formats import need

    need(f"method={','.join('+'.join(steps) for steps in chosen)}", packages(chosen), EXTRA)
    from supernet.commands import compressing

    with composing():
        work = compressing.prepared(cfg, chosen)
    carry_out(work, cfg.dry_run)


def chosen_methods(cfg: DictConfig) -> list[Steps]:
    """The methods that are asked for. Raises UsageError, before anything is read: they cannot be had so."""
    if cfg.run is None:
        raise UsageError("compress needs the folder of a final training: python -m supernet.compress RUN method=prune")
    named = list(cfg.method) if OmegaConf.is_list(cfg.method) else [cfg.method]
    if not named or not all(type(name) is str for name in named):
        raise UsageError(f"method must list some of {', '.join(METHODS)}, got {cfg.method}")
    chosen = list(dict.fromkeys(steps_of(name) for name in named))
    if cfg.calibration < 1 and any("int8" in steps for steps in chosen):
        raise UsageError(f"method=int8 finds the ranges of activations on training images: pass calibration=256, got {cfg.calibration}")
    taught = any(map(trains, chosen)) and cfg.epochs != 0
    if cfg.distil and not taught:
        raise UsageError("distil=true teaches what is trained further: pass a method of "
                         f"{', '.join(name for name, method in METHODS.items() if method.trains)} and epochs of at least 1, got "
                         f"{', '.join('+'.join(steps) for steps in chosen)} and epochs={cfg.epochs}")
    if cfg.teacher is not None and not cfg.distil:
        raise UsageError(f"teacher={cfg.teacher} teaches nobody: pass distil=true as well")
    return chosen


def words(arguments: Sequence[str]) -> list[str]:
    """The words of the command line as Hydra takes them: the run's folder, which stands by itself, as an option."""
    _, options = flags_and_overrides(arguments)
    alone = next((word for word in options if "=" not in word), None)
    return [override("run", word) if word == alone else word for word in arguments]


def command() -> None:
    """The console command."""
    sys.argv[1:] = words(sys.argv[1:])
    cli(main)

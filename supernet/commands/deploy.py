"""`python -m supernet.deploy RUN limits={latency_ms:12,parameters:1e6}`: the best sub-network of a trained supernet within hard limits, as
a network of its own.

Can be stopped at any time: what was evaluated is kept, and the same command goes on. What is done is in `deploying.py`.
"""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import carry_out, cli, composing, shows_errors
from supernet.app.options import CONF
from supernet.commands.compress import words
from supernet.errors import UsageError, did_you_mean

METHODS = ("evolution", "gradient", "exact")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="deploy")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "deploy")
    check(cfg)
    from supernet.commands import deploying

    with composing():
        work = deploying.prepared(cfg)
    carry_out(work, cfg.dry_run)


def check(cfg: DictConfig) -> None:
    """Raises UsageError, before anything is read: what is asked for cannot be had so."""
    if cfg.run is None:
        raise UsageError("deploy needs the folder of a search: python -m supernet.deploy RUN limits={parameters:1e6}")
    if cfg.by not in METHODS:
        raise UsageError(f"by must be {', '.join(METHODS)}, got {cfg.by}{did_you_mean(str(cfg.by), METHODS)}")
    if cfg.limits is None:
        raise UsageError("limits must say what the network may take: pass limits={parameters:1e6}, or limits=sweep for a front")
    columns = cfg.columns
    if columns is not None and not (OmegaConf.is_dict(columns) and all(type(name) is str for name in columns.values())):
        raise UsageError(f"columns must be {{name: column of the table}}, got {columns}")
    if (columns is None) != (cfg.device_table is None):
        raise UsageError("device_table and columns go together: pass device_table=FILE columns={name:COLUMN}")
    if cfg.distil and not cfg.epochs:
        raise UsageError("distil=true teaches what is trained further: pass epochs of at least 1, got 0")
    if cfg.name is not None and not (cfg.name.isprintable() and "/" not in cfg.name and cfg.name.strip(". ")):
        raise UsageError(f"name must be that of a folder, without /, got {cfg.name!r}")


def command() -> None:
    """The console command."""
    sys.argv[1:] = words(sys.argv[1:])
    cli(main)

"""The space of a run that no name leads to, made again from the run's options."""

from collections.abc import Collection
from pathlib import Path

from supernet.errors import UsageError
from supernet.genotype import Genotype
from supernet.runs.folder import RunFolder
from supernet.space import Space
from supernet.spaces.named import names


def own_space(run: Path, trusted: Collection[str]) -> Space | None:
    """run: its folder, or that of a network that was deployed in it, or the weights.pt there. None where the space has a name, or there is
    no such run, which is told elsewhere. trusted: the user's own functions, which will run. Raises Mendable errors: the options name
    another one, or it makes no space."""
    folder = RunFolder(run if run.is_dir() else run.parent)
    if not folder.genotype.exists() or Genotype.load(folder.genotype).space in names():
        return None
    if not folder.config.is_file():
        folder = RunFolder(folder.path.resolve().parent.parent)  # RUN/deployed/NAME
    if not folder.config.is_file():
        return None
    try:
        from omegaconf import OmegaConf
    except ImportError as error:
        raise UsageError(f"{run}: its space is made of the run's options, and that needs Hydra ({error}): pip install "
                         '"supernet[scripts]"') from error
    from supernet.app.build import space_from
    from supernet.app.command_line import composing
    from supernet.app.own_folder import join_own_folder
    from supernet.app.trained import run_options

    options = run_options(folder, trusted)
    if not options.get("space"):
        return None
    join_own_folder()
    with composing():
        return space_from(OmegaConf.create(options).space)

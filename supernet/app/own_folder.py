"""The folder that a command is started from, as a place for the user's own Python files and, under `conf/`, his own options."""

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from supernet.app.options import CONF
from supernet.errors import UsageError


def own_conf() -> Path | None:
    """`conf/` of the working directory; None where there is none, and in the project itself, whose configs that are. Raises UsageError: a
    file of it would stand for another choice than the package's of the same name."""
    own = Path.cwd() / "conf"
    if not own.is_dir() or own.resolve() == CONF.resolve():
        return None
    for path in sorted(own.rglob("*.yaml")):
        name = path.relative_to(own)
        known = CONF / name
        if known.is_file() and known.read_bytes() != path.read_bytes():  # equal ones: another copy of the project
            raise UsageError(f"conf/{name}: the package has a {name.with_suffix('')} too, and a name must mean one thing: rename yours")
    return own


class OwnConfigs(SearchPathPlugin):
    """Hydra asks it for every command, completion and `compose`; the package's configs come first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = own_conf()
        if own is not None:
            search_path.append("working directory", f"file://{own}")


def join_own_folder() -> None:
    """From now on configs are found in `conf/` of the working directory as well, and modules in the directory itself, after all others."""
    Plugins.instance().register(OwnConfigs)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def choices_on_disk(group: str) -> list[str]:
    """The configs of a group by name, the user's own included, where Hydra cannot be asked."""
    own = own_conf()
    return sorted({path.stem for folder in (CONF, *([own] if own else [])) for path in (folder / group).glob("*.yaml")})

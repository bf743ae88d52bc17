"""Options as values: where their configs lie, what is chosen, how they are written."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.app.searched_on import data_name
from supernet.errors import UsageError
from supernet.files import FileError, read_text, yaml_text

CONF = Path(__file__).resolve().parent.parent / "conf"  # the same folder as `conf/` of the project, also in an installed package

MAX_OPTIONS_BYTES = 300_000  # a run's options are 5 kB; YAML is read at some 100 kB a second


def overrides(options: dict[str, Any]) -> list[str]:
    """Options given as a dict, `options={layers:5,split.val_portion:0.3}`, as Hydra's overrides."""
    return [f"{key}={written(value)}" for key, value in options.items()]


def written(value: Any) -> str:
    """A plain value as Hydra's grammar reads it back."""
    match value:
        case dict():
            return "{" + ",".join(f"{key}:{written(entry)}" for key, entry in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(written, value)) + "]"
        case str():
            return override("", value)[1:]
    return json.dumps(value)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The options as plain, resolved dicts and lists."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def text(cfg: DictConfig) -> str:
    """The options as YAML, resolved."""
    return OmegaConf.to_yaml(cfg, resolve=True)


def named_on_command_line(key: str) -> bool:
    """Whether the command line itself names an option (a preset or a protocol may give it a value too)."""
    return named_in(own_overrides(), key)


def named_in(words: Sequence[str], key: str) -> bool:
    """Whether one of these overrides is of the option."""
    return any(word.lstrip("+").partition("=")[0] == key for word in words)


def own_overrides() -> list[str]:
    """The options that the command line names, as given; of a multirun those of this job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def of_multirun() -> bool:
    """Whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def override(key: str, value: str) -> str:
    """`key=value` as Hydra reads it, quoted where the value holds what its grammar would read otherwise."""
    if re.fullmatch(r"[A-Za-z0-9_./:+%@-]+", value):
        return f"{key}={value}"
    # In quotes Hydra reads a backslash as itself unless a quote follows, and resolves ${...}.
    escaped = re.sub(r"\\*(?=\"|$)", lambda found: 2 * found.group(), value).replace('"', '\\"')
    return f'{key}="{escaped}"'


def choices(group: str) -> list[str]:
    """The configs of a group, by name."""
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group)


def read_options(path: Path) -> DictConfig:
    """Options from a YAML file, as `text` wrote them. Raises OSError (FileError with a line that says why): it cannot be read, is none, or
    `supernet.files.yaml_text` refuses it."""
    try:
        found = OmegaConf.create(yaml_text(path, MAX_OPTIONS_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError, OmegaConfBaseException) as error:
        raise FileError(path, f"it must hold options as YAML ({' '.join(str(error).split())[:150]})") from error
    if not OmegaConf.is_dict(found):
        raise FileError(path, "it must hold options as YAML, {name: value}")
    return found


def newest_genotype(output: str, dataset: str) -> str:
    """The genotype.json of the search on `dataset` under `output` that finished last. Raises UsageError where there is none."""
    found = []
    for path in Path(output).glob("*/run.json"):
        genotype, config = path.with_name("genotype.json"), path.with_name("config.yaml")
        try:
            status = json.loads(read_text(path, MAX_OPTIONS_BYTES))
            of = data_name(read_options(config))
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError, OmegaConfBaseException):
            continue  # not a run of ours, or a damaged one
        if type(status) is not dict:
            continue
        if (status.get("script"), status.get("status"), of) == ("train_search", "finished", dataset) and genotype.exists():
            found.append((status.get("updated", ""), str(genotype)))
    if not found:
        raise UsageError(f"genotype=latest: no finished search on {dataset} under {output!r}; run train_search.py first, or pass "
                         "genotype=FILE or a published name such as genotype=darts_v2")
    return max(found)[1]

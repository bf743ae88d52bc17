"""What a run is called where many are listed: its name, its group, its tags."""

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

from supernet.app.identity import own_choices, told_genotype
from supernet.app.not_computed import NOT_COMPUTED
from supernet.app.options import choices, own_overrides
from supernet.app.searched_on import data_name
from supernet.app.signatures import LISTS
from supernet.genotype import Genotype
from supernet.runs.tracker import MAX_NAME, MAX_TAG, Labels, shortened, without_secrets

IN_HEAD = NOT_COMPUTED | {"seed", "device", "experiment", "genotype"}  # not said a second time, or not what a run is known by
METHOD = ("relaxation", "hypergradient", "final_select", "searcher", "stage")  # groups that tell methods apart, beside those of `LISTS`


def labels(cfg: DictConfig, genotype: Genotype | None = None) -> Labels:
    """Those of the run that this command starts. genotype: what a final training trains."""
    return labels_of(cfg, own_overrides(), own_choices(), None if genotype is None else told_genotype(str(cfg.genotype), genotype))


def labels_of(cfg: DictConfig, overrides: Sequence[str], chosen: Mapping[str, str], genotype: str | None = None) -> Labels:
    """The group begins with what is trained (preset, or space and data set; genotype and data set), then has what the command line chose
    and set besides, so that runs which differ by their seeds alone share one; the name adds the seed. `name` stands for all but the seed,
    `wandb.group` for the group."""
    data = data_name(cfg)
    head = [genotype, data] if genotype is not None else [chosen["experiment"]] if "experiment" in chosen else [chosen["space"], data]
    picked, settings = [], []
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if key.partition(".")[0] in IN_HEAD or value in head and group in ("space", "dataset"):
            continue
        if "." not in key and choices(group.lstrip("~")):
            picked.append(value.strip("[]").replace(",", "+") or f"no {group}")
        else:
            settings.append(without_secrets(f"{key}={value}" if value else key))
    what = cfg.name or " ".join([*head, *picked, *sorted(settings)])
    methods = [chosen[part] for part in METHOD if part in chosen] if genotype is None else []
    parts = [member for part in LISTS for member in (cfg.get(part) or {})]
    tags = dict.fromkeys([*cfg.wandb.tags, *head, data, *methods, *parts])
    return Labels(name=f"{shortened(what, MAX_NAME - 20)} seed {cfg.seed:02}", group=cfg.wandb.group or shortened(what),
                  version=f"seed-{cfg.seed:02}", kind=cfg.script, tags=tuple(shortened(tag, MAX_TAG) for tag in tags))

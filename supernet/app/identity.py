"""Which job a run is: a digest of what it computes, the words that chose it, and a name that people can read."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from supernet.app.hydra_words import flags_and_overrides
from supernet.app.not_computed import NOT_COMPUTED, OF_SEARCHERS
from supernet.app.options import named_on_command_line, of_multirun, own_overrides, plain
from supernet.app.searched_on import data_name
from supernet.app.signatures import LISTS
from supernet.genotype import Genotype
from supernet.runs.folder import config_hash

MAX_TOLD = 50  # characters of what differs from the defaults, in the name of a folder

# Data that are the same wherever their files lie: by source, the options that say where that is.
PLACES = {"supernet.data.cifar10.CIFAR10": ("root", "download"), "supernet.data.cifar100.CIFAR100": ("root", "download"),
          "supernet.data.fashion_mnist.FashionMNIST": ("root", "download")}


def not_computed(cfg: DictConfig) -> set[str]:
    """The root options that change nothing that these options compute."""
    return NOT_COMPUTED | (OF_SEARCHERS if cfg.get("searcher") is None else set())


def job_digest(cfg: DictConfig, genotype: Genotype | None = None, extends: str | None = None,
               content: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of the resolved options without those that change nothing computed, and without where a published data set lies: known
    before any data is read, and the same on every machine. What runs differ in beside it (device, backend, the images that were met) is in
    `config_hash`, which says whether a half-done run can go on somewhere.

    genotype: what a final training trains counts, not the name of its file. extends: the job that is made longer. content: options that
    count by what lies behind them (a table's rows, not its path), in that form.
    """
    idle = not_computed(cfg)
    options = {key: value for key, value in plain(cfg).items() if key not in idle} | dict(content or {})
    if genotype is not None:
        options["genotype"] = genotype.to_json()
    if extends is not None:
        options["extends"] = extends
    for group in LISTS:  # wrappers and penalties act in their order, which canonical JSON does not keep
        if options.get(group):
            options[group] = [[name, node] for name, node in options[group].items()]
    source = options["dataset"].get("source") or {}
    if places := PLACES.get(source.get("_target_")):
        options["dataset"] = without(options["dataset"], {name: source.get(name) for name in places})
    return config_hash(options)


def without(node: Any, entries: Mapping[str, Any]) -> Any:
    """Nested data without the entries of these names and values, wherever they stand."""
    if type(node) is dict:
        return {key: without(value, entries) for key, value in node.items() if not (key in entries and value == entries[key])}
    return [without(value, entries) for value in node] if type(node) is list else node


def own_choices() -> dict[str, str]:
    """The group choices of this job, without Hydra's own."""
    if not HydraConfig.initialized():
        return {}
    return {str(group): str(choice) for group, choice in HydraConfig.get().runtime.choices.items()
            if choice is not None and not str(group).startswith("hydra/")}


def own_words() -> list[str]:
    """The words of a command line that runs this job alone: of a multirun, its own overrides in place of those of all jobs."""
    if not of_multirun():
        return sys.argv[1:]
    flags, _ = flags_and_overrides(sys.argv[1:])
    return [*(flag for flag in flags if flag not in ("-m", "--multirun")), *own_overrides()]


def asked_resume(cfg: DictConfig) -> str:
    """`resume`; of a multirun that says nothing of it: auto, so that the same command does what is left."""
    return "auto" if of_multirun() and not named_on_command_line("resume") else cfg.resume


def stem(cfg: DictConfig, script: str, genotype: Genotype | None = None) -> str:
    """What a run's folder is called: the script, then its own name where it has one, else the method, the data set and what was chosen
    beside them, then the seed: `search_gdas_cifar10_epochs-3_seed0`."""
    what, end = script.removeprefix("train_"), f"_seed{cfg.seed}"
    if cfg.name:
        return f"{what}_{cfg.name}{end}"
    given = dict(word.lstrip("+").partition("=")[::2] for word in own_overrides())
    dataset, preset = data_name(cfg), given.get("experiment", "null")
    named = dataset if preset in ("null", "") else preset if preset.endswith(dataset) else f"{preset}_{dataset}"
    cell = [] if genotype is None else [told_genotype(str(cfg.genotype), genotype)]
    unsaid = {*NOT_COMPUTED, "experiment", "seed", "dataset", "genotype"}
    told = [told_option(key, value) for key, value in given.items()
            if key.partition(".")[0].lstrip("~") not in unsaid and (key, value) != ("evaluator.dataset", dataset)
            or key.startswith("dataset.") and key.partition(".")[2] not in ("root", "path", "download", "name")]
    return "_".join([what, named, *cell, *fitting(told, MAX_TOLD)]) + end


def fitting(words: Sequence[str], most: int) -> list[str]:
    """The first words that have at most so many characters together, and how many are left out."""
    kept = [word for n, word in enumerate(words) if len("_".join(words[:n + 1])) <= most]
    return kept if len(kept) == len(words) else [*kept, f"and-{len(words) - len(kept)}-more"]


def told_option(key: str, value: str) -> str:
    """An option in the name of a folder, by the last of its names: `lr-0.1`."""
    last = re.sub(r"^.*[.@](?=.)", "", key.lstrip("+~"))
    return re.sub(r"[^A-Za-z0-9_.+]+", "-", f"{last}-{value}").strip("-")[:30]


def told_genotype(given: str, genotype: Genotype) -> str:
    """A published name as it was given; else the digest, which a path or a text would hide."""
    return given if re.fullmatch(r"[A-Za-z0-9_]{1,40}", given) and given != "latest" else genotype.digest


def identity(job: str, here: Mapping[str, str], data: str) -> dict[str, Any]:
    """What run.json keeps of it: `job`, the device, backend and split that it met (`here`), on what `data` it is, its own overrides and
    group choices."""
    return {"job": job, "here": dict(here), "data": data, "overrides": own_overrides(), "choices": own_choices()}

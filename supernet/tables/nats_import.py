"""The official NATS-Bench topology object as a table of our own; `python -m supernet.commands.nats_import` is the command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from supernet.genotype import short
from supernet.space import Space
from supernet.tables.files import NASBENCH201_SECONDS, write_table
from supernet.tables.table import Columns, TableError

# by our name of the data set: the benchmark's names for what is searched on and what is tested on
DATASETS = {"cifar10": ("cifar10-valid", "cifar10"), "cifar100": ("cifar100", "cifar100"),
            "imagenet16": ("ImageNet16-120", "ImageNet16-120")}
Tell = Callable[[int, int], None]  # how many architectures are done, of how many


def columns_of(api: Any, space: Space, tell: Tell = lambda done, total: None) -> tuple[list[str], dict[str, list[float]]]:
    """The texts of all architectures in the order of the official index, and their columns. `api` is what `nats_bench.create` returns:
    validation after 12 epochs, test accuracy after 200, mean over the runs; parameters, FLOPs (M), latency and training time. space:
    nasbench201.

    Raises TableError: an architecture that is not of NAS-Bench-201's topology space, or of which something else than numbers is known.
    """
    texts: list[str] = []
    columns: dict[str, list[float]] = {}
    for index in range(len(api)):
        text = api.arch(index)
        try:
            texts.append(space.text(space.parse(text)))
        except ValueError as error:
            raise TableError(f"architecture {index} is not of the topology search space ({error})") from error
        for name in DATASETS:
            try:
                known = _known(api, index, name)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise TableError(f"architecture {index}: what is known of it on {name} are no numbers "
                                 f"({type(error).__name__}: {short(str(error))})") from error
            for key, value in known.items():
                columns.setdefault(f"{name}_{key}", []).append(value)
        tell(index + 1, len(api))
    return texts, columns


def _known(api: Any, index: int, name: str) -> dict[str, float]:
    """The values of an architecture on one of DATASETS; NaN where there is none."""
    searched, tested = DATASETS[name]
    validation = api.get_more_info(index, searched, hp="12", is_random=False)
    test = api.get_more_info(index, tested, hp="200", is_random=False)
    cost = api.get_cost_info(index, tested, hp="200")
    values = {"val_12": validation["valid-accuracy"], "test_200": test["test-accuracy"], "train_time_200_s": test["train-all-time"],
              "params_m": cost["params"], "flops_m": cost["flops"], "latency_s": cost["latency"]}
    return {key: float("nan") if value is None else float(value) for key, value in values.items()}


def import_api(api: Any, space: Space, out: Path, tell: Tell = lambda done, total: None) -> None:
    """Writes the table."""
    texts, columns = columns_of(api, space, tell)
    datasets = {name: Columns(f"{name}_val_12", f"{name}_test_200", f"{name}_train_time_200_s", NASBENCH201_SECONDS[name])
                for name in DATASETS}
    write_table(out, space, texts, columns, datasets)

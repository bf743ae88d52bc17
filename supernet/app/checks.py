"""What options must hold alone and together, checked before a file or data is touched."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf

from supernet.app.not_computed import OF_SEARCHERS
from supernet.app.options import own_overrides
from supernet.app.signatures import check_nested, check_options, shown
from supernet.errors import UsageError
from supernet.genotype import short
from supernet.ranges import MANY, Count, Fraction, Layers, NonNegative, Portion, Positive, Range, Seed, Share, Whole, expected

# What options may be that no constructor takes by itself: those of the schemas. A part's own are in its signature.
OPTIONS: Mapping[str, Any] = {
    "seed": Seed,
    "epochs": Whole | None,  # null: of `compress`
    "batch_size": Count,
    "eval_batch_size": Count,
    "layers": Layers,
    "channels": Annotated[int, Range(2, 65_536)],
    "clip_norm": Positive | None,  # null for no clipping
    "lr_minimum": NonNegative,
    "threads": Annotated[int, Range(1, 4096)] | None,
    "workers": Annotated[int, Range(0, 1024)],
    "backend": Literal["auto", "plain", "native", "packed", "merged"],
    "amp": Literal["none", "bf16"],
    "log_every": Count,
    "keep_checkpoints": Count,
    "checkpoint_every_s": NonNegative,
    "wandb.mode": Literal["auto", "online", "offline", "disabled"],
    "wandb.timeout_s": Positive,
    "compat.scheduler_step": Literal["end", "start"],
    "compat.bn_statistics": Literal["running", "batch"],
    "compat.pool_norm": Literal["search", "always", "never"],
    "split.mode": Literal["index_order", "stratified", "shuffled"],
    "split.train_portion": Portion,  # the rest trains the alphas
    "split.portion": Annotated[float, Range(0, 1, above=True)],
    "split.val_portion": Fraction,
    "split.max_train": Count | None,
    "split.max_val": Count | None,
    "w_optimizer.lr": Positive,
    "w_optimizer.weight_decay": NonNegative,
    "w_optimizer.momentum": Fraction,
    "alpha_optimizer.lr": Positive,
    "alpha_optimizer.weight_decay": NonNegative,
    "alpha_snapshots": Count,
    "alpha_begin": Whole,
    "alpha_every": Count,
    "sampled_graphs": Annotated[int, Range(0, 100_000)],
    "alpha_clip_norm": Positive | None,
    "skip_dropout.prob": Fraction,
    "stage.inherit": Literal["weights", "none"],
    "stage.schedules": Literal["stage", "search"],
    "drop_path_prob": Fraction,
    "doublings": Annotated[float, Range(0, 12)] | None,
    "distillation.temperature": Positive,
    "distillation.weight": Share,
    "lr_every": Literal["epoch", "step"],
    # of `supernet.compress`
    "share": Portion,
    "sparsity": Portion,
    "calibration": Whole,
    "calibrate": Literal["minmax", "entropy", "percentile"],
    "qat_minutes": Positive,
    "lr": Positive | None,
    # of `supernet.deploy`
    "points": Annotated[int, Range(2, 100)],
    "score": Literal["accuracy", "loss"],
    "samples": Annotated[int, Range(2, 1_000_000)],
    "candidates": Count,
    "gradient_steps": Count,
    "measured": Annotated[int, Range(2, 100_000)],
    "latency_batch": Annotated[int, Range(1, 65_536)],
    # of `supernet.rank` and `supernet.tabulate`
    "seeds": list[Seed] | Count,  # which ones, or how many
    "processes": Annotated[int, Range(1, 1024)],
    "limit": Count,
    "n": Annotated[int, Range(3, 10_000_000)] | None,  # null: of `tabulate`
    "statistics": Literal["recalibrated", "batch", "running"],
    "calibration_batches": Count,
    "max_val": Count | None,
    "proxy_batch": Annotated[int, Range(2, 65_536)],
    "checkpoints": Literal["last", "all"],
    "resamples": Annotated[int, Range(10, 1_000_000)],
    # of `supernet.sweep` and `supernet.reproduce`
    "retry": Literal["none", "failed"],
    "max_failures": Whole | None,
    "select.best": Count | None,
    "select.order": Literal["largest", "smallest"],
    "retrain.seeds": list[Seed],
    "searches": Annotated[int, Range(1, 10_000)] | None,
    "retrainings": Annotated[int, Range(1, 1000)] | None,  # a search has 1,000 seeds of its own
    # of `supernet.race`
    "budget.trials": Count | None,
    "budget.images": Count | None,
    "budget.wall_s": Positive | None,
    "budget.simulated_s": Positive | None,
    "learned": Whole,
    "trials": Count | None,
    "simulated_s": Positive | None,
    "repeats": Literal["free", "paid"],
    "patience": Count,
    "level": Portion,
}
COMPILES = {"train_search": ("none", "graph"), "train_final": ("none", "inductor")}  # by script; the other commands take no steps of theirs


def validate(cfg: DictConfig, script: str) -> None:
    """Checks ranges and combinations before a file or data is touched. Raises UsageError naming the option, the rule, the value."""
    OmegaConf.resolve(cfg)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UsageError(f"{missing[0]} needs a value: pass {missing[0]}=...")
    for key, annotation in OPTIONS.items():
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value is not _ABSENT:
            _check(key, annotation, value)
    for key, value in _leaves(cfg):
        if type(value) is float and not math.isfinite(value):
            raise UsageError(f"{key} must be a finite number, got {value}")
    _check_lists_and_names(cfg)
    _check_wandb(cfg.get("wandb"))
    check_nested(cfg)
    for n, row in enumerate(stage_options(cfg), 1):
        for key, value in row.items():
            if key in OPTIONS and (wrong := expected(OPTIONS[key], value)):
                name = key.removesuffix(".prob").removeprefix("w_optimizer.")
                raise UsageError(f"stage.{name} must be {wrong}, got {value} for stage {n}")
    check_options(cfg)
    if script in COMPILES:
        _validate_compile(cfg, COMPILES[script])
    if cfg.get("lr_every") == "step" and cfg.compat.scheduler_step == "start":
        raise UsageError("lr_every=step moves the learning rate within an epoch: pass compat.scheduler_step=end, got start")
    if script == "train_search":
        _check_searcher(cfg)
    if script == "train_final":
        if cfg.epochs < 1:
            raise UsageError(f"epochs must be at least 1, got {cfg.epochs}")
        _check_sizes(cfg)


def _check_sizes(cfg: DictConfig) -> None:
    quantity = "" if cfg.fit is None else budget_of(cfg.fit)[0]
    if cfg.fit is not None and cfg.doublings is not None:
        raise UsageError(f"doublings={cfg.doublings:g} and fit={cfg.fit} both choose layers and channels: pass one of them")
    if cfg.free_resolution and cfg.fit is None and cfg.doublings is None:
        raise UsageError("free_resolution=true says what fit and doublings may change, and neither is given")
    if cfg.free_resolution and quantity == "parameters":
        raise UsageError("free_resolution=true needs fit=multiply_adds:NUMBER: a network has as many parameters at any size of images")


BUDGETS = ("multiply_adds", "parameters")  # what `fit` counts


def budget_of(text: str) -> tuple[str, float]:
    """What is counted, and how much of it there may be. Raises UsageError."""
    quantity, _, number = str(text).partition(":")
    try:
        budget = float(number)
    except ValueError:
        budget = math.nan
    if quantity not in BUDGETS or not 0 < budget < math.inf:
        raise UsageError(f"fit must be {' or '.join(f'{name}:NUMBER' for name in BUDGETS)}, as multiply_adds:600e6, got {short(text)}")
    return quantity, budget


def _validate_compile(cfg: DictConfig, allowed: tuple[str, ...]) -> None:
    if cfg.compile not in allowed:
        raise UsageError(f"compile must be {' or '.join(allowed)} here, got {cfg.compile}")
    if cfg.compile == "inductor" and cfg.checkpoint_cells:
        raise UsageError("compile=inductor cannot follow checkpoint_cells=true, which draws again what it drew: pass compile=none")
    if cfg.compile == "inductor" and cfg.backend in ("packed", "merged"):  # named here: ops imports PyTorch, and --help does without
        raise UsageError(f"compile=inductor compiles what backend=plain computes: pass one of both alone, got backend={cfg.backend}")
    if cfg.get("sampled_graphs") and cfg.compile != "graph":
        raise UsageError(f"sampled_graphs={cfg.sampled_graphs} keeps CUDA graphs, and none are made: pass compile=graph as well")
    if cfg.compile == "graph":
        for key, draws in (("drop_path_prob", cfg.drop_path_prob > 0), ("skip_dropout", cfg.skip_dropout is not None)):
            if draws:
                raise UsageError(f"compile=graph cannot hold {key}, which draws at every step: pass compile=none")


def _check_searcher(cfg: DictConfig) -> None:
    """What a search by trials excludes and needs, and what belongs to one alone."""
    if cfg.searcher is None:
        for key in own_overrides():
            name = key.lstrip("+~").partition("=")[0]
            if name.partition(".")[0].partition("@")[0] in (OF_SEARCHERS | {"processes"}) - {"searcher"}:
                raise UsageError(f"{key} is of a search by trials: pass searcher=random or another searcher as well")
        return
    if cfg.final_select is not None:
        _refuse_beside_searcher(f"final_select={cfg.final_select._target_}", "final_select=null")
    if keep := list(cfg.stage.keep):
        _refuse_beside_searcher(f"stage.keep={keep}", "stage.keep=[]")
    if all(value is None for value in cfg.budget.values()):
        raise UsageError(f"budget must say what the search may spend, one of budget.{', budget.'.join(cfg.budget)}, got none: pass "
                         "budget.trials=100, for example")


def _refuse_beside_searcher(what: str, without: str) -> None:
    raise UsageError(f"a searcher decides the genotype after the epochs of one supernet, got {what} beside it: pass {without}, or "
                     "searcher=null")


_ABSENT = object()


def _check(key: str, annotation: Any, value: Any) -> None:
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if wrong := expected(annotation, value):
        raise UsageError(f"{key} must be {wrong}, got {shown(value)}")


def _check_lists_and_names(cfg: DictConfig) -> None:
    keep = cfg.stage.keep if cfg.get("stage") else []
    if not all(1 <= after < before for before, after in zip([math.inf, *keep], keep)):
        raise UsageError(f"stage.keep must be falling numbers of at least 1, got {list(keep)}")
    _check_open(cfg.stage if cfg.get("stage") else {})
    for key in ("options", "columns"):
        if cfg.get(key) is not None and not OmegaConf.is_dict(cfg[key]):
            raise UsageError(f"{key} must be {{name: value, ...}}, in quotes where a shell reads it, got {shown(cfg[key])}")
    seeds = cfg.get("seeds", [0])
    if OmegaConf.is_list(seeds) and (not seeds or len(set(seeds)) != len(seeds)):
        raise UsageError(f"seeds must be distinct numbers, at least one, got {list(seeds)}")
    if cfg.get("output") is not None and not cfg.output.strip():
        raise UsageError(f"output must be the path of a folder, got {cfg.output!r} (output=. is the current one)")
    name = OmegaConf.select(cfg, "dataset.name")
    if name is not None and not (type(name) is str and name.isprintable() and name.strip(". ") and "/" not in name and len(name) <= 100):
        raise UsageError(f"dataset.name must be at most 100 printable characters without /, for it names files, got {shown(repr(name))}")


def _check_open(stage: Mapping[str, Any]) -> None:
    entries = stage.get("open") or []
    if not entries:
        if stage.get("sort") is not None:
            raise UsageError("stage.sort is of stages that open choices: pass stage.open as well, as stage=progressive_shrinking does")
        return
    if stage.get("keep"):
        raise UsageError(f"stage.keep takes choices away and stage.open adds some: pass one of both, got stage.keep={list(stage.keep)}")
    if len(entries) < 2 or not all(OmegaConf.is_dict(entry) and all(count == "all" or (type(count) is int and 1 <= count <= MANY)
                                                                      for count in entry.values()) for entry in entries):
        raise UsageError("stage.open must be a list of at least two stages, each {kind of decision: choices that are open from then on, at "
                         f"least 1, or all}}, got {short(OmegaConf.to_container(entries))}")


def _check_wandb(wandb: DictConfig | None) -> None:
    """W&B's own rules, which in mode auto would only be a reason to go on without it."""
    if wandb is None:
        return
    in_urls = "/\\#?%:"
    texts = {"wandb.project": (wandb.project, 128, in_urls), "wandb.entity": (wandb.entity, 128, in_urls),
             "wandb.group": (wandb.group, 128, "")}
    texts |= {f"wandb.tags[{n}]": (tag, 64, "") for n, tag in enumerate(wandb.tags)}
    for key, (value, most, never) in texts.items():
        if value is not None and not (value.strip() and value.isprintable() and len(value) <= most and not set(value) & set(never)):
            rule = f"1 to {most} printable characters{f' without {never}' if never else ''}"
            raise UsageError(f"{key} must be {rule}, got {shown(repr(value))}")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All values within a node that are no nodes, by their full names."""
    if OmegaConf.is_dict(node):
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif OmegaConf.is_list(node):
        for n, value in enumerate(node):
            yield from _leaves(value, f"{prefix}[{n}]")
    else:
        yield prefix, node


def for_each_stage(stage: DictConfig, name: str, value: Any, n: int) -> list[Any]:
    """A list as it is, one value n times. Raises UsageError."""
    values = list(value) if OmegaConf.is_list(value) else [value] * n
    if len(values) != n:
        why = f"stage.keep is {list(stage.keep)}" if stage.keep else f"stage.open has {n} entries"
        raise UsageError(f"stage.{name} must be one value, or one for each of the {n} stages ({why}), got {values}")
    return values


def stage_options(cfg: DictConfig) -> list[dict[str, Any]]:
    """For each stage of a search, the root options that it sets, by their full names: `[{}]` without stages. Raises UsageError."""
    stage = cfg.get("stage")
    opens = stage.get("open") if stage else None  # the options may be those of an older run
    if not stage or not (stage.keep or opens):
        return [{}]
    n = len(opens) if opens else len(stage.keep) + 1
    if stage.epochs is None:
        raise UsageError(f"stage.epochs must say how long each of the {n} stages is, got null")
    if stage.skip_dropout is not None and cfg.skip_dropout is None:
        raise UsageError("stage.skip_dropout needs a function of the epoch: pass skip_dropout=p_darts")
    columns = {"epochs": ("epochs", stage.epochs), "layers": ("layers", stage.layers), "channels": ("channels", stage.channels),
               "alpha_begin": ("alpha_begin", stage.alpha_begin), "lr": ("w_optimizer.lr", stage.get("lr")),
               "skip_dropout": ("skip_dropout.prob", stage.skip_dropout),
               **{f"network.{name}": (f"network.{name}", value) for name, value in (stage.network or {}).items()}}
    rows: list[dict[str, Any]] = [{} for _ in range(n)]
    for name, (key, value) in columns.items():
        if value is None:
            continue
        for row, own in zip(rows, for_each_stage(stage, name, value, n)):
            row[key] = own
    if not all(type(row["epochs"]) is int and row["epochs"] >= 1 for row in rows):
        raise UsageError(f"stage.epochs must be at least 1 each, got {[row['epochs'] for row in rows]}")
    if stage.inherit == "weights" and len({row.get("layers") for row in rows}) > 1:
        raise UsageError(f"stage.inherit=weights needs the same layers in every stage, got {[row['layers'] for row in rows]}")
    return rows

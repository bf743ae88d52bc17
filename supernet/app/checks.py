"""What options must hold alone and together, checked before a file or data is touched."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from supernet.app.signatures import check_nested
from supernet.errors import UsageError

Check = tuple[str, Callable[[Any], bool], str]
_POSITIVE = (lambda v: v >= 1, "at least 1")
_CHECKS: list[Check] = [
    ("seed", lambda v: 0 <= v < 2**63, "between 0 and 2^63 - 1"),
    ("epochs", lambda v: v >= 0, "at least 0"),
    *((key, *_POSITIVE) for key in ("batch_size", "eval_batch_size", "layers", "log_every", "keep_checkpoints")),
    ("channels", lambda v: v >= 2, "at least 2"),
    ("clip_norm", lambda v: v is None or v > 0, "positive, or null for no clipping"),
    ("threads", lambda v: v is None or v >= 1, "at least 1, or null"),
    ("workers", lambda v: v >= 0, "at least 0"),
    ("backend", lambda v: v in ("auto", "plain", "native"), "auto, plain or native"),
    ("checkpoint_every_s", lambda v: v >= 0, "at least 0"),
    ("wandb.mode", lambda v: v in ("auto", "online", "offline", "disabled"), "auto, online, offline or disabled"),
    ("wandb.timeout_s", lambda v: v > 0, "positive"),
    ("compat.scheduler_step", lambda v: v in ("end", "start"), "end or start"),
    ("compat.bn_statistics", lambda v: v in ("running", "batch"), "running or batch"),
    ("compat.pool_norm", lambda v: v in ("search", "always", "never"), "search, always or never"),
    ("split.mode", lambda v: v in ("index_order", "stratified", "shuffled"), "index_order, stratified or shuffled"),
    ("split.train_portion", lambda v: 0 < v < 1, "between 0 and 1, neither included (the rest trains the alphas)"),
    ("split.val_portion", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("split.max_train", lambda v: v is None or v >= 1, "at least 1, or null"),
    ("split.max_val", lambda v: v is None or v >= 1, "at least 1, or null"),
    ("lr_minimum", lambda v: v >= 0, "at least 0"),
    ("w_optimizer.lr", lambda v: v > 0, "positive"),
    ("w_optimizer.weight_decay", lambda v: v >= 0, "at least 0"),
    ("alpha_optimizer.lr", lambda v: v > 0, "positive"),
    ("alpha_snapshots", *_POSITIVE),
    ("alpha_begin", lambda v: v >= 0, "at least 0"),
    ("alpha_every", *_POSITIVE),
    ("alpha_clip_norm", lambda v: v is None or v > 0, "positive, or null for no clipping"),
    ("skip_dropout.prob", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("stage.keep", lambda v: all(1 <= b < a for a, b in zip([float("inf"), *v], v)), "falling numbers of at least 1"),
    ("stage.inherit", lambda v: v in ("weights", "none"), "weights or none"),
    ("stage.schedules", lambda v: v in ("stage", "search"), "stage or search"),
    ("drop_path_prob", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("task.auxiliary_weight", lambda v: v >= 0, "at least 0"),
    ("task.label_smoothing", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("seeds", lambda v: v and len(set(v)) == len(v) and all(0 <= s < 2**63 for s in v), "distinct numbers of at least 0, at least one"),
    ("processes", *_POSITIVE), ("limit", *_POSITIVE),
    ("n", lambda v: v >= 3, "at least 3"),
    ("statistics", lambda v: v in ("recalibrated", "batch", "running"), "recalibrated, batch or running"),
    ("calibration_batches", *_POSITIVE),
    ("max_val", lambda v: v is None or v >= 1, "at least 1, or null"),
    ("proxy_batch", lambda v: v >= 2, "at least 2"),
    ("checkpoints", lambda v: v in ("last", "all"), "last or all"),
    ("resamples", lambda v: v >= 10, "at least 10"),
    ("options", lambda v: v is None or OmegaConf.is_dict(v), "{name: value, ...}, in quotes where a shell reads it"),
    ("amp", lambda v: v in ("none", "bf16"), "none or bf16"),
]
COMPILES = {"train_search": ("none", "graph"), "train_final": ("none", "inductor")}  # by script; the other commands take no steps of theirs


def validate(cfg: DictConfig, script: str) -> None:
    """Checks ranges and combinations before a file or data is touched. Raises UsageError naming the option, the rule, the value."""
    OmegaConf.resolve(cfg)
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UsageError(f"{missing[0]} needs a value: pass {missing[0]}=...")
    absent = object()
    for key, holds, rule in _CHECKS:
        value = OmegaConf.select(cfg, key, default=absent)
        if value is absent:
            continue
        if not _holds(holds, value):
            raise UsageError(f"{key} must be {rule}, got {value}")
    check_nested(cfg)
    rows = stage_options(cfg)
    for key, holds, rule in _CHECKS:
        for n, row in enumerate(rows, 1):
            if key in row and not _holds(holds, row[key]):
                raise UsageError(f"stage.{key.removesuffix('.prob')} must be {rule}, got {row[key]} for stage {n}")
    if script in COMPILES:
        _validate_compile(cfg, COMPILES[script])
    if script == "train_final" and cfg.epochs < 1:
        raise UsageError(f"epochs must be at least 1, got {cfg.epochs}")


def _validate_compile(cfg: DictConfig, allowed: tuple[str, ...]) -> None:
    if cfg.compile not in allowed:
        raise UsageError(f"compile must be {' or '.join(allowed)} here, got {cfg.compile}")
    if cfg.compile == "inductor" and cfg.checkpoint_cells:
        raise UsageError("compile=inductor cannot follow checkpoint_cells=true, which draws again what it drew: pass compile=none")
    if cfg.compile == "graph":
        for key, draws in (("drop_path_prob", cfg.drop_path_prob > 0), ("skip_dropout", cfg.skip_dropout is not None)):
            if draws:
                raise UsageError(f"compile=graph cannot hold {key}, which draws at every step: pass compile=none")


def _holds(check: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(check(value))
    except TypeError:
        return False


def stage_options(cfg: DictConfig) -> list[dict[str, Any]]:
    """For each stage of a search, the root options that it sets, by their full names: `[{}]` without stages. Raises UsageError."""
    stage = cfg.get("stage")
    if not stage or not stage.keep:
        return [{}]
    n = len(stage.keep) + 1
    if stage.epochs is None:
        raise UsageError(f"stage.epochs must say how long each of the {n} stages is, got null")
    if stage.skip_dropout is not None and cfg.skip_dropout is None:
        raise UsageError("stage.skip_dropout needs a function of the epoch: pass skip_dropout=p_darts")
    columns = {"epochs": ("epochs", stage.epochs), "layers": ("layers", stage.layers), "channels": ("channels", stage.channels),
               "alpha_begin": ("alpha_begin", stage.alpha_begin), "skip_dropout": ("skip_dropout.prob", stage.skip_dropout),
               **{f"network.{name}": (f"network.{name}", value) for name, value in (stage.network or {}).items()}}
    rows: list[dict[str, Any]] = [{} for _ in range(n)]
    for name, (key, value) in columns.items():
        if value is None:
            continue
        values = list(value) if OmegaConf.is_list(value) else [value] * n
        if len(values) != n:
            raise UsageError(f"stage.{name} must be one value, or one for each of the {n} stages (stage.keep is {list(stage.keep)}), "
                             f"got {values}")
        for row, own in zip(rows, values):
            row[key] = own
    if not all(type(row["epochs"]) is int and row["epochs"] >= 1 for row in rows):
        raise UsageError(f"stage.epochs must be at least 1 each, got {[row['epochs'] for row in rows]}")
    if stage.inherit == "weights" and len({row.get("layers") for row in rows}) > 1:
        raise UsageError(f"stage.inherit=weights needs the same layers in every stage, got {[row['layers'] for row in rows]}")
    return rows

"""The root options of the two scripts, their checks, and the command line's error lines. No torch is imported here, so that `--help`
is quick. Apart from the scripts this is the only place that knows Hydra."""

import contextlib
import difflib
import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from supernet.errors import Mendable
from supernet.genotype import short
from supernet.space import Space

# What a run is called, where it is kept and how it is watched does not change what it computes.
NOT_COMPUTED = {"output", "name", "resume", "dry_run", "wandb", "log_every", "keep_checkpoints", "checkpoint_every_s", "workers", "threads",
                "table", "checkpoint_cells"}


CONF = Path(__file__).resolve().parent.parent / "conf"  # the same folder as `conf/` of the project, also in an installed package


class UsageError(Mendable):
    """An option is wrong."""


@dataclass
class Wandb:
    mode: str = "auto"  # auto, online, offline, disabled
    project: str = "supernet"
    timeout_s: float = 20.0


@dataclass
class Compat:
    """Where papers and official code differ; the defaults give the published numbers."""

    scheduler_step: str = "end"  # end: epoch e trains at lr(e); start: at lr(e + 1), as ports to torch >= 1.1 do
    bn_statistics: str = "running"  # running averages in evaluation (code), or the batch's own (paper)
    bn_affine: bool = False  # whether the candidates' batch norms learn factors and offsets in the search (code: not)
    pool_norm: str = "search"  # a batch norm after pools: in the search network only (code), always, or never
    augment_val: bool = True  # alpha batches are augmented like training batches (code)


@dataclass
class Common:
    dataset: Any = MISSING
    protocol: Any = MISSING
    task: Any = MISSING
    w_optimizer: Any = MISSING
    w_schedule: Any = MISSING
    experiment: Any = None
    seed: int = 0
    epochs: int = MISSING
    batch_size: int = MISSING
    eval_batch_size: int = 256
    layers: int = MISSING
    channels: int = MISSING
    network: Any = None  # what else the builder of the space's networks takes, {name: value}
    clip_norm: float | None = MISSING
    lr_minimum: float = MISSING  # where a cosine or linear schedule ends
    compat: Compat = field(default_factory=Compat)
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    threads: int | None = None  # of the CPU; null: torch's choice
    workers: int = 0  # processes that decode images which do not fit in memory
    channels_last: bool = True
    backend: str = "auto"  # auto, plain, native: whose kernels compute; native: channels_last, with a C++ compiler (CPU) or Triton (GPU)
    deterministic: bool = False  # on a GPU: the same bits again, at some cost
    amp: str = "none"  # none; bf16: networks compute in it where it is safe, weights, alphas and statistics stay in float32
    tf32: bool = False  # on a GPU: products of float32 with 10 bits of mantissa, faster
    compile: str = "none"  # of a search: none, graph (steps as CUDA graphs); of a final network: none, inductor (torch.compile)
    checkpoint_cells: bool = False  # keep only cells' inputs for the backward pass and compute the rest again: less memory, more time
    output: str = "runs"
    name: str | None = None
    resume: str = "never"  # never, auto, or a run's folder
    dry_run: bool = False
    log_every: int = 50  # steps between looks at the loss on a GPU
    keep_checkpoints: int = 2  # the newest so many stay; with more of them `python -m supernet.rank checkpoints=all` looks back
    checkpoint_every_s: float = 60.0  # seconds between checkpoints within an epoch
    wandb: Wandb = field(default_factory=Wandb)


@dataclass
class SearchSplit:
    mode: str = MISSING  # index_order, stratified, shuffled
    train_portion: float = MISSING  # of the training images; the rest trains the alphas
    max_train: int | None = None
    max_val: int | None = None


@dataclass
class FinalSplit:
    mode: str = MISSING
    val_portion: float = MISSING  # of the training images, held out for validation; may be 0
    max_train: int | None = None


@dataclass
class Staged:
    """The stages of a search. Where an option is null, the root's is every stage's; one value is all stages', a list has one for each."""

    keep: list[int] = field(default_factory=list)  # candidates that an edge keeps after each stage but the last; []: one stage
    epochs: Any = None  # of each stage; `epochs` becomes their sum
    layers: Any = None
    channels: Any = None
    alpha_begin: Any = None
    skip_dropout: Any = None  # skip_dropout.prob
    network: Any = None  # {name: value}
    inherit: str = "none"  # weights: a stage goes on with the weights, alphas and optimizers of the one before; none: it starts anew
    schedules: str = "stage"  # what learning rates, annealing and drop path run over: each stage, or the whole search


@dataclass
class SearchConfig(Common):
    script: str = "search"  # whose half of the protocol is read
    profile: Any = None
    space: Any = MISSING
    relaxation: Any = MISSING
    wrapper: dict[str, Any] = field(default_factory=dict)  # of the relaxation, by name, the first innermost
    hypergradient: Any = MISSING
    penalty: dict[str, Any] = field(default_factory=dict)  # on the alpha loss, by name, in this order
    w_penalty: dict[str, Any] = field(default_factory=dict)  # on the loss of the weights' step, by name
    monitor: dict[str, Any] = field(default_factory=dict)  # by name
    cost: Any = None  # for the penalties and selections that ask for one
    select: Any = MISSING
    final_select: Any = None  # how the genotype is found at the end; null: by `select`
    table: Any = None
    alpha_optimizer: Any = MISSING
    alpha_schedule: Any = MISSING
    alpha_begin: int = 0  # epochs of weights alone
    alpha_every: int = 1  # steps of the weights for each of the alphas
    alpha_clip_norm: float | None = None
    drop_path_prob: float = 0.0  # of the supernet, reached in a straight line over the epochs
    skip_dropout: Any = None  # of candidate skip connections, by epoch (a function)
    stage: Staged = field(default_factory=Staged)
    split: SearchSplit = field(default_factory=SearchSplit)
    alpha_snapshots: int = 20  # of the alphas, an epoch, for the record


@dataclass
class FinalConfig(Common):
    script: str = "final"
    genotype: str = "latest"  # a file, a published name, or the newest search under `output`
    space: Any = None  # null: the space that the genotype names
    split: FinalSplit = field(default_factory=FinalSplit)
    drop_path_prob: float = MISSING
    average: Any = MISSING  # of the weights over training
    report_test_every_epoch: bool = MISSING


@dataclass
class RankConfig:
    run: str | None = None  # the folder of a search
    options: Any = None  # without a run: those of train_search.py that make the networks, {name: value}
    table: Any = MISSING
    by: list[str] = field(default_factory=lambda: ["shared_weights"])
    truth: str | None = None  # a data set of the table; null: the run's, else the first it has
    n: int = 100
    statistics: str = "recalibrated"  # recalibrated, batch, running
    calibration_batches: int = 20
    max_val: int | None = 1000  # validation images that an architecture is evaluated on
    proxy_batch: int = 64
    checkpoints: str = "last"  # last, all
    resamples: int = 1000
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    output: str | None = None  # null: the run's folder, or `rank`


@dataclass
class TabulateConfig:
    space: Any = MISSING
    dataset: Any = MISSING
    training: dict[str, Any] = field(default_factory=dict)  # options of train_final.py, for every training
    options: Any = None  # further ones, {name: value}
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    processes: int = 1
    limit: int = 20_000  # the largest space that is accepted
    output: str | None = None  # null: data/tables/<space>.csv.gz


def register() -> None:
    """Makes the schemas known to Hydra, and the folder of the user's command a place for their own Python files."""
    store = ConfigStore.instance()
    # Hydra copies the whole store each time it lists a group, 145 times for --help. Nothing writes to it, and what it hands out is a copy.
    ConfigStore.__deepcopy__ = lambda self, memo: self
    store.store("search_schema", SearchConfig)
    store.store("final_schema", FinalConfig)
    store.store("rank_schema", RankConfig)
    store.store("tabulate_schema", TabulateConfig)
    sys.path.append(os.getcwd())


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
    rows = stage_options(cfg)
    for key, holds, rule in _CHECKS:
        for n, row in enumerate(rows, 1):
            if key in row and not _holds(holds, row[key]):
                raise UsageError(f"stage.{key.removesuffix('.prob')} must be {rule}, got {row[key]} for stage {n}")
    if script == "train_search" and cfg.task.get("auxiliary_weight"):
        raise UsageError(f"task.auxiliary_weight must be 0 in a search (its network has no such head), got {cfg.task.auxiliary_weight}")
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


def overrides(options: dict[str, Any]) -> list[str]:
    """Options given as a dict, `options={layers:5,split.val_portion:0.3}`, as Hydra's overrides."""
    def shown(value: Any) -> str:
        return "[" + ",".join(map(shown, value)) + "]" if isinstance(value, list) else json.dumps(value) if value is None else str(value)

    return [f"{key}={shown(value)}" for key, value in options.items()]


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The options as plain, resolved dicts and lists."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def text(cfg: DictConfig) -> str:
    """The options as YAML, resolved."""
    return OmegaConf.to_yaml(cfg, resolve=True)


def check_flags() -> None:
    """Raises UsageError for a flag that Hydra does not know, which it would answer with a page of usage."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            unknown = get_args_parser().parse_known_args()[1]
        except SystemExit as error:
            if not error.code:
                raise
            unknown = sys.argv[1:]
    if unknown:
        raise UsageError(f"there is no flag {short(' '.join(unknown))}; the flags are --help, --multirun, --cfg, --info and Hydra's others")


def cli(main: Callable[[], Any]) -> None:
    """Runs a script's Hydra main. What the user can mend is one line on stderr and exit code 2, anything else a traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing several lines of its own
    register()
    with mendable_errors():
        check_flags()
        main()


def shows_errors(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Ends the script at a mendable error before Hydra adds lines of its own."""

    @functools.wraps(main)
    def wrapped(cfg: DictConfig) -> None:
        with mendable_errors():
            main(cfg)

    return wrapped


@contextlib.contextmanager
def mendable_errors() -> Iterator[None]:
    try:
        yield
    except (Mendable, HydraException, OmegaConfBaseException) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:  # Hydra's own for `group=null`, where the group has a default
        if "Config group override must be" not in str(error):
            raise
        print("error: a group takes the name of a choice, got null (there is table=none; --help lists the choices)", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of `--help | head` has left; the interpreter must not find that out again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def composing() -> Iterator[None]:
    """Around building objects from options: what they refuse (ValueError, TypeError) is the user's to mend.

    SUPERNET_TRACEBACK=1 shows where it came from instead.
    """
    try:
        yield
    except (ValueError, TypeError, InstantiationException) as error:
        if os.environ.get("SUPERNET_TRACEBACK"):
            raise
        raise UsageError(one_line(error)) from error


def one_line(error: BaseException) -> str:
    """The message of `error` in one line, without Hydra's internals, with a hint where a name was nearly right."""
    if type(error) is InstantiationException and error.__cause__ is not None:
        target = re.search(r"'([^']+)'", str(error))
        return f"{target.group(1) if target else 'options'}: {one_line(error.__cause__)}"
    message = " ".join(str(error).split())
    if message.startswith("Error merging override") and error.__cause__ is not None:
        message += ": " + " ".join(str(error.__cause__).split())
    message = re.sub(r" (Config search path:|full_key:|reference_type=|object_type=|See https://hydra).*", "", message)
    message = re.sub(r"^In '[^']*': ", "", message)
    group = re.match(r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*)", message)
    if group:
        name, seen, options = group.groups()
        return f"{name}={seen}: no such choice, there are {', '.join(options.split())}{did_you_mean(seen, options.split())}"
    member = re.match(r"Could not load '(\w+)/(\w+)'", message)
    if member:  # of a list, wrapper=[a,b]
        name, seen = member.groups()
        options = sorted(file.stem for file in (CONF / name).glob("*.yaml"))
        return f"{name}=[{seen}]: no such choice, there are {', '.join(options)}{did_you_mean(seen, options)}"
    key = re.match(r"Could not override '([^']+)'", message)
    if key:
        default, known = (_known_keys(os.path.basename(sys.argv[0]), choices) for choices in ([], sys.argv[1:]))
        if key.group(1) in default and key.group(1) not in known:
            return f"there is no option {key.group(1)!r} with the chosen {key.group(1).partition('.')[0]}"
        return f"there is no option {key.group(1)!r}{did_you_mean(key.group(1), known)} (--help lists the options)"
    return message


def asked(key: str) -> bool:
    """Whether the command line itself names an option (a preset or a protocol may give it a value too)."""
    return HydraConfig.initialized() and any(word.lstrip("+").partition("=")[0] == key for word in HydraConfig.get().overrides.task)


def _known_keys(script: str, overrides: Sequence[str]) -> list[str]:
    """All options of a script by their full names, as its defaults and those of `overrides` that choose from a group compose them."""
    name = {"train_final.py": "final", "rank.py": "rank", "tabulate.py": "tabulate"}.get(script, "search")

    def flat(node: DictConfig, prefix: str = "") -> Iterator[str]:
        for key in (key for key in node if not str(key).startswith("_")):
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if OmegaConf.is_dict(child) and not child._is_none():
                yield from flat(child, f"{prefix}{key}.")

    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
        try:
            return list(flat(compose(name, [option for option in overrides if re.split("[@=]", option)[0] in groups])))
        except HydraException:  # the choices of several runs
            return list(flat(compose(name)))


def as_space(made: Any, target: str) -> Space:
    """`made` itself. Raises UsageError: the function that the user named, `target`, returned something else."""
    if type(made) is not Space:
        raise UsageError(f"{target} must return a supernet.space.Space, got {type(made).__name__}")
    return made


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean x?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def choices(group: str) -> list[str]:
    """The configs of a group, by name."""
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group)


def newest_genotype(output: str, dataset: str) -> str:
    """The genotype.json of the search on `dataset` under `output` that finished last. Raises UsageError where there is none."""
    found = []
    for path in Path(output).glob("*/run.json"):
        genotype, config = path.with_name("genotype.json"), path.with_name("config.yaml")
        try:
            status, of = json.loads(path.read_text()), OmegaConf.select(OmegaConf.load(config), "dataset.name")
        except (OSError, ValueError, YAMLError):
            continue  # not a run of ours, or a damaged one
        if (status.get("script"), status.get("status"), of) == ("train_search", "finished", dataset) and genotype.exists():
            found.append((status.get("updated", ""), str(genotype)))
    if not found:
        raise UsageError(f"genotype=latest: no finished search on {dataset} under {output!r}; run train_search.py first, or pass "
                         "genotype=FILE or a published name such as genotype=darts_v2")
    return max(found)[1]

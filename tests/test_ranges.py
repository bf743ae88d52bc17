"""Every number that can be given has a range, and what lies outside it is refused, by name, before anything is made."""

import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supernet.app import schema
from supernet.app.build import build
from supernet.app.checks import OPTIONS, validate
from supernet.app.command_line import one_line, register
from supernet.app.options import CONF
from supernet.app.signatures import check_options
from supernet.errors import UsageError
from supernet.optim.optimizers import TORCH_RANGES
from supernet.ranges import MANY, Count, Finite, Fraction, Positive, Range, Whole, expected, has_range, is_open, ranged

NOT_NUMBERS = (math.nan, math.inf, -math.inf, "many", True, [1], {"a": 1}, 1e300, -1e300)
GLOBAL = {"protocol", "dataset", "experiment", "profile", "sweep"}  # groups whose configs say more than their own node, or are W&B's


@pytest.fixture(scope="module", autouse=True)
def hydra():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def targets(node: Any) -> Iterator[str]:
    """The full names of all constructors within a config."""
    if isinstance(node, Mapping):
        if node.get("_target_", "???") != "???":
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def all_targets() -> list[str]:
    files = (OmegaConf.to_container(OmegaConf.load(file)) for file in sorted(CONF.rglob("*.yaml")))
    return sorted({target for file in files for target in targets(file)})


def constructor(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def annotations(target: str) -> dict[str, Any]:
    made = constructor(target)
    return {name: p.annotation for name, p in inspect.signature(made).parameters.items()} | dict(TORCH_RANGES.get(made, {}))


OURS = [target for target in all_targets() if target.startswith("supernet.")]


@pytest.mark.parametrize("target", OURS)
def test_no_part_takes_a_number_without_a_range(target):
    assert [f"{name}: {annotation}" for name, annotation in annotations(target).items() if is_open(annotation)] == []


@pytest.mark.parametrize("target", OURS)
def test_a_part_made_in_python_refuses_what_is_no_number_of_its_range(target):
    for name, annotation in annotations(target).items():
        if not has_range(annotation):
            continue
        for value in outside(annotation):
            with pytest.raises(ValueError, match=rf"\b{name} must be "):
                constructor(target)(**{name: value})


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Of `Count | None` both."""
    return (annotation,) if get_origin(annotation) in (Annotated, list, tuple, Sequence, Mapping) else get_args(annotation)


def outside(annotation: Any) -> list[Any]:
    """Values that an annotation with a range must refuse."""
    takes_lists = any(get_origin(one) in (list, tuple, Sequence, Mapping) for one in alternatives(annotation))
    return [value for value in (*NOT_NUMBERS, *past_the_ends(annotation)) if not (takes_lists and type(value) in (list, dict))]


def past_the_ends(annotation: Any) -> list[float]:
    numbers = [one for one in alternatives(annotation) if get_origin(one) is Annotated]
    kind = int if any(get_args(one)[0] is int for one in numbers) else float
    ranges = [mark for one in numbers for mark in get_args(one)[1:]]
    below = [r.low if r.above else r.low - max(1, abs(r.low)) for r in ranges]
    return [kind(end) for end in (*below, *(r.high if r.below else r.high + max(1, abs(r.high)) for r in ranges))]


def test_pytorchs_optimizers_of_the_configs_have_ranges_for_all_their_numbers():
    for target in set(all_targets()) - set(OURS):
        numbers = [name for name, annotation in annotations(target).items() if is_open(annotation) and name != "params"]
        assert constructor(target) in TORCH_RANGES and numbers == [], (target, numbers)


SCHEMAS = {"search": (schema.SearchConfig, "train_search"), "final": (schema.FinalConfig, "train_final"),
           "rank": (schema.RankConfig, "rank"), "tabulate": (schema.TabulateConfig, "tabulate"),
           "sweep": (schema.SweepConfig, "sweep"), "race": (schema.RaceConfig, "race"),
           "compress": (schema.CompressConfig, "compress"), "deploy": (schema.DeployConfig, "deploy")}
LISTED = {"stage.keep"}  # a rule over the whole list


def fields(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            yield from fields(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def numeric(kind: type) -> list[str]:
    return [key for key, annotation in fields(kind) if is_open(annotation)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_root_option_takes_a_number_without_a_range(name):
    assert set(numeric(SCHEMAS[name][0])) - LISTED - set(OPTIONS) == set()


@pytest.fixture(scope="module")
def composed() -> dict[str, DictConfig]:
    return {name: compose(name) for name in SCHEMAS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_root_options_refuse_what_is_no_number_of_their_range(composed, name):
    for key in numeric(SCHEMAS[name][0]):
        for value in (math.nan, -math.inf, "many", 1e300, -3):
            with pytest.raises((UsageError, OmegaConfBaseException)) as error:
                cfg = composed[name].copy()
                OmegaConf.update(cfg, key, [value] if key in ("seeds", "stage.keep") else value)
                validate(cfg, SCHEMAS[name][1])
            assert key.rpartition(".")[2] in str(error.value) and str(value) in str(error.value).lower(), (key, value)


def leaves(node: Any) -> Iterator[tuple[DictConfig, str]]:
    """Every option of a part within a node, as the part's node and the option's name."""
    if isinstance(node, ListConfig):
        for item in node:
            yield from leaves(item)
    if isinstance(node, DictConfig):
        for key in node:
            child = node._get_node(key)
            if "_target_" in node and not str(key).startswith("_"):
                yield node, key
            yield from leaves(child)


CHOICES = [f"{file.parent.name}/{file.stem}" for file in sorted(CONF.glob("*/*.yaml")) if file.parent.name not in GLOBAL]


@pytest.mark.parametrize("choice", [*CHOICES, *(f"dataset/{file.stem}" for file in sorted((CONF / "dataset").glob("*.yaml")))])
def test_every_number_of_every_group_is_refused_by_its_name_where_it_is_none(composed, choice):
    group, _, name = choice.partition("/")
    node = OmegaConf.load(CONF / f"{choice}.yaml")
    node.pop("defaults", None)  # what it is composed of is tested where it stands
    cfg = OmegaConf.masked_copy(composed["search"], ["protocol", "dataset", "lr_minimum", "script"])
    OmegaConf.set_struct(cfg, False)
    cfg.dataset.level, cfg.dataset.bptt = "word", 35
    cfg[group] = node.dataset if "dataset" in node else node
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, "supernet.spaces.toy.make" if key.endswith("_target_") else 1.0)
    for part, key in leaves(cfg[group]):
        annotation = annotations(part._target_).get(key)
        if annotation is None or not has_range(annotation):
            continue
        before = part._get_node(key)._value() if not OmegaConf.is_config(part._get_node(key)) else part[key]
        for value in outside(annotation):
            part[key] = value
            with pytest.raises(UsageError) as error:
                check_options(part)
            full = part._get_full_key(key)
            assert str(error.value).startswith(f"{full} must be "), (full, value, str(error.value))
        part[key] = before


REFUSED = {  # options of train_search.py; what the line begins with
    "a momentum that never ends": ("w_optimizer.momentum=2", "w_optimizer.momentum must be at least 0 and below 1, got 2"),
    "a momentum that is none": ("w_optimizer.momentum=nan", "w_optimizer.momentum must be at least 0 and below 1, got nan"),
    "one of three betas": ("alpha_optimizer.betas=[0.5,0.9,0.9]", "alpha_optimizer.betas must be a list of 2"),
    "a beta of 1": ("alpha_optimizer.betas=[0.5,1]", "alpha_optimizer.betas must be a list of which each is at least 0 and below 1"),
    "a folder without a name": ("output=''", "output must be the path of a folder, got ''"),
    "a limit in infinity": (("monitor=[limits]", "monitor.limits.above={skip_share:inf}"), "monitor.limits.above"),
    "a number of the protocol": ("protocol.search.lr=nan", "w_optimizer.lr must be positive, got nan"),
    "a number that nothing reads": ("protocol.final.lr=nan", "protocol.final.lr must be a finite number, got nan"),
    "layers without end": ("layers=100000000000", "layers must be at least 1 and at most 10,000, got 100000000000"),
    "a batch of less than nothing": (("cost=latency", "cost.batch_size=-1"), "cost.batch_size must be at least 1"),
    "a constant that is none": (("relaxation=controller", "relaxation.tanh_constant=nan"), "relaxation.tanh_constant must be"),
    "an option of another part": ("+w_schedule.decay=5", "w_schedule.decay: supernet.optim.schedules.Cosine has no such option"),
    "an option of a part without any": ("+select.most=5", "select.most: supernet.select.argmax.argmax has no such option"),
    "a name that is a path": (("dataset=text", "dataset.name=a/b"), "dataset.name must be at most 100 printable characters without /"),
    "a stage that keeps nothing": (("stage=p_darts", "skip_dropout=p_darts", "stage.keep=[0]"), "stage.keep must be falling"),
    "a stage with layers for none": (("stage=p_darts", "skip_dropout=p_darts", "stage.layers=[5,-1,7]"), "stage.layers must be at least 1"),
    "a seed that is none": ("seed=18446744073709551616", "seed must be at least 0 and at most"),
}


@pytest.mark.parametrize("options, line", [pytest.param(*case, id=name) for name, case in REFUSED.items()])
def test_what_was_accepted_or_ended_in_a_traceback_is_refused_first(options, line):
    with pytest.raises((UsageError, OmegaConfBaseException)) as error:
        validate(compose("search", overrides=[options] if isinstance(options, str) else list(options)), "train_search")
    assert one_line(error.value).startswith(line)


def test_options_that_have_lost_their_part_are_refused():
    """`average` stands for a node of the protocol; a key that is added to it takes its place."""
    cfg = compose("final", overrides=["+average.decay=5"])
    with pytest.raises(UsageError, match="^average must be a node with a _target_, got the names decay$"):
        build(cfg.average)


@pytest.mark.parametrize("preset", sorted(file.stem for file in (CONF / "experiment").glob("*.yaml")))
@pytest.mark.slow  # each is composed by Hydra
def test_published_setups_lie_within_the_ranges(preset):
    validate(compose("search", overrides=[f"experiment={preset}"]), "train_search")


def test_ranges_say_what_they_hold():
    rules = {"positive": Range(0, above=True), "finite": Range(), "at least 0 and below 1": Range(0, 1, below=True), "0": Range(0, 0)}
    assert [r.rule() for r in rules.values()] == list(rules)
    assert Range(1, MANY).rule(0) == "at least 1" and Range(1, MANY).rule(10 * MANY) == "at least 1 and at most 1,000,000,000"
    assert expected(Count | None, 0) == "at least 1, or null" and expected(Count | None, None) is None
    assert expected(Positive, "1") == "a number, positive" and expected(Count, 1.0) == "a whole number, at least 1"
    assert expected(Whole, np.int64(3)) is None and expected(Finite, np.float32(3)) is None
    assert expected(Finite, np.float32("nan")) == "finite" and expected(Mapping[str, Finite], {"a": 1}) is None
    assert expected(Sequence[Whole], [1, -1]) == "a list of which each is at least 0"


def test_a_ranged_function_is_called_as_before():
    @ranged
    def made(a: Count, *, b: Fraction = 0.5, c: str = "c") -> tuple[Any, ...]:
        """Says what it got."""
        return a, b, c

    assert made(2, c="d") == (2, 0.5, "d") and made.__doc__ == "Says what it got."
    with pytest.raises(ValueError, match=r"^a must be at least 1, got 0$"):
        made(0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'd'"):
        made(1, d=3)

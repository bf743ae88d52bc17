"""W&B's sweeps, `conf/sweep/*.yaml`: each is in W&B's format, and every run that it can ask for composes, so that no option named there
is unknown and no value out of range."""

import itertools
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from hydra import compose
from omegaconf import OmegaConf

from supernet.app.checks import validate
from supernet.app.options import CONF
from supernet.runs.journal import Journal
from tests.helpers import run
from tests.searches import configs

SWEEPS = sorted((CONF / "sweep").glob("*.yaml"))
CONFIG = {"train_search.py": "search", "train_final.py": "final"}
# What W&B draws from, as far as we use it: `at` in [0, 1) stands for the draw, 0 for the least value, nearly 1 for the largest.
# https://docs.wandb.ai/guides/sweeps/sweep-config-keys
DISTRIBUTIONS: Mapping[str, Callable[[Mapping[str, Any], float], Any]] = {
    "uniform": lambda p, at: p["min"] + at * (p["max"] - p["min"]),
    "q_uniform": lambda p, at: round((p["min"] + at * (p["max"] - p["min"])) / p["q"]) * p["q"],
    "log_uniform_values": lambda p, at: math.exp(math.log(p["min"]) + at * math.log(p["max"] / p["min"])),
    "int_uniform": lambda p, at: p["min"] + int(at * (p["max"] - p["min"] + 1)),
    "constant": lambda p, at: p["value"],
    "categorical": lambda p, at: p["values"][int(at * len(p["values"]))],
}


def distribution(parameter: Mapping[str, Any]) -> str:
    return parameter.get("distribution") or ("constant" if "value" in parameter else "categorical")


def expanded(sweep: Mapping[str, Any], draws: int = 4) -> Iterator[dict[str, Any]]:
    """All runs of a grid; of another sweep the two where every value is the least or the largest, and some draws."""
    parameters = sweep["parameters"]
    if sweep["method"] == "grid":
        values = [parameter.get("values", [parameter.get("value")]) for parameter in parameters.values()]
        yield from (dict(zip(parameters, row)) for row in itertools.product(*values))
        return
    rng = random.Random(0)
    for at in (lambda: 0.0, lambda: 1 - 1e-12, *[rng.random] * draws):
        yield {name: DISTRIBUTIONS[distribution(parameter)](parameter, at()) for name, parameter in parameters.items()}


def words(values: Mapping[str, Any]) -> list[str]:
    """What an agent makes of ${args_no_hyphens}."""
    return [f"{name}={value}" for name, value in values.items()]


def extra(sweep: Mapping[str, Any]) -> list[str]:
    """The options that the command adds for every run."""
    return [word.replace("${envvar:WANDB_SWEEP_ID}", "sw33p") for word in sweep["command"][4:]]


@pytest.fixture(params=SWEEPS, ids=lambda path: path.stem)
def sweep(request) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


def test_there_is_one_of_each_method():
    assert {yaml.safe_load(path.read_text())["method"] for path in SWEEPS} == {"grid", "random", "bayes"}


def test_it_is_in_wandbs_format(sweep):
    assert set(sweep) <= {"program", "method", "metric", "parameters", "command", "run_cap"} and sweep["program"] in CONFIG
    assert sweep["metric"]["goal"] in ("maximize", "minimize")
    assert sweep["command"][:4] == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    assert "resume=auto" in sweep["command"] and "output=runs/${envvar:WANDB_SWEEP_ID}" in sweep["command"]
    for name, parameter in sweep["parameters"].items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name), f"W&B refuses the name {name}"
        assert distribution(parameter) in DISTRIBUTIONS, parameter
        assert not (sweep["method"] == "grid" and "distribution" in parameter)
        for key in ("min", "max", "q"):
            assert type(parameter.get(key, 0)) in (int, float), f"{name}: YAML reads {key} as {parameter[key]!r}"  # 1e-3 is a text


def test_every_run_it_can_ask_for_composes_and_has_what_was_asked_for(sweep):
    name, script = CONFIG[sweep["program"]], sweep["program"].removesuffix(".py")
    jobs = list(expanded(sweep))
    assert len({str(job) for job in jobs}) == len(jobs)
    with configs():
        for job in jobs if len(jobs) <= 10 else [job for job in jobs if job.get("seed") == 0]:
            cfg = compose(name, overrides=[*words(job), *extra(sweep)])
            validate(cfg, script)
            for key, value in job.items():
                if not (CONF / key).is_dir():  # a group's choice stands nowhere in the options that it gives
                    assert OmegaConf.select(cfg, key) == value, key


def test_an_option_that_does_not_exist_is_refused(sweep):
    [job, *_] = expanded(sweep)
    with configs(), pytest.raises(Exception, match="alpha_optimiser"):
        compose(CONFIG[sweep["program"]], overrides=words(job | {"alpha_optimiser.lr": 0.1}))


def test_an_agent_makes_these_words(sweep, monkeypatch):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sw33p")
    [job, *_] = expanded(sweep)
    command = utils.create_sweep_command(list(sweep["command"]))
    made = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in job.items()}})
    assert made["args_no_hyphens"] == words(job) and command[4:] == extra(sweep)


SMALL = ("epochs=1", "layers=3", "channels=2", "batch_size=16", "split.max_train=32")


@pytest.mark.parametrize("name", ["random", "bayes_final"])
def test_a_run_of_it_records_what_the_sweep_looks_at(tmp_path, name):
    sweep = yaml.safe_load((CONF / "sweep" / f"{name}.yaml").read_text())
    [*_, job] = expanded(sweep)
    more = ("split.max_val=32", "space.nodes=1", "alpha_begin=0") if sweep["program"] == "train_search.py" else ("eval_batch_size=64",)
    done = run(sweep["program"].removesuffix(".py"), *words(job), *extra(sweep), *SMALL, *more, cwd=tmp_path, report=False)
    assert done.code == 0, done
    [metrics] = tmp_path.glob("runs/sw33p/*/metrics.jsonl")
    [record] = Journal.read(metrics)
    assert math.isfinite(record[sweep["metric"]["name"]])

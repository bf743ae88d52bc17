"""What `conf/` offers, group by group: tests that hold for all of a kind take their cases from here, and find what is added."""

from functools import partial
from importlib import import_module
from typing import Any

from omegaconf import OmegaConf

from supernet.app.options import CONF

# What a choice cannot do without beside itself.
NEEDS = {
    ("space", "custom"): ["space._target_=supernet.spaces.darts.make"],
    ("space", "from_model"): ["space.model=examples.my_network.make"], ("task", "language_model"): ["dataset=text"],
    ("optimizer", "exponentiated_gradient"): ["relaxation=simplex", "alpha_optimizer.weight_decay=0"],
    ("hypergradient", "reinforce"): ["relaxation=controller"], ("relaxation", "controller"): ["hypergradient=reinforce"],
    ("relaxation", "simplex"): ["optimizer@alpha_optimizer=exponentiated_gradient", "alpha_optimizer.weight_decay=0"],
    ("wrapper", "auxiliary_skip"): ["network={auxiliary_skip:true}"],
    ("stage", "p_darts"): ["skip_dropout=p_darts"],
    ("stage", "progressive_shrinking"): ["space=ofa_mobilenet", "layers=20", "channels=8", "relaxation=uniform"],
    ("final_select", "within_cost"): ["final_select.limit=1e6", "cost=parameters"],
    ("cost", "table"): ["space=toy", "cost.path=toy.csv", "cost.column=flops"],
    ("cost", "latency_table"): ["space=toy", "cost.layers=3", "cost.channels=2"],
    ("penalty", "cost_limit"): ["cost=parameters", "penalty.cost_limit.limit=1e6"], ("penalty", "cost_linear"): ["cost=parameters"],
    ("penalty", "cost_log"): ["cost=multiply_adds"], ("penalty", "dirichlet_kl"): ["relaxation=dirichlet"],
    ("penalty", "cost_power"): ["cost=parameters", "penalty.cost_power.target=1"],
    ("passes", "sandwich"): ["space=nasbench_macro", "relaxation=uniform"],
    ("passes", "attentive"): ["space=nasbench_macro", "relaxation=uniform"],
    ("monitor", "limits"): ["monitor.limits.above={skip_share:0.5}"], ("select", "strongest_pairs"): ["space.ops_per_edge=2"],
}
# of other commands: `rank` (test_proxies.py), `race` (test_race.py, test_searchers.py), `sweep` (test_launchers.py), the referee
# (test_published.py); not Hydra's: test_wandb_sweeps.py
OTHERS = {"proxy", "launcher", "published", "sweep", "searcher", "objective",
          "evaluator_defaults", "searcher_defaults"}  # the last two: test_from_scratch.py
LISTS = {"wrapper", "penalty", "w_penalty", "monitor"}  # groups of which a search takes any number


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def everything() -> list[tuple[str, str]]:
    """(group, choice), of the groups that the two scripts compose."""
    folders = (folder.name for folder in sorted(CONF.iterdir()) if folder.is_dir() and folder.name not in OTHERS)
    return [(folder, choice) for folder in folders for choice in choices(folder)]


def chosen(group: str, choice: str) -> list[str]:
    """The options that choose it."""
    return [f"{group}=[{choice}]" if group in LISTS else f"{group}={choice}", *NEEDS.get((group, choice), [])]


def _node(group: str, choice: str) -> dict[str, Any]:
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{choice}.yaml"))
    return node[choice] if group in LISTS else node


def target(group: str, choice: str) -> Any:
    """The class or function that a choice builds."""
    module, _, name = _node(group, choice)["_target_"].rpartition(".")
    return getattr(import_module(module), name)


def made(group: str, choice: str, **changes: Any) -> partial:
    """It with the options that its file gives it, `changes` instead of some."""
    options = {key: value for key, value in _node(group, choice).items() if key not in ("_target_", "_partial_")}
    return partial(target(group, choice), **{**options, **changes})

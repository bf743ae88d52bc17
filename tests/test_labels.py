"""What a run is called where many are listed: runs that differ by their seeds alone share a group, others do not."""

import itertools

import pytest
from hydra import compose
from hydra.core.global_hydra import GlobalHydra

from supernet.app.labels import labels_of
from supernet.runs.tracker import MAX_NAME, MAX_TAG, Labels
from tests.searches import configs

SCRIPTS = {"search": {"space": "darts", "relaxation": "softmax", "hypergradient": "first_order"}, "final": {}}


@pytest.fixture(autouse=True)
def known_configs():
    with configs():
        yield


def labelled(*overrides: str, script: str = "search", genotype: str | None = None) -> Labels:
    """The labels of a run with these options. Choices are those of the command line, as Hydra tells them, and the defaults."""
    cfg = compose(script, overrides=list(overrides))
    given = dict(word.lstrip("+").split("=", 1) for word in overrides)
    chosen = SCRIPTS[script] | {key: value for key, value in given.items() if GlobalHydra.instance().config_loader().get_group_options(key)}
    return labels_of(cfg, overrides, chosen, genotype)


@pytest.mark.parametrize(("overrides", "group"), [
    ((), "darts digits"),
    (("seed=7", "device=cpu", "output=elsewhere", "wandb.mode=offline", "resume=auto", "threads=2"), "darts digits"),
    (("dataset=digits", "space=darts"), "darts digits"),
    (("relaxation=gumbel", "epochs=3", "alpha_optimizer.lr=0.01"), "darts digits gumbel alpha_optimizer.lr=0.01 epochs=3"),
    (("epochs=3", "relaxation=gumbel", "alpha_optimizer.lr=0.01"), "darts digits gumbel alpha_optimizer.lr=0.01 epochs=3"),
    (("wrapper=[edge_normalised,random_perturbed]",), "darts digits edge_normalised+random_perturbed"),
    (("experiment=gdas_cifar10",), "gdas_cifar10"),
    (("experiment=gdas_cifar10", "profile=smoke", "space=toy"), "gdas_cifar10 smoke toy"),
    (("optimizer@w_optimizer=adam_weights",), "darts digits adam_weights"),
    (("name=mine", "epochs=3"), "mine"),
    (("wandb.group=ours", "epochs=3"), "ours"),
])
def test_the_group_says_what_a_run_is_but_for_its_seed(overrides, group):
    assert labelled(*overrides).group == group


def test_names_sort_by_what_was_run_and_then_by_seed():
    names = [labelled(f"relaxation={relaxation}", f"seed={seed}").name for relaxation in ("concrete", "gumbel") for seed in (1, 2, 10)]
    assert names == sorted(names) and names[2] == "darts digits concrete seed 10" and names[0].endswith("seed 01")


def test_a_final_training_goes_by_what_it_trains():
    made = labelled("genotype=runs/some_search/genotype.json", "dataset=digits", "seed=1", script="final", genotype="ee0fb167cc26")
    assert made == Labels("ee0fb167cc26 digits seed 01", "ee0fb167cc26 digits", "seed-01", "final", ("ee0fb167cc26", "digits"))


def test_tags_name_data_space_and_method_and_begin_with_the_users_own():
    made = labelled("wandb.tags=[mine]", "relaxation=gumbel", "wrapper=[edge_normalised]", "penalty=[entropy]", "dataset=random")
    assert made.tags == ("mine", "darts", "random", "gumbel", "first_order", "edge_normalised", "entropy")


def test_no_label_is_longer_than_wandb_takes_and_long_ones_stay_apart():
    long = [f"network.{letter * 60}=1" for letter in "abc"]
    made = [labelled(*(f"+{word}" for word in long), f"+network.last={n}", "seed=4294967295") for n in range(3)]
    assert all(len(text) <= MAX_NAME for one in made for text in (one.name, one.group)) and made[0].name.endswith(" seed 4294967295")
    assert all(a.group != b.group and a.name != b.name for a, b in itertools.combinations(made, 2))
    assert all(len(tag) <= MAX_TAG for one in made for tag in one.tags)


def test_a_secret_on_the_command_line_is_in_no_label():
    made = labelled("+network.password=hunter2", "+network.root=https://me:hunter2@host")
    assert "hunter2" not in f"{made}" and "network.password=" in made.group

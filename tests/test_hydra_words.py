"""What is known of Hydra's insides and words holds for the installed one."""

import copy
import shlex
import sys

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from supernet.app import hydra_words
from supernet.app.command_line import check_flags
from supernet.errors import UsageError
from tests.searches import configs


@pytest.fixture(autouse=True)
def known_configs():
    with configs():
        yield


def test_this_hydra_was_read():
    assert hydra.__version__ in hydra_words.READ, "look at supernet/app/hydra_words.py with this version, then enter it there"


def test_the_store_is_not_copied_and_hands_out_copies():
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
    name = "search_schema.yaml"
    assert store.load(name).node is not store.load(name).node


def refused(*options):
    with pytest.raises(hydra.errors.HydraException) as caught:
        hydra.compose("search", overrides=list(options))
    GlobalHydra.instance().clear()  # as after a script's own composition
    line = hydra_words.one_line(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("option, told", [
    ("space=dart", "space=dart: no such choice, there are "),
    ("wrapper=[greedi]", "wrapper=[greedi]: no such choice"),
    ("epoch=3", "there is no option 'epoch'; did you mean epochs? (--help lists the options)"),
])
def test_its_errors_are_recognised(option, told):
    assert told in refused(option)


@pytest.mark.parametrize("word", ["output=a=b", "output=a,b", "output=r\u00f6d", "output=my (runs", "name=a{b", "name=it's"])
def test_a_value_that_needs_quotes_is_told_with_them_and_then_read(word, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_search.py", "seed=1", word])
    line = refused("seed=1", word)
    key, _, value = word.partition("=")
    assert line.startswith(f"{word}: the value must be quoted"), line
    (pasted,) = shlex.split(line.rpartition("pass ")[2].removesuffix(", or --multirun for a run of each"))
    (read,) = OverridesParser.create().parse_overrides([pasted])
    assert (read.key_or_group, read.value()) == (key, value)


def test_a_folder_without_an_options_name_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_search.py", "runs/one"])
    assert refused("runs/one") == "runs/one: options are written option=value"


@pytest.mark.parametrize("arguments, told", [
    (["seed=1", "--multirun", "epochs=1"], "pass --multirun seed=1 epochs=1"), (["--epochs", "3"], "there is no flag '--epochs"),
])
def test_flags_that_hydra_would_answer_with_a_page_are_one_line(arguments, told, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_search.py", *arguments])
    with pytest.raises(UsageError, match=told):
        check_flags()

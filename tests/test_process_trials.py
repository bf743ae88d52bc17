"""Searches by trials as torchrun starts them: every process evaluates some architectures, and together they find what one finds."""

import os
import random
import signal

import hydra
import pytest

from supernet.commands import trial_search
from supernet.commands.dealt import Dealt
from supernet.errors import UsageError
from supernet.processes.group import Group
from supernet.runs.interrupt import Interrupt
from supernet.runs.journal import Journal
from supernet.runs.run import Interrupted
from supernet.spaces import toy
from supernet.tables.files import write_table
from supernet.tables.table import Columns
from supernet.trials import Evaluation, Trial
from tests.helpers import run
from tests.runs import finished
from tests.searches import configs
from tests.torchrun import at_work, both, has_saved, started

SPACE = toy.make()
SMALL = ("space=toy", "layers=3", "channels=2", "split.max_train=64", "split.max_val=48", "batch_size=16", "eval_batch_size=16",
         "searcher=genetic", "searcher.population=5", "repeats=paid", "budget.trials=13")


def found(where) -> tuple[list[Trial], str]:
    """The trials, clocks left out, and the genotype."""
    folder = finished(where)
    trials = [Trial.from_json(record, SPACE)._replace(wall_s=0.0) for record in Journal(folder.trials).read_chained()]
    return trials, folder.genotype.read_text()


def folder_of(where, name):
    (where / name).mkdir()
    return where / name


def test_two_processes_find_what_one_finds_with_the_same_weights(tmp_path):
    """A supernet that was not trained, so that both have the same one; 13 trials leave one process without any in some rounds."""
    one, two = folder_of(tmp_path, "one"), folder_of(tmp_path, "two")
    ended = run("train_search", *SMALL, "epochs=0", cwd=one, report=False)
    assert ended.code == 0, ended.err
    first, second = both("train_search", *SMALL, "epochs=0", cwd=two)
    assert [first.code, second.code] == [0, 0] and (second.out, second.err) == ("", ""), first.err + second.err
    assert found(two) == found(one)
    assert len(found(one)[0]) == 13


@pytest.mark.slow
@pytest.mark.parametrize("options", [("evaluator=proxy",), ("evaluator.screen_batches=1", "evaluator.screen_of=4"),
                                     ("searcher=random", "evaluator.statistics=batch"), ("learned=4",)], ids="-".join)
def test_three_processes_find_what_one_finds_by_each_kind_of_evaluation(options, tmp_path):
    one, three = folder_of(tmp_path, "one"), folder_of(tmp_path, "three")
    options = [option for option in (*SMALL, *options) if not (option.startswith("searcher.") and "searcher=random" in options)]
    ended = run("train_search", *options, "epochs=0", cwd=one, report=False)
    assert ended.code == 0, ended.err
    ended = both("train_search", *options, "epochs=0", cwd=three, size=3)
    assert [e.code for e in ended] == [0, 0, 0], "".join(e.err for e in ended)
    assert found(three) == found(one)


@pytest.mark.slow
def test_a_search_by_two_that_is_killed_and_stopped_goes_on_to_the_trials_of_an_unbroken_one(tmp_path):
    """The supernet is trained by both too. One of them is killed at work on trials, then the other, then one is told to stop."""
    options = (*SMALL, "epochs=1", "synchronised_norms=true", "budget.trials=90")
    whole, broken = folder_of(tmp_path, "whole"), folder_of(tmp_path, "broken")
    assert [e.code for e in both("train_search", *options, cwd=whole)] == [0, 0]
    rng, codes = random.Random(0), []
    for rank, number in ((1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGTERM), (0, signal.SIGINT)):
        processes = at_work("train_search", *options, "resume=auto", cwd=broken)
        more = known(broken) + rng.randint(1, 8)
        while known(broken) < more and not processes[0].has_ended():
            pass
        os.kill(processes[rank].pid, number)
        codes.append([process.wait().code for process in processes])
    assert codes == [[2, -signal.SIGKILL], [-signal.SIGKILL, 2], [128 + signal.SIGTERM] * 2, [130] * 2]
    ended = both("train_search", *options, "resume=auto", cwd=broken)
    assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
    assert "goes on after trial" in ended[0].err and ended[1].err == ""
    assert found(broken) == found(whole)


def known(where) -> int:
    """Trials that are written."""
    folder = has_saved(where)
    return folder.trials.read_text().count("\n") if folder is not None and folder.trials.exists() else 0


MINE = '''
import os
from supernet.errors import UsageError
from supernet.evaluators.base import SearchEvaluator
from supernet.trials import Evaluation

class Fails(SearchEvaluator):
    """In one process alone, at its third evaluation."""
    gives = frozenset({"accuracy"})

    def __init__(self, offer):
        self.left = 3

    def __call__(self, genotype, fidelity=1.0):
        self.left -= 1
        if self.left == 0 and os.environ["RANK"] == "1":
            raise UsageError("this machine lacks what the architecture needs")
        return Evaluation({"accuracy": len(genotype.digest)}, images=1)
'''


@pytest.mark.slow
def test_an_evaluation_that_fails_in_one_process_ends_all_with_its_words_and_the_trials_before_are_kept(tmp_path):
    (tmp_path / "conf" / "evaluator").mkdir(parents=True)
    (tmp_path / "conf" / "evaluator" / "fails.yaml").write_text("_target_: mine.Fails\n_partial_: true\n")
    (tmp_path / "mine.py").write_text(MINE)
    first, second = (process.wait() for process in started("train_search", "space=nasbench201", "epochs=0", "evaluator=fails",
                                                           "searcher=random", "budget.trials=40", cwd=tmp_path))
    assert [first.code, second.code] == [2, 2]
    told = "this machine lacks what the architecture needs"
    assert first.err.splitlines()[-1].startswith("error: process 1 of 2 has ended: ") and told in first.err and told in second.err
    assert "Traceback" not in first.err + second.err
    assert known(tmp_path) == 4


def two() -> Group:
    """Of two processes as far as is asked before they work."""
    group = Group()
    group.size = 2
    return group


@pytest.mark.parametrize("options, told", [
    (("evaluator=from_scratch",), "evaluator FromScratch works in one process, got 2: a training takes longer than"),
    (("processes=3",), "processes=3 works in one process, which starts the others, got 2: leave it out"),
    (("evaluator=tabular", "table.path=toy.csv"), "evaluator OfTable works in one process, got 2: a table is read faster than")])
def test_what_is_evaluated_in_one_process_alone_is_refused_for_several(options, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [SPACE.text(genotype) for genotype in SPACE.enumerate()]
    write_table(tmp_path / "toy.csv", SPACE, texts, dict.fromkeys(("val", "test"), [1.0] * len(texts)), {"digits": Columns("val", "test")})
    with configs():
        cfg = hydra.compose("search", overrides=[*SMALL, "epochs=0", *options])
        with pytest.raises(UsageError, match=f"^{told}"):
            trial_search.composed(cfg, two())


class Talking(Group):
    """The first of two processes, whose other one is heard to say `theirs` in each round."""

    def __init__(self, *theirs: str):
        self.size, self.theirs, self.said = 2, list(theirs), []

    def first(self, make):
        self.said.append(make())
        return self.said[-1]

    def texts(self, own):
        return [own, self.theirs.pop(0)]


def test_a_signal_that_came_to_another_process_stops_the_search_after_the_round_and_is_told_to_all():
    group, interrupt = Talking('[15, {"metrics": {"a": 2.5}, "images": 3, "simulated_s": 0.0, "seconds": 1.0}]'), Interrupt()
    genotypes = [SPACE.sample(random.Random(n)) for n in range(3)]
    seen = []
    with pytest.raises(Interrupted), Dealt(group, lambda genotype, fidelity: (Evaluation({"a": 1.0}), 0.5), interrupt) as dealt:
        seen.extend(dealt.evaluations([(genotype, 1.0) for genotype in genotypes]))
    assert seen == [(Evaluation({"a": 1.0}), 0.5), (Evaluation({"a": 2.5}, 3), 1.0)]
    assert interrupt.signal == signal.SIGTERM and group.said[-1] == {"signal": signal.SIGTERM} and len(group.said) == 2

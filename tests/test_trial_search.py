"""`train_search.py searcher=...`: searches by trials on a small table and on digits, killed, stopped and damaged."""

import json
import math
import random
import shutil
import signal
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import supernet
from supernet.app.build import space_from
from supernet.app.checks import validate
from supernet.app.command_line import one_line
from supernet.app.searched_on import data_name
from supernet.commands import trial_search
from supernet.commands.training import job_of
from supernet.errors import Mendable
from supernet.genotype import Genotype
from supernet.runs import checkpoint
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal, JournalError
from supernet.runs.run import TIME_FIELDS
from supernet.searchers.given import Given
from supernet.spaces import nasbench_macro, toy
from supernet.spaces.named import space_again
from supernet.tables.files import read_table, write_table
from supernet.tables.table import Columns
from supernet.trials import History, Trial, best
from tests.helpers import At, only_error, run
from tests.runs import exactly, finished, folders
from tests.searches import configs

SPACE = toy.make()
TEXTS = [SPACE.text(genotype) for genotype in SPACE.enumerate()]
TABLE = ("space=toy", "evaluator=tabular", "epochs=0", "table.path=toy.csv.gz")
GENETIC = ("searcher=genetic", "searcher.population=5", "repeats=paid")
SMALL = ("space=toy", "layers=3", "channels=2", "split.max_train=64", "split.max_val=48", "batch_size=16", "eval_batch_size=16")


def made_table(folder: Path) -> None:
    """Of the toy space: validation tells half the truth, and a training takes 1 to 14 seconds."""
    rng = np.random.default_rng(0)
    test = rng.normal(80, 5, 27)
    columns = {"val": test + rng.normal(0, 3, 27), "test": test, "seconds": np.arange(1.0, 28), "latency": rng.uniform(1, 2, 27)}
    write_table(folder / "toy.csv.gz", SPACE, TEXTS, columns, {"digits": Columns("val", "test", "seconds", 0.5)})


@pytest.fixture
def where(tmp_path):
    made_table(tmp_path)
    return tmp_path


def trials_of(folder: RunFolder, space=SPACE) -> list[Trial]:
    """What was written, clocks left out."""
    return [Trial.from_json(record, space)._replace(wall_s=0.0) for record in Journal(folder.trials).read_chained()]


def outcome(folder: RunFolder, space=SPACE) -> dict:
    """All that a search by trials computed; clocks and paths left out."""
    values = json.loads(folder.summary.read_text())["values"]
    clocks = {*TIME_FIELDS, "searcher/wall_s", "spent/wall_s"}
    parts = checkpoint.load(folder.checkpoints).state["parts"]
    return {"trials": trials_of(folder, space), "genotype": folder.genotype.read_text(), "checkpoint": exactly(parts),
            "summary": {name: value for name, value in values.items() if name not in clocks}}


def searched(*options, cwd, code=0, **how) -> str:
    """A search to its end; what it printed on stderr."""
    ended = run("train_search", *options, cwd=cwd, report=False, **how)
    assert ended.code == code, ended.err
    return ended.err


def prepared(*options) -> trial_search.ByTrials:
    """A search by trials as it is before anything is written."""
    with configs():
        return trial_search.composed(checked(*options))


def checked(*options) -> DictConfig:
    cfg = hydra.compose("search", overrides=list(options))
    validate(cfg, "train_search")
    return cfg


def test_a_budget_that_ends_within_the_first_population_is_said_to_be_random_search(where):
    table = (*TABLE, f"table.path={where}/toy.csv.gz", "searcher=genetic")
    for population, count, said in ((5, 4, True), (5, 5, True), (5, 6, False)):
        made = prepared(*table, f"searcher.population={population}", f"budget.trials={count}")
        assert bool(trial_search.notes(made.trials)) == said
    assert "5 random architectures" in "".join(trial_search.notes(prepared(*table, "searcher.population=5", "budget.trials=2").trials))
    assert trial_search.notes(prepared(*table[:-1], "searcher=random", "budget.trials=2").trials) == []


@pytest.mark.parametrize("options, name", [
    ({"searcher": None, "epochs": 0, "evaluator": {"dataset": "x"}}, "digits"),
    ({"searcher": {}, "epochs": 3, "evaluator": {"dataset": "x"}}, "digits"),
    ({"searcher": {}, "epochs": 0, "evaluator": {"dataset": None}}, "digits"), ({"searcher": {}, "epochs": 0, "evaluator": {}}, "digits"),
    ({"searcher": {}, "epochs": 0, "evaluator": {"dataset": "a/b"}}, "a-b"), ({}, "digits")])
def test_the_data_of_a_search_that_asks_a_table_alone_are_the_tables(options, name):
    assert data_name({"dataset": {"name": "digits"}, **options}) == name


# ---- what a search leaves


def test_a_search_of_a_table_reads_no_data_and_builds_no_network(where):
    made = prepared(*TABLE, "searcher=random", "budget.trials=4", f"table.path={where}/toy.csv.gz")
    assert not made.trains and not any(made.offer.made(what) for what in ("read", "data", "parts", "stages"))
    ended = run("train_search", *TABLE, *GENETIC, "budget.trials=12", "dataset=cifar10", "evaluator.dataset=digits", cwd=where,
                report=False)  # whose files are not here
    assert ended.code == 0, ended.err
    folder = finished(where)
    # what was not read is named nowhere
    assert "dataset=digits" in ended.out and "cifar10" not in ended.out and "are random" not in ended.err
    assert "_search_digits_" in folder.path.name and "cifar10" not in folder.path.name
    assert "Search by trials on digits" in folder.summary.read_text()
    assert json.loads(folder.run_json.read_text())["data"] == "digits"
    table, trials = read_table(where / "toy.csv.gz", SPACE), trials_of(folder)
    assert not folder.split.exists() and len(trials) == 12 and {trial.change for trial in trials[:5]} == {"random"}
    for trial in trials:
        assert trial.metrics == {"accuracy": table.value(trial.genotype, "val")} and trial.scores == (trial.metrics["accuracy"],)
        assert trial.simulated_s == table.value(trial.genotype, "seconds") / 2
    assert [trial.sees for trial in trials] == [None, 0, 0, 0, 0, None, 5, 5, 5, 5, None, 10], "generations of five"
    best = max(trials, key=lambda trial: trial.scores)
    values = json.loads(folder.summary.read_text())["values"]
    assert values["genotype"] == best.genotype.to_json() and values["found/accuracy"] == best.scores[0]
    assert values["spent/trials"] == 12 and values["spent/images"] == 0
    assert values["spent/simulated_s"] == pytest.approx(sum(trial.simulated_s for trial in trials))
    with pytest.raises(Mendable, match="that search had no supernet"):
        supernet.load(folder.path)
    assert values["table/digits/test_accuracy"] == table.value(best.genotype, "test"), "what only a yardstick sees"


def test_a_limit_that_no_trial_keeps_is_told_beside_what_was_found(where):
    error = searched(*TABLE, "searcher=random", "budget.trials=4", "objective.at_least={accuracy:101}", cwd=where)
    rows = dict(json.loads(finished(where).summary.read_text())["rows"])
    assert rows["limits"].startswith("kept by none of the 4 that were evaluated; accuracy ") and "below 101" in rows["limits"]
    assert "breaks a limit, accuracy" in rows["found by"] and "breaks a limit" in error and "inf" not in rows["found by"] + error
    assert best(trials_of(finished(where))).metrics["accuracy"] < 101


def test_where_the_best_trial_keeps_the_limits_nothing_is_said_of_them(where):
    searched(*TABLE, "searcher=random", "budget.trials=4", "objective.at_least={accuracy:1}", cwd=where)
    assert "limits" not in dict(json.loads(finished(where).summary.read_text())["rows"])


def test_the_supernets_epochs_come_first_and_are_counted_apart(tmp_path):
    err = searched(*SMALL, "epochs=2", "searcher=random", "budget.trials=3", "evaluator.calibration_batches=2", cwd=tmp_path)
    assert err.index("epoch 2/2") < err.index("trial 0: accuracy")
    folder = finished(tmp_path)
    values, trials = json.loads(folder.summary.read_text())["values"], trials_of(folder)
    assert [trial.images for trial in trials if trial.repeats is None] == [48 + 2 * 16] * (3 - sum(t.repeats is not None for t in trials))
    assert values["images"] == 2 * (64 + 64 + 48), "weights, alphas and evaluation, an epoch"
    assert values["searcher/images"] == sum(trial.images for trial in trials)
    assert values["spent/images"] == values["images"] + values["searcher/images"] and values["spent/trials"] == 3


def test_a_gradient_search_counts_in_the_same_units(tmp_path):
    searched(*SMALL, "epochs=1", "final_select=sampled", "final_select.n=5", "final_select.finalists=2", cwd=tmp_path)
    values = json.loads(finished(tmp_path).summary.read_text())["values"]
    assert values["images"] == 64 + 64 + 48 and 1 <= values["spent/trials"] <= 5 and values["spent/simulated_s"] == 0
    assert values["spent/images"] == values["images"] + values["spent/trials"] * 16 + 2 * 48
    assert 0 < values["spent/wall_s"] <= values["elapsed_s"] + 1


# ---- killed, stopped, damaged


def test_a_search_of_a_table_killed_at_any_trial_is_the_unbroken_one(where):
    options = (*TABLE, *GENETIC, "budget.simulated_s=120", "objective.at_most={latency:1.8}", "evaluator.columns={latency:latency}")
    unbroken = where / "unbroken"
    unbroken.mkdir(), made_table(unbroken)
    searched(*options, cwd=unbroken)
    for n, name in ((1, "trials.jsonl"), (5, "trials.jsonl"), (4, "trials.jsonl")):
        ended = run("train_search", *options, "resume=auto", cwd=where, report=False, at=At(n, name))
        assert ended.code == -signal.SIGKILL, ended.err
    (*_, folder) = folders(where)
    assert len(trials_of(folder)) == 4 + 3
    with open(folder.trials, "ab") as file:
        file.write(b'{"number": 7, "gen')  # a kill in the middle of a line
    assert "goes on after trial 6" in searched(*options, "resume=auto", cwd=where)
    assert outcome(finished(where)) == outcome(finished(unbroken))
    assert all(trial.refused is None or trial.metrics["latency"] > 1.8 and trial.simulated_s == 0 for trial in trials_of(folder))


def test_a_search_with_shared_weights_killed_in_its_epochs_and_trials_is_the_unbroken_one(tmp_path):
    options = (*SMALL, "epochs=2", *GENETIC, "budget.images=900", "checkpoint_every_s=0", "learned=3")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir(), broken.mkdir()
    searched(*options, cwd=unbroken)
    for n, name in ((6, ".pt."), (6, "trials.jsonl"), (3, ".pt.")):
        ended = run("train_search", *options, "resume=auto", cwd=broken, report=False, at=At(n, name))
        assert ended.code == -signal.SIGKILL, ended.err
    searched(*options, "resume=auto", cwd=broken)
    assert outcome(finished(broken)) == outcome(finished(unbroken))


CHAINS = ("space=nasbench_macro", "channels=2", "split.max_train=32", "split.max_val=32", "batch_size=16", "eval_batch_size=16", "epochs=1",
          "evaluator.calibration_batches=1", "searcher=spos", "searcher.population=6", "searcher.mutations=4", "searcher.crossovers=2",
          "searcher.parents=2", "budget.trials=13")


def test_a_search_of_chains_killed_within_a_generation_is_the_unbroken_one_and_that_of_one_trial_after_the_other(tmp_path):
    single, broken = tmp_path / "single", tmp_path / "broken"
    single.mkdir(), broken.mkdir()
    searched(*CHAINS, "budget.images=1000000", cwd=single)  # may end in the middle of a generation: none is a population
    ended = run("train_search", *CHAINS, cwd=broken, report=False, at=At(6 + 1 + 4, "evaluated_ahead"))
    assert ended.code == -signal.SIGKILL, ended.err
    (folder,) = folders(broken)
    ahead = folder.path / "evaluated_ahead.jsonl"
    assert len(ahead.read_text().splitlines()) == 3 and len(trials_of(folder, nasbench_macro.make())) == 6, "in the second generation"
    searched(*CHAINS, "resume=auto", cwd=broken)
    assert outcome(finished(broken), nasbench_macro.make()) == outcome(finished(single), nasbench_macro.make())
    assert not ahead.exists()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_an_interrupted_search_says_how_to_go_on(where, number, code):
    options = (*TABLE, *GENETIC, "budget.trials=15")
    err = searched(*options, cwd=where, at=At(7, "trials.jsonl", number), code=code)
    told, command = err.splitlines()[-2:]
    assert told == "stopped at epoch 0, step 0, 7 trials; saved. Go on with:" and "resume=auto" in command and "Traceback" not in err
    (folder,) = folders(where)
    assert folder.status()["status"] == "stopped" and len(trials_of(folder)) == 7
    assert "goes on after trial 6" in searched(*options, "resume=auto", cwd=where)
    assert len(trials_of(finished(where))) == 15


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with a search that was stopped after 9 trials, with a checkpoint that knows of them all."""
    cwd = tmp_path_factory.mktemp("stopped")
    made_table(cwd)
    searched(*TABLE, *GENETIC, "budget.trials=15", cwd=cwd, at=At(9, "trials.jsonl", signal.SIGINT), code=130)
    return cwd


DAMAGED = {
    "cut": (lambda lines: lines[:5], "the checkpoint was made at byte"),
    "edited": (lambda lines: [*lines[:3], lines[3].replace("random", "rondam"), *lines[4:]], "damaged or edited"),
    "gone": (lambda lines: None, "the file has only 0"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_journal_that_was_cut_or_edited_is_told_and_not_gone_on_with(stopped, tmp_path, damage):
    where = tmp_path / "copy"
    shutil.copytree(stopped, where)
    change, told = DAMAGED[damage]
    (folder,) = folders(where)
    lines = change(folder.trials.read_text().splitlines(keepends=True))
    folder.trials.unlink() if lines is None else folder.trials.write_text("".join(lines))
    error = run("train_search", *TABLE, *GENETIC, "budget.trials=15", "resume=auto", cwd=where, report=False)
    assert error.code == 2 and told in error.err and "trials.jsonl" in error.err and "Traceback" not in error.err, error.err


def test_an_edit_behind_the_last_checkpoint_is_told_by_its_line_and_a_line_that_is_gone_by_the_next(tmp_path):
    journal, space = Journal(tmp_path / "trials.jsonl"), SPACE
    rng = random.Random(0)
    for number in range(4):
        journal.append(Trial(number, space.sample(rng), (1.0,)).to_json(), chained=True)
    assert [Trial.from_json(record, space).number for record in Journal(journal.path).read_chained()] == [0, 1, 2, 3]
    lines = journal.path.read_text().splitlines(keepends=True)
    for edited in (1, 3):  # also the last one, behind which no line stands
        journal.path.write_text("".join(line.replace("1.0", "2.0") if n == edited else line for n, line in enumerate(lines)))
        with pytest.raises(JournalError, match=f"line {edited + 1} is no record .it is not what was written"):
            Journal(journal.path).read_chained()
    journal.path.write_text("".join([lines[0], *lines[2:]]))
    with pytest.raises(JournalError, match="line 2 was written behind other lines"):
        Journal(journal.path).read_chained()
    journal.path.write_text("".join([*lines[:1], "[1]\n", *lines[2:]]))
    with pytest.raises(JournalError, match="line 2 is no record"):
        Journal(journal.path).read_chained()


def test_a_trial_is_read_back_as_it_was_written_whatever_its_numbers(tmp_path):
    rng = random.Random(0)
    for n in range(50):
        numbers = [rng.choice((math.inf, -math.inf, 0.1 + rng.random(), 1e300, 3.0)) for _ in range(3)]
        trial = Trial(n, SPACE.sample(rng), tuple(numbers[:2]), {"accuracy": numbers[0], "loss": numbers[2]}, parents=(1, 2), change="a b",
                      fidelity=1 / 3, images=7, wall_s=rng.random(), simulated_s=rng.random() * 100, repeats=rng.choice((None, 3)),
                      sees=rng.choice((None, 0, 4)))
        assert Trial.from_json(json.loads(json.dumps(trial.to_json())), SPACE) == trial
    refused = Trial(0, SPACE.sample(rng), (), {"latency": 2.0}, refused="latency 2 is above 1")
    assert Trial.from_json(json.loads(json.dumps(refused.to_json())), SPACE) == refused
    wrong = {"number": -1, "scores": ["nan!"], "fidelity": 0, "images": 1.5, "metrics": [1], "parents": [-1], "sees": -1, "what": 1}
    for key, value in wrong.items():
        with pytest.raises(ValueError, match=key if key != "what" else "expected a trial"):
            Trial.from_json(refused.to_json() | {key: value}, SPACE)


# ---- whose run it is


def test_what_decides_belongs_to_the_job_and_what_does_not_does_not(where):
    def job(*options, path="toy.csv.gz"):
        return prepared(*TABLE, "searcher=genetic", "searcher.population=5", "budget.trials=4", f"table.path={where}/{path}", *options).job

    shutil.copy(where / "toy.csv.gz", where / "other.csv.gz")
    (where / "there").mkdir()
    shutil.copy(where / "toy.csv.gz", where / "there")
    columns = {"val": np.arange(27.0), "test": np.arange(27.0), "seconds": np.ones(27)}
    write_table(where / "there" / "toy2.csv.gz", SPACE, TEXTS, columns, {"digits": Columns("val", "test", "seconds")})
    assert job() == job("processes=2", "log_every=7", path="there/toy.csv.gz")
    others = ("searcher.population=6", "budget.trials=5", "repeats=paid", "objective.at_least={accuracy:1}", "evaluator.isomorphic=mean")
    assert len({job(), job(path="there/toy2.csv.gz"), *map(job, others)}) == 7


def test_a_search_without_a_searcher_is_the_job_that_it_was():
    with configs():
        cfg = checked("space=toy", "layers=3")
        before = OmegaConf.create(OmegaConf.to_container(cfg))
        for name in ("searcher", "evaluator", "objective", "budget", "repeats", "patience", "learned", "processes"):
            assert name in before
            del before[name]
        space = space_from(cfg.space)
        assert job_of(cfg, "train_search", space) == job_of(before, "train_search", space)


# ---- what begins with what was learned


def test_what_the_relaxation_learned_is_the_first_generation(tmp_path):
    searched(*SMALL, "epochs=2", "alpha_optimizer.lr=0.3", "searcher=genetic", "searcher.population=4", "learned=4", "budget.trials=12",
             cwd=tmp_path)
    folder = finished(tmp_path)
    trials = trials_of(folder)
    assert [trial.change for trial in trials[:4]] == ["learned"] * 4 and "random" not in {trial.change for trial in trials}
    assert all(trial.parents and max(trial.parents) < 4 for trial in trials[4:8]), "the next generation is made of it"
    last = [record for record in Journal.read(folder.genotypes)][-1]
    assert trials[0].genotype.to_json() == last["genotype"], "the strongest first"


def test_given_architectures_are_asked_for_in_their_order():
    genotypes = list(SPACE.enumerate())[:3]
    searcher, history = Given(lambda: genotypes, "given"), History()
    for number in range(7):
        proposal = searcher.ask(history, random.Random(0))
        assert proposal.genotype == genotypes[number % 3] and searcher.sees(number) == 0
        history.append(Trial(number, proposal.genotype, (0.0,)))


@pytest.mark.parametrize("preset", [pytest.param("spos_cifar10", marks=pytest.mark.slow), "spos_nasbench201"])
def test_spos_evolves_over_its_supernet(preset, tmp_path):
    sizes = ("searcher.population=6", "searcher.mutations=3", "searcher.crossovers=2")
    searched(f"experiment={preset}", "profile=smoke", "epochs=1", *sizes, cwd=tmp_path)
    folder = finished(tmp_path)
    genotype = Genotype.load(folder.genotype)
    space = space_again(genotype.space, dict(genotype.arguments))
    changes = [trial.change for trial in trials_of(folder, space)]
    assert set(changes[:6]) == {"random"} and len(changes) == 12
    assert set(changes[6:9]) <= {"mutation", "random"} and set(changes[9:11]) <= {"uniform crossover", "random"} and changes[11] == "random"
    assert "mutation" in changes


# ---- before any work

PARAMETERS = "objective.at_most={parameters:10}"
WRONG = {
    "no budget": (("searcher=random",), ["budget must say what the search may spend", "budget.trials=100"]),
    "a budget of nothing": (("searcher=random", "budget.images=0"), ["budget.images must be at least 1"]),
    "two that decide": (("searcher=random", "budget.trials=3", "final_select=sampled"), ["Sampled beside it: pass final_select=null"]),
    "stages": (("searcher=random", "budget.trials=3", "stage.keep=[2]", "stage.epochs=1"), ["stage.keep=[2] beside it"]),
    "a metric that nothing gives": (("searcher=random", "budget.trials=3", "objective.maximise=[acuracy]"),
                                    ["there is no metric 'acuracy' here", "did you mean accuracy?"]),
    "a limit that nothing meets": (("searcher=random", "budget.trials=3", PARAMETERS), ["at_most.parameters is 10", "has at least"]),
    "a column's limit that nothing meets": ((*TABLE[1:3], "searcher=random", "budget.trials=3", "evaluator.columns={ms:latency}",
                                             "objective.at_most={ms:0.5}", "table.path={where}/toy.csv.gz"),
                                            ["objective.at_most.ms is 0.5", "has at least 1."]),
    "a floor that nothing reaches": ((*TABLE[1:3], "searcher=random", "budget.trials=3", "evaluator.columns={ms:latency}",
                                      "objective.at_least={ms:5}", "table.path={where}/toy.csv.gz"), ["at_least.ms is 5", "at most 1.9"]),
    "no table": ((*TABLE[1:3], "searcher=random", "budget.trials=3", "table.path=null"), ["needs a table of space toy"]),
    "a table of another space": ((*TABLE[1:3], "space=nasbench201", "searcher=random", "budget.trials=3", "table.path={where}/toy.csv.gz"),
                                 ["is of space 'toy'", "not of 'nasbench201'"]),
    "a data set that the table lacks": ((*TABLE[1:3], "searcher=random", "budget.trials=3", "evaluator.dataset=mnist",
                                         "table.path={where}/toy.csv.gz"), ["knows the data sets digits", "'mnist'"]),
    "a column that the table lacks": ((*TABLE[1:3], "searcher=random", "budget.trials=3", "evaluator.columns={a:b}",
                                       "table.path={where}/toy.csv.gz"), ["has no column 'b'"]),
    "a table of a part of the space": ((*TABLE[1:3], "searcher=random", "budget.trials=3", "table.path={where}/part.csv.gz"),
                                       ["a table of all 27 architectures", "has 3"]),
    "a large population": (("searcher=genetic", "budget.trials=3"), ["a population of 100", "space toy has 27"]),
    "a front for one score": (("searcher=genetic", "searcher.population=5", "budget.trials=3", "objective.minimise=[loss]"),
                              ["compares one score, and the objective has 2", "nsga2"]),
    "what learns nothing": (("searcher=random", "budget.trials=3", "learned=2", "relaxation=uniform"), ["Uniform learns nothing"]),
    "short trainings of a proxy": (("searcher=hyperband", "budget.trials=3", "evaluator=proxy", "objective.maximise=[naswot]",
                                    "evaluator.batch=8"), ["begins with short trainings, which Proxies cannot give"]),
    "more images than there are": (("searcher=random", "budget.trials=3", "evaluator=proxy", "objective.maximise=[naswot]",
                                    "evaluator.batch=49"), ["evaluator.batch must be at most the 48 validation images, got 49"]),
    "an unknown evaluator": (("searcher=random", "budget.trials=3", "evaluator=tabulr"), ["evaluator=tabulr: no such choice"]),
    "an option that an evaluator lacks": (("searcher=random", "budget.trials=3", "+evaluator.screen=3"), ["has no such option"]),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    made_table(folder)
    write_table(folder / "part.csv.gz", SPACE, TEXTS[:3], {"val": [1.0] * 3, "test": [1.0] * 3}, {"digits": Columns("val", "test")})
    return folder


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_searched_is_one_line_before_any_work(what, tables):
    options, told = WRONG[what]
    with pytest.raises((Mendable, HydraException)) as error:
        prepared(*SMALL, "epochs=0", *(option.replace("{where}", str(tables)) for option in options))
    line = one_line(error.value)
    assert "\n" not in line and all(words in line for words in told), line


@pytest.mark.parametrize("option", ["evaluator=tabular", "processes=2"])
def test_what_is_of_a_searcher_alone_needs_one(tmp_path, option):
    assert only_error(run("train_search", option, cwd=tmp_path)) == (
        f"{option} is of a search by trials: pass searcher=random or another searcher as well")


def test_a_wrong_search_leaves_nothing_behind(tmp_path):
    error = only_error(run("train_search", *SMALL, "searcher=genetic", "budget.trials=3", cwd=tmp_path))
    assert "a population of 100" in error and not (tmp_path / "runs").exists()


# ---- several processes


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    found = {}
    for processes in (1, 2):
        cwd = tmp_path / str(processes)
        cwd.mkdir()
        searched(*SMALL, "epochs=1", *GENETIC, "budget.trials=13", f"processes={processes}", cwd=cwd)
        found[processes] = outcome(finished(cwd))
    assert found[1] == found[2]


MINE = '''
import os, signal
from supernet.evaluators.base import SearchEvaluator
from supernet.trials import Evaluation

class Dies(SearchEvaluator):
    """Ends its process at the `after`-th evaluation."""
    gives = frozenset({"accuracy"})

    def __init__(self, offer, *, after=3):
        self.after = after

    def __call__(self, genotype, fidelity=1.0):
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return Evaluation({"accuracy": len(genotype.digest)}, images=1)
'''


@pytest.mark.slow
def test_a_worker_that_dies_is_told_in_one_line_and_the_trials_before_are_kept(tmp_path):
    (tmp_path / "conf" / "evaluator").mkdir(parents=True)
    (tmp_path / "conf" / "evaluator" / "dies.yaml").write_text("_target_: mine.Dies\n_partial_: true\nafter: 3\n")
    (tmp_path / "mine.py").write_text(MINE)
    err = searched("space=nasbench201", "epochs=0", "evaluator=dies", "searcher=random", "budget.trials=40", "processes=2", cwd=tmp_path,
                   code=2)
    (folder,) = folders(tmp_path)
    assert err.splitlines()[-1].startswith("error: a worker process ended by itself") and "Traceback" not in err
    kept = len(Journal(folder.trials).read_chained()) if folder.trials.exists() else 0
    assert folder.status()["status"] == "failed" and kept <= 5, "of two workers none evaluates a third"


@pytest.mark.slow
def test_a_search_by_two_processes_killed_at_twenty_moments_is_the_unbroken_one_of_one_process(tmp_path):
    options = (*SMALL, "epochs=1", *GENETIC, "searcher.population=8", "budget.trials=100", "checkpoint_every_s=1")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir(), broken.mkdir()
    searched(*options, cwd=unbroken)
    rng = random.Random(0)
    for moment in range(20):
        at = At(rng.randint(1, 8), "trials.jsonl") if moment % 4 else At(1 if moment == 0 else 2, rng.choice(("/run.json", ".pt")))
        ended = run("train_search", *options, "processes=2", "resume=auto", cwd=broken, report=False, at=at)
        assert ended.code == -signal.SIGKILL, f"{moment} {at}: {ended.err}"
    searched(*options, "processes=2", "resume=auto", cwd=broken)
    assert outcome(finished(broken)) == outcome(finished(unbroken))

"""Trainings of architectures alone as the evaluations of a search: to which bits, at which cost, and what is kept of them."""

import json
import math
import random
import signal
from pathlib import Path

import pytest
import torch

from supernet.app import compose
from supernet.app.build import space_from
from supernet.app.offer import SearchOffer, evaluator_of
from supernet.data.digits import Digits
from supernet.errors import UsageError
from supernet.evaluators.from_scratch import FOLDER, FromScratch, full_names
from supernet.networks.measure import parameters
from supernet.training.final import fit_final
from supernet.training.records import Silent
from tests.helpers import At, contents, only_error, run
from tests.searches import composed, configs

CHAIN = ("space=sequential", "space.side=8", "space.features=[2,3]", "space.head=[1,1]", "space.filters=[4,8]", "space.kernels=[3]")
SMALL = ("evaluator.options.batch_size=16", "evaluator.options.split.max_train=48", "evaluator.options.split.max_val=32")
WORDS = (*CHAIN, "searcher=random", "evaluator=from_scratch", "threads=1", *SMALL)
EPOCH = 48 + 32  # images that one takes


def evaluator(*words, folder=None, seed=0):
    """As a search that these options choose has it."""
    words = [*WORDS, f"seed={seed}", *words]
    cfg = composed(*words)
    offer = SearchOffer(cfg, space_from(cfg.space), words)
    with configs():
        made = evaluator_of(cfg, offer)
    offer.folder = folder
    return made


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def some(made, n=3, seed=0):
    rng = random.Random(seed)
    return [made.offer.space.canonical(made.offer.space.sample(rng)) for _ in range(n)]


def evaluated(made, genotype, fidelity=1.0):
    with configs():
        return made(genotype, fidelity)


def test_an_architecture_comes_to_the_same_bits_whenever_and_wherever_it_is_asked_for(tmp_path):
    first, again = evaluator(), evaluator(folder=tmp_path)
    a, b, c = some(first)
    found = {g: evaluated(first, g) for g in (a, b, c)}
    assert {g: evaluated(again, g) for g in (c, a, b)} == found
    assert len({e.metrics["loss"] for e in found.values()}) == 3
    assert all(set(e.metrics) == first.gives and e.images == 2 * EPOCH and e.simulated_s == 0 for e in found.values())
    assert evaluated(evaluator(seed=1), a).metrics != found[a].metrics


def test_what_computes_the_same_is_trained_to_the_same_bits():
    made = evaluator()
    space = made.offer.space
    written = space.parse("features:|dropout_30~0|+|max_pool_2x2~1|+|conv_3x3_4_relu~2|;head:|fc_32~0|")
    canonical = space.canonical(written)
    assert written != canonical and evaluated(made, written) == evaluated(made, canonical)


def test_a_training_is_the_one_of_train_final():
    """On the images of the search's seed, with initial values and draws of a seed of its own."""
    made = evaluator("evaluator.epochs=3")
    (genotype,), seeds = some(made, 1), []
    final = made.offer.final
    made.offer.final = lambda g, *, seed, options: (seeds.append(seed), final(g, seed=seed, options=options))[1]
    found = evaluated(made, genotype)
    with configs():
        cfg = made.offer.final_options(made.options).copy()
    assert (cfg.epochs, cfg.batch_size, cfg.dataset.augment.cutout, cfg.drop_path_prob) == (3, 16, 0, 0)
    cfg.seed = 0
    read = compose.final_read(cfg, torch.device("cpu"))
    cfg.seed = seeds[-1]
    read.restart(cfg.seed, torch.device("cpu"))
    loop, records = compose.final_loop(cfg, made.offer.whole, genotype, read, torch.device("cpu")), Last()
    fit_final(loop, 3, records)
    assert {name: records.record[f"val_{name}"] for name in made.gives} == found.metrics
    assert parameters(loop.net) > 0 and loop.lr == 0.025 and records.record["lr"] < loop.lr


class Last(Silent):
    def epoch(self, record, genotype):
        self.record = record


def test_all_architectures_meet_the_same_images_and_no_test_image(monkeypatch):
    def opened(self):
        raise AssertionError("the test part was opened")

    monkeypatch.setattr(Digits, "test", opened)
    made, loops = evaluator(), []
    final = made.offer.final
    made.offer.final = lambda *a, **k: (loops.append(final(*a, **k)), loops[-1])[1]
    for genotype in some(made, 2):
        evaluated(made, genotype)
    assert loops[0].train.indices.tolist() == loops[1].train.indices.tolist() and loops[0].val is loops[1].val
    assert not set(loops[0].train.indices.tolist()) & set(loops[0].val.indices.tolist()) and loops[0].test is None
    assert loops[0].net is not loops[1].net


@pytest.mark.parametrize("anew", [False, True])
def test_a_training_in_parts_comes_to_the_bits_of_an_unbroken_one(tmp_path, anew):
    """Also where another process goes on with it. Dropout, the order of images and their augmentation draw in all of it."""
    options = ("evaluator.epochs=4", "space.dropouts=[30]")
    made = evaluator(*options, folder=tmp_path)
    whole = evaluator(*options)
    a, b = (made.offer.space.parse(f"features:|conv_3x3_8_relu~0|+|{op}~1|+|nothing~2|;head:|fc_32~0|")
            for op in ("dropout_30", "max_pool_2x2"))
    short = {}
    for fidelity, epochs in ((0.25, 1), (0.5, 1), (1.0, 2)):
        for genotype in (a, b):
            short[genotype, fidelity] = evaluated(made, genotype, fidelity)
            assert short[genotype, fidelity].images == epochs * EPOCH
        if anew:
            made = evaluator(*options, folder=tmp_path)
    for genotype in (a, b):
        assert short[genotype, 1.0].metrics == evaluated(whole, genotype).metrics
        assert short[genotype, 0.5].metrics == evaluated(whole, genotype, 0.5).metrics  # which keeps nothing, and begins at 0
        assert short[genotype, 0.25].metrics != short[genotype, 0.5].metrics
    assert {path.name.split("_")[0] for path in tmp_path.glob("*/*/*.pt")} == {"results"}  # no weights of what is trained whole
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.pt")) < 10_000


def test_an_evaluation_that_was_not_written_down_costs_what_it_has_cost(tmp_path):
    """A run that is killed between an evaluation and its line asks again."""
    made = evaluator("evaluator.epochs=4", folder=tmp_path)
    (genotype,) = some(made, 1)
    for fidelity in (0.25, 0.5, 1.0):
        found, seen = evaluated(made, genotype, fidelity), contents(tmp_path)
        assert evaluated(evaluator("evaluator.epochs=4", folder=tmp_path), genotype, fidelity) == found and contents(tmp_path) == seen
    whole = evaluated(made, genotype)
    assert evaluated(made, genotype, 0.75).images == 3 * EPOCH  # less than what is kept: begun anew
    assert evaluated(made, genotype) == whole


def test_no_more_is_kept_than_is_asked_for(tmp_path):
    made = evaluator("evaluator.epochs=4", "evaluator.kept_mb=0.05", folder=tmp_path)
    several = some(made, 4, seed=3)
    short = [evaluated(made, genotype, 0.5) for genotype in several]
    partial = sorted(tmp_path.glob("*/*/epoch_*.pt"))
    assert sum(path.stat().st_size for path in partial) <= 50_000 and len(partial) < 4
    assert len(list(tmp_path.glob("*/*/*.pt"))) == 4 and evaluated(made, several[0], 0.5) == short[0]
    whole = evaluator("evaluator.epochs=4")
    dropped = [g for g in several if not any(path.parent.name == g.digest for path in partial)]
    for genotype in dropped:
        found = evaluated(made, genotype)
        assert found.images == 4 * EPOCH and found.metrics == evaluated(whole, genotype).metrics


def test_what_was_damaged_begins_anew(tmp_path):
    made = evaluator("evaluator.epochs=2", folder=tmp_path)
    (genotype,) = some(made, 1)
    evaluated(made, genotype, 0.5)
    (path,) = tmp_path.glob(f"{FOLDER}/{genotype.digest}/*.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = evaluated(made, genotype)
    assert found.images == 2 * EPOCH and found.metrics == evaluated(evaluator("evaluator.epochs=2"), genotype).metrics


def test_a_training_that_does_not_get_better_ends_with_the_metrics_of_its_best_epoch(tmp_path):
    options = ("evaluator.epochs=12", "+evaluator.options.w_optimizer.lr=0.3")
    long, early = evaluator(*options), evaluator(*options, "evaluator.patience=2", folder=tmp_path)
    for genotype in some(long, 3):
        losses, final = [], long.offer.final

        def watched(g, *, seed, options, losses=losses, final=final):
            loop = final(g, seed=seed, options=options)
            after = loop.average.after_epoch
            loop.average.after_epoch = lambda loss: (losses.append(loss), after(loss))[1]
            return loop

        long.offer.final = watched
        evaluated(long, genotype)
        long.offer.final = final
        best = stopped = 0
        for stopped, loss in enumerate(losses):
            best = stopped if loss < losses[best] else best
            if stopped - best == 2:
                break
        found = evaluated(early, genotype)
        assert found.metrics["loss"] == losses[best] and found.images == (stopped + 1) * EPOCH
        if stopped < 11:
            break
    else:
        raise AssertionError("all trainings went on to the end")
    (folder,) = tmp_path.glob(f"{FOLDER}/{genotype.digest}")
    assert [path.name.split("_")[0] for path in folder.iterdir()] == ["results"]


def test_a_training_that_ended_early_costs_nothing_when_more_of_it_is_asked_for(tmp_path):
    made = evaluator("evaluator.epochs=20", "+evaluator.options.w_optimizer.lr=0.3", "evaluator.patience=1", folder=tmp_path)
    for genotype in some(made, 5):
        found = evaluated(made, genotype, 0.5)
        if found.images < 10 * EPOCH:
            assert evaluated(made, genotype) == found._replace(images=0)
            return
    raise AssertionError("no training ended early")


def test_a_training_that_goes_astray_is_told_by_nan(tmp_path):
    made = evaluator("evaluator.epochs=4", "+evaluator.options.w_optimizer.lr=1e20", "+evaluator.options.clip_norm=null", folder=tmp_path)
    (genotype,) = some(made, 1)
    found = evaluated(made, genotype, 0.5)
    assert set(found.metrics) == made.gives and all(map(math.isnan, found.metrics.values())) and found.images < 2 * EPOCH
    again = evaluated(made, genotype)
    assert all(map(math.isnan, again.metrics.values())) and again.images == 0


def test_cells_are_trained_alone_as_well():
    words = ["space=toy", "searcher=random", "evaluator=from_scratch", "threads=1", *SMALL]
    cfg = composed(*words)
    options = {"layers": 3, "channels": 4, "batch_size": 16, "split": {"max_train": 32, "max_val": 20, "val_portion": 0.5}}
    with configs():
        made = FromScratch(SearchOffer(cfg, space_from(cfg.space), words), epochs=1, options=options)
        found = made(made.offer.space.sample(random.Random(0)))
    assert found.images == 32 + 20 and 0 <= found.metrics["accuracy"] <= 100


def test_options_are_told_by_their_full_names():
    assert dict(full_names({"batch_size": 8, "split": {"max_train": 9, "mode": "shuffled"}, "a": {"b": {"c": None}}})) == {
        "batch_size": 8, "split.max_train": 9, "split.mode": "shuffled", "a.b.c": None}


def test_a_share_below_one_epoch_is_refused():
    made = evaluator("evaluator.epochs=3")
    (genotype,) = some(made, 1)
    with pytest.raises(UsageError, match="0.111 of evaluator.epochs=3 is less than one epoch.*: pass evaluator.epochs=9 or more"):
        evaluated(made, genotype, 1 / 9)


@pytest.mark.parametrize("words, said", [
    (["evaluator.options.split.val_portion=0"], "pass evaluator.options.split.val_portion above 0"),
    (["+evaluator.options.batch_sise=3"], "batch_sise"), (["evaluator.epochs=0"], "evaluator.epochs must be at least 1, got 0"),
    (["evaluator.options.batch_size=0"], "batch_size must be at least 1"),
    (["space.side=28"], "pass space.side=8"), (["epochs=1"], "shares no weights"),
    (["searcher=hyperband", "evaluator.epochs=2"], "evaluator.epochs=27 or more"),
    (["objective.maximise=[bleu]"], "no metric 'bleu'"),
])
def test_wrong_options_get_one_line_before_any_work(tmp_path, words, said):
    message = only_error(run("train_search", *WORDS, "budget.trials=3", *words, cwd=tmp_path))
    assert said in message
    assert not list(tmp_path.glob("runs/*"))


def test_a_space_without_shared_weights_refuses_them_in_one_line(tmp_path):
    words = (*CHAIN, "searcher=random", "epochs=0", "budget.trials=3")
    message = only_error(run("train_search", *words, cwd=tmp_path))
    assert "shares no weights" in message and "evaluator=from_scratch" in message and not list(tmp_path.glob("runs/*"))


def trials_of(folder: Path) -> list[dict]:
    (journal,) = folder.glob("runs/*/trials.jsonl")
    return [{key: value for key, value in json.loads(line).items() if key not in ("wall_s", "after", "sum")}
            for line in journal.read_text().splitlines()]


HYPERBAND = (*WORDS, "searcher=hyperband", "searcher.rungs=3", "searcher.factor=2", "evaluator.epochs=4", "budget.trials=14", "resume=auto")


def test_hyperband_over_trainings_goes_on_with_what_it_promotes_and_from_a_kill(tmp_path):
    (tmp_path / "whole").mkdir(), (tmp_path / "killed").mkdir()
    done = run("train_search", *HYPERBAND, cwd=tmp_path / "whole", report=False)
    assert done.code == 0, done.err
    trials = trials_of(tmp_path / "whole")
    assert len(trials) == 14
    epochs = {trial["number"]: round(4 * trial.get("fidelity", 1)) for trial in trials}
    for trial in trials:
        before = epochs[trial["parents"][0]] if trial.get("change") == "promoted" else 0
        assert trial.get("images", 0) == (0 if "repeats" in trial else (epochs[trial["number"]] - before) * EPOCH)
    assert any(trial.get("change") == "promoted" for trial in trials) and {*epochs.values()} == {1, 2, 4}
    killed = run("train_search", *HYPERBAND, cwd=tmp_path / "killed", report=False, at=At(9, "trainings", signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    again = run("train_search", *HYPERBAND, cwd=tmp_path / "killed", report=False)
    assert again.code == 0 and trials_of(tmp_path / "killed") == trials, again.err


@pytest.mark.slow
def test_several_processes_come_to_the_trials_of_one(tmp_path):
    words = (*WORDS, "searcher=genetic", "searcher.population=4", "budget.trials=8")
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        done = run("train_search", *words, f"processes={processes}", cwd=tmp_path / str(processes), report=False)
        assert done.code == 0, done.err
    assert trials_of(tmp_path / "1") == trials_of(tmp_path / "2") and len(trials_of(tmp_path / "1")) == 8

"""What evaluates the trials of a search, on small supernets and networks of digits."""

import collections
import itertools
import json
import math
import random
import statistics

import hydra
import pytest
import torch

from supernet.app.build import build, space_from
from supernet.app.checks import validate
from supernet.app.offer import SearchOffer, trials_of
from supernet.evaluators import shared_weights
from supernet.evaluators.proxies import compressed
from supernet.evaluators.shared_weights import SharedWeights, items
from supernet.relaxations.softmax import Softmax
from supernet.select.argmax import argmax
from supernet.select.learned import learned
from supernet.spaces import darts, toy
from supernet.trials import History
from tests.searches import configs

SMALL = ("space=toy", "layers=3", "channels=2", "split.max_train=64", "split.max_val=60", "batch_size=16", "eval_batch_size=16", "epochs=0",
         "searcher=random", "budget.trials=6", "threads=1")


def offered(*options) -> tuple:
    """What a search of these options offers, its evaluator, and the search by trials."""
    with configs():
        cfg = hydra.compose("search", overrides=[*SMALL, *options])
        validate(cfg, "train_search")
        offer = SearchOffer(cfg, space_from(cfg.space))
        evaluator = build(cfg.evaluator)(offer)
        return offer, evaluator, trials_of(cfg, offer, evaluator)


def trained(offer: SearchOffer) -> None:
    """Gives the supernet weights under which architectures differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in offer.net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("how", ["recalibrated", "batch"])
def test_shared_weights_are_the_metrics_of_the_supernet_and_count_what_they_see(how):
    offer, evaluator, _ = offered(f"evaluator.statistics={how}", "evaluator.calibration_batches=3")
    trained(offer)
    before = {name: value.clone() for name, value in offer.net.state_dict().items()}
    genotypes = [offer.space.sample(random.Random(n)) for n in range(4)]
    found = [evaluator(genotype) for genotype in genotypes]
    calibration = list(itertools.islice(offer.loaders.train.apart(None, offer.generator("calibration")), 3)) if how != "batch" else []
    plain = SharedWeights(offer.net, offer.space, offer.task, list(offer.loaders.val_eval), torch.Generator(), statistics=how,
                          calibration=calibration)
    assert [one.metrics for one in found] == [plain(genotype) for genotype in genotypes]
    assert {one.images for one in found} == {60 + (48 if how == "recalibrated" else 0)} and evaluator.images_before == 0
    assert evaluator.gives == set(found[0].metrics)
    assert len({one.metrics["loss"] for one in found}) > 1, "architectures differ"
    assert all(torch.equal(value, before[name]) for name, value in offer.net.state_dict().items())


def test_another_process_with_these_weights_would_find_the_same():
    first, second = offered(), offered()
    trained(first[0])
    next(iter(second[0].loaders.train))  # wherever the training's own streams stand
    second[0].net.load_state_dict(first[0].net.state_dict())
    for n in range(3):
        genotype = first[0].space.sample(random.Random(n))
        assert first[1](genotype) == second[1](genotype) == first[1](genotype)


def test_a_share_of_the_validation_part_is_its_first_batches():
    offer, evaluator, _ = offered("evaluator.statistics=batch")
    trained(offer)
    genotype, batches = offer.space.sample(random.Random(0)), list(offer.loaders.val_eval)  # of 16, 16, 16 and 12
    for fidelity, size in ((0.25, 1), (0.5, 2), (0.01, 1), (1.0, 4)):
        plain = SharedWeights(offer.net, offer.space, offer.task, batches[:size], torch.Generator(), statistics="batch")
        found = evaluator(genotype, fidelity)
        assert found.metrics == plain(genotype) and found.images == sum(map(items, batches[:size]))


def test_only_what_is_promising_on_the_first_batches_is_evaluated_wholly():
    screen = ("evaluator.screen_batches=1", "evaluator.screen_share=0.3", "evaluator.screen_of=9", "evaluator.statistics=batch")
    offer, evaluator, trials = offered(*screen)
    _, whole, _ = offered("evaluator.statistics=batch")
    trained(offer)
    whole.net.load_state_dict(offer.net.state_dict())
    assert evaluator.images_before == trials.images_before == 9 * 16 and trials.spent(History()).images == 9 * 16
    rng = random.Random(f"{offer.seed}/screen")
    threshold = sorted(whole(offer.space.sample(rng), 0.25).metrics["accuracy"] for _ in range(9))[-3]
    seen = collections.Counter()
    for genotype in offer.space.enumerate():
        found, first = evaluator(genotype), whole(genotype, 0.25)
        promising = first.metrics["accuracy"] >= threshold
        seen[promising] += 1
        assert found.metrics == (whole(genotype).metrics if promising else first.metrics)
        assert found.images == (16 + 60 if promising else 16)
    assert seen[True] and seen[False]


MACRO = ("space=nasbench_macro", "channels=2", "evaluator.calibration_batches=1", "split.max_val=32", "layers=8")


def macro_population(offer, count=9):
    rng = random.Random(1)
    found = [offer.space.sample(rng)]
    while len(found) < count:
        found.append(offer.space.mutate(rng.choice(found), rng))
    return [(genotype, (1.0, 0.5)[n % 2]) for n, genotype in enumerate([*found, found[0]])]


@pytest.mark.parametrize("screen", [(), ("evaluator.screen_batches=1", "evaluator.screen_of=4")])
def test_a_population_of_chains_is_found_to_be_what_its_members_are(screen, monkeypatch):
    monkeypatch.setattr(shared_weights, "AT_ONCE", 3), monkeypatch.setattr(shared_weights, "WAITING", 8)
    offer, evaluator, _ = offered(*MACRO, *screen)
    trained(offer)
    asked = macro_population(offer)
    before = {name: value.clone() for name, value in offer.net.state_dict().items()}
    found = []
    for one in evaluator.population(asked):  # a checkpoint may be written at any of these moments
        found.append(one)
        assert all(torch.equal(value, before[name]) for name, value in offer.net.state_dict().items()) and offer.net.training
    assert [evaluation for evaluation, _ in found] == [evaluator(*one) for one in asked] and all(seconds > 0 for _, seconds in found)
    assert len({evaluation.metrics["loss"] for evaluation, _ in found}) > 5 and evaluator.together


def test_what_was_evaluated_ahead_of_its_turn_is_there_for_who_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_weights, "AT_ONCE", 4)
    (offer, first, _), (other, second, _) = offered(*MACRO), offered(*MACRO)
    trained(offer)
    other.net.load_state_dict(offer.net.state_dict())
    offer.folder = other.folder = tmp_path
    asked = macro_population(offer)
    whole = [evaluation for evaluation, _ in first.population(asked)]
    assert list(tmp_path.glob("*.jsonl")) == [], "all had their turn"
    left = first.population(asked)
    next(left)
    left.close()  # as a kill
    kept = tmp_path / "evaluated_ahead.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    kept.write_text("".join([*lines[:3], lines[3][:30] + "\n", '{"of": "another"}\n']))
    passes = collections.Counter()
    other.net.head.register_forward_pre_hook(lambda *_: passes.update(["head"]))
    assert [evaluation for evaluation, _ in second.population(asked[1:])] == whole[1:]
    full, half = (len({g for g, f in asked[1:] if f == share}) for share in (1.0, 0.5))
    known = [json.loads(line) for line in lines[:3]]
    assert all("fidelity" not in line for line in known), "whole ones were first"
    assert passes["head"] == (full - 3 + 1) * 3 + half * 2, "of one batch that calibrates and two, or one; the first had its turn"


def test_proxies_are_of_networks_that_begin_alike():
    offer, evaluator, _ = offered("evaluator=proxy", "evaluator.batch=8", "objective.maximise=[naswot]")
    assert evaluator.gives == {"naswot"} and evaluator.images_before == 0 and not offer.made("parts"), "no supernet is asked for"
    genotype = offer.space.sample(random.Random(1))
    assert evaluator(genotype) == evaluator(genotype) and evaluator(genotype).images == 8
    first, second = (dict(offer.network(genotype).named_parameters()) for _ in range(2))
    assert first.keys() == second.keys() and all(torch.equal(p, second[name]) for name, p in first.items())
    with pytest.raises(ValueError, match="a proxy trains nothing"):
        evaluator(genotype, 0.5)


def test_a_vote_is_the_mean_of_standardised_proxies():
    votes = ("evaluator=proxy", "evaluator.batch=8", "proxy@evaluator.proxies=[synflow,grad_norm,parameters]", "evaluator.voters=5",
             "objective.maximise=[vote]")
    offer, evaluator, trials = offered(*votes)
    assert evaluator.gives == {"synflow", "grad_norm", "parameters", "vote"} and trials.images_before == 5 * 8
    rng, space = random.Random(f"{offer.seed}/voters"), offer.space
    voters = [evaluator(space.sample(rng)).metrics for _ in range(5)]
    found = {genotype: evaluator(genotype).metrics for genotype in space.enumerate()}
    for metrics in found.values():
        parts = []
        for name in ("synflow", "grad_norm", "parameters"):
            known = [math.copysign(math.log1p(abs(voter[name])), voter[name]) for voter in voters]
            parts.append((compressed(metrics[name]) - statistics.fmean(known)) / (statistics.stdev(known) or math.inf))
        assert metrics["vote"] == pytest.approx(sum(parts) / 3, rel=1e-12)
    assert len({metrics["vote"] for metrics in found.values()}) > 1


def test_a_proxy_that_is_the_worst_makes_the_vote_the_worst():
    _, evaluator, _ = offered("evaluator=proxy", "evaluator.batch=8", "proxy@evaluator.proxies=[naswot,parameters]",
                              "objective.maximise=[vote]")
    values = {"naswot": -math.inf, "parameters": 10.0}
    assert not evaluator._vote(values) > -math.inf
    assert compressed(-3.0) == -compressed(3.0) == -math.log(4)


def test_what_a_relaxation_learned_is_its_argmax_and_draws_by_its_weights():
    space = toy.make()
    relaxation = Softmax(space, torch.Generator().manual_seed(0), init_scale=1.0)
    found = learned(space, relaxation, 3001, torch.Generator().manual_seed(1))
    assert found[0] == argmax(space, relaxation.mean()) and len(found) == 3001
    ((kind, spec),) = space.cells.items()
    table = relaxation.mean()[kind].ops.detach()
    for e, (start, end) in enumerate(spec.edges):
        counts = collections.Counter(edge.op for genotype in found[1:] for edge in genotype[kind] if (edge.source, edge.destination) == (
            start, end))
        for o, op in enumerate(spec.ops):
            share = table[e, o].item()
            assert abs(counts[op] / 3000 - share) < 4 * math.sqrt(share * (1 - share) / 3000) + 1e-9, (e, op)
    assert found == learned(space, relaxation, 3001, torch.Generator().manual_seed(1))


def test_what_a_relaxation_learned_is_of_its_space_where_nodes_choose_their_edges():
    space = darts.make()
    relaxation = Softmax(space, torch.Generator().manual_seed(0))
    found = learned(space, relaxation, 20, torch.Generator().manual_seed(1))
    assert len(set(found)) == 20
    for genotype in found:
        space.validate(genotype)


def test_a_limit_on_a_cost_is_kept_by_every_evaluated_trial():
    sizes = ("cost=parameters", "cost.layers=3", "cost.channels=2", "evaluator.statistics=batch")
    offer, _, search = offered(*sizes)
    limit = statistics.median(map(search.costs["parameters"], offer.space.enumerate()))
    offer, evaluator, search = offered(*sizes, f"objective.at_most={{parameters:{limit}}}", "budget.trials=10", "repeats=paid")
    seen, call = [], evaluator._evaluated
    evaluator._evaluated = lambda genotype, size: (seen.append(genotype), call(genotype, size))[1]
    found = History()
    for _ in search.run(found):
        pass
    kept = [trial for trial in found if trial.refused is None]
    assert len(kept) == 10 and len(found) > 10, "some were refused"
    assert all((trial.metrics["parameters"] <= limit) == (trial.refused is None) for trial in found)
    assert not {trial.genotype for trial in found if trial.refused} & set(seen)

"""The page of a search by trials: of finished ones, of one that goes on or was killed, of strange and damaged journals."""

import json
import math
import random

import pytest

from supernet.genotype import Edge, Genotype
from supernet.objectives import Objective
from supernet.report.html import run_page
from supernet.report.names import op_label
from supernet.report.run_files import RunFiles
from supernet.report.trial_cells import Architectures
from supernet.searchers.genetic import Genetic
from supernet.searchers.loop import Budget
from supernet.searchers.nsga2 import NSGA2
from supernet.searchers.random import Random
from supernet.spaces import darts, nasbench201
from supernet.trials import Trial, best
from tests import pages
from tests.drawings import EVIL
from tests.runs import planted_run
from tests.trials import Additive, planted_search, run, trials

NB, DARTS = nasbench201.make(), darts.make()
SIZE = {"size": lambda genotype: Additive(NB)(genotype).metrics["size"]}
LIMITED = {"minimise": ["size"], "at_most": {"size": 3.2}}
NEW = {"trials", "front", "ancestry", "all-trials"}
OF_SUPERNETS = {"weights", "curves", "timeline"}


def made(where) -> pages.Page:
    page = pages.read(run_page(where))
    pages.assert_safe(page)
    return page


def front_search(count: int = 90) -> list[Trial]:
    return run(trials(NSGA2(NB, population=15), NB, objective=Objective(**LIMITED), costs=SIZE, budget=Budget(trials=count)))


def column(page: pages.Page, name: str) -> list:
    (found,) = [one for one in page.data["all-trials"]["trials"]["columns"] if one["name"] == name]
    return [found["words"][code] for code in found["values"]] if found["kind"] == "text" else found["values"]


def sections(page: pages.Page) -> set[str]:
    return {known["id"] for tag, known in page.tags if tag == "section"}


def test_the_page_of_a_front_shows_its_members_the_chosen_and_the_limit(tmp_path):
    found = front_search()
    page = made(planted_search(tmp_path / "run", found, **LIMITED))
    assert sections(page) > NEW and not sections(page) & OF_SUPERNETS
    (panel,) = page.data["front"]["front"]
    each = {t.genotype: t for t in found if t.refused is None}.values()
    members = [t for t in each if not any(all(a >= b for a, b in zip(o.scores, t.scores)) and o.scores != t.scores for o in each)]
    wanted = sorted([-t.scores[1], t.scores[0]] for t in members)
    assert sorted(p[:2] for p in panel["strong"]) == [pytest.approx(p, rel=1e-5) for p in wanted]
    assert len(panel["points"]) + len(panel["strong"]) == len(each)
    assert [p[:2] for p in panel["chosen"]] == [pytest.approx([-best(found).scores[1], best(found).scores[0]], rel=1e-5)]
    assert panel["limits"] == {"x": [3.2], "y": []} and (panel["x"], panel["y"]) == ("size", "accuracy")
    assert f"Strong: the {len(members)} that no other beats" in page.text and f"{best(found).number} (chosen)" in page.text
    refused = sum(t.refused is not None for t in found)
    assert refused and f"refused: size above 3.2 {refused}" in page.text


def test_three_scores_are_drawn_pair_by_pair_and_one_against_its_costs(tmp_path):
    def scored(trial, names):
        metrics = {"accuracy": trial.metrics["accuracy"], "robust": -trial.metrics["size"] ** 2, "energy": trial.metrics["size"]}
        return trial._replace(metrics=metrics, scores=tuple(metrics[name] * (-1) ** (name == "energy") for name in names))

    found = run(trials(Random(NB), NB))
    three = planted_search(tmp_path / "three", [scored(t, ("accuracy", "robust", "energy")) for t in found],
                           maximise=["accuracy", "robust"], minimise=["energy"])
    panels = made(three).data["front"]["front"]
    assert [(p["y"], p["x"]) for p in panels] == [("accuracy", "robust"), ("accuracy", "energy"), ("robust", "energy")]
    assert all(p["front"] is None and p["strong"] for p in panels)
    one = planted_search(tmp_path / "one", [scored(t, ("accuracy",)) for t in found])
    panels = made(one).data["front"]["front"]
    assert [(p["y"], p["x"]) for p in panels] == [("accuracy", "robust"), ("accuracy", "energy")]
    assert not any(p["front"] or p["strong"] for p in panels)


def test_every_trial_is_in_the_table_and_its_architecture_can_be_read_from_it(tmp_path):
    found = run(trials(Genetic(NB, population=10), NB, budget=Budget(trials=55)))
    page = made(planted_search(tmp_path / "run", found))
    data = page.data["all-trials"]["trials"]
    assert column(page, "trial") == list(range(55)) and column(page, "how") == [t.change for t in found]
    assert column(page, "accuracy") == [pytest.approx(t.scores[0], rel=1e-5) for t in found]
    assert column(page, "from") == [" ".join(map(str, t.parents)) for t in found]
    assert column(page, "not evaluated") == ["" if t.repeats is None else f"repeats {t.repeats}" for t in found]
    for row, trial in zip(data["rows"], found, strict=True):
        assert [data["parts"][n][1:3] for n in row] == [[e.source, e.destination] for e in trial.genotype["cell"]]
        assert [data["parts"][n][4] for n in row] == [op_label(edge.op) for edge in trial.genotype["cell"]]
    assert "training" not in [one["name"] for one in data["columns"]], "what is as usual in all trials is left out"
    assert [line["x"] for line in page.data["trials"]["search"]["charts"][0]["lines"]] == [[10, 20, 30, 40, 50, 55]] * 4


def test_the_ancestry_says_what_changed_and_what_it_gained(tmp_path):
    a = NB.sample(random.Random(1))
    b = NB.mutate(a, random.Random(3))
    found = [Trial(0, a, (80.0,), {"accuracy": 80.0}, change="random"),
             Trial(1, b, (82.5,), {"accuracy": 82.5}, parents=(0,), change="mutation")]
    page = made(planted_search(tmp_path / "run", found))
    (place,) = [n for n, (x, y) in enumerate(zip(a["cell"], b["cell"])) if x != y]
    text = page.text[page.text.index("Trial 1 descends from 1 trial"):]
    assert f"1 0 mutation 82.5 +2.5 cell: \u2212 {a['cell'][place].op.replace('_', ' ').replace(' connect', '')}" in text
    data = page.data["ancestry"]["ancestry"]
    assert data["titles"] == ["trial 0: accuracy 80", "trial 1: accuracy 82.5"]
    assert len(set(data["rows"][1]) - set(data["rows"][0])) == 1


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_a_search_that_goes_on_or_was_killed_has_the_page_of_its_trials_so_far(tmp_path, count):
    found = front_search()[:count]
    where = planted_search(tmp_path / "run", found, status="running", **LIMITED)
    with open(where / "trials.jsonl", "a") as file:
        file.write('{"number": 40, "genotype": {"ce')  # killed in the middle of a line
    page = made(where)
    of_evaluated = {"front", "ancestry"} if any(t.refused is None for t in found) else set()
    assert NEW & sections(page) == ({"trials", "all-trials"} | of_evaluated if count else set())
    assert "is not as expected" not in page.text
    assert "stopped" in page.text
    if count:
        assert column(page, "trial") == list(range(count)) and "more records" not in page.text and "cells" not in sections(page)


def test_a_page_ends_with_the_last_trial_that_follows_the_others(tmp_path):
    lines = [json.dumps(t.to_json()) for t in front_search(30)][:30]
    stranger = Trial(12, NB.sample(random.Random(0)), (1.0, 2.0), parents=(99,)).to_json()
    no_scores = json.dumps(json.loads(lines[12]) | {"scores": [None, {}]})
    for n, after in enumerate((lines[13:], ['{"number": "x"}', *lines[12:]], [json.dumps(stranger)], [no_scores])):
        damage = [*lines[:12], *after]
        where = planted_search(tmp_path / str(n), [], **LIMITED)
        (where / "trials.jsonl").write_text("\n".join(damage) + "\n")
        page = made(where)
        assert column(page, "trial") == list(range(12)), n
        assert f"Left out: {len(damage) - 12} more records of trials.jsonl, of which the first is not trial 12." in page.text
        assert "is not as expected" not in page.text


def test_scores_that_are_missing_strange_or_not_finite_leave_the_page_whole(tmp_path):
    rng = random.Random(0)
    found = [Trial(0, NB.sample(rng), (), refused="size 9 is above 3"), Trial(1, NB.sample(rng), (-math.inf,), {"accuracy": math.nan}),
             Trial(2, NB.sample(rng), (5.0,), {"accuracy": 5.0, "\u2028": 1e308}), Trial(3, NB.sample(rng), (math.inf,))]
    for n in range(len(found) + 1):
        page = made(planted_search(tmp_path / str(n), found[:n]))
        assert "is not as expected" not in page.text, page.text
    nothing = {"genotype": {}, "change": EVIL}  # an architecture without edges
    lines = [nothing | {"number": n, "scores": [score, -n]} for n, score in enumerate((5.0, 3.0, 8.0, "nan", 7.0))]
    where = planted_search(tmp_path / "empty", [])
    (where / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = made(where)
    assert "is not as expected" not in page.text and column(page, "score 1") == [5, 3, 8, None, 7] and column(page, "how") == [EVIL] * 5
    where = planted_search(tmp_path / "odd", found, maximise=["accuracy", "nothing"])  # options of another objective
    assert "score 1" in made(where).text
    (where / "config.yaml").write_text("objective: [1]\n")
    assert "score 1" in made(where).text


def test_what_a_journal_says_stays_text(tmp_path):
    edges = (Edge(1, 0, EVIL), Edge(2, 1, "-->&"))
    evil = Genotype(EVIL, "f", ((EVIL, edges), ("k\u2028", edges)))
    found = [Trial(0, evil, (1.0,), {EVIL: 2.0, "accuracy": 1.0}, change=EVIL), Trial(1, evil, (), refused=EVIL, parents=(0,))]
    page = made(planted_search(tmp_path / "run", found, maximise=[EVIL], at_most={EVIL: 3.0}))
    assert EVIL not in page.html.replace("\\u003c", "<!")
    assert NEW <= sections(page)


def test_a_run_without_trials_has_no_sections_of_them(tmp_path):
    assert not NEW & sections(made(planted_run(tmp_path / "run", job="j", validation=90.0)))


def test_thousands_of_trials_are_a_page_of_moderate_size(tmp_path):
    rng = random.Random(0)
    some = [DARTS.sample(rng) for _ in range(200)]
    found = [Trial(n, rng.choice(some), (rng.random(),), {"accuracy": rng.random()}, change="random", sees=0 if n else None)
             for n in range(2000)]
    where = planted_search(tmp_path / "run", found)
    page = made(where)
    assert len(page.data["all-trials"]["trials"]["rows"]) == 2000 and len(page.html) < 1_200_000
    assert len(RunFiles(where).trials) == 2000
    assert page.html.count("<tr>") < 100, "rows are made where they are looked at"


def test_architectures_of_several_kinds_keep_their_places():
    some = [DARTS.sample(random.Random(n)) for n in range(5)]
    data = Architectures(some).data()
    assert [f["kind"] for f in data["frames"]] == ["normal", "reduce"] and data["drawn"]
    for row, genotype in zip(data["rows"], some, strict=True):
        for n, kind in enumerate(("normal", "reduce")):
            places = [tuple(data["parts"][i][1:3]) for i in row if data["parts"][i][0] == n]
            assert places == [(edge.source, edge.destination) for edge in genotype[kind]]
            assert len(data["frames"][n]["nodes"]) == 6 and data["frames"][n]["outputs"] == [2, 3, 4, 5]

"""Pages as a browser shows them: the slider redraws the cell, tables sort and filter, a served curve grows without a reload."""

import json
import os
import shutil

import pytest

from supernet.commands import report
from supernet.objectives import Objective
from supernet.report.html import write_report
from supernet.runs.journal import Journal
from supernet.searchers.loop import Budget
from supernet.searchers.nsga2 import NSGA2
from supernet.spaces import nasbench201
from tests import pages
from tests.drawings import EVIL, write_run
from tests.runs import planted_run
from tests.trials import Additive, planted_search, trials
from tests.trials import run as run_trials

pytestmark = pytest.mark.browser
NB = nasbench201.make()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as driver:
        path = CHROMIUM or driver.chromium.executable_path
        if not os.path.exists(path):
            pytest.skip("there is no chromium")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Opens a page; fails where its scripts failed, or anything but the page itself was asked for."""
    wrong, asked, contexts = [], [], []

    def open_page(address, *, width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(15_000)
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        shown.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(address)
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
    assert len({address.partition("#")[0].rpartition("/run/")[0] or address for address in asked}) <= 2, asked


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    write_run(where)
    return write_report(where)


def until(shown, claim):
    """Waits until JavaScript holds; Playwright's own way would need `eval`, which the page's policy refuses."""
    for _ in range(300):
        if shown.evaluate(claim):
            return
        shown.wait_for_timeout(100)
    raise AssertionError(f"never: {claim}")


def to(shown, place):
    """Moves the slider as a hand would."""
    shown.locator(".slider input").focus()
    shown.keyboard.press("Home")
    for _ in range(place):
        shown.keyboard.press("ArrowRight")


def test_the_slider_redraws_the_cell_and_the_heat_map(run, opened):
    shown = opened(run.as_uri())
    data = json.loads(shown.locator("#weights > script").text_content())["weights"]
    kind = data["kinds"][0]
    widths = []
    for place in (0, 3, 5):
        to(shown, place)
        done = [after <= place + 1 for after, _ in data["genotypes"]].count(True) - 1  # the genotype of the epoch that was finished last
        assert shown.locator(".slider output").inner_text() == f"after {place + 1} of 6 epochs; genotype {data['genotypes'][done][1]}"
        arcs = shown.locator(".kind svg.arcs").first
        kept = [arcs.locator("path.edge:not(.wire)").nth(e).get_attribute("class").endswith("kept") for e in range(len(kind["edges"]))]
        assert [e for e, is_kept in enumerate(kept) if is_kept] == sorted(e for e, _ in kind["kept"][done])
        labels = arcs.locator("text.op").all_text_contents()
        assert all(labels[e] == kind["ops"][o] for e, o in kind["kept"][done])
        cell = shown.locator("table.heat").first.locator("tbody tr").nth(2).locator("td").nth(1)
        assert float(cell.inner_text()) == pytest.approx(kind["weights"][place][2][1], abs=0.006)
        widths.append([arcs.locator("path.edge:not(.wire)").nth(e).evaluate("p => p.style.strokeWidth") for e in range(len(kind["edges"]))])
    assert widths[0] != widths[1] != widths[2]


def test_a_click_on_the_timeline_moves_the_slider_there(run, opened):
    shown = opened(run.as_uri())
    shown.locator(".stretches button").nth(1).click()
    assert shown.locator(".slider output").inner_text().startswith("after 3 of 6 epochs")


def test_play_goes_to_the_end_by_itself(run, opened):
    shown = opened(run.as_uri())
    to(shown, 0)
    shown.locator(".slider button").click()
    until(shown, "document.querySelector('.slider output').textContent.startsWith('after 6 of 6') && "
                            "document.querySelector('.slider button').textContent === '\u25b6'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_is_no_wider_than_its_window_and_draws_in_the_colours_of_its_scheme(run, opened, width, scheme):
    shown = opened(run.as_uri(), width=width, scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.locator("#curves").scroll_into_view_if_needed()
    shown.wait_for_selector("#curves canvas")
    back = {"light": "rgb(244, 246, 248)", "dark": "rgb(20, 23, 26)"}
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == back[scheme]
    inked = shown.evaluate("""() => {
        const c = document.querySelector('#curves canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        const want = getComputedStyle(document.documentElement).getPropertyValue('--s0').trim();
        const rgb = [1, 3, 5].map(i => parseInt(want.slice(i, i + 2), 16));
        let n = 0;
        for (let i = 0; i < d.length; i += 4) n += rgb.every((v, k) => Math.abs(d[i + k] - v) < 3) && d[i + 3] > 250;
        return n; }""")
    assert inked > 50, "the first line of the chart is not drawn in its colour"


def test_the_page_of_a_strangers_run_runs_nothing_of_it(tmp_path, opened):
    write_run(tmp_path, text=EVIL)
    shown = opened(write_report(tmp_path).as_uri())
    shown.evaluate("window.scrollTo(0, 100000)")
    shown.wait_for_timeout(300)
    assert EVIL in shown.locator("main").inner_text()


def test_the_table_of_runs_sorts_filters_and_compares_two(tmp_path, opened):
    for seed, accuracy in enumerate((90.0, 95.0, 92.5)):
        planted_run(tmp_path / f"runs/s{seed}", job=f"s{seed}", seed=seed, accuracy=accuracy, genotype=seed, epochs=2 + seed)
    report.main([str(tmp_path / "runs")])
    shown = opened((tmp_path / "runs/report.html").as_uri())
    names = lambda: shown.locator(".runs tbody td.run").all_inner_texts()
    shown.locator(".runs thead th", has_text="val accuracy").click()
    assert names() == ["s1", "s2", "s0"]
    shown.locator(".runs thead th", has_text="val accuracy").click()
    assert names() == ["s0", "s2", "s1"]
    shown.locator("input[type=search]").fill("val_accuracy>91 epochs=3")
    assert names() == ["s1"]
    shown.locator("input[type=search]").fill("")
    for name in ("s0", "s1"):
        shown.get_by_label(f"mark {name}", exact=True).check()
    rows = shown.locator(".diff table").first.locator("tr").all_inner_texts()
    assert [row.split() for row in rows] == [["option", "s0", "s1"], ["epochs", "2", "3"], ["seed", "0", "1"]]
    assert shown.locator(".diff svg.arcs path.first").count() and shown.locator(".diff svg.arcs path.second").count()
    shown.locator(".runs a", has_text="s2").click()
    assert shown.url.endswith("/s2/report.html")


def test_a_served_curve_grows_without_a_reload(tmp_path, opened):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra `serve`)")
    (tmp_path / "runs/r").mkdir(parents=True)
    write_run(tmp_path / "runs/r")
    with pages.serving(tmp_path / "runs") as (_, address):
        shown = opened(f"{address}run/r")
        to(shown, 2)
        shown.evaluate("window.mine = 1")
        with open(tmp_path / "runs/r/metrics.jsonl", "a") as file:
            file.write("\n" + json.dumps({"epoch": 6, "train_loss": 0.01, "fresh_number": 7}) + "\n")
        until(shown, "JSON.parse(document.querySelector('#curves > script').textContent).curves[0].lines[0].x.length === 7")
        until(shown, "document.querySelector('#curves').textContent.includes('Fresh number')")
        assert shown.evaluate("window.mine") == 1, "the page was loaded anew"
        assert shown.locator(".slider output").inner_text().startswith("after 3 of 6"), "the slider was moved"
        shown.close()


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """The page of a search for two scores, with a limit, and its trials."""
    objective = {"minimise": ["size"], "at_most": {"size": 3.2}}
    known = {"size": lambda genotype: Additive(NB)(genotype).metrics["size"]}
    found = run_trials(trials(NSGA2(NB, population=50), NB, objective=Objective(**objective), costs=known, budget=Budget(trials=1500)))
    where = planted_search(tmp_path_factory.mktemp("search") / "run", found, **objective)
    return write_report(where), found


def test_the_table_of_trials_sorts_filters_and_draws_and_holds_only_the_rows_in_sight(search, opened):
    path, found = search
    shown = opened(path.as_uri())
    body = shown.locator(".trials tbody tr:not(.gap)")
    first = lambda n=1: [row.split("\t")[0] for row in body.all_inner_texts()[:n]]
    assert first(3) == ["0", "1", "2"] and body.count() < 80
    assert shown.evaluate("document.querySelector('.trials').scrollHeight") > 28 * len(found)
    shown.locator(".trials th", has_text="accuracy").click()
    evaluated = [t for t in found if t.refused is None]
    best = max(evaluated, key=lambda t: (t.scores[0], -t.number))
    assert first() == [str(best.number)]
    shown.locator(".trials").evaluate("box => { box.scrollTop = 28 * 700; }")
    until(shown, "document.querySelectorAll('.trials tbody tr')[1].textContent !== '' && "
                 "+document.querySelector('.trials tr.gap').style.height.replace('px', '') > 28 * 600")
    assert body.count() < 80
    shown.locator("#all-trials input[type=search]").fill(f"accuracy>{best.scores[0] - 1e-3}")
    wanted = [t.number for t in evaluated if t.scores[0] > best.scores[0] - 1e-3]
    assert sorted(map(int, first(100))) == sorted(wanted)
    assert shown.locator("#all-trials .controls").inner_text().split("\n")[-1] == f"{len(wanted)} of {len(found)} trials"
    body.first.click()
    assert shown.locator("#all-trials .detail h3").inner_text() == f"Trial {first()[0]}"
    assert shown.locator("#all-trials .detail svg.arcs path.edge:not(.wire)").count() == 6
    shown.locator("#all-trials input[type=search]").fill("no such word")
    assert body.count() == 0


def test_the_switch_between_budgets_draws_the_same_best_against_another(search, opened):
    shown = opened(search[0].as_uri())
    shown.locator("#trials").scroll_into_view_if_needed()
    buttons = shown.locator("#trials .controls button")
    assert buttons.all_inner_texts() == ["trials", "images", "simulated seconds"]
    for n, name in enumerate(buttons.all_inner_texts()):
        buttons.nth(n).click()
        until(shown, f"document.querySelector('#trials .charts .u-legend').textContent.startsWith('{name}')")
        assert shown.locator("#trials .title span").first.inner_text() == f"against {name}"
        assert shown.locator("#trials .controls button[aria-pressed=true]").all_inner_texts() == [name]
    assert shown.locator("#trials .charts").first.locator("> div").count() == 2, "a chart a score, no leftovers of the switch"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_trials_is_no_wider_than_its_window(search, opened, width, scheme):
    shown = opened(search[0].as_uri(), width=width, scheme=scheme)
    for key in ("trials", "front", "ancestry", "all-trials"):
        shown.locator(f"#{key}").scroll_into_view_if_needed()
    shown.wait_for_selector("#front canvas")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_a_served_search_by_trials_grows_and_keeps_what_the_reader_chose(tmp_path, opened):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra `serve`)")
    found = run_trials(trials(NSGA2(NB, population=10), NB, objective=Objective(minimise=["size"]), budget=Budget(trials=60)))
    where = planted_search(tmp_path / "runs/r", found[:40], status="running", minimise=["size"])
    with pages.serving(tmp_path / "runs") as (_, address):
        shown = opened(f"{address}run/r")
        shown.locator("#trials .controls button", has_text="images").click()
        shown.locator("#all-trials input[type=search]").fill("trial>30")
        count = shown.locator("#all-trials .controls span")
        assert count.inner_text() == "9 of 40 trials"
        journal = Journal(where / "trials.jsonl")
        for trial in found[40:]:
            journal.append(trial.to_json(), chained=True)
        until(shown, "document.querySelector('#all-trials .controls span').textContent === '29 of 60 trials'")
        until(shown, "JSON.parse(document.querySelector('#trials > script').textContent).search.charts[0].lines[0].x.length === 6")
        assert shown.locator("#trials .controls button[aria-pressed=true]").inner_text() == "images"
        assert shown.locator("#trials .charts").first.locator("> div").count() == 2
        shown.close()

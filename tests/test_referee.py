import math

import pytest

from supernet.report import formats
from supernet.report.referee import Column, Published, Row, Search, gain, judged, lines, marked, verdict_text
from supernet.report.statistics import spread
from supernet.report.verdicts import Tables

ERROR = Column("error", "test error (%)", 0.1, lower_is_better=True)


def search(seed, *results, commit="a", cost_s=1.0):
    return Search(seed, {"error": results}, cost_s, commit)


def published(over, mean=2.5, deviation=0.05, n=10, best_of=0):
    return Published(mean, deviation, n, over, best_of, "a paper")


def verdict_of(row, theirs):
    groups = [s.results["error"] for s in row.searches]
    return judged(row, ERROR, spread(groups), theirs)


def test_retrainings_of_a_best_search_are_never_compared_with_a_mean_over_searches():
    searches = [search(0, 2.51, 2.49, 2.5), search(1, 3.0, 3.1, 3.2), search(2, 3.3, 3.2, 3.1), search(3, 2.9, 3.0, 3.1)]
    row = Row("method", searches, selected=searches[0])
    assert verdict_of(row, published("retrainings", best_of=4)).word == "agrees", "the one that is picked reaches what was published"
    assert verdict_of(row, published("searches")).word == "too few runs" and verdict_of(row, published("searches", 5.0)).word == "differs"
    assert verdict_of(row, published("unknown", 5.0)).word == "differs", "what nobody explains counts as a mean over searches"


def test_without_a_picked_search_or_enough_of_them_there_is_no_verdict():
    searches = [search(0, 2.5, 2.5), search(1, 2.5, 2.6)]
    few = verdict_of(Row("method", searches, selected=searches[0]), published("retrainings", best_of=4))
    assert (few.word, few.needed, math.isnan(few.difference)) == ("too few runs", 4, True)
    unpicked = verdict_of(Row("method", searches), published("retrainings", best_of=4))
    assert (unpicked.word, unpicked.needed) == ("too few runs", 4)
    assert verdict_text(verdict_of(Row("method", searches), published("retrainings"))) == (
        "too few runs: published is the best of an unknown number of searches")
    assert judged(Row("method", []), ERROR, None, published("searches")) is None


def test_a_gain_is_of_seeds_that_both_have_and_positive_where_the_error_is_lower():
    base = Row("random", [search(n, 4.0 + n / 10) for n in range(6)])
    better = Row("method", [search(n, 3.0 + n / 10, 3.2 + n / 10) for n in range(1, 7)])
    found = gain(better, base, ERROR)
    assert found.pairs == 5 and found.mean == pytest.approx(0.9) and found.p == 1 / 32
    assert gain(base, better, ERROR).p == 1 and gain(Row("method", [search(9, 3.0)]), base, ERROR) is None


def test_a_line_does_not_depend_on_the_others():
    rows = [Row(name, [search(n, 3.0 + n * k / 10) for n in range(5)]) for k, name in enumerate(("a", "b", "c"), 1)]
    alone = lines(rows[1:2], [ERROR])[0]
    among = next(line for line in lines(rows, [ERROR], baselines={"b": "a"}) if line.row.name == "b")
    assert alone.interval == among.interval and alone.gain is None and among.gain is not None
    assert alone.best == 3.0, "of errors the best is the smallest"


def test_how_much_longer_the_baseline_took_is_said():
    rows = [Row("random", [search(0, 4.0, cost_s=30.0)]), Row("a", [search(0, 3.0, cost_s=20.0)]), Row("b", [search(0, 3.0, cost_s=60.0)])]
    over = dict.fromkeys("ab", "random")
    tables = Tables("A table", rows, [ERROR], lines(rows, [ERROR], baselines=over), baselines=over)
    assert "random took 0.5 to 1.5 times as long as the searches that it is compared with." in tables.markdown()


def test_rows_of_another_commit_are_marked():
    rows = [Row("a", [search(0, 3.0), search(1, 3.0)]), Row("b", [search(0, 3.0), search(1, 3.0, commit="b")]), Row("c", [])]
    rows.append(Row("d", [search(n, 3.0, commit=None) for n in range(9)]))  # looked up, not run
    assert marked(rows) == {"b": "b: 1 of 2 of commit b; most of the table is of a"}


def test_what_was_quoted_from_memory_is_marked_and_every_source_is_named():
    unsure = Published(2.5, math.nan, 0, "unknown", 0, "somebody's memory", confirmed=False)
    row = Row("method", [search(0, 3.0), search(1, 3.1)], {"error": [unsure, published("searches")]})
    tables = Tables("A table", [row], [ERROR], lines([row], [ERROR]), setups={"method": "other setup"})
    text = tables.markdown()
    assert "| 2.50*" in text and "* quoted from memory, not confirmed." in text
    assert "- somebody's memory: method" in text and "- a paper: method" in text
    assert text.count("(other setup)") == 2 and "within the margin, 0.1 (test error (%))" in text


def test_what_tables_are_made_of_cannot_break_them():
    assert formats.markdown(["a|b"], [["c\nd"]]).splitlines() == ["| a\\|b |", "|------|", "| c d  |"]
    assert formats.tex("50 % of a_b & {c} ± ~\\") == r"50 \% of a\_b \& \{c\} $\pm$ \textasciitilde{}\textbackslash{}"
    assert formats.comma_separated(["a", "b"], [[math.nan, None], [1 / 3, 'x,"y']]) == 'a,b\n,\n0.3333333333333333,"x,""y"\n'

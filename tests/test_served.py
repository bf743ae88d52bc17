"""`python -m supernet.report --serve`: what is served of a folder, to whom, and that nothing else is."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from supernet.commands import report
from supernet.commands.served import LINKS, Pages, escapes
from supernet.runs.folder import RunFolder
from tests import pages
from tests.drawings import EVIL, write_run
from tests.helpers import ROOT
from tests.runs import planted_run


@pytest.fixture
def runs(tmp_path):
    for seed in range(2):
        planted_run(tmp_path / f"runs/s{seed}", job=f"s{seed}", seed=seed, validation=90.0 + seed)
    evil = tmp_path / "runs/deep/evil"
    evil.mkdir(parents=True)
    write_run(evil, text=EVIL)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/config.yaml").write_text("password: swordfish\n")
    return tmp_path / "runs"


def test_pages_are_those_of_the_runs_that_are_there_by_name(runs):
    served = Pages([runs])
    page = pages.read(served.overview().html.decode())
    pages.assert_safe(page)
    assert "data-live" in page.html.partition("<head>")[0]
    rows = {one["cells"][0]: one["link"] for one in page.data["runs"]["runs"]["rows"]}
    assert rows == {"s0": "run/s0", "s1": "run/s1", "deep/evil": "run/deep/evil"}
    for name in rows:
        pages.assert_safe(pages.read(served.run(name).html.decode()))
    planted_run(runs / "later", job="later")
    assert served.run("later") is not None


@pytest.mark.parametrize("name", ["", ".", "..", "../secret", "s0/../../secret", "/etc", "s0/config.yaml", "s0/", "S0", "deep", "%2e%2e"])
def test_nothing_but_a_run_is_served(runs, name):
    assert Pages([runs]).run(name) is None


def test_a_page_is_made_again_only_when_its_run_has_changed(runs, monkeypatch):
    served, made = Pages([runs]), []
    from supernet.commands import served as module

    monkeypatch.setattr(module, "run_page", lambda path, live: made.append(path) or f"{len(made)}")
    first = served.run("s0")
    assert served.run("s0") is first and len(made) == 1
    with open(runs / "s0/metrics.jsonl", "a") as file:
        file.write('{"epoch": 1}\n')
    assert served.run("s0").tag != first.tag and len(made) == 2
    with RunFolder(runs / "s0").lock():
        assert served.run("s0").html == b"3"


def test_the_overview_changes_with_any_run(runs):
    served = Pages([runs])
    tag = served.overview().tag
    assert served.overview().tag == tag
    summary = runs / "s1/summary.json"
    summary.write_text(summary.read_text().replace("90.0", "95.0"))
    changed = served.overview()
    assert changed.tag != tag
    rows = pages.read(changed.html.decode()).data["runs"]["runs"]["rows"]
    assert next(one for one in rows if one["cells"][0] == "s1")["cells"].count(95) == 1


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "checkpoints", "checkpoints/x.pt"])
def test_a_run_with_a_link_that_leads_out_is_not_read(runs, name):
    place = runs / "s0" / name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.unlink()
    place.symlink_to(runs.parent / "secret" / ("config.yaml" if "." in name else ""))
    assert escapes(runs / "s0") and not escapes(runs / "s1")
    served = Pages([runs])
    html = served.run("s0").html.decode() + served.overview().html.decode()
    assert "swordfish" not in html and LINKS in html


def test_a_link_to_a_run_outside_is_no_run(runs):
    planted_run(runs.parent / "outside", job="o")
    (runs / "linked").symlink_to(runs.parent / "outside")
    assert "linked" not in Pages([runs]).runs() and len(Pages([runs]).runs()) == 3


def test_a_link_within_the_run_is_no_harm(runs):
    (runs / "s0/other.yaml").symlink_to(runs / "s0/config.yaml")
    assert not escapes(runs / "s0")


def test_without_the_extra_one_line_says_what_to_install(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert report.main([str(runs), "--serve"]) == 2
    assert capsys.readouterr().err == "error: --serve needs starlette and uvicorn (no uvicorn here): pip install 'supernet[serve]'\n"


@pytest.fixture
def address(runs):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra `serve`)")
    pytest.importorskip("starlette", reason="starlette is not installed (extra `serve`)")
    with pages.serving(runs) as (line, where):
        assert line.startswith("serving   3 runs on http://127.0.0.1:")
        yield where


def asked(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_a_server_answers_this_machine_with_pages_and_refuses_all_else(address, runs):
    status, headers, html = asked(address)
    assert status == 200 and headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
    assert asked(address, **{"If-None-Match": headers["ETag"]})[0] == 304
    assert asked(f"{address}run/deep/evil")[0] == 200
    for path in ("run/../secret/config.yaml", "run/%2e%2e/secret", "run/s0/config.yaml", "secret", "run/", "run/%00",
                 "run/s0%2f..%2f..%2fsecret"):
        status, _, text = asked(address + path)
        assert status == 404 and "swordfish" not in text, path
    assert asked(address, Host="evil.example")[0] == 400, "another site's name leads here"
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(urllib.request.Request(address, method="POST", data=b"x"), timeout=20)
    with open(runs / "s0/metrics.jsonl", "a") as file:
        file.write(json.dumps({"epoch": 1, "val_accuracy": 95.5}) + "\n")
    page = pages.read(asked(f"{address}run/s0")[2])
    assert page.data["curves"]["curves"][0]["lines"][0]["y"][-1] == 95.5


def test_a_port_that_is_taken_is_one_line(address, runs):
    done = subprocess.run([sys.executable, "-m", "supernet.report", str(runs), "--serve", "--port", address.rstrip("/").rpartition(":")[2]],
                          capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot listen there (Address already in use)" in done.stderr


def test_time_is_not_needed_to_see_a_change(runs):
    """Two changes within one tick of a clock differ in size."""
    served = Pages([runs])
    first = served.run("s0").tag
    path = runs / "s0/metrics.jsonl"
    before = path.stat()
    path.write_text(path.read_text() + '{"epoch": 1, "val_accuracy": 1.0}\n')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert served.run("s0").tag != first

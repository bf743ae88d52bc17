import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from supernet.commands import runs as command
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from supernet.runs.listing import listed
from tests.helpers import ROOT
from tests.runs import planted_run


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "runs"
    planted_run(where / "a", job="a", seed=3, accuracy=95, script="train_final", validation=96.5)
    for name, status, best in (("b", "stopped", 50.0), ("c", "failed", 70.0), ("d", "running", 60.0), ("e", "finished", None)):
        planted_run(where / name, job=name, status=status, validation=best, epochs=4)
    for best in (80.0, 40.0):
        Journal(RunFolder(where / "b").metrics).append({"epoch": 1, "val_accuracy": best, "genotype": "0123456789ab", "elapsed_s": 9.0})
    return where


def said(capsys, *arguments):
    assert command.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def rows(capsys, *arguments):
    return {row["name"]: row for row in json.loads(said(capsys, *arguments, "--json"))["runs"]}


def error(capsys, *arguments):
    assert command.main([*map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    return told


def test_a_row_says_what_the_folder_of_its_run_holds(folder, capsys):
    found = rows(capsys, folder)
    assert {name: row["state"] for name, row in found.items()} == {"a": "finished", "b": "stopped", "c": "failed", "d": "died",
                                                                   "e": "finished"}
    assert (found["a"]["script"], found["a"]["seed"], found["a"]["test"], found["a"]["best"]) == ("final", 3, 95, 96.5)
    assert (found["b"]["script"], found["b"]["epoch"], found["b"]["epochs"], found["b"]["best"]) == ("search", 2, 4, 80.0)
    assert found["b"]["digest"] == "0123456789ab" and found["b"]["elapsed_s"] == 9.0 and found["b"]["space"] == "toy"
    assert found["e"]["best"] is None and 0 <= found["e"]["age_s"] < 600 and found["d"]["note"] == "no checkpoint"
    text = said(capsys, folder)
    assert text.splitlines()[0].split() == ["state", "script", "space", "seed", "epoch", "best", "test", "digest", "age", "name"]
    assert "stopped   search" in text and " 2/4  80.00 " in text
    assert text.endswith(f"5 in {folder}: 2 finished, 1 stopped, 1 failed, 1 died\n")


def test_a_run_is_alive_while_a_process_holds_its_lock_whatever_it_says_of_itself(folder, capsys):
    with RunFolder(folder / "d").lock(), RunFolder(folder / "b").lock():
        found = rows(capsys, folder)
        assert found["d"]["state"] == found["b"]["state"] == "running"
    assert rows(capsys, folder)["d"]["state"] == "died"


def test_the_method_is_the_preset_or_what_was_chosen_in_its_place(tmp_path, capsys):
    for name, choices in (("preset", {"experiment": "pc_darts_cifar10", "relaxation": "softmax", "dataset": "digits"}),
                          ("parts", {"relaxation": "gumbel", "hypergradient": "first_order", "space": "s4", "dataset": "cifar10"}),
                          ("trials", {"relaxation": "softmax", "hypergradient": "first_order", "searcher": "genetic",
                                      "evaluator": "tabular"}),
                          ("odd", {"experiment": 3, "relaxation": ["x"]})):
        RunFolder(tmp_path / name).path.mkdir()
        RunFolder(tmp_path / name).start(script="train_search", command="", config_hash="", identity={"choices": choices})
    RunFolder(tmp_path / "cell").path.mkdir()
    RunFolder(tmp_path / "cell").start(script="train_final", command="", config_hash="", identity={"overrides": ["genotype=darts_v2"]})
    found = rows(capsys, tmp_path)
    assert {name: row["method"] for name, row in found.items()} == {"preset": "pc_darts", "parts": "gumbel+first_order", "odd": "",
                                                                    "trials": "genetic+tabular", "cell": "darts_v2"}
    assert (found["parts"]["space"], found["parts"]["data"], found["odd"]["data"]) == ("s4", "cifar10", "")


def test_the_best_of_a_search_by_trials_is_what_its_trials_tell(tmp_path, capsys):
    """Not what breaks a limit, was refused or was trained for a shorter time; and the data are those that it was on."""
    trials = [{"number": 0, "scores": [70.0], "metrics": {"accuracy": 70.0}, "fidelity": 0.5},
              {"number": 1, "scores": ["-inf"], "metrics": {"accuracy": 95.0}},
              {"number": 2, "scores": [80.5], "metrics": {"accuracy": 80.5}},
              {"number": 3, "scores": ["-inf"], "refused": "size"}, {"number": 4, "scores": [80.0, 3.0], "metrics": {"accuracy": 80.0}},
              {"number": 5, "scores": [], "metrics": 7}]
    for name, lines in (("some", trials), ("other", [{"number": 0, "scores": [1.0], "metrics": {"bits": 1.0}}]), ("none", [])):
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        folder.start(script="train_search", command="", config_hash="", identity={
            "data": "cifar10", "choices": {"searcher": "genetic", "evaluator": "tabular", "dataset": "digits"}})
        folder.trials.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"number": 6, "sco')
    found = rows(capsys, tmp_path)
    assert {name: row["best"] for name, row in found.items()} == {"some": 80.5, "other": None, "none": None}
    assert {row["data"] for row in found.values()} == {"cifar10"}


def test_a_damaged_or_foreign_folder_is_a_row_that_says_so(folder, capsys):
    (folder / "a" / "run.json").write_text("{")
    (folder / "b" / "run.json").unlink()
    text = (folder / "c" / "run.json").read_text()
    (folder / "c" / "run.json").write_text(text.replace('"failed"', '"finished"'))  # no longer what was written
    (folder / "d" / "metrics.jsonl").write_bytes(b'{"epoch": 0}\n\xff\n[1]\n{"epoch": 1e999, "val_accuracy": "x"}\n{"epoch": 7')
    (folder / "e" / "genotype.json").write_text("[" * 100_000)
    (folder / "e" / "summary.json").write_text('{"values": 3}')
    (folder / "e" / "config.yaml").write_bytes(b"\xff\xfe")
    (folder / "photos" / "deep").mkdir(parents=True)
    (folder / "photos" / "deep" / "cat.png").write_bytes(b"")
    (folder / "nothing").mkdir()
    (folder / "a file").write_text("")
    os.symlink(folder, folder / "photos" / "circle")
    os.mkfifo(folder / "nothing.fifo")
    found = rows(capsys, folder)
    assert {name: row["state"] for name, row in found.items()} == {
        "a": "damaged", "b": "damaged", "c": "damaged", "d": "died", "e": "finished", "photos": "foreign", "nothing": "foreign"}
    assert [found[name]["note"] for name in ("a", "b", "c", "photos", "nothing")] == [
        "run.json is damaged", "no run.json", "run.json is damaged", "not a run", "empty"]
    assert found["d"]["best"] is None and found["d"]["epoch"] == 0 and found["e"]["seed"] is None
    assert found["d"]["note"] == "no checkpoint; metrics.jsonl: line 2 is damaged"
    assert found["e"]["note"].startswith("not what the run wrote: ")
    assert "photos  (not a run)" in said(capsys, folder)


def test_what_a_stranger_wrote_cannot_steer_the_terminal(tmp_path, capsys):
    planted_run(tmp_path / "\x1b[2J", job="a", status="running")
    RunFolder(tmp_path / "\x1b[2J").set_status("failed", "\x1b]0;title\x07")
    assert "\x1b" not in said(capsys, tmp_path) and "\\x1b[2J  (\\x1b]0;title\\x07)" in said(capsys, tmp_path)


def test_runs_within_folders_are_found_and_a_sweeps_own_folders_are_no_rows(folder, capsys):
    planted_run(folder / "sweep" / "one", job="s", seed=1)
    (folder / "sweep" / "logs").mkdir()
    assert set(rows(capsys, folder)) == {"a", "b", "c", "d", "e", os.path.join("sweep", "one")}
    (folder / "sweep" / "jobs.jsonl").write_text("")
    assert set(rows(capsys, folder / "sweep")) == {"one"}
    assert set(rows(capsys, folder / "a")) == {"a"}, "a run's own folder is its only row"
    assert listed(folder / "sweep" / "logs") == []


def test_rows_are_filtered_sorted_and_cut(folder, capsys):
    assert list(rows(capsys, folder, "--where", "state=d*")) == ["d"]
    assert list(rows(capsys, folder, "--where", "best>=60", "--where", "best < 90", "--sort", "best")) == ["d", "c", "b"]
    assert list(rows(capsys, folder, "--sort", "best", "--reverse")) == ["a", "b", "c", "d", "e"], "what has none comes last"
    assert list(rows(capsys, folder, "--sort", "best", "--last", "2")) == ["a", "e"]
    assert list(rows(capsys, folder, "--where", "age>1d")) == [] and len(rows(capsys, folder, "--where", "age<1h")) == 5
    assert list(rows(capsys, folder, "--where", "script!=search")) == ["a"]
    text = said(capsys, folder, "--columns", "name,best", "--where", "name=b")
    assert text == f"name   best\nb     80.00\n1 of 5 in {folder}: 1 stopped\n"


@pytest.mark.parametrize(("arguments", "told"), [
    (["--where", "stat=x"], "there is no column stat, .*did you mean state"),
    (["--where", "state"], "expected a column, one of"),
    (["--where", "best>high"], "best is a number, got 'high'"),
    (["--where", "best<2h"], "best is a number, got '2h'"),
    (["--where", "state>a"], "state is a word"),
    (["--sort", "bst"], "got 'bst'; did you mean best"),
    (["--columns", "name,"], "there is no empty column"),
    (["--last", "0"], "expected a whole number of at least 1, got '0'"),
    (["--jsn"], "takes no '--jsn'; did you mean --json"),
    (["nowhere"], "nowhere: expected a folder of runs"),
    (["here", "there"], "takes no 'there'"),
])
def test_a_wrong_argument_is_one_line(arguments, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(told, error(capsys, *arguments))


def test_on_a_terminal_a_line_fits_and_keeps_both_ends_of_a_name(folder):
    long = folder / f"2026-11-29_15-24-34_search_{'x' * 120}_seed0"
    (folder / "b").rename(long)
    now = datetime.now().astimezone()
    lines = command.table(listed(folder), list(command.COLUMNS), now, 100)
    assert max(map(len, lines)) <= 100 and any("2026" in line and line.endswith("seed0") for line in lines)
    assert "seed" in lines[0] and "seed" not in command.table(listed(folder), list(command.COLUMNS), now, 80)[0]
    searches = [row for row in listed(folder) if row.script == "search"]
    assert "script" not in command.table(searches, list(command.COLUMNS), now, 85)[0], "what all rows share goes first"
    assert command.table(searches, ["script", "name"], now, 20)[0].split() == ["script", "name"], "what was asked for is shown"
    assert any(long.name in line for line in command.table(listed(folder), list(command.COLUMNS), now, None))


def test_an_age_has_one_unit():
    now = datetime.now().astimezone()
    row = listed_at(now)
    for seconds, text in ((0, "0s"), (99, "99s"), (100, "2m"), (5999, "100m"), (6000, "2h"), (47 * 3600, "47h"), (3 * 86400, "3d")):
        assert command.age(row(timedelta(seconds=seconds)), now) == text


def listed_at(now):
    from pathlib import Path

    from supernet.runs.listing import Listed
    return lambda before: Listed(Path("."), "a", "finished", started=now - before)


def test_the_command_starts_without_pytorch_numpy_or_yaml(folder, tmp_path):
    """So that 300 runs are shown in well under two seconds; every import of PyTorch alone takes one."""
    code = ("import sys\nfrom supernet.commands.runs import main\nassert main(['runs']) == 0\n"
            "print(sorted({'torch', 'numpy', 'matplotlib', 'hydra'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_closed_pipe_ends_it_quietly(folder, tmp_path):
    done = subprocess.run(f"{sys.executable} -m supernet.runs | true", shell=True, cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]})
    assert done.stderr == ""

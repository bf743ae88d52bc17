"""Files as earlier formats of them were written, in tests/earlier_formats/<number of the checkpoint's format>/: they are read, and runs go
on from them. A change that breaks one raises the number (supernet/formats.py), adds the step from the one before, and a folder here.

search: killed in its second epoch; trials: a search by trials, killed after seven of twelve; final: what a final training leaves.
`python -m tests.test_earlier_formats FOLDER` makes a new one."""

import hashlib
import io
import json
import random
import shutil
import sys
from pathlib import Path

import pytest
import torch

import supernet
from supernet.formats import VERSION, Format, FormatError
from supernet.genotype import Genotype, GenotypeError
from supernet.processes.group import digest
from supernet.runs import checkpoint
from supernet.runs.checkpoint import CheckpointError
from supernet.runs.folder import RunFolder, RunFolderError, config_hash
from supernet.runs.journal import Journal
from supernet.runs.run import Asked, choose_folder
from supernet.runs.weights import read_weights
from supernet.spaces import toy
from supernet.tables.files import TableError, read_table, write_table
from supernet.tables.table import Columns
from tests.helpers import ROOT, At, run
from tests.runs import assert_same, finished, folders, outcome

KEPT = ROOT / "tests" / "earlier_formats"
NUMBERS = sorted((path.name for path in KEPT.iterdir() if path.is_dir()), key=int)
HERE = ("dataset=digits", "backend=plain", "device=cpu", "keep_checkpoints=1")
SEARCH = ("space=toy", "layers=3", "channels=2", "split.max_train=64", "split.max_val=48", "batch_size=16", "eval_batch_size=16",
          "epochs=3", "name=small", *HERE)
TRIALS = ("space=toy", "evaluator=tabular", "epochs=0", "table.path=toy.csv.gz", "searcher=random", "budget.trials=12",
          "name=trials", *HERE)
FINAL = ("genotype=genotype.json", "layers=3", "channels=2", "split.max_train=64", "batch_size=16", "epochs=1", "name=small", *HERE)
SPACE = toy.make()

every = pytest.mark.parametrize("number", NUMBERS)
gone_on_with = pytest.mark.parametrize("number", [*NUMBERS[:-1], pytest.param(NUMBERS[-1], marks=pytest.mark.slow)])


def digests(number: str) -> dict[str, str]:
    """Of the parts of the search's checkpoint and of the weights, as they were when they were written."""
    return json.loads((KEPT / number / "digests.json").read_text())


def bits(folder: Path) -> dict[str, str]:
    parts = checkpoint.load(folder / "search" / "checkpoints").state["parts"]
    weights = read_weights(folder / "final" / "weights.pt")["state_dict"]
    return {name: digest(part) for name, part in parts.items()} | {"weights": digest(weights)}


def copied(number: str, name: str, where: Path) -> Path:
    """A copy of a run in `where/runs`."""
    return Path(shutil.copytree(KEPT / number / name, where / "runs" / name))


def test_today_is_among_them():
    assert NUMBERS[-1] == str(checkpoint.FORMAT.number), "python -m tests.test_earlier_formats tests/earlier_formats/<number> makes it"


@every
def test_every_bit_of_a_checkpoint_and_of_weights_is_read(number):
    assert bits(KEPT / number) == digests(number)


@gone_on_with
def test_a_search_goes_on_to_the_bits_to_which_it_goes_on_from_todays_format(number, tmp_path):
    ends = []
    for today in (False, True):
        where = tmp_path / str(today)
        folder = RunFolder(copied(number, "search", where))
        if today:
            loaded = checkpoint.load(folder.checkpoints)
            loaded.path.unlink()
            checkpoint.save(folder.checkpoints, loaded.state, name=loaded.path.name.split(".")[0])
        ended = run("train_search", *SEARCH, "resume=runs/search", cwd=where, report=False)
        assert ended.code == 0 and "at epoch 1, step 6" in ended.err, ended.err
        ends.append(outcome(finished(where)))
        assert len(ends[-1]["metrics"]) == 3
    assert_same(*ends)


@pytest.mark.slow
@every
def test_resume_auto_finds_it(number, tmp_path):
    copied(number, "search", tmp_path)
    ended = run("train_search", *SEARCH, "resume=auto", cwd=tmp_path, report=False)
    assert ended.code == 0 and "resuming runs/search at epoch 1" in ended.err and len(folders(tmp_path)) == 1, ended.err


@gone_on_with
def test_a_search_by_trials_goes_on_to_the_trials_of_an_unbroken_one(number, tmp_path):
    found = []
    for name in ("unbroken", "broken"):
        where = tmp_path / name
        where.mkdir()
        shutil.copy(KEPT / number / "toy.csv.gz", where)
        if name == "broken":
            assert 3 < len(Journal.read(copied(number, "trials", where) / "trials.jsonl")) < 12
        ended = run("train_search", *TRIALS, "resume=auto", cwd=where, report=False)
        assert ended.code == 0 and ("goes on after trial" in ended.err) == (name == "broken"), ended.err
        found.append([{k: v for k, v in trial.items() if k != "wall_s"} for trial in Journal(finished(where).trials).read_chained()])
    assert found[0] == found[1] and len(found[0]) == 12


@every
def test_a_final_training_is_loaded_and_its_genotype_and_table_are_read(number):
    loaded = supernet.load(KEPT / number / "final")
    assert loaded.network(torch.zeros(2, 1, 8, 8)).shape == (2, 10) and loaded.options["epochs"] == 1
    assert loaded.genotype == Genotype.load(KEPT / number / "final" / "genotype.json")
    assert len(read_table(KEPT / number / "toy.csv.gz", SPACE)) == 27


# ---- what is refused


LATER = "version 9.9.9 of the project wrote this, in format supernet.{}/99, and version " + VERSION + " reads supernet.{}/{}"


def later(kind: str, number: int = 1) -> str:
    return LATER.format(kind, kind, number)


def made_later(path: Path, kind: str) -> Path:
    text = path.read_text()
    assert f'"supernet.{kind}/' in text
    data = json.loads(text)
    path.write_text(json.dumps(data | {"format": f"supernet.{kind}/99", "written_by": "9.9.9"}))
    return path


def test_what_a_later_version_wrote_is_refused_with_that_version(tmp_path):
    shutil.copytree(KEPT / NUMBERS[-1], tmp_path, dirs_exist_ok=True)
    with pytest.raises(GenotypeError, match=later("genotype")):
        Genotype.load(made_later(tmp_path / "final" / "genotype.json", "genotype"))
    (tmp_path / "t.csv").write_text('# {"format": "supernet.table/99", "written_by": "9.9.9"}\narch\n')
    with pytest.raises(TableError, match=later("table")):
        read_table(tmp_path / "t.csv", SPACE)
    made_later(tmp_path / "search" / "run.json", "run")
    status = json.loads((tmp_path / "search" / "run.json").read_text())
    (tmp_path / "search" / "run.json").write_text(json.dumps({k: v for k, v in status.items() if k != "sha256"}))
    with pytest.raises(RunFolderError, match=later("run", 2)):
        RunFolder(tmp_path / "search").check_format()
    path = checkpoint.all_files(tmp_path / "search" / "checkpoints")[0]
    buffer = io.BytesIO()
    torch.save({"format": "supernet.checkpoint/99", "written_by": "9.9.9", "other": []}, buffer)
    newer = path.with_name(f"epoch_9.{hashlib.sha256(buffer.getvalue()).hexdigest()}.pt")
    newer.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=later("checkpoint")):
        checkpoint.load_file(newer)
    loaded = checkpoint.load(path.parent)
    assert loaded.path == path and "version 9.9.9 of the project wrote this" in loaded.skipped[0], "the one before it is whole"


def test_a_step_a_number_leads_to_the_newest():
    steps = {0: lambda data: data | {"a": 1}, 2: lambda data: data | {"c": data["b"] + 1}}
    form = Format("supernet.thing", 3, steps)
    assert form.stamp() == {"format": "supernet.thing/3", "written_by": VERSION} and form.current(form.stamp()) == form.stamp()
    assert form.current({"format": "supernet.thing/2", "b": 1})["c"] == 2
    with pytest.raises(FormatError, match="^another version of the project wrote this, in format supernet.thing/1, and version .* only"):
        form.current({})
    for data in ([], None, {"format": "other/3"}, {"format": 3}, {"format": "supernet.thing/x"}, {"format": "supernet.thing/-1"},
                 {"format": f"supernet.thing/{'9' * 5000}"}):
        with pytest.raises(FormatError, match="^expected format 'supernet.thing/3', got .{1,80}$"):
            form.current(data)
    with pytest.raises(FormatError, match="expected format 'supernet.thing/1', got None"):
        Format("supernet.thing").current({})


def test_the_version_is_that_of_the_package():
    assert f"\nversion = {VERSION}\n" in (ROOT / "setup.cfg").read_text()


# ---- options that came later


def begun(where: Path, **options) -> RunFolder:
    folder = RunFolder(where / "runs" / "old")
    folder.path.mkdir(parents=True)
    folder.start(script="train_search", command="", config_hash=config_hash(options), status="stopped",
                 identity={"job": "old", "here": {}, "overrides": ["seed=1", "resume=auto"]})
    folder.write(folder.config, json.dumps(options).encode())
    checkpoint.save(folder.checkpoints, {"run": {}}, name="step_1")
    return folder


def asked(*overrides: str, **options) -> Asked:
    return Asked("train_search", "new", config_hash(options), options, ("resume",), {}, lambda folder: None, digest=config_hash,
                 overrides=overrides)


OLD = {"seed": 1, "optimizer": {"lr": 0.1}}
NEW = {"seed": 1, "optimizer": {"lr": 0.1, "flat": False}, "extra": None}


@pytest.mark.parametrize("resume", ["auto", "runs/old"])
def test_a_run_goes_on_without_the_options_that_it_could_not_know(tmp_path, monkeypatch, resume):
    monkeypatch.chdir(tmp_path)
    folder = begun(tmp_path, **OLD)
    with choose_folder(resume, asked("seed=1", "resume=x", **NEW), output="runs", stem="x").held as _:
        pass
    choice = choose_folder(resume, asked("seed=1", f"resume={resume}", **NEW), output="runs", stem="x")
    assert choice.resuming and choice.folder.path.resolve() == folder.path and choice.known.config_hash == config_hash(OLD)
    assert choice.lines == [f"note: version {VERSION} of the project began this run and knew no extra=None, optimizer.flat=False; version "
                            f"{VERSION} goes on with these values"]
    choice.held.close()


@pytest.mark.parametrize("overrides, options", [
    (("seed=1", "extra=3"), NEW | {"extra": 3}), (("seed=1", "optimizer.flat=true"), NEW), (("seed=1",), NEW | {"seed": 2}),
    (("seed=1",), {"seed": 1, "extra": None})])
def test_it_does_not_where_they_are_asked_for_or_others_differ(tmp_path, monkeypatch, overrides, options):
    monkeypatch.chdir(tmp_path)
    begun(tmp_path, **OLD)
    with pytest.raises(RunFolderError, match="that run has other options"):
        choose_folder("runs/old", asked(*overrides, **options), output="runs", stem="x")
    choice = choose_folder("auto", asked(*overrides, **options), output="runs", stem="x")
    assert not choice.resuming
    choice.held.close()


# ---- a new one


def make(folder: Path) -> None:
    """All that is kept of a format, as the code writes it now."""
    where = folder / "made"
    where.mkdir(parents=True)
    texts = [SPACE.text(genotype) for genotype in SPACE.enumerate()]
    values = {name: [random.Random(f"{name} {text}").uniform(50, 90) for text in texts] for name in ("val", "test", "seconds")}
    write_table(where / "toy.csv.gz", SPACE, texts, values, {"digits": Columns("val", "test", "seconds")})
    assert run("train_search", *SEARCH, "checkpoint_every_s=0", cwd=where, report=False, at=At(1, "_step_00000007.")).code < 0
    (search,) = folders(where)
    shutil.copy(search.genotype, where / "genotype.json")
    assert run("train_final", *FINAL, cwd=where, report=False).code == 0
    assert run("train_search", *TRIALS, cwd=where, report=False, at=At(8, "trials.jsonl")).code < 0
    for made in folders(where):
        name = "trials" if "trials" in made.path.name else "final" if "final" in made.path.name else "search"
        left = (".lock*", "cell.*", "predictions.npz", *(("checkpoints", "split.npz") if name == "final" else ()))
        shutil.copytree(made.path, folder / name, ignore=shutil.ignore_patterns(*left))
    shutil.copy(where / "toy.csv.gz", folder)
    shutil.rmtree(where)
    (folder / "digests.json").write_text(json.dumps(bits(folder), indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]))

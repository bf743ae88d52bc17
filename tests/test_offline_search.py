"""A search that W&B watches offline, preempted and gone on with: what its files say is what metrics.jsonl and config.yaml say."""

import json
import signal
from pathlib import Path

import pytest
import yaml

from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from tests.helpers import At, run, until
from tests.offline_wandb import Offline, read

pytest.importorskip("wandb")
SEARCH = ("space=toy", "relaxation=gumbel", "epochs=2", "layers=3", "channels=2", "batch_size=8", "split.max_train=32", "split.max_val=32",
          "seed=3", "wandb.mode=offline", "wandb.tags=[mine]")


def environment(tmp_path: Path) -> dict[str, str]:
    """W&B as on a fresh machine, nothing of whose home is touched."""
    return {"NETRC": str(tmp_path / "none"), "WANDB_API_KEY": "",
            **{f"WANDB_{name.upper()}_DIR": str(tmp_path / name) for name in ("config", "cache", "data")}}


def ended(file: Path) -> Offline:
    until(lambda: read(file).exit_code is not None, "the last record")
    return read(file)


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> tuple[RunFolder, list[Offline]]:
    """The folder of the run, and what W&B was told until SIGTERM came and after that."""
    here = tmp_path_factory.mktemp("here")
    terminated = run("train_search", *SEARCH, cwd=here, env=environment(here), at=At(1, "genotypes.jsonl", signal.SIGTERM))
    assert terminated.code == 128 + signal.SIGTERM, terminated
    [folder] = (path.parent for path in here.glob("runs/*/run.json"))
    [first] = folder.glob("wandb/offline-run-*/*.wandb")
    until_then = ended(first)
    done = run("train_search", *SEARCH, "resume=auto", cwd=here, env=environment(here))
    assert done.code == 0, done
    [second] = {*folder.glob("wandb/offline-run-*/*.wandb")} - {first}
    return RunFolder(folder), [until_then, ended(second)]


def test_the_numbers_are_those_of_the_journal(search):
    folder, files = search
    rows = [row for file in files for row in file.history]
    records = Journal.read(folder.metrics)
    assert len(records) == 2 and [{key: row[key] for key in record} for row, record in zip(rows, records, strict=True)] == records
    assert [row["_step"] for row in rows] == [record["step"] for record in records]
    assert all(row["cells"]["_type"] == "image-file" for row in rows)


def test_the_options_are_in_the_first_record(search):
    folder, files = search
    for file in files:
        assert file.kinds[:2] == ["header", "run"]
        options = yaml.safe_load(folder.config.read_text())
        assert {key: file.config[key] for key in options if key != "resume"} == {k: v for k, v in options.items() if k != "resume"}
        assert file.config["environment"] == json.loads(folder.environment.read_text())
        assert file.config["choices"]["relaxation"] == "gumbel" and file.config["run_folder"] == folder.path.name
        assert file.config["job"] == folder.status()["job"] and len(file.config["job"]) == 64


def test_a_page_of_runs_sorts_itself(search):
    _, files = search
    first, second = (file.run for file in files)
    assert first == second and files[0].config["run_folder"].startswith(first["id"][:-9])  # a digest ends it
    what = "toy digits gumbel batch_size=8 channels=2 epochs=2 layers=3 split.max_train=32 split.max_val=32"
    assert (first["kind"], first["group"], first["name"]) == ("search", what, f"{what} seed 03")
    assert first["tags"] == ["mine", "toy", "digits", "gumbel", "first_order"]


def test_a_terminated_run_was_preempted_and_one_that_went_on_is_finished(search):
    _, (first, second) = search
    assert ("preempting" in first.kinds, first.exit_code) == (True, 255) and ("preempting" in second.kinds, second.exit_code) == (False, 0)
    assert first.artifacts == [] and "found" not in first.summary


def test_the_genotype_its_drawing_and_the_report_are_artifacts(search):
    folder, (_, second) = search
    genotype, report = second.artifacts
    digest = json.loads(folder.genotype.read_text())["digest"]
    assert second.summary["found"] == genotype["about"]["genotype"] == digest and genotype["aliases"] == ["latest", "seed-03"]
    assert sorted(genotype["files"]) == ["cell.png", "cell.svg", "genotype.json", "genotype.txt"]
    assert list(report["files"]) == ["report.html"]
    for artifact in second.artifacts:
        assert all((folder.path.parents[1] / path).samefile(folder.path / name) for name, path in artifact["files"].items())
    values = json.loads(folder.summary.read_text())["values"]
    assert [second.summary[key] for key in ("val_accuracy", "elapsed_s")] == [values[key] for key in ("val_accuracy", "elapsed_s")]

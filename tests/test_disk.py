"""What a run says that it will need on the disk, against what it takes."""

import shutil

import pytest

from supernet.errors import UsageError
from supernet.runs import checkpoint, disk
from tests.helpers import only_error, run
from tests.runs import finished

SEARCH = ("space=toy", "layers=3", "channels=2", "split.max_train=40", "split.max_val=40", "batch_size=8", "epochs=2", "dataset=digits")
BIGGER = {"batch norms and momentum": (), "a monitor that sends back": ("monitor=[limits]", "monitor.limits.above={train_loss:100}",
                                                                       "monitor.limits.retry=2"),
          "Adam on the weights": ("optimizer@w_optimizer=adam_weights",)}


def told_mib(ended):
    (line,) = [line for line in (ended.out + ended.err).splitlines() if "MiB each)" in line]
    return float(line.rpartition("about ")[2].partition(" MiB")[0].replace(",", "")), line


@pytest.mark.parametrize("options", [pytest.param(options, id=name, marks=[pytest.mark.slow] if options else [])
                                     for name, options in BIGGER.items()])
def test_the_dry_run_tells_what_checkpoints_take(tmp_path, options):
    options = (*SEARCH, "channels=32", *options)
    told, line = told_mib(run("train_search", *options, "dry_run=true", cwd=tmp_path))
    assert "keep_checkpoints=2, and one that is being written" in line and "MiB are free" in line and not list(tmp_path.iterdir())
    ended = run("train_search", *options, "alpha_snapshots=1", cwd=tmp_path, report=False)
    assert ended.code == 0, ended.err
    sizes = [path.stat().st_size / disk.MIB for path in checkpoint.all_files(finished(tmp_path).checkpoints)]
    assert told == pytest.approx(sizes[-1], rel=0.2), sizes
    assert told_mib(ended)[0] == pytest.approx(told, abs=0.21), "the header says the same before the first step"


def test_a_disk_without_room_is_a_line_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda where: shutil._ntuple_diskusage(10, 10, 5 * disk.MIB))
    disk.check_room(disk.MIB, 4, tmp_path)
    disk.check_room(2 * disk.MIB, 3, tmp_path, there=3)
    with pytest.raises(UsageError, match=r"will need 6.0 MiB \(3 of about 2.0 MiB\), and 5.0 MiB are free there: pass keep_"):
        disk.check_room(2 * disk.MIB, 2, tmp_path)


def test_a_run_that_does_not_fit_leaves_nothing(tmp_path):
    line = only_error(run("train_search", *SEARCH, "keep_checkpoints=1000000000", cwd=tmp_path))
    assert "checkpoints will need" in line and "pass keep_checkpoints=1 or output=" in line
    assert not list(tmp_path.iterdir())

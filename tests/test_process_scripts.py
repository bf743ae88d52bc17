"""The scripts as torchrun starts them, in two processes: one folder, one voice, and the same bits after whatever ends them."""

import os
import random
import shutil
import signal
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from supernet.app.many import refuse_for_many
from supernet.commands.arguments import exit_code
from supernet.errors import UsageError
from supernet.processes.group import ALONE
from supernet.runs.journal import Journal
from supernet.spaces import toy
from tests.helpers import start
from tests.runs import assert_same, finished, outcome
from tests.torchrun import at_work, both, has_saved, started

SEARCH = ("split.max_train=41", "split.max_val=16", "space.nodes=1", "space.ops=[none,max_pool_3x3,skip_connect,sep_conv_3x3]", "layers=3",
          "channels=2", "batch_size=8", "epochs=2", "drop_path_prob=0.2")  # 6 steps an epoch, the last one of a single image
FINAL = ("genotype=genotype.json", "split.max_train=44", "layers=3", "channels=4", "batch_size=8", "epochs=2", "drop_path_prob=0.5")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    where = tmp_path_factory.mktemp("unbroken")
    ended = both("train_search", *SEARCH, cwd=where)
    assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
    return finished(where), ended


def test_two_processes_leave_one_folder_and_speak_with_one_voice(unbroken):
    folder, ended = unbroken
    assert "2 processes (gloo), each with its part of every batch; the first one writes" in ended[0].err
    assert "normal cell" in ended[0].out
    assert (ended[1].out, ended[1].err) == ("", "")
    assert folder.status()["status"] == "finished" and len(list(folder.path.parent.iterdir())) == 1
    records = [r for r in folder.metrics.read_text().splitlines() if r]
    assert len(records) == 2


def test_a_process_that_is_killed_ends_the_other_which_goes_on_to_the_same_bits(unbroken, tmp_path):
    first, second = at_work("train_search", *SEARCH, cwd=tmp_path)
    killed = second.send(signal.SIGKILL)
    ended = first.wait(timeout_s=60)
    assert killed.code == -signal.SIGKILL
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "error: another of the 2 processes has ended without a word, or cannot be reached" in ended.err
    assert "so this one ends too, and the last checkpoint stays" in ended.err.splitlines()[-1]
    assert has_saved(tmp_path).status()["status"] == "failed"
    again = both("train_search", *SEARCH, "resume=auto", cwd=tmp_path)
    assert [e.code for e in again] == [0, 0] and "resuming" in again[0].err and "note:" not in again[0].err, again[0].err
    assert_same(outcome(finished(tmp_path)), outcome(unbroken[0]))


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_with_a_checkpoint_and_a_way_to_go_on(unbroken, tmp_path):
    first, second = at_work("train_search", *SEARCH, cwd=tmp_path)
    os.kill(second.pid, signal.SIGTERM)
    ended = [first.wait(), second.wait()]
    assert [e.code for e in ended] == [128 + signal.SIGTERM] * 2, ended[0].err + ended[1].err
    assert "stopped at epoch" in ended[0].err and "-m torch.distributed.run --nproc-per-node=2" in ended[0].err
    assert ended[1].err == ""
    assert has_saved(tmp_path).status()["status"] == "stopped"
    again = both("train_search", *SEARCH, "resume=auto", cwd=tmp_path)
    assert [e.code for e in again] == [0, 0]
    assert_same(outcome(finished(tmp_path)), outcome(unbroken[0]))
    third = both("train_search", *SEARCH, "resume=auto", cwd=tmp_path)
    assert [e.code for e in third] == [0, 0] and "left alone" in third[0].err and third[1].err == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_two_processes_whose_first_one_writes_in_the_background_go_on_to_the_same_bits(unbroken, tmp_path, number):
    first, second = at_work("train_search", *SEARCH, "background_checkpoints=true", cwd=tmp_path)
    os.kill(first.pid, number)
    ended = [first.wait(), second.wait()]
    assert all(e.code != 0 for e in ended) and "Traceback" not in ended[0].err + ended[1].err, ended
    again = both("train_search", *SEARCH, "background_checkpoints=true", "resume=auto", cwd=tmp_path)
    assert [e.code for e in again] == [0, 0] and "resuming" in again[0].err, again[0].err
    assert_same(outcome(finished(tmp_path)), outcome(unbroken[0]))


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began_and_says_so(tmp_path):
    first, second = at_work("train_search", *SEARCH, cwd=tmp_path)
    os.kill(first.pid, signal.SIGINT)
    assert [first.wait().code, second.wait().code] == [130, 130]
    ended = start("train_search", *SEARCH, "resume=auto", cwd=tmp_path, report=False).wait()
    assert ended.code == 0, ended.err
    assert "note: the checkpoint was written by 2 processes, now there is 1 process" in ended.err
    assert finished(tmp_path)


def test_what_cannot_be_done_by_many_is_said_once_before_any_work(tmp_path):
    for script, options, why in (
            ("train_search", (*SEARCH, "backend=packed", "synchronised_norms=true"), "synchronised_norms=true works in one process, got 2"),
            ("train_final", ("genotype=darts_v2", "split.max_train=41", "layers=3", "batch_size=8"), "one image for each of 2 processes")):
        ended = both(script, *options, cwd=tmp_path)
        assert [e.code for e in ended] == [2, 2], why
        assert why in ended[0].err and len(ended[0].err.splitlines()) == 1, ended[0].err
        assert ended[1].err == ""
    assert not (tmp_path / "runs").exists()


OPTIONS = {"compile": "none", "graph_augmentation": False, "checkpoint_cells": False, "synchronised_norms": False, "backend": "auto",
           "teacher": None, "task": {"class_weights": None}}


@pytest.mark.parametrize("options, what", [
    ({"compile": "graph"}, "compile=graph"),
    ({"compile": "inductor", "synchronised_norms": True}, "compile=inductor with synchronised_norms=true"),
    ({"graph_augmentation": True}, "graph_augmentation=true"),
    ({"checkpoint_cells": True, "synchronised_norms": True}, "checkpoint_cells=true with synchronised_norms=true"),
    ({"teacher": "runs/a", "task": {"class_weights": "balanced"}}, "task.class_weights with a teacher")])
def test_what_has_no_meaning_over_processes_is_refused_for_several_alone(options, what):
    cfg = OmegaConf.create(OPTIONS | options)
    refuse_for_many(cfg, ALONE)
    with pytest.raises(UsageError, match=f"^{what} works in one process, got 2: start it without torchrun, or leave it out$"):
        refuse_for_many(cfg, SimpleNamespace(size=2))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_command_that_reads_folders_works_in_one_process_and_says_so_once(rank, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert exit_code(lambda: pytest.fail("it began")) == 2
    assert capsys.readouterr().err == ("" if rank else "error: this command works in one process, got 2: start it without torchrun\n")


def test_an_error_of_one_process_alone_is_said_by_it_and_ends_both_before_a_folder_is_made(tmp_path):
    (tmp_path / "mine.py").write_text("import os\n\nfrom supernet.spaces import darts\n\n\ndef make():\n    if os.environ['RANK'] == '1':\n"
                                      "        raise ValueError('this machine lacks the space')\n    return darts.make(nodes=1)\n")
    ended = both("train_search", "space=custom", "space._target_=mine.make", "layers=3", cwd=tmp_path)
    assert [e.code for e in ended] == [2, 2]
    said = "this machine lacks the space"
    assert ended[1].err.startswith("process 1 of 2: error: ") and said in ended[1].err and len(ended[1].err.splitlines()) == 1
    assert ended[0].err.startswith("error: process 1 of 2 has ended: ") and said in ended[0].err and len(ended[0].err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_monitors_that_send_back_and_selections_that_fine_tune_decide_the_same_in_both(tmp_path):
    """What is compared after every epoch, and the genotype at the end, would differ otherwise. Limits that are always broken send the
    search back; ops are chosen by accuracies, and frozen by gradients; a cost is measured."""
    options = ("monitor=[limits,eigenvalue,op_freezing]", "monitor.limits.above={train_loss:0.0}", "monitor.limits.retry=10",
               "monitor.op_freezing.count=1", "wrapper=[adversarial]", "hypergradient=finite_difference", "cost=latency",
               "final_select=perturbation", "final_select.finetune_epochs=1", "final_select.val_batches=1")
    ended = both("train_search", *SEARCH, *options, cwd=tmp_path)
    assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
    assert "back to what was learned until epoch" in ended[0].err and "decision 1 of" in ended[0].err and "cost, latency" in ended[0].out


@pytest.mark.slow
def test_a_dry_run_tells_memory_and_traffic_of_each(tmp_path):
    ended = both("train_search", *SEARCH, "dry_run=true", cwd=tmp_path)
    assert [e.code for e in ended] == [0, 0], ended[0].err
    assert "for each of 2 processes" in ended[0].out and "messages a step; each process sends" in ended[0].out and ended[1].out == ""


@pytest.mark.slow
def test_a_final_training_by_two_goes_on_to_the_same_bits_and_is_tested_once(unbroken, tmp_path):
    wholes, broken = tmp_path / "whole", tmp_path / "broken"
    for where in (wholes, broken):
        where.mkdir()
        shutil.copy(unbroken[0].genotype, where)
    ended = both("train_final", *FINAL, "synchronised_norms=true", cwd=wholes)
    assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
    first, second = at_work("train_final", *FINAL, "synchronised_norms=true", cwd=broken)
    second.send(signal.SIGKILL)
    assert first.wait().code == 2
    assert [e.code for e in both("train_final", *FINAL, "synchronised_norms=true", "resume=auto", cwd=broken)] == [0, 0]
    one, two = finished(wholes), finished(broken)
    assert_same(outcome(two), outcome(one))
    assert one.predictions.read_bytes() == two.predictions.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["modern", "fast"])
def test_the_recipes_train_a_pupil_by_two_and_go_on_to_the_same_bits(recipe, tmp_path):
    """Mixing, averages, whitening, alternating flips, a teacher and a warm start: what they hold is compared after every epoch."""
    options = ("genotype=darts_v2", "split.max_train=44", "layers=3", "channels=4", "batch_size=12", "epochs=2", f"recipe={recipe}",
               f"dataset.augment.flip={str(recipe == 'fast').lower()}")
    wholes, broken = tmp_path / "whole", tmp_path / "broken"
    ended = start("train_final", *options, "epochs=1", "name=teacher", cwd=tmp_path, report=False).wait()
    assert ended.code == 0, ended.err
    taught = (f"teacher={finished(tmp_path).path}", f"init={finished(tmp_path).path}")
    for where in (wholes, broken):
        where.mkdir()
    ended = both("train_final", *options, *taught, cwd=wholes)
    assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
    assert "teacher: " in ended[0].err and "init: " in ended[0].err and ended[1].err == ""
    first, second = at_work("train_final", *options, *taught, cwd=broken)
    second.send(signal.SIGKILL)
    assert first.wait().code == 2
    assert [e.code for e in both("train_final", *options, *taught, "resume=auto", cwd=broken)] == [0, 0]
    assert_same(outcome(finished(broken)), outcome(finished(wholes)))


@pytest.mark.slow
def test_a_compiled_final_network_is_trained_by_two_to_what_an_uncompiled_one_comes_to(tmp_path):
    """What is compiled is the network of each process; gradients meet behind it, as they always do."""
    toy.make().sample(random.Random(5)).save(tmp_path / "genotype.json")
    options = ("genotype=../genotype.json", "layers=3", "channels=2", "split.max_train=16", "batch_size=8", "epochs=1", "backend=plain")
    losses = []
    for how in ("none", "inductor"):
        where = tmp_path / how
        where.mkdir()
        ended = [process.wait(timeout_s=900) for process in started("train_final", *options, f"compile={how}", cwd=where)]
        assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
        (record,) = Journal.read(finished(where).metrics)
        losses.append(record["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_a_text_is_searched_by_two_and_gone_on_with_to_the_same_bits(tmp_path):
    """Each has some of its rows; hidden states are kept of all, so that one process can go on with them too."""
    options = ("dataset=text", "dataset.path=../text.txt", "dataset.bptt=8", "space=darts_rnn", "channels=6", "space.nodes=2",
               "batch_size=4", "eval_batch_size=4", "epochs=2")
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog, and the dog is quick too. " * 20)
    wholes, broken, single = (tmp_path / name for name in ("whole", "broken", "single"))
    for where in (wholes, broken, single):
        where.mkdir()
    ended = both("train_search", *options, cwd=wholes)
    assert [e.code for e in ended] == [0, 0], ended[0].err + ended[1].err
    first, second = at_work("train_search", *options, cwd=broken)
    second.send(signal.SIGKILL)
    assert first.wait().code == 2
    shutil.copytree(broken, single, dirs_exist_ok=True)
    assert [e.code for e in both("train_search", *options, "resume=auto", cwd=broken)] == [0, 0]
    assert_same(outcome(finished(broken)), outcome(finished(wholes)))
    ended = start("train_search", *options, "resume=auto", cwd=single, report=False).wait()
    assert ended.code == 0 and "the checkpoint was written by 2 processes, now there is 1 process" in ended.err, ended.err
    refused = both("train_search", *options, "batch_size=2", cwd=single)
    assert [e.code for e in refused] == [2, 2]
    assert "batch_size=2 for each of 2 processes" in refused[0].err and "pass batch_size=4 or more" in refused[0].err

"""The two scripts, end to end on real data, and every configuration."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from supernet.app import checks, command_line
from supernet.genotype import Genotype
from supernet.runs.folder import RunFolder
from supernet.runs.journal import Journal
from tests import backends, groups
from tests.groups import LISTS, NEEDS
from tests.helpers import python

ROOT = Path(__file__).parent.parent
TINY = ["layers=2", "channels=2", "threads=1", "wandb.mode=disabled"]
SEARCH = [*TINY, "split.max_train=64", "split.max_val=64", "epochs=2", "space.nodes=2"]


def run(script, *options, cwd, check=True):
    done = python(str(ROOT / script), *options, cwd=cwd)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def composer():
    command_line.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda script, *overrides: compose(script, overrides=list(overrides))
    GlobalHydra.instance().clear()


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("search")
    done = subprocess.run([sys.executable, str(ROOT / "train_search.py"), *SEARCH], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr  # as a user starts it; the others are forked
    return done, next(cwd.glob("runs/*_search_*"))


SLOTS = {"optimizer": ["optimizer@w_optimizer"], "schedule": ["schedule@w_schedule"]}
IN_FINAL = {"dataset", "protocol", "task", "optimizer", "schedule"}
FINAL_ONLY = {"recipe", "policy", "mixing", "average"}  # tests/test_recipes.py trains by them
ALPHA_ONLY = {("optimizer", "exponentiated_gradient")}
PARTS = {"relaxation", "wrapper", "hypergradient", "penalty", "w_penalty", "monitor", "cost", "select", "final_select", "skip_dropout",
         "stage"}
SMALL = ["layers=4", "channels=12", "batch_size=16", "split.max_train=16", "split.max_val=16", "threads=1", "table=none",
         "space.nodes=2"]


@pytest.mark.parametrize("group, choice", groups.everything())
def test_every_config_composes_and_builds(composer, group, choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = lambda node: instantiate(node, _convert_="all")
    scripts = ("final",) if group in FINAL_ONLY else ("search", "final") if group in IN_FINAL else ("search",)
    for script in ("search",) if (group, choice) in ALPHA_ONLY else scripts:
        slots = ["optimizer@alpha_optimizer"] if (group, choice) in ALPHA_ONLY else SLOTS.get(group, [group])
        chosen, needs = f"[{choice}]" if group in LISTS else choice, NEEDS.get((group, choice), [])
        own_space = any(o.startswith("space=") for o in needs)  # then it has other options, and maybe other layers
        small = [o for o in SMALL if not (own_space and o.startswith("space."))] if group in PARTS else []
        cfg = composer(script, *[f"{slot}={chosen}" for slot in slots], *small, *needs)
        checks.validate(cfg, f"train_{script}")
        build(cfg.dataset.data), build(cfg.task), build(cfg.w_schedule)(0.1, 1, 10)
        import torch

        build(cfg.w_optimizer)(params=[torch.zeros(1, requires_grad=True)])  # a wrong key under _partial_ passes until called
        if group in PARTS:  # as a search builds it, so that each part is called
            from supernet.app import compose as composing
            from supernet.spaces import toy
            from supernet.tables.files import write_table

            space = toy.make()
            write_table(tmp_path / "toy.csv", space, [space.text(g) for g in space.enumerate()], {"flops": np.arange(27.0)}, {})
            if group == "stage" and not own_space:
                cfg.layers = 3  # P-DARTS' own are many
                cfg.stage.layers = None
            stages = composing.search_stages(cfg, composing.search_parts(cfg))
            assert stages.epochs >= 1 and stages.loop.skip_dropout(0, 10) >= 0
        elif script == "final":
            assert build(cfg.average).name
        else:
            space = build(cfg.space)
            relaxation = build(cfg.relaxation)(space, torch.Generator())
            build(cfg.alpha_optimizer)(params=[*relaxation.parameters()] or [torch.zeros(1)]), build(cfg.alpha_schedule)(0.1, 1, 10)
            build(cfg.select)(space, relaxation.mean())


PUBLISHED = {
    "epochs": 50, "layers": 8, "channels": 16, "batch_size": 64, "clip_norm": 5.0, "w_optimizer.lr": 0.025, "w_optimizer.momentum": 0.9,
    "w_optimizer.weight_decay": 3e-4, "w_schedule.minimum": 0.001, "alpha_optimizer.lr": 3e-4, "alpha_optimizer.weight_decay": 1e-3,
    "alpha_optimizer.betas": [0.5, 0.999], "relaxation.init_scale": 1e-3, "split.train_portion": 0.5, "split.mode": "index_order",
    "dataset.augment.cutout": 0, "dataset.augment.pad": 4, "space.nodes": 4, "space.edges_per_node": 2, "compat.scheduler_step": "end",
}


@pytest.mark.parametrize("overrides, hypergradient", [
    (["dataset=cifar10"], "first_order"), (["experiment=darts_first_order_cifar10"], "first_order"),
    (["experiment=darts_second_order_cifar10"], "finite_difference"),
])
def test_published_search_protocol(composer, overrides, hypergradient):
    cfg = composer("search", *overrides)
    for key, value in PUBLISHED.items():
        assert OmegaConf.select(cfg, key) == value, key
    assert cfg.hypergradient._target_.endswith(f".{hypergradient}")
    assert hypergradient == "first_order" or cfg.hypergradient.radius == 1e-2


def test_published_final_protocol(composer):
    cfg = composer("final", "dataset=cifar10")
    want = {"epochs": 600, "layers": 20, "channels": 36, "batch_size": 96, "w_optimizer.lr": 0.025, "w_schedule.minimum": 0.0,
            "clip_norm": 5.0, "w_optimizer.weight_decay": 3e-4, "dataset.augment.cutout": 16, "drop_path_prob": 0.2,
            "task.auxiliary_weight": 0.4, "split.val_portion": 0.0, "report_test_every_epoch": False}
    for key, value in want.items():
        assert OmegaConf.select(cfg, key) == value, key
    assert composer("final", "dataset=cifar10", "protocol=paper").report_test_every_epoch is True
    for protocol, batch_size in (("pc_darts", 96), ("p_darts", 128)):  # their train.py and train_cifar.py
        cfg = composer("final", "dataset=cifar10", f"protocol={protocol}")
        assert (cfg.batch_size, cfg.drop_path_prob, cfg.epochs, cfg.task.auxiliary_weight) == (batch_size, 0.3, 600, 0.4)


@pytest.mark.equation("dr_nas")
def test_the_protocol_of_dr_nas_has_norms_without_factors_after_pools(composer):
    """DARTS-space/train.py and operations.py (AvgPoolBN, MaxPoolBN: affine=False) of DrNAS. Other protocols have no such norm."""
    cfg = composer("final", "dataset=cifar10", "protocol=dr_nas")
    assert (cfg.batch_size, cfg.drop_path_prob, cfg.compat.pool_norm, cfg.epochs) == (64, 0.3, "always", 600)
    assert composer("final", "dataset=cifar10").compat.pool_norm == "search"
    assert composer("final", "dataset=cifar10", "protocol=dr_nas", "compat.pool_norm=never").compat.pool_norm == "never"
    assert composer("search", "experiment=dr_nas_cifar10").compat.pool_norm == "search"


@pytest.mark.parametrize("preset", ["fair_darts_cifar10", "sdarts_rs_cifar10", "sdarts_adv_cifar10", "sdarts_rs_nasbench201",
                                    "sdarts_adv_nasbench201"])
def test_learning_rates_are_a_step_ahead_where_the_code_pins_a_torch_in_which_they_are(composer, preset):
    """`scheduler.step()` begins each epoch there, which since torch 1.1 skips the first value."""
    assert composer("search", f"experiment={preset}").compat.scheduler_step == "start"
    assert composer("search", "experiment=darts_first_order_cifar10").compat.scheduler_step == "end"


def test_an_option_wins_over_a_preset_and_a_preset_over_the_protocol(composer):
    cfg = composer("search", "experiment=darts_second_order_cifar10", "seed=3", "w_optimizer.lr=0.1")
    assert (cfg.seed, cfg.w_optimizer.lr, cfg.dataset.name) == (3, 0.1, "cifar10")


def test_search_leaves_a_complete_run_folder(searched):
    done, folder = searched
    names = {p.name for p in folder.iterdir()}
    assert names >= {"config.yaml", "run.json", "environment.json", "split.npz", "metrics.jsonl", "genotypes.jsonl", "checkpoints",
                     "genotype.json", "cell.svg", "cell.png", "alphas.npz", "summary.json", "report.html"}
    records = Journal.read(folder / "metrics.jsonl")
    assert [r["epoch"] for r in records] == [0, 1]
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "alpha_lr", "alpha_entropy/normal",
            "items_per_s"} <= set(records[0])
    assert records[-1]["genotype"] == Genotype.load(folder / "genotype.json").digest
    with np.load(folder / "alphas.npz") as arrays:
        assert arrays["alpha.normal"].shape == (len(arrays["epoch"]), 5, 8) and arrays["epoch"][-1] == 2
        np.testing.assert_allclose(arrays["weights.reduce"].sum(-1), 1, rtol=1e-5)
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "supernet validation accuracy" in done.stdout and "output = concatenation of 0, 1" in done.stdout
    sure = json.loads((folder / "summary.json").read_text())["values"]["sureness"]
    assert (sure["ops"], sure["edge_choices"], sure["window_epochs"]) == (8, 2, 1)  # two kinds of cells, each with a node that has a choice
    assert f"unsure ops                    {sure['ops_would_flip']} of 8: ahead by {sure['mean_gap']:.4f}" in done.stdout
    assert "they decide for another architecture" not in done.stdout
    assert "How sure the search is" in (folder / "report.html").read_text()
    for name in ("config.yaml", "environment.json", "report.html", "metrics.jsonl"):
        assert str(ROOT) not in (folder / name).read_text()


def test_the_found_cell_is_retrained_and_tested_once(searched):
    _, folder = searched
    done = run("train_final.py", *TINY, "epochs=2", "split.max_train=64", "batch_size=32", "amp=bf16", cwd=folder.parent.parent)
    (final,) = folder.parent.glob("*_final_*")
    values = json.loads((final / "summary.json").read_text())["values"]
    assert values["test_images"] == 360 and 0 <= values["test_accuracy"] <= 100
    assert "of 360 images, read once, at the end" in done.stdout
    assert not any("test_accuracy" in r for r in Journal.read(final / "metrics.jsonl"))
    assert Genotype.load(final / "genotype.json") == Genotype.load(folder / "genotype.json")
    assert {"weights.pt", "report.html", "cell.png"} <= {p.name for p in final.iterdir()}


def test_protocol_paper_reports_the_test_set_every_epoch_and_says_so(tmp_path):
    done = run("train_final.py", "genotype=darts_v1", "protocol=paper", "dataset.augment.cutout=0", *TINY, "epochs=2",
               "split.max_train=64", "batch_size=32", "drop_path_prob=0.2", cwd=tmp_path)
    (final,) = tmp_path.glob("runs/*_final_*")
    assert all("test_accuracy" in r for r in Journal.read(final / "metrics.jsonl"))
    assert "reported after every epoch" in done.stdout


def test_zero_epochs_select_from_the_initial_alphas(tmp_path):
    done = run("train_search.py", *SEARCH, "epochs=0", cwd=tmp_path)
    assert "not trained" in done.stdout and list(tmp_path.glob("runs/*/genotype.json"))
    assert "unsure" not in done.stdout  # one snapshot of the alphas says nothing of how they move


def test_both_scripts_compute_in_bf16(searched, tmp_path):
    run("train_search.py", *SEARCH, "epochs=1", "amp=bf16", cwd=tmp_path)
    genotype, = tmp_path.glob("runs/*/genotype.json")
    options = [f"genotype={genotype}", "split.max_train=64", "epochs=1", "amp=bf16", "checkpoint_cells=true"]
    run("train_final.py", *TINY, *options, cwd=tmp_path)
    losses = [Journal.read(path / "metrics.jsonl")[0]["train_loss"] for path in tmp_path.glob("runs/*")]
    plain = Journal.read(searched[1] / "metrics.jsonl")[0]["train_loss"]
    assert len(losses) == 2 and np.isfinite(losses).all() and plain not in losses


def test_dry_run_prints_sizes_and_writes_nothing(tmp_path):
    options = ["dataset=random", "dataset.source.num_train=8", "dataset.source.num_test=8", "dry_run=true", "batch_size=2", "threads=1"]
    search = run("train_search.py", *options, cwd=tmp_path)
    assert "1.930618 M" in search.stdout and "peak memory" in search.stdout and "a step" in search.stdout
    final = run("train_final.py", "genotype=darts_v2", *options, cwd=tmp_path)
    assert "3.349342 M" in final.stdout
    assert not list(tmp_path.iterdir())


def test_help_does_not_import_torch(tmp_path):
    script = str(ROOT / "train_search.py")
    code = f"import runpy, sys; sys.argv = ['train_search.py', '--help']\ntry: runpy.run_path({script!r}, run_name='__main__')\n" \
           "except SystemExit: pass\nassert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "hypergradient: conjugate_gradient, finite_difference, first_order, neumann," in done.stdout
    assert "w_penalty: layer_alignment" in done.stdout
    assert "monitor: eigenvalue, layer_alignment, limits, op_freezing, op_freezing_by_cosine, skips" in done.stdout
    assert "python train_search.py" in done.stdout


WHERE = ("epoch 0, step", "learning rate 1e+20", "largest |alpha|")


@pytest.mark.parametrize("backend, every_s, said", [
    ("plain", 60, ("is nan in", *WHERE)), ("plain", 0, ("a weight is not finite", *WHERE)),
    # its batch statistics do not overflow, running averages do
    ("native", 60, ("the validation loss is nan after epoch 0, step 2", "running statistics")),
    ("native", 0, ("a weight is not finite", *WHERE)),
])
def test_numbers_that_are_not_finite_stop_the_run_and_say_where(tmp_path, backend, every_s, said):
    with backends.using(backend):  # or skip
        pass
    done = run("train_search.py", *SEARCH, "w_optimizer.lr=1e20", "clip_norm=null", f"backend={backend}",
               f"checkpoint_every_s={every_s}", cwd=tmp_path, check=False)
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error:")]
    assert all(text in line for text in said), line
    (folder,) = tmp_path.glob("runs/*_search_*")
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    import torch

    for saved in (folder / "checkpoints").glob("*.pt"):  # what is kept can be trained on
        net = torch.load(saved, weights_only=True)["parts"]["net"]
        assert all(torch.isfinite(value).all() for value in net.values())


def test_multirun_makes_a_folder_a_job(tmp_path):
    run("train_search.py", "--multirun", *SEARCH, "epochs=1", "seed=1,2", cwd=tmp_path)
    assert sorted(p.name.split("_")[-1] for p in tmp_path.glob("runs/*_search_*")) == ["seed1", "seed2"]


def test_a_job_of_a_multirun_that_fails_ends_no_other(tmp_path):
    done = run("train_search.py", "--multirun", *SEARCH, "epochs=1", "batch_size=8,999,4", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert len(list(tmp_path.glob("runs/*/genotype.json"))) == 2
    told = done.stderr.splitlines()[-2:]
    assert told[0] == "error: 1 of the jobs failed:" and "batch_size=999" in told[1]


def test_a_multirun_that_was_stopped_goes_on_with_what_is_left(tmp_path):
    options = ("--multirun", *SEARCH, "epochs=1", "seed=1,2")
    run("train_search.py", *SEARCH, "epochs=1", "seed=1", cwd=tmp_path)
    done = run("train_search.py", *options, "resume=auto", cwd=tmp_path)
    assert "is finished and has the same options: left alone" in done.stderr
    assert sorted(p.name.split("_")[-1] for p in tmp_path.glob("runs/*_search_*")) == ["seed1", "seed2"]


@pytest.mark.parametrize("multirun, class_weights", [([], [1.0, 0.5, 3.0, *[1.0] * 7]), (["--multirun"], "balanced")])
def test_the_printed_command_retrains_as_it_stands(tmp_path, multirun, class_weights):
    source, weights = "dataset.source._target_=supernet.data.digits.Digits", f"task.class_weights={class_weights}".replace(" ", "")
    done = run("train_search.py", *multirun, *SEARCH, "epochs=1", 'output="my runs/a=b, c"', source, weights, cwd=tmp_path)
    (command,) = [line.removeprefix("retrain   ") for line in done.stdout.splitlines() if line.startswith("retrain   ")]
    assert "dataset.source._target_=" in command
    small = "epochs=1 layers=3 channels=4 batch_size=16 split.max_train=32 threads=1 wandb.mode=disabled output=final"
    subprocess.run(f"{command} {small}", shell=True, check=True, cwd=tmp_path, capture_output=True, timeout=120)
    (summary,) = tmp_path.glob("final/*/summary.json")
    assert RunFolder(summary.parent).options()["task"]["class_weights"] == class_weights


def test_a_space_from_a_file_in_the_working_directory(tmp_path):
    (tmp_path / "my_space.py").write_text("from supernet.spaces import darts\n\n\ndef make():\n    return darts.make(nodes=1)\n")
    options = [o for o in SEARCH if not o.startswith("space.")]
    run("train_search.py", *options, "epochs=1", "space=custom", "space._target_=my_space.make", cwd=tmp_path)
    (genotype,) = tmp_path.glob("runs/*/genotype.json")
    assert Genotype.load(genotype).arguments["nodes"] == 1


@pytest.mark.parametrize("arguments", [
    {"_target_": "os.mkdir", "path": "made"}, {"ops": {"_target_": "os.mkdir", "path": "made"}}, {"nodes": "four"},
])
def test_a_genotype_is_never_run_as_code(tmp_path, arguments):
    from supernet import genotype as genotypes

    (tmp_path / "g.json").write_text(json.dumps(genotypes.find("darts_v1").to_json() | {"arguments": arguments}))
    done = run("train_final.py", "genotype=g.json", *TINY, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["g.json"]

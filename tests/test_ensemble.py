"""Several trained networks asked together."""

import json

import numpy as np
import pytest

from supernet.commands.ensemble import asked_together, main
from supernet.errors import Mendable
from supernet.report.ensemble import disagreement, ensembled, metrics
from supernet.runs.predictions import Predictions
from tests.helpers import run
from tests.runs import folders

NAMES = ("ant", "bee", "cat")


def planted(where, probabilities, true, names=NAMES):
    where.mkdir(parents=True, exist_ok=True)
    p = np.asarray(probabilities, dtype=np.float32)
    predicted = (p if p.shape[1] else np.zeros((len(p), 1))).argmax(1)
    (where / "predictions.npz").write_bytes(Predictions(np.asarray(true), predicted, p, names).as_bytes())
    return where


def drawn(seed, count=60):
    rng = np.random.default_rng(seed)
    true = np.random.default_rng(0).integers(0, 3, count)
    logits = rng.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[true]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), true


def test_the_metrics_of_probabilities_are_those_of_their_definitions():
    p, true = drawn(1)
    found = metrics(p, true)
    assert found["accuracy"] == pytest.approx(100 * np.mean([row.argmax() == t for row, t in zip(p, true)]))
    assert found["loss"] == pytest.approx(-np.mean([np.log(row[t]) for row, t in zip(p, true)]))
    assert found["brier"] == pytest.approx(np.mean([sum((row[k] - (k == t)) ** 2 for k in range(3)) for row, t in zip(p, true)]))
    confidence, right, error = p.max(1), p.argmax(1) == true, 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found["expected_calibration_error"] == pytest.approx(100 * error)
    assert np.isfinite(metrics(np.eye(3)[[0, 1, 2]], np.array([1, 1, 1]))["loss"]), "a network that is sure and wrong"


def test_an_ensemble_is_the_mean_of_the_probabilities_and_its_loss_is_no_larger_than_their_mean(tmp_path):
    runs = [planted(tmp_path / f"seed{n}", *drawn(n)) for n in range(4)]
    found = asked_together(runs)
    together = np.mean([drawn(n)[0].astype(np.float32).astype(np.float64) for n in range(4)], axis=0)
    np.testing.assert_allclose(ensembled([drawn(n)[0].astype(np.float32) for n in range(4)]), together, rtol=1e-12)
    assert found["ensemble"] == pytest.approx(metrics(together, drawn(0)[1]))
    assert found["ensemble"]["loss"] <= found["mean"]["loss"], "Jensen"
    assert [member["run"] for member in found["members"]] == [str(r) for r in runs]
    assert disagreement([np.array([0, 1, 2]), np.array([0, 1, 1]), np.array([1, 1, 2])]) == pytest.approx(100 * 4 / 9)


def test_what_cannot_be_asked_together_is_one_line(tmp_path, capsys):
    p, true = drawn(0)
    first, other = planted(tmp_path / "a", p, true), planted(tmp_path / "b", p[:50], true[:50])
    (tmp_path / "empty").mkdir()
    for runs, told in (([first], "at least two runs, got 1"), ([first, first], f"at least two runs, got {first} 2 times"),
                       ([first, other], "other items"),
                       ([first, planted(tmp_path / "c", p, true, ("x", "y", "z"))], "other items"),
                       ([first, tmp_path / "empty"], "there is no predictions.npz"), ([first, tmp_path / "nowhere"], "predictions.npz"),
                       ([first, planted(tmp_path / "d", p[:, :0], true)], "keeps no probabilities")):
        assert main([str(r) for r in runs]) == 2
        said = capsys.readouterr()
        assert said.out == "" and len(said.err.splitlines()) == 1 and told in said.err
    with pytest.raises(Mendable):
        asked_together([first])


def test_retrainings_of_one_cell_are_asked_together(tmp_path, capsys):
    small = ("genotype=darts_v2", "dataset=digits", "layers=2", "channels=4", "epochs=1", "split.max_train=128")
    for seed in range(2):
        assert run("train_final", *small, f"seed={seed}", cwd=tmp_path, report=False).code == 0
    runs = [folder.path for folder in folders(tmp_path)]
    assert main([*map(str, runs), "--output", str(tmp_path / "e.json")]) == 0
    told, found = capsys.readouterr().out, json.loads((tmp_path / "e.json").read_text())
    assert "ensemble of 2" in told and "360 test items of 10 classes" in told
    for member, folder in zip(found["members"], runs):
        values = json.loads((folder / "summary.json").read_text())["values"]
        for name in ("accuracy", "loss", "expected_calibration_error", "f1_macro"):
            assert member[name] == pytest.approx(values[f"test_{name}"], rel=1e-4), name

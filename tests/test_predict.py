"""`python -m supernet.predict`, and what a final training keeps of its test, on a network that the scripts trained."""

import io
import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.commands import predict
from supernet.data.base import DataError
from supernet.data.digits import Digits
from supernet.runs import predictions
from supernet.runs.folder import RunFolder
from supernet.runs.predictions import Keeping, Predictions
from supernet.tasks.classes import CLASS_METRICS
from supernet.tasks.classification import Classification
from tests.helpers import ROOT, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    where = tmp_path_factory.mktemp("final")
    done = run("train_final", "genotype=darts_v2", "layers=3", "channels=4", "split.max_train=320", "epochs=2", "batch_size=16",
               "backend=plain", "task.auxiliary_weight=0.4", cwd=where)
    assert done.code == 0, done.err
    return next(where.glob("runs/*"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The first 20 images of the test as files; 3 of them in a folder below."""
    where = tmp_path_factory.mktemp("pictures")
    (where / "more").mkdir()
    for n, pixels in enumerate(Digits().test().pixels[:20]):
        Image.fromarray(pixels[0].numpy()).save(where / ("more" if n >= 17 else ".") / f"{n:02}.png")
    return where


def predicted(capsys, *arguments):
    """Exit code, lines of stdout, lines of stderr."""
    code = predict.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


# ---- what a training keeps


def test_predictions_are_those_that_the_summary_counts(trained):
    kept, values = Predictions.load(trained / "predictions.npz"), json.loads((trained / "summary.json").read_text())["values"]
    test = Digits().test()
    assert (kept.true == test.labels.numpy()).all() and kept.class_names == tuple("0123456789")
    assert kept.probabilities.shape == (360, 10) and kept.probabilities.dtype == np.float32
    assert (kept.probabilities.argmax(1) == kept.predicted).all()
    np.testing.assert_allclose(kept.probabilities.sum(1), 1, atol=1e-5)
    assert values["test_accuracy"] == pytest.approx(100 * (kept.true == kept.predicted).mean())
    assert values["test_loss"] == pytest.approx(-np.log(kept.probabilities[np.arange(360), kept.true]).mean(), rel=1e-5)
    with np.load(trained / "predictions.npz") as file:
        assert (file["index"] == np.arange(360)).all() and str(file["digest"]) == kept.digest
    RunFolder(trained).verify(trained / "predictions.npz")


def test_the_page_and_the_summary_have_the_numbers_of_the_confusion_matrix(trained):
    kept, summary = Predictions.load(trained / "predictions.npz"), json.loads((trained / "summary.json").read_text())
    matrix = kept.confusion
    assert matrix.sum() == 360 and np.trace(matrix) == (kept.true == kept.predicted).sum()
    assert summary["classes"]["support"] == matrix.sum(1).tolist() and summary["classes"]["name"] == list("0123456789")
    np.testing.assert_allclose(summary["classes"]["recall"], 100 * np.diagonal(matrix) / matrix.sum(1))
    assert {f"test_{name}" for name in (*CLASS_METRICS, "loss", "accuracy")} <= set(summary["values"])
    assert summary["values"]["test_recall_macro"] == pytest.approx(np.mean(summary["classes"]["recall"]))
    assert sum(row[1] for row in summary["calibration"]) == 360
    error = sum(count * abs(right - confidence) for _, count, right, confidence in summary["calibration"]) / 360
    assert summary["values"]["test_expected_calibration_error"] == pytest.approx(error)
    html = (trained / "report.html").read_text()
    assert "<h2>Test, class by class</h2>" in html and "<h2>Confusion matrix of the test</h2>" in html
    assert all(f">{matrix[i, j]}</text>" in html for i, j in zip(*np.nonzero(matrix)))
    assert all(f"<td>{value:.2f}</td>" in html for name in ("precision", "recall", "f1") for value in summary["classes"][name])
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert all(type(value) in (int, float) for record in records for key, value in record.items() if key.startswith("val_"))


def test_what_a_training_says_of_its_test_equals_scikit_learn(trained):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    kept, summary = Predictions.load(trained / "predictions.npz"), json.loads((trained / "summary.json").read_text())
    labels, values = np.arange(10), summary["values"]
    assert (kept.confusion == metrics.confusion_matrix(kept.true, kept.predicted, labels=labels)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = metrics.precision_recall_fscore_support(kept.true, kept.predicted, labels=labels, zero_division=0)
        for average in ("macro", "weighted"):
            scores = metrics.precision_recall_fscore_support(kept.true, kept.predicted, labels=labels, average=average, zero_division=0)
            for name, score in zip(("precision", "recall", "f1"), scores):
                assert values[f"test_{name}_{average}"] == pytest.approx(100 * score)
    for name, column, scale in zip(("precision", "recall", "f1", "support"), each, (100, 100, 100, 1)):
        np.testing.assert_allclose(summary["classes"][name], scale * column)
    assert values["test_balanced_accuracy"] == pytest.approx(100 * metrics.balanced_accuracy_score(kept.true, kept.predicted))
    assert values["test_top5_accuracy"] == pytest.approx(100 * metrics.top_k_accuracy_score(kept.true, kept.probabilities, k=5))
    p = kept.probabilities.astype(float)
    assert values["test_loss"] == pytest.approx(metrics.log_loss(kept.true, p / p.sum(1, keepdims=True)), rel=1e-4)


def test_probabilities_that_would_take_too_much_are_kept_in_half_precision_or_not_at_all(monkeypatch):
    class Net(torch.nn.Module):
        def forward(self, x, weights=None, *, generator=None):
            return x

    net, logits, labels = Net().eval(), torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    for limit, dtype, width in ((96, np.float32, 4), (95, np.float16, 4), (48, np.float16, 4), (47, np.float32, 0)):
        monkeypatch.setattr(predictions, "MAX_BYTES", limit)
        keeping = Keeping(Classification(), 6, ["a", "b"])
        keeping(net, (logits[:4], labels[:4]))
        keeping(net, (logits[4:], labels[4:]))
        kept = keeping.predictions()
        assert kept.probabilities.dtype == dtype and kept.probabilities.shape == (6, width) and kept.class_names == tuple("0123")
        assert (kept.predicted == logits.argmax(1).numpy()).all() and (kept.true == labels.numpy()).all()
    assert not net._forward_hooks


def test_predictions_that_were_changed_are_refused(trained, tmp_path):
    with np.load(trained / "predictions.npz") as file:
        arrays = dict(file)
    for name, change in (("predicted", lambda a: (a + 1) % 10), ("probabilities", lambda a: a[::-1].copy()), ("true", lambda a: a + 9)):
        file = io.BytesIO()
        np.savez(file, **arrays | {name: change(arrays[name])})
        (tmp_path / "changed.npz").write_bytes(file.getvalue())
        with pytest.raises(DataError, match="damaged|must be labels"):
            Predictions.load(tmp_path / "changed.npz")
    with pytest.raises(DataError, match="no such file"):
        Predictions.load(tmp_path / "nowhere.npz")


# ---- the command


def test_pictures_of_the_test_get_the_probabilities_that_the_test_had(trained, pictures, capsys):
    kept = Predictions.load(trained / "predictions.npz")
    code, out, err = predicted(capsys, trained, pictures, "--json", "--top", "all", "--batch-size", "7")
    rows = [json.loads(line) for line in out]
    assert code == 0 and err == [] and [row["file"] for row in rows] == [
        *(str(pictures / f"{n:02}.png") for n in range(17)), *(str(pictures / f"more/{n}.png") for n in range(17, 20))]
    p = np.array([[row["probabilities"][name] for name in "0123456789"] for row in rows])
    np.testing.assert_allclose(p, kept.probabilities[:20], atol=2e-6)
    assert [row["label"] for row in rows] == kept.predicted[:20].tolist()
    assert all(row["probability"] == max(row["probabilities"].values()) and row["class"] == str(row["label"]) for row in rows)


def test_a_table_tells_the_likeliest_classes_in_their_order(trained, pictures, capsys):
    kept = Predictions.load(trained / "predictions.npz")
    code, out, _ = predicted(capsys, trained / "weights.pt", pictures / "03.png", pictures / "more/18.png")
    assert code == 0 and out[0].split() == ["file", "class", "probability", "then"] and len(out) == 3
    for line, n in zip(out[1:], (3, 18)):
        best = np.argsort(-kept.probabilities[n])[:3]
        assert line.split()[1] == str(best[0]) and line.split()[4::3] == [str(k) for k in best[1:]]
        assert float(line.split()[2]) == pytest.approx(100 * kept.probabilities[n].max(), abs=0.006)
    assert predicted(capsys, trained, pictures / "03.png", "--top", "1")[1][0].split() == ["file", "class", "probability"]


def test_what_cannot_be_read_is_a_line_each_and_the_others_are_predicted(trained, pictures, tmp_path, capsys):
    good = (pictures / "00.png").read_bytes()
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.bmp").write_text("no picture")
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / "with\nline.gif").write_text("not read")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGBA", (40, 20), (200, 10, 10, 100)).save(tmp_path / "wide.png")
    code, out, err = predicted(capsys, trained, tmp_path, tmp_path / "pipe.png", "--json")
    rows = {row["file"].rpartition("/")[2]: row for row in map(json.loads, out)}
    assert code == predict.LEFT_OUT and set(rows) == {"a.png", "cut.png", "empty.jpg", "text.bmp", "wide.png", "pipe.png"}
    assert {name for name, row in rows.items() if "error" in row} == {"cut.png", "empty.jpg", "text.bmp", "pipe.png"}
    assert [line for line in err if line.startswith("error: ")] == [f"error: {row['error']}" for row in rows.values() if "error" in row]
    notes = [line for line in err if line.startswith("note: ")]
    assert len(notes) + 4 == len(err) and "2 of the files in the folders (1 .txt, 1 .gif)" in notes[0]
    assert "reads 8x8 pixels; pictures of another size: 1 of 6" in notes[1] and "could not be read: 4 of 6" in notes[2]
    table = predicted(capsys, trained, tmp_path)[1]
    assert [line.split()[0].rpartition("/")[2] for line in table] == ["file", "a.png", "wide.png"]


@pytest.mark.parametrize("options, wanted", [
    (("nowhere.png",), "nowhere.png: expected a picture or a folder of pictures, there is nothing"),
    (("empty",), "empty: expected pictures (.bmp, .jpeg,"),
    (("a.png", "--top", "0"), "--top must be a whole number of at least 1, or all, got '0'"),
    (("a.png", "--top", "some"), "--top must be a whole number"),
    (("a.png", "--batch-size", "0"), "--batch-size must be at least 1, got 0"),
    (("a.png", "--device", "abacus"), "--device"),
])
def test_wrong_arguments_are_one_line(trained, pictures, tmp_path, capsys, monkeypatch, options, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(pictures / "00.png", tmp_path / "a.png")
    code, out, err = predicted(capsys, trained, *options)
    assert code == 2 and out == [] and len(err) == 1 and wanted in err[0]


def test_runs_that_cannot_predict_are_one_line(trained, pictures, tmp_path, capsys):
    def error(folder):
        code, out, err = predicted(capsys, folder, pictures)
        assert code == 2 and out == [] and len(err) == 1
        return err[0]

    assert "expected the folder of a run" in error(tmp_path)
    half = shutil.copytree(trained, tmp_path / "half")
    (half / "weights.pt").unlink()
    assert "that training has not finished" in error(half)
    shutil.rmtree(half / "checkpoints")
    assert "stopped before its first checkpoint" in error(half)
    damaged = shutil.copytree(trained, tmp_path / "damaged")
    data = bytearray((damaged / "weights.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / "weights.pt").write_bytes(bytes(data))
    assert "damaged" in error(damaged)


def test_an_interrupt_leaves_what_was_said_and_ends_in_one_line(trained, pictures, capsys, monkeypatch):
    read, asked = predict._read, []

    def interrupted(path, preprocess):
        asked.append(path)
        if len(asked) > 6:
            raise KeyboardInterrupt
        return read(path, preprocess)

    monkeypatch.setattr(predict, "_read", interrupted)
    code, out, err = predicted(capsys, trained, pictures, "--json", "--batch-size", "3")
    assert code == 130 and len(out) == 6 and len(err) == 1 and err[0].startswith("stopped")


def test_names_that_a_file_holds_do_nothing_to_a_terminal(capsys):
    lines = predict.Lines(["a\x1b[31m.png"], ["one\x1b[2J", "two"], None, as_json=False)
    lines.say(predict.Seen("a\x1b[31m.png", (0.75, 0.25)))
    out = capsys.readouterr().out
    assert "\x1b" not in out and "one?[2J" in out and "two 25.00 %" in out


def test_the_command_starts_without_hydra_and_ends_quietly_when_nobody_reads_on(trained, pictures, tmp_path):
    code = ("import sys\nfor name in ('hydra', 'omegaconf'): sys.modules[name] = None\n"
            "from supernet.commands.predict import command\ncommand()")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code, str(trained), str(pictures)], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE,
                          text=True, timeout=120, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""

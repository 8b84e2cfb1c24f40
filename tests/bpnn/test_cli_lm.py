"""`bpnn train lm`: what a run leaves, how it goes on, what is made of it, on made-up texts."""
import csv
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import bpnn, contents, environment, fails

SMALL = ("--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch-size", "8", "--lr", "0.01", "--threads", "1")
QUICK = (*SMALL, "--steps", "70", "--eval-every", "20", "--warmup", "10", "--dropout", "0.1")


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    who, what = ["the cat", "a dog", "my uncle"], ["sleeps", "sings of a fish", "sits on the mat"]
    return "".join(f"{rng.choice(who)} {rng.choice(what)}.\n" for _ in range(count))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A text and a finished run of it, with samples."""
    home = tmp_path_factory.mktemp("lm")
    (home / "input.txt").write_text(sentences(300))
    samples = ("--sample-every", "30", "--sample-length", "40")
    done = bpnn("train", "lm", "--data", "input.txt", "--out", "done", *QUICK, *samples, cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "done.log").write_text(done.stdout)
    return home


def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_run_folder(runs):
    run, text = runs / "done", (runs / "input.txt").read_text()
    config, found = json.loads((run / "config.json").read_text()), metrics(run)
    held = round(len(text) * 0.1)
    assert config["task"] == "lm" and config["data"]["characters"] == len(text) and config["data"]["validation"] == held
    scores = found["validation"]
    assert scores["tokens"] == held - 1 and scores["characters"] == held
    assert 0.2 < scores["loss"] < 2 and scores["perplexity"] == pytest.approx(np.exp(scores["loss"]))
    assert scores["bits_per_character"] == pytest.approx(scores["loss"] / np.log(2) * (held - 1) / held)
    with open(run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [20, 40, 60, 70] and found["steps"] == 70
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert found["best_step"] == int(best["step"]) and found["best_val_loss"] == float(best["val_loss"])
    assert float(rows[-1]["minutes"]) > float(rows[0]["minutes"]) > 0
    log = (runs / "done.log").read_text()
    assert f"the last {held:,} for validation" in log and "model  GPT of 1 layers × 16, 2 heads" in log
    assert "\nstep 70/70  loss " in log
    assert log.count("--- sample after step ") == 2 and f"validation loss {scores['loss']:.4f} a token, perplexity" in log
    assert not (run / "model.safetensors").exists() and (run / "model" / "model.safetensors").exists()
    if (run / "curves.png").exists():
        assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_sampling_changes_nothing(runs, tmp_path):
    done = bpnn("train", "lm", "--data", runs / "input.txt", "--out", "run", *QUICK, cwd=tmp_path)
    assert done.returncode == 0 and "sample after" not in done.stdout
    one, two = ((folder / "model" / "model.safetensors").read_bytes() for folder in (runs / "done", tmp_path / "run"))
    assert one == two


def test_evaluate(runs):
    before = contents(runs / "done")
    done = bpnn("evaluate", "done", cwd=runs)
    assert done.returncode == 0, done.stderr
    scores = metrics(runs / "done")["validation"]
    assert f"validation loss {scores['loss']:.4f} a token" in done.stdout
    assert f"{scores['bits_per_character']:.4f} bits a character, over {scores['tokens']:,} tokens" in done.stdout
    assert contents(runs / "done") == before


def test_evaluate_with_a_text_that_moved(runs, tmp_path):
    shutil.copytree(runs / "done", tmp_path / "run")
    shutil.copy(runs / "input.txt", tmp_path / "other.txt")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["paths"] = ["/gone/input.txt"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    fails(bpnn("evaluate", "run", cwd=tmp_path), "its text is no longer in input.txt")
    done = bpnn("evaluate", "run", "--data", "other.txt", cwd=tmp_path)
    assert done.returncode == 0 and f"{metrics(runs / 'done')['validation']['loss']:.4f}" in done.stdout
    with open(tmp_path / "other.txt", "a") as file:
        file.write("more")
    fails(bpnn("evaluate", "run", "--data", "other.txt", cwd=tmp_path), "run: was trained on another text")


def test_predict(runs):
    done = bpnn("predict", "done", "the cat", "my uncle s", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the cat") and "\n\nmy uncle s" in done.stdout
    assert len(done.stdout) == len("the cat" + "\n\n" + "my uncle s" + "\n") + 2 * 40  # more than the context of 16 each
    assert bpnn("predict", "done", "the cat", "my uncle s", cwd=runs).stdout == done.stdout
    command = [sys.executable, "-m", "bpnn", "predict", "done"]
    piped = subprocess.run(command, input="the cat", cwd=runs, capture_output=True, text=True, timeout=60, env=environment())
    assert piped.stdout.strip() == done.stdout.split("\n\nmy uncle s")[0].strip()
    fails(bpnn("predict", "done", "the Kat", cwd=runs), "INPUT: text: 'K' (character 5) is none of the")
    fails(bpnn("predict", "done", "", cwd=runs), "INPUT: expected a text to go on with")


def test_texts_longer_than_the_context():
    """As many tokens as asked for, the same each time; up to the context those of `generate`."""
    import bpnn as package
    from bpnn.cli.lm_training import continue_text
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel

    package.manual_seed(0)
    sizes = {"vocab_size": 20, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.4}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None))
    for length in (1, 7, 16, 30):
        prompt = np.arange(length) % 20
        found = list(continue_text(model, prompt, 40, seed=3))
        assert len(found) == 40 and found == list(continue_text(model, prompt, 40, seed=3))
        assert found != list(continue_text(model, prompt, 40, seed=4))
        kept = prompt if length < 16 else prompt[-8:]
        want = model.eval().generate([kept], max_new_tokens=16 - len(kept), do_sample=True, temperature=0.8, top_k=0, seed=3)
        assert found[: 16 - len(kept)] == want.numpy()[0, len(kept) :].tolist()
        assert list(continue_text(model.train(), prompt, 40, top_k=1)) == list(continue_text(model, prompt, 40, temperature=0))
        assert model.training


def test_the_model_is_a_pretrained_one(runs):
    """What `from_pretrained` reads gives the loss that the run reports."""
    pytest.importorskip("tokenizers")
    from bpnn.models.gpt2 import GPT2LMHeadModel
    from bpnn.pretrained import AutoTokenizer

    model = GPT2LMHeadModel.from_pretrained(runs / "done" / "model")
    tokenizer = AutoTokenizer.from_pretrained(runs / "done" / "model")
    text = (runs / "input.txt").read_text()[-round(len((runs / "input.txt").read_text()) * 0.1) :]
    ids = np.array(tokenizer(text)["input_ids"])
    loss = total = 0.0
    for start in range(0, len(ids) - 1, 16):
        piece = ids[start : start + 17]
        scores = model(piece[None, :-1]).logits.detach().numpy()[0].astype(np.float64)
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        loss -= np.log(chances[np.arange(len(piece) - 1), piece[1:]]).sum()
        total += len(piece) - 1
    assert loss / total == pytest.approx(metrics(runs / "done")["validation"]["loss"], rel=1e-5)


@pytest.mark.rivals
def test_transformers_reads_the_model(runs):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2LMHeadModel.from_pretrained(runs / "done" / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(runs / "done" / "model")
    ids = torch.tensor(tokenizer("my uncle sings")["input_ids"])[None]
    from bpnn.models.gpt2 import GPT2LMHeadModel

    ours = GPT2LMHeadModel.from_pretrained(runs / "done" / "model")(ids.numpy()).logits.detach().numpy()
    with torch.no_grad():
        np.testing.assert_allclose(ours, model(ids).logits.numpy(), rtol=1e-4, atol=1e-5)
    assert tokenizer.decode(ids[0]) == "my uncle sings"


def test_byte_pairs(tmp_path):
    """Several files; a step of several batches; epochs instead of steps."""
    pytest.importorskip("tokenizers")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(sentences(200))
    (tmp_path / "more.txt").write_text(sentences(100, 1).replace("fish", "很大的鱼"), encoding="utf-8")
    done = bpnn("train", "lm", "--data", "texts", "more.txt", "--tokens", "bpe", "--vocab-size", "300", "--out", "run", *SMALL,
                "--epochs", "1.5", "--accumulate", "2", "--eval-every", "5", cwd=tmp_path, PYTHONIOENCODING="utf-8")  # fmt: skip
    assert done.returncode == 0, done.stderr
    config, found = json.loads((tmp_path / "run" / "config.json").read_text()), metrics(tmp_path / "run")
    count = int(done.stdout.split(" for validation; ")[1].split(" + ")[0].replace(",", ""))
    assert found["steps"] == config["options"]["steps"] == round(1.5 * count / (8 * 2 * 16))
    scores = found["validation"]
    assert scores["tokens"] < scores["characters"] / 1.5
    assert scores["bits_per_character"] == pytest.approx(scores["loss"] * scores["tokens"] / scores["characters"] / np.log(2))
    done = bpnn("predict", "run", "a dog", "什么", cwd=tmp_path, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0 and done.stdout.startswith("a dog"), done.stderr


def test_minutes(runs, tmp_path):
    """Time ends the run in good order, the learning rate at its end."""
    done = bpnn("train", "lm", "--data", runs / "input.txt", "--out", "run", *SMALL, "--minutes", "0.04", "--eval-every", "100000",
                cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stopped: 0.04 minutes are over, after step" in done.stdout
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 and float(rows[0]["lr"]) < 1e-3 and 0.04 <= float(rows[0]["minutes"]) < 0.2
    assert metrics(tmp_path / "run")["steps"] == int(rows[0]["step"]) > 0


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ((), "the following arguments are required: --data", 2),
        (("--data", "nowhere"), "nowhere: no such file or folder", 1),
        (("--data", "empty"), "empty: has no .txt files", 1),
        (("--data", "empty.txt"), "empty.txt: is empty", 1),
        (("--data", "bad.txt"), "bad.txt:2: not UTF-8", 1),
        (("--data", "good.txt", "empty.txt"), "empty.txt: is empty", 1),
        (("--data", "good.txt", "--context", "64"), "good.txt: too short: its validation part has 30 tokens, --context 64", 1),
        (("--data", "good.txt", "--context", "512"), "good.txt: too short: its training part has 270 tokens", 1),
        (("--data", "good.txt", "--heads", "5"), "--heads: expected a divisor of the width 384, got 5", 1),
        (("--data", "good.txt", "--vocab-size", "300"), "--vocab-size: only --tokens bpe takes it", 1),
        (("--data", "good.txt", "--steps", "5", "--epochs", "1"), "--epochs: give either steps or epochs", 1),
        (("--data", "good.txt", "--tokens", "words"), "--tokens: invalid choice: 'words'", 2),
        (("--data", "good.txt", "--tokens", "bpe", "--vocab-size", "256"), "--vocab-size: expected at least 257", 2),
        (("--data", "good.txt", "--validation", "0"), "--validation: expected above 0 and at most 0.9", 2),
        (("--data", "good.txt", "--minutes", "0"), "--minutes: expected above 0", 2),
        (("--data", "good.txt", "--dropout", "1"), "--dropout: expected at least 0 and at most 0.99", 2),
    ],
)
def test_mistakes(tmp_path, arguments, words, code):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.txt").write_bytes(b"one\n\xff\n")
    (tmp_path / "good.txt").write_text("abcdefghi\n" * 30)
    before = contents(tmp_path)
    fails(bpnn("train", "lm", *arguments, cwd=tmp_path), words, code)
    assert contents(tmp_path) == before and not (tmp_path / "runs").exists()


def test_damaged_runs(runs, tmp_path):
    shutil.copytree(runs / "done", tmp_path / "run")
    (tmp_path / "run" / "model" / "tokenizer.json").write_text("{}")
    fails(bpnn("predict", "run", "text", cwd=tmp_path), "tokenizer.json: cannot be read as a vocabulary")
    (tmp_path / "run" / "model" / "tokenizer.json").unlink()
    fails(bpnn("evaluate", "run", cwd=tmp_path), "has no tokenizer.json; go on with the run")
    shutil.copy(runs / "done" / "model" / "tokenizer.json", tmp_path / "run" / "model")
    weights = tmp_path / "run" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    fails(bpnn("evaluate", "run", cwd=tmp_path), "model: cannot be read as this run's model")
    weights.unlink()
    fails(bpnn("predict", "run", "text", cwd=tmp_path), "has no model.safetensors; go on with the run")
    fails(bpnn("train", "lm", "--data", runs / "input.txt", "--out", "run", cwd=tmp_path), "run: holds a run already")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_stopped_run_ends_with_the_same_bits(runs, tmp_path, how):
    long = (
        "--data", str(runs / "input.txt"), *SMALL, "--dropout", "0.1", "--accumulate", "2", "--steps", "400", "--eval-every", "50",
    )  # fmt: skip
    whole = bpnn("train", "lm", "--out", "whole", *long, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "bpnn", "train", "lm", "--out", "stopped", *long],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("step 100/"):
            break
    process.send_signal(getattr(signal, how))
    out, _ = process.communicate(timeout=60)
    if how == "SIGINT":
        assert process.returncode == 130 and "go on with: bpnn train --resume stopped" in out
    done = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert done.returncode == 0 and "step 400/400" in done.stdout and "step  50/400" not in done.stdout, done.stderr
    one, two = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == two
    assert metrics(tmp_path / "whole")["validation"] == metrics(tmp_path / "stopped")["validation"]
    again = bpnn("train", "--resume", "stopped", cwd=tmp_path)
    assert again.returncode == 0 and "is finished; nothing to resume" in again.stdout

"""`bpnn embed`: what it writes, and what it says of what it cannot read."""
import json
import subprocess
import sys

import numpy as np
import pytest
from cli_helpers import bpnn, environment, fails

pytest.importorskip("tokenizers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "happy", "dog", "person", "day"]
TEXTS = ["a happy dog", "day", "a person"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small model and a file of texts."""
    from bpnn.models import BertConfig, BertModel

    home = tmp_path_factory.mktemp("embed")
    sizes = {"vocab_size": len(WORDS), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig.from_dict({**sizes, "max_position_embeddings": 8, "initializer_range": 0.4})
    BertModel(config).save_pretrained(home / "model")
    (home / "model" / "vocab.txt").write_text("\n".join(WORDS))
    (home / "model" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (home / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return home


@pytest.fixture(scope="module")
def vectors(home):
    from bpnn.models.sentence import SentenceEncoder

    return SentenceEncoder.from_pretrained(home / "model").encode(TEXTS)


def test_files(home, vectors):
    done = bpnn("embed", "model", "texts.txt", "--out", "out.npy", cwd=home)
    assert done.returncode == 0 and done.stdout == "" and "out.npy: 3 vectors of 8 numbers" in done.stderr
    found = np.load(home / "out.npy", allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, atol=1e-6)
    assert bpnn("embed", "model", "texts.txt", "--out", "out.csv", cwd=home).returncode == 0
    np.testing.assert_array_equal(np.loadtxt(home / "out.csv", delimiter=",", dtype=np.float32), found)
    assert bpnn("embed", "model", "texts.txt", "--out", "out.jsonl", cwd=home).returncode == 0
    rows = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), found)
    printed = bpnn("embed", "model", "texts.txt", "--batch-size", "1", cwd=home).stdout
    assert [json.loads(line)["text"] for line in printed.splitlines()] == TEXTS


def test_options(home):
    from bpnn.models.sentence import SentenceEncoder

    done = bpnn("embed", "model", "texts.txt", "--out", "raw.npy", "--no-normalize", "--pooling", "cls", cwd=home)
    assert done.returncode == 0, done.stderr
    want = SentenceEncoder.from_pretrained(home / "model", pooling="cls").encode(TEXTS, normalize=False)
    np.testing.assert_allclose(np.load(home / "raw.npy"), want, atol=1e-6)


def from_input(home, content):
    return subprocess.run(
        [sys.executable, "-m", "bpnn", "embed", "model", "-"], input=content, cwd=home, capture_output=True, timeout=120,
        env=environment(),
    )


def test_standard_input(home):
    done = from_input(home, b"\xef\xbb\xbfa happy dog\r\nday")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a happy dog", "day"]
    done = from_input(home, b"day\n" + b"dog " * 30 + b"\n")
    assert b"line 2: read up to token 8" in done.stderr and done.returncode == 0
    for content, words in [(b"dog\n\nday\n", b"standard input, line 2: is empty"), (b"dog\n\xff\n", b"line 2: is no UTF-8"),
                           (b"", b"standard input: holds no texts")]:
        done = from_input(home, content)
        assert done.returncode == 1 and words in done.stderr and done.stderr.count(b"\n") == 1


def test_errors(home):
    fails(bpnn("embed", "model", "none.txt", cwd=home), "none.txt: No such file or directory")
    fails(bpnn("embed", "model", "texts.txt", "--out", "out.txt", cwd=home), "--out: expected a name that ends with .npy, .csv")
    fails(bpnn("embed", "model", "texts.txt", "--out", "no/out.npy", cwd=home), "no/out.npy: the folder")
    fails(bpnn("embed", "./none", "texts.txt", cwd=home), "./none: there is no such folder")
    fails(bpnn("embed", "model", "texts.txt", "--pooling", "sum", cwd=home), "--pooling", code=2)
    (home / "other").mkdir(exist_ok=True)
    (home / "other" / "config.json").write_text('{"model_type": "mamba"}')
    (home / "other" / "model.safetensors").write_bytes((home / "model" / "model.safetensors").read_bytes())
    fails(bpnn("embed", "other", "texts.txt", cwd=home), "model_type: expected bert")
    (home / "other" / "config.json").write_bytes((home / "model" / "config.json").read_bytes())
    (home / "other" / "model.safetensors").write_bytes((home / "model" / "model.safetensors").read_bytes()[:-9])
    fails(bpnn("embed", "other", "texts.txt", cwd=home), "model.safetensors")

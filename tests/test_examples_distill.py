"""examples/distill.py on a tiny teacher."""
import random
import subprocess
import sys
from pathlib import Path

import bpnn
from bpnn.models.bert import BertConfig, BertModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "distill.py"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "plot", "was", "fine", "lovely", "dull", "awful"]


def test_a_student_of_two_layers(tmp_path):
    bpnn.manual_seed(0)
    BertModel(BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, initializer_range=0.2,
    )).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    rng = random.Random(0)
    moods = {"good": ["fine", "lovely"], "bad": ["dull", "awful"]}
    lines = [
        f"the {rng.choice(('film', 'plot'))} was {rng.choice(words)}\t{mood}" for mood, words in moods.items() for _ in range(80)
    ]
    rng.shuffle(lines)
    (tmp_path / "data").mkdir()
    for name, part in (("train", lines[:100]), ("validation", lines[100:130]), ("test", lines[130:])):
        (tmp_path / "data" / f"{name}.tsv").write_text("\n".join(["text\tlabel", *part]))
    tuned = bpnn.finetune(tmp_path / "base", tmp_path / "data", out=tmp_path / "run", lr=3e-3, verbose=False, pooling="mean")
    assert tuned.metrics["test"]["accuracy"] == 1.0
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "run", "data", "--layers", "0,2", "--epochs", "8", "--lr", "5e-3", "--out", "student"],
        cwd=tmp_path, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "student  100.00 % on 30 texts" in done.stdout and "keeps 100.0 % of the accuracy" in done.stdout
    student = tuned.task.load_saved(tmp_path / "student")
    assert student.config.num_hidden_layers == 2

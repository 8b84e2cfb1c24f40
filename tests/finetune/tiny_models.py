"""A tiny BERT with a tokenizer in a folder, and made-up texts that it can learn, for the tests of whole fine-tuning runs."""
import csv
import json

import numpy as np

import bpnn
from bpnn.models.bert import BertConfig, BertModel

GOOD, BAD = ["fine", "lovely", "moving", "bright"], ["dull", "awful", "empty", "slow"]
PLAIN = ["the", "film", "a", "plot", "and", "actors", ","]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *PLAIN, *GOOD, *BAD]


def tiny_bert(folder, seed=0, **changes):
    """A folder with a BERT of random weights, dropout on, and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
             "max_position_embeddings": 24, "initializer_range": 0.2}
    bpnn.manual_seed(seed)
    BertModel(BertConfig.from_dict({**given, **changes})).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    return folder


def texts(count, seed=0):
    """(text, "no" or "yes"): plain words and one that tells."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        words = list(rng.choice(PLAIN, rng.integers(3, 12))) + [rng.choice((BAD, GOOD)[i % 2])]
        rng.shuffle(words)
        rows.append((" ".join(words), ("no", "yes")[i % 2]))
    return rows


def table(path, count=120, seed=0, header=("text", "label")):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(texts(count, seed))
    return path

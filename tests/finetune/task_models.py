"""Tiny models with tokenizers in folders, and tables in memory, for the tests of the tasks."""
import json
import string
from types import SimpleNamespace

import bpnn
from bpnn.data.tables import Table
from bpnn.models import (
    BertConfig, BertModel, DistilBertConfig, DistilBertModel, GPT2Config, GPT2LMHeadModel, RobertaConfig, RobertaModel,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = string.ascii_lowercase + string.digits + ".,?!-'"
WORDS = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "film", "good", "bad", "the", "saw", "in", "he"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "max_position_embeddings": 40, "initializer_range": 0.3}


def bert(folder, words=WORDS, **changes):
    """A BERT whose words are letters, and a few whole ones."""
    bpnn.manual_seed(3)
    BertModel(BertConfig.from_dict({"vocab_size": len(words), **SIZES, **changes})).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    return folder


def bare(kind):
    """A bare encoder of one of three kinds, with 50 tokens."""
    bpnn.manual_seed(3)
    if kind == "distilbert":
        return DistilBertModel(DistilBertConfig.from_dict(
            {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40}))
    made = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[kind]
    return made[1](made[0].from_dict({"vocab_size": 50, **SIZES}))


def gpt2(folder, **changes):
    """A GPT-2 of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0, **{letter: i for i, letter in enumerate(alphabet, 1)}}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    bpnn.manual_seed(3)
    GPT2LMHeadModel(GPT2Config.from_dict({
        "vocab_size": len(vocab), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3,
        "bos_token_id": 0, "eos_token_id": 0, **changes,
    })).save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}))
    return folder


def options(**values):
    """Settings, of which a task reads what it knows."""
    return SimpleNamespace(**values)


def splits(train, validation=None, test=None):
    """Parts as tables, of lists of dictionaries."""
    return SimpleNamespace(**{
        name: None if rows is None else Table.from_rows(rows, name)
        for name, rows in (("train", train), ("validation", validation), ("test", test))
    })


def again(task, model, folder):
    """A task and model as `save` and `restore` bring them back, through JSON."""
    task.save(model, folder)
    restored = type(task).restore(json.loads(json.dumps(task.state())), task.settings)
    return restored, restored.load_saved(folder)

"""Readers of real data sets, as plain NumPy arrays; tables of one's own as checked examples, see `tables` and `examples`.

    digits = bpnn.data.load_digits()             # MNIST where it is found, else the UCI digits of scikit-learn
    x, y = digits.train_images, digits.train_labels
    reviews = bpnn.data.load_sst2("data/sst2")   # sentences and labels in three parts; load_chnsenticorp, load_labeled_texts
    text = bpnn.data.read_text(["input.txt"])    # running text; vocabularies and windows of it for language models
    table = bpnn.data.read_table("mine.csv")     # also .tsv, .jsonl, .json, .parquet, packed, from addresses
    examples = bpnn.data.text_examples(table)    # texts and labels, or an error with file and line
"""
from importlib import import_module
from typing import Any

from .bucketing import BucketBatchSampler, PadCollate, SequenceDataset, pad
from .digits import Digits, find_mnist, load_digits, load_mnist, load_uci_digits
from .download import download_mnist
from .idx import DataError, read_idx
from .language import ConsecutiveWindows, RandomWindows, compact, read_text
from .sentiment import (
    LabeledTexts, TextCorpus, find_chnsenticorp, find_sst2, load_chnsenticorp, load_labeled_texts, load_sst2,
)
from .subwords import BytePairVocabulary, CharacterVocabulary, load_language_vocabulary
from .tatoeba import SentencePairs, chinese_script, find_tatoeba, load_tatoeba, split_pairs
from .text import TOKENIZERS, characters, words
from .vocabulary import Vocabulary

# Loaded when first asked for.
_LATER = {name: module for module, names in {
    "tables": ("Splits", "Table", "read_images", "read_splits", "read_table"),
    "examples": (
        "ImageExample", "LanguageExample", "PairExample", "QuestionExample", "TextExample", "TokenExample", "find_labels",
        "image_examples", "language_examples", "pair_examples", "question_examples", "regression_examples", "text_examples",
        "token_examples",
    ),
    "instruct": ("encode_completion", "encode_conversation", "encode_example", "encode_examples"),
    "packing": ("PackedCollate", "PaddedCollate", "pack"),
}.items() for name in names}

__all__ = [
    *_LATER,
    "TOKENIZERS",
    "BucketBatchSampler",
    "BytePairVocabulary",
    "CharacterVocabulary",
    "ConsecutiveWindows",
    "DataError",
    "Digits",
    "LabeledTexts",
    "PadCollate",
    "SentencePairs",
    "RandomWindows",
    "SequenceDataset",
    "TextCorpus",
    "Vocabulary",
    "characters",
    "chinese_script",
    "compact",
    "download_mnist",
    "find_chnsenticorp",
    "find_mnist",
    "find_sst2",
    "find_tatoeba",
    "load_chnsenticorp",
    "load_digits",
    "load_labeled_texts",
    "load_language_vocabulary",
    "load_mnist",
    "load_sst2",
    "load_tatoeba",
    "load_uci_digits",
    "pad",
    "read_idx",
    "split_pairs",
    "read_text",
    "words",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'bpnn.data' has no attribute {name!r}")
    value = getattr(import_module(f"bpnn.data.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

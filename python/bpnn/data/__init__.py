"""Readers of real data sets, as plain NumPy arrays.

    digits = bpnn.data.load_digits()             # MNIST where it is found, else the UCI digits of scikit-learn
    x, y = digits.train_images, digits.train_labels
    reviews = bpnn.data.load_sst2("data/sst2")   # sentences and labels in three parts; load_chnsenticorp, load_labeled_texts
"""
from .bucketing import BucketBatchSampler, PadCollate, SequenceDataset, pad
from .digits import Digits, find_mnist, load_digits, load_mnist, load_uci_digits
from .download import download_mnist
from .idx import DataError, read_idx
from .sentiment import (
    LabeledTexts, TextCorpus, find_chnsenticorp, find_sst2, load_chnsenticorp, load_labeled_texts, load_sst2,
)
from .text import TOKENIZERS, characters, words
from .vocabulary import Vocabulary

__all__ = [
    "TOKENIZERS",
    "BucketBatchSampler",
    "DataError",
    "Digits",
    "LabeledTexts",
    "PadCollate",
    "SequenceDataset",
    "TextCorpus",
    "Vocabulary",
    "characters",
    "download_mnist",
    "find_chnsenticorp",
    "find_mnist",
    "find_sst2",
    "load_chnsenticorp",
    "load_digits",
    "load_labeled_texts",
    "load_mnist",
    "load_sst2",
    "load_uci_digits",
    "pad",
    "read_idx",
    "words",
]

"""Pretrained models' files: Hugging Face's folders and hub names, GGUF, llama2.c; weights, configurations, tokenizers.

    config, weights = open_pretrained("folder, hub name, .gguf or llama2.c's .bin")
    load_into(model, weights, prefixes=["bert."])
"""
from .config import PretrainedConfig, read_config, write_config
from .hub import resolve
from .loading import Loaded, load_into
from .saving import save_weights
from .sources import Source, open_pretrained, open_weights
from .tokenization import AutoTokenizer, Encoded, Tokenizer
from .weights import Entry, Weights

__all__ = [
    "AutoTokenizer", "Encoded", "Entry", "Loaded", "PretrainedConfig", "Source", "Tokenizer", "Weights", "load_into",
    "open_pretrained", "open_weights", "read_config", "resolve", "save_weights", "write_config",
]

"""The files tokenizers come in, turned into one of the package `tokenizers` and its settings (keys of `tokenizer_config.json`)."""
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .safetensors_file import read_json

INSTALL = 'pip install "bpnn[hf]"'
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
           "cls_token": "<s>", "mask_token": "<mask>"}
MERGES = ("merges.txt", "vocab.bpe")
VOCABULARIES = ("vocab.json", "encoder.json")

# How texts are cut before byte pairs are merged, by llama.cpp's names
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = {
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "qwen2": _LLAMA3.replace("{1,3}", ""), "gpt-2": None, "default": None, "smollm": None,
}

Settings = dict[str, Any]


def library() -> Any:
    """The package `tokenizers`."""
    try:
        import tokenizers
    except ImportError:
        raise ImportError(f"tokenizers of pretrained models need the package tokenizers: {INSTALL}") from None
    return tokenizers


def read_tokenizer(path: str) -> tuple[Any, Settings]:
    """The tokenizer of a model folder, or of a `tokenizer.json`, a GGUF file or llama2.c's `tokenizer.bin`, and its settings."""
    library()
    if not os.path.isdir(path):
        if path.lower().endswith(".gguf"):
            return from_gguf(path)
        return from_llama2c(path) if path.lower().endswith(".bin") else (from_json(path), {})
    settings = read_settings(path)
    present = set(os.listdir(path))
    join = os.path.join
    if "tokenizer.json" in present:
        return from_json(join(path, "tokenizer.json")), settings
    if "vocab.txt" in present:
        return from_word_pieces(join(path, "vocab.txt"), settings)
    vocabulary, merges = (next((name for name in names if name in present), None) for names in (VOCABULARIES, MERGES))
    if vocabulary and merges:
        return from_byte_pairs(join(path, vocabulary), join(path, merges), settings)
    if "tokenizer.bin" in present:
        return from_llama2c(join(path, "tokenizer.bin"))
    raise FileNotFoundError(
        f"{path}: has no tokenizer: expected tokenizer.json, vocab.txt, {' or '.join(VOCABULARIES)} with {' or '.join(MERGES)}, "
        "or tokenizer.bin"
    )


def read_settings(folder: str) -> Settings:
    """The settings in a folder's JSON files; special tokens as text."""
    settings: Settings = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if os.path.isfile(path := os.path.join(folder, name)):
            settings |= read_json(path)
    for name in SPECIAL:
        if isinstance(settings.get(name), dict):
            settings[name] = settings[name].get("content")
    if "tokenizer_class" not in settings and os.path.isfile(path := os.path.join(folder, "config.json")):
        settings["model_type"] = read_json(path).get("model_type")
    if os.path.isfile(path := os.path.join(folder, "chat_template.jinja")):
        with open(path, encoding="utf-8") as file:
            settings["chat_template"] = file.read()
    elif os.path.isfile(path := os.path.join(folder, "chat_template.json")):
        settings["chat_template"] = read_json(path).get("chat_template")
    return settings


def family(settings: Mapping[str, Any]) -> str:
    """The kind of model in lower-case letters: "bert", "roberta" …"""
    name = settings.get("tokenizer_class") or settings.get("model_type") or ""
    return str(name).removesuffix("Fast").removesuffix("Tokenizer").lower()


def from_json(path: str) -> Any:
    """A `tokenizer.json`; its own settings for padding and truncation are left out, they are arguments of each call."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: there is no such file")
    read_json(path)  # says which file is damaged
    try:
        backend = library().Tokenizer.from_file(path)
    except Exception as error:  # the package raises no other class
        raise ValueError(f"{path}: is no tokenizer that the package tokenizers reads ({error})") from None
    backend.no_padding()
    backend.no_truncation()
    return backend


def from_word_pieces(path: str, settings: Settings) -> tuple[Any, Settings]:
    """BERT's `vocab.txt`, one piece a line. `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` are followed."""
    tokenizers = library()
    settings = {**BERT, **settings}
    with open(path, encoding="utf-8", newline="\n") as file:
        pieces = [line.rstrip("\r\n") for line in file]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        twice = next(piece for i, piece in enumerate(pieces) if vocabulary[piece] != i)
        raise ValueError(f"{path}: the piece {twice!r} is there twice")
    for name in ("unk_token", "cls_token", "sep_token"):
        if settings[name] not in vocabulary:
            raise ValueError(f"{path}: has no {settings[name]!r}, which is the {name}")
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=settings["unk_token"]))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True), strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    cls, sep = settings["cls_token"], settings["sep_token"]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0", pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    add_special(backend, settings)
    return backend, settings


def from_byte_pairs(vocabulary_path: str, merges_path: str, settings: Settings) -> tuple[Any, Settings]:
    """Byte-level byte pairs: GPT-2's `encoder.json` and `vocab.bpe`, or RoBERTa's and Qwen2's `vocab.json` and `merges.txt`."""
    tokenizers = library()
    kind = family(settings)
    roberta = kind in ("roberta", "bart", "longformer")
    settings = {**(ROBERTA if roberta else {} if kind == "qwen2" else GPT2), **settings}
    vocabulary = read_json(vocabulary_path)
    if not all(isinstance(item, int) and item >= 0 for item in vocabulary.values()):
        raise ValueError(f"{vocabulary_path}: expected a number for every piece")
    merges = []
    with open(merges_path, encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            pair = line.rstrip("\r\n")
            if pair and not (number == 1 and pair.startswith("#version")):
                merges.append(_pair(pair, f"{merges_path}: line {number}"))
    space = settings.get("add_prefix_space", False)
    backend = _byte_level(vocabulary, merges, "qwen2" if kind == "qwen2" else "gpt-2", merges_path, space)
    if roberta:
        sep, cls = (backend.token_to_id(settings[name]) for name in ("sep_token", "cls_token"))
        if sep is None or cls is None:
            raise ValueError(f"{vocabulary_path}: has no {settings['sep_token']!r} or no {settings['cls_token']!r}")
        backend.post_processor = tokenizers.processors.RobertaProcessing(
            (settings["sep_token"], sep), (settings["cls_token"], cls), add_prefix_space=space)
    add_special(backend, settings)
    return backend, settings


def from_gguf(path: str) -> tuple[Any, Settings]:
    """The tokenizer inside a GGUF file: byte pairs ("gpt2") or SentencePiece's pairs with scores ("llama")."""
    from .gguf_file import open_gguf

    values = open_gguf(path).metadata
    prefix = "tokenizer.ggml."
    kind, pieces = values.get(prefix + "model"), values.get(prefix + "tokens")
    if not isinstance(pieces, list):
        raise ValueError(f"{path}: has no tokenizer (no value '{prefix}tokens')")
    types = values.get(prefix + "token_type", [1] * len(pieces))
    settings: Settings = {"model_input_names": ["input_ids", "attention_mask"], "tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in zip(SPECIAL, ("bos", "eos", "unknown", "seperator", "padding", "cls", "mask")):
        number = values.get(f"{prefix}{key}_token_id")
        if number is not None:
            if not 0 <= number < len(pieces):
                raise ValueError(f"{path}: {prefix}{key}_token_id is {number}, the vocabulary has {len(pieces)} pieces")
            settings[name] = pieces[number]
    if "tokenizer.chat_template" in values:
        settings["chat_template"] = values["tokenizer.chat_template"]
    context = values.get(f"{values.get('general.architecture')}.context_length")
    if context:
        settings["model_max_length"] = context
    if kind == "gpt2":
        cut = values.get(prefix + "pre", "default")
        if cut not in CUTS:
            raise ValueError(f"{path}: {prefix}pre is {cut!r}, bpnn knows {', '.join(CUTS)}")
        merges = [_pair(pair, f"{path}: {prefix}merges") for pair in values.get(prefix + "merges", [])]
        backend = _byte_level({piece: i for i, piece in enumerate(pieces)}, merges, cut, path)
    elif kind == "llama":
        scores = values.get(prefix + "scores", [])
        if len(scores) != len(pieces):
            raise ValueError(f"{path}: {prefix}scores has {len(scores)} numbers for {len(pieces)} pieces")
        backend = _sentence_pieces(pieces, scores, path, settings.get("unk_token"), values.get(prefix + "add_space_prefix", True))
    else:
        raise ValueError(f"{path}: {prefix}model is {kind!r}, bpnn reads 'gpt2' and 'llama'")
    tokenizers = library()
    for number, piece in zip(types, pieces):
        if number == 3:  # control
            backend.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False)])
        elif number == 4:  # defined by the user
            backend.add_tokens([tokenizers.AddedToken(piece, normalized=False)])
    add_special(backend, settings)
    begins = settings.get("bos_token") if values.get(prefix + "add_bos_token", kind == "llama") else None
    ends = settings.get("eos_token") if values.get(prefix + "add_eos_token", False) else None
    _surround(backend, begins, ends)
    return backend, settings


def from_llama2c(path: str) -> tuple[Any, Settings]:
    """llama2.c's `tokenizer.bin`; texts begin with <s>."""
    from .llama2c import read_llama2c_vocabulary

    pieces, scores = read_llama2c_vocabulary(path)
    if pieces[:3] != ["<unk>", "<s>", "</s>"]:
        raise ValueError(f"{path}: expected <unk>, <s> and </s> first, got {pieces[:3]}")
    settings: Settings = {
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "model_input_names": ["input_ids", "attention_mask"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    backend = _sentence_pieces(pieces, scores, path, "<unk>", True)
    add_special(backend, settings)
    _surround(backend, "<s>", None)
    return backend, settings


def add_special(backend: Any, settings: Mapping[str, Any]) -> None:
    """Tell the tokenizer which pieces are special; the mask takes the space before it where RoBERTa's does."""
    added = library().AddedToken
    listed = settings.get("added_tokens_decoder")
    if isinstance(listed, dict):
        for _, about in sorted(listed.items(), key=lambda item: int(item[0])):
            token = added(**{name: value for name, value in about.items() if name != "__type"})
            if about.get("special"):
                backend.add_special_tokens([token])
            else:
                backend.add_tokens([token])
    more = settings.get("additional_special_tokens") or []
    named = [(name, settings.get(name)) for name in SPECIAL]
    for name, token in [*named, *(("", item.get("content") if isinstance(item, dict) else item) for item in more)]:
        if isinstance(token, str) and token not in {item.content for item in backend.get_added_tokens_decoder().values()}:
            spaced = name == "mask_token" and family(settings) in ("roberta", "bart", "longformer")
            backend.add_special_tokens([added(token, special=True, normalized=False, lstrip=spaced)])


def _pair(text: str, where: str) -> tuple[str, str]:
    parts = text.split(" ")
    if len(parts) != 2:
        raise ValueError(f"{where}: expected two pieces and a space between, got {text!r}")
    return parts[0], parts[1]


def _byte_level(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], cut: str, path: str, space: bool = False) -> Any:
    tokenizers = library()
    pre, levels = tokenizers.pre_tokenizers, tokenizers.pre_tokenizers.ByteLevel
    try:
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(dict(vocabulary), list(merges)))
    except Exception as error:  # the package raises no other class
        raise ValueError(f"{path}: the merges do not fit the vocabulary ({error})") from None
    if CUTS[cut]:
        split = pre.Split(tokenizers.Regex(CUTS[cut]), "isolated")
        backend.pre_tokenizer = pre.Sequence([split, levels(add_prefix_space=False, use_regex=False)])
    elif cut == "smollm":
        backend.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), levels(add_prefix_space=False)])
    else:
        backend.pre_tokenizer = levels(add_prefix_space=space)
    if cut == "qwen2":
        backend.normalizer = tokenizers.normalizers.NFC()
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return backend


def _sentence_pieces(pieces: Sequence[str], scores: Sequence[float], path: str, unknown: str | None, prefix: bool) -> Any:
    """Pairs are merged in the order of the scores of what they make; characters without a piece become bytes."""
    tokenizers = library()
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for piece, score in zip(pieces, scores):
        for i in range(1, len(piece)):
            left, right = piece[:i], piece[i:]
            if left in vocabulary and right in vocabulary:
                merges.append((-score, vocabulary[left], vocabulary[right], (left, right)))
    ordered = [pair for *_, pair in sorted(merges)]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocabulary, ordered, unk_token=unknown, fuse_unk=True, byte_fallback="<0x00>" in vocabulary,
    ))
    normal, decoders = tokenizers.normalizers, tokenizers.decoders
    spaces = normal.Replace(" ", "▁")
    backend.normalizer = normal.Sequence([normal.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _surround(backend: Any, begins: str | None, ends: str | None) -> None:
    if begins is None and ends is None:
        return
    before, after = (f"{begins} " if begins else ""), (f" {ends}" if ends else "")
    special = [(token, backend.token_to_id(token)) for token in {begins, ends} if token]
    backend.post_processor = library().processors.TemplateProcessing(
        single=f"{before}$A{after}", pair=f"{before}$A{after} {before}$B{after}", special_tokens=special,
    )

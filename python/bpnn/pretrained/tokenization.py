"""Tokenizers of pretrained models: from texts to numbers, padded to arrays, and back (through the package `tokenizers`)."""
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.utils._files import write_text

from .chat import Message, render
from .hub import resolve
from .tokenizer_files import SPECIAL, add_special, family, read_tokenizer

WITHOUT_TYPES = ("roberta", "gpt2", "llama", "distilbert", "qwen2", "bart", "codegen", "gemma")  # models with one kind of segment
UNLIMITED = 10**12  # a larger model_max_length says that there is none
FILLED_WITH: dict[str, Any] = {"special_tokens_mask": 1, "offset_mapping": (0, 0), "labels": -100}  # others with 0
Text = str | Sequence[str]


class Encoded(dict[str, Any]):
    """What a tokenizer gives: `input_ids`, `attention_mask` and, where a model has them, `token_type_ids`; keys or attributes."""

    encodings: list[Any]

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"no {name!r}; there are {', '.join(self)}")

    def word_ids(self, index: int = 0) -> list[int | None]:
        """The number of the word that each token of a text comes from; None for special tokens (before padding)."""
        return list(self.encodings[index].word_ids)


class Tokenizer:
    """A tokenizer with its settings; `AutoTokenizer.from_pretrained` makes one.

    Calling it gives `Encoded` numbers. Special tokens (`bos_token`, `pad_token` …) may be None, and may be set:
    `tokenizer.pad_token = tokenizer.eos_token`.
    """

    def __init__(self, backend: Any, settings: Mapping[str, Any] | None = None, source: str = "tokenizer"):
        self.backend = backend
        self.settings = dict(settings or {})
        self.source = source
        get = self.settings.get
        self.bos_token, self.eos_token, self.unk_token = get("bos_token"), get("eos_token"), get("unk_token")
        self.sep_token, self.pad_token, self.cls_token = get("sep_token"), get("pad_token"), get("cls_token")
        self.mask_token, self.chat_template = get("mask_token"), get("chat_template")
        self.padding_side = _side("padding_side", get("padding_side", "right"))
        self.truncation_side = _side("truncation_side", get("truncation_side", "right"))
        longest = get("model_max_length")
        if longest is not None and (isinstance(longest, bool) or not isinstance(longest, (int, float)) or longest < 1):
            raise ValueError(f"{source}: model_max_length: expected a number, got {longest!r}")
        self.model_max_length: int | None = None if longest is None or longest > UNLIMITED else int(longest)
        typed = type(backend.model).__name__ == "WordPiece" and family(self.settings) not in WITHOUT_TYPES
        self.model_input_names: list[str] = list(
            get("model_input_names") or ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"])
        self._lock = threading.Lock()  # the backend keeps what it truncates to

    # --- what it knows -----------------------------------------------------------------------------------------------------

    @property
    def bos_token_id(self) -> int | None:
        return self._number(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        return self._number(self.eos_token)

    @property
    def unk_token_id(self) -> int | None:
        return self._number(self.unk_token)

    @property
    def sep_token_id(self) -> int | None:
        return self._number(self.sep_token)

    @property
    def pad_token_id(self) -> int | None:
        return self._number(self.pad_token)

    @property
    def cls_token_id(self) -> int | None:
        return self._number(self.cls_token)

    @property
    def mask_token_id(self) -> int | None:
        return self._number(self.mask_token)

    def _number(self, token: str | None) -> int | None:
        return None if token is None else self.backend.token_to_id(token)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that there are, by name."""
        return {name: value for name in SPECIAL if (value := getattr(self, name)) is not None}

    @property
    def all_special_ids(self) -> list[int]:
        """The numbers of the special tokens."""
        return sorted({i for token in self.special_tokens_map.values() if (i := self._number(token)) is not None})

    @property
    def vocab_size(self) -> int:
        """The number of pieces, without added ones."""
        return int(self.backend.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def get_vocab(self) -> dict[str, int]:
        """Every piece and its number."""
        return dict(self.backend.get_vocab(with_added_tokens=True))

    def __repr__(self) -> str:
        return f"Tokenizer({self.source!r}, {len(self)} pieces, {self.special_tokens_map})"

    # --- from texts to numbers ---------------------------------------------------------------------------------------------

    def __call__(
        self, text: Text | Sequence[Sequence[str]], text_pair: Text | None = None, *, add_special_tokens: bool = True,
        padding: bool | str = False, truncation: bool | str = False, max_length: int | None = None,
        pad_to_multiple_of: int | None = None, return_tensors: str | None = None, return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None, return_special_tokens_mask: bool = False, return_offsets_mapping: bool = False,
        is_split_into_words: bool = False,
    ) -> Encoded:
        """Numbers of a text or a list of texts, of pairs of texts with `text_pair`; arguments as in `transformers`.

        padding: True or "longest": to the longest text; "max_length": to `max_length`. truncation: True or "longest_first",
        "only_first", "only_second": to `max_length`, by default the model's. return_tensors: "np" for arrays of int64, "bp" for
        Tensors, None for lists. is_split_into_words: a text is a list of words.

        Raises `ValueError` naming the argument.
        """
        single = isinstance(text, str) or (is_split_into_words and bool(text) and isinstance(text[0], str))
        texts: list[Any] = [text] if single else list(text)
        if text_pair is not None:
            pairs = [text_pair] if single else list(text_pair)
            if len(pairs) != len(texts) or isinstance(text_pair, str) != isinstance(text, str):
                raise ValueError(f"text_pair: expected {len(texts)} texts, as many as text, got {len(pairs)}")
            texts = list(zip(texts, pairs))
        for item in texts:
            if not isinstance(item, str) and text_pair is None and not is_split_into_words:
                raise TypeError(f"text: expected a text or a list of texts, got {type(item).__name__} in it")
        encodings = self._encode(texts, add_special_tokens, truncation, max_length, is_split_into_words)
        names = self.model_input_names
        wanted = {
            "input_ids": True,
            "token_type_ids": "token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
            "attention_mask": "attention_mask" in names if return_attention_mask is None else return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask, "offset_mapping": return_offsets_mapping,
        }
        source = {"input_ids": "ids", "token_type_ids": "type_ids", "offset_mapping": "offsets"}
        lists = {key: [list(getattr(e, source.get(key, key))) for e in encodings] for key, want in wanted.items() if want}
        encoded = self.pad(lists, padding, max_length, pad_to_multiple_of, None)
        if single and return_tensors is None:
            encoded = Encoded({key: value[0] for key, value in encoded.items()})
        encoded = _as_arrays(encoded, return_tensors)
        encoded.encodings = encodings
        return encoded

    def _encode(self, texts: list[Any], special: bool, truncation: bool | str, max_length: int | None, words: bool) -> list[Any]:
        strategy = "longest_first" if truncation is True else truncation
        if strategy not in (False, "longest_first", "only_first", "only_second", "do_not_truncate"):
            raise ValueError(f"truncation: expected a bool, 'longest_first', 'only_first' or 'only_second', got {truncation!r}")
        with self._lock:
            if strategy in (False, "do_not_truncate"):
                self.backend.no_truncation()
            else:
                limit = self.model_max_length if max_length is None else max_length
                if limit is None:
                    raise ValueError("max_length: expected a number, for this tokenizer has no model_max_length to truncate to")
                pair = bool(texts) and isinstance(texts[0], tuple)
                least = max(1, self.backend.num_special_tokens_to_add(pair) if special else 0)
                if limit < least:
                    raise ValueError(f"max_length: expected {least} or more, for the special tokens alone, got {limit}")
                try:
                    self.backend.enable_truncation(limit, strategy=strategy, direction=self.truncation_side)
                except Exception as error:  # the package raises no other class
                    raise ValueError(f"max_length: {limit} is too small ({error})") from None
            try:
                return list(self.backend.encode_batch(texts, is_pretokenized=words, add_special_tokens=special))
            except TypeError:
                raise
            except Exception as error:
                raise ValueError(f"text: could not be encoded ({error})") from None

    def pad(
        self, features: Mapping[str, Sequence[Sequence[Any]]] | Sequence[Mapping[str, Sequence[Any]]], padding: bool | str = True,
        max_length: int | None = None, pad_to_multiple_of: int | None = None, return_tensors: str | None = None,
    ) -> Encoded:
        """Fill up lists of numbers, by name or one dictionary a text, to the same length; `labels` with -100."""
        if not isinstance(features, Mapping):
            features = {key: [item[key] for item in features] for key in (features[0] if features else ())}
        if padding not in (False, True, "longest", "max_length", "do_not_pad"):
            raise ValueError(f"padding: expected a bool, 'longest' or 'max_length', got {padding!r}")
        lists = {key: [list(item) for item in value] for key, value in features.items()}
        if padding in (False, "do_not_pad"):
            return _as_arrays(Encoded(lists), return_tensors)
        lengths = [len(item) for item in lists["input_ids"]]
        if "attention_mask" not in lists and "attention_mask" in self.model_input_names:
            lists["attention_mask"] = [[1] * length for length in lengths]
        width = max(lengths, default=0)
        if padding == "max_length":
            limit = self.model_max_length if max_length is None else max_length
            if limit is None:
                raise ValueError("max_length: expected a number, for this tokenizer has no model_max_length to pad to")
            width = max(width, limit)
        if pad_to_multiple_of:
            width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
        if self.pad_token_id is None and any(length < width for length in lengths):
            raise ValueError("padding: this tokenizer has no pad_token; set one, such as tokenizer.pad_token = tokenizer.eos_token")
        for key, items in lists.items():
            filler = self.pad_token_id if key == "input_ids" else FILLED_WITH.get(key, 0)
            for item in items:
                rest = [filler] * (width - len(item))
                item[:] = rest + item if self.padding_side == "left" else item + rest
        return _as_arrays(Encoded(lists), return_tensors)

    def encode(self, text: str, text_pair: str | None = None, **arguments: Any) -> Any:
        """The numbers of one text; arguments as in calling."""
        return self(text, text_pair, **arguments)["input_ids"]

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        """The pieces of one text."""
        return [self.backend.id_to_token(i) for i in self._encode([text], add_special_tokens, False, None, False)[0].ids]

    def convert_tokens_to_ids(self, tokens: Text) -> Any:
        """The number of a piece, or of each; those that are unknown get the unknown token's."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        found = self.backend.token_to_id(tokens)
        return self.unk_token_id if found is None else found

    # --- and back ----------------------------------------------------------------------------------------------------------

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The piece of a number, or of each."""
        numbers = self._numbers(ids)
        pieces = [self.backend.id_to_token(i) for i in numbers]
        return pieces[0] if np.ndim(ids) == 0 else pieces

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str:
        """The text of numbers: a list, an array or a Tensor. Raises `ValueError` for a number outside of the vocabulary."""
        return str(self.backend.decode(self._numbers(token_ids), skip_special_tokens=skip_special_tokens))

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False) -> list[str]:
        """The text of each row."""
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def _numbers(self, ids: Any) -> list[int]:
        numbers = np.asarray(ids).reshape(-1)
        if numbers.size and numbers.dtype.kind not in "iu":
            raise TypeError(f"token_ids: expected whole numbers, got {numbers.dtype}")
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            span = f"{numbers.min()} … {numbers.max()}"
            raise ValueError(f"token_ids: expected numbers of the vocabulary's {len(self)} pieces, got {span}")
        return [int(i) for i in numbers]

    # --- conversations -----------------------------------------------------------------------------------------------------

    def apply_chat_template(
        self, conversation: Sequence[Message] | Sequence[Sequence[Message]], *, chat_template: str | None = None,
        tools: Sequence[Any] | None = None, add_generation_prompt: bool = False, tokenize: bool = True, return_dict: bool = False,
        variables: Mapping[str, Any] | None = None, **arguments: Any,
    ) -> Any:
        """A conversation, `[{"role": "user", "content": "…"}]`, or a list of them, as numbers (`tokenize=False`: as text).

        chat_template: another than the model's, or the name of one of its several. tools, variables: what else the template sees.
        return_dict: with mask, as calling gives. arguments: as in calling.
        """
        template = self._template(chat_template)
        single = bool(conversation) and isinstance(conversation[0], Mapping)
        several: Sequence[Any] = [conversation] if single else conversation
        seen = {**self.special_tokens_map, "tools": tools, "documents": None, **(variables or {})}
        texts = [
            render(template, messages, f"{self.source}: chat_template", add_generation_prompt=add_generation_prompt, **seen)
            for messages in several
        ]
        if not tokenize:
            return texts[0] if single else texts
        encoded = self(texts[0] if single else texts, add_special_tokens=False, **arguments)
        return encoded if return_dict else encoded["input_ids"]

    def _template(self, wanted: str | None) -> str:
        own = self.chat_template
        if isinstance(own, list):
            own = {item["name"]: item["template"] for item in own}
        if isinstance(own, dict):
            if wanted is None or wanted in own:
                if (wanted or "default") not in own:
                    raise ValueError(f"chat_template: expected one of {', '.join(own)}")
                return str(own[wanted or "default"])
        elif wanted is None and own is not None:
            return str(own)
        if wanted is None:
            raise ValueError(f"chat_template: {self.source} has none; give one")
        return wanted

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers` reads too."""
        os.makedirs(folder, exist_ok=True)
        write_text(os.path.join(os.fspath(folder), "tokenizer.json"), self.backend.to_str(pretty=True))
        settings = {name: value for name, value in self.settings.items() if name not in (*SPECIAL, "model_type")}
        settings |= {**self.special_tokens_map, "padding_side": self.padding_side, "truncation_side": self.truncation_side}
        settings["model_input_names"] = self.model_input_names
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        if self.model_max_length is not None:
            settings["model_max_length"] = self.model_max_length
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        write_text(os.path.join(os.fspath(folder), "tokenizer_config.json"), text)


class AutoTokenizer:
    """Finds the tokenizer that a pretrained model comes with."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool | None = None, **changes: Any,
    ) -> Tokenizer:
        """The tokenizer of a model folder, a model of the hub, a `tokenizer.json`, a GGUF file or llama2.c's `tokenizer.bin`.

        A folder has `tokenizer.json`, or BERT's `vocab.txt`, or `vocab.json` (`encoder.json`) with `merges.txt` (`vocab.bpe`).
        changes: settings that go before the folder's, such as `padding_side="left"`.

        Raises `FileNotFoundError`, `ImportError` where the package tokenizers is missing, `ValueError` naming the damaged file.
        """
        path = resolve(name_or_path, revision, local_files_only, patterns=("*.json", "*.txt", "*.jinja", "vocab.bpe"))
        backend, settings = read_tokenizer(path)
        settings |= changes
        add_special(backend, settings)
        return Tokenizer(backend, settings, path)


def _side(name: str, value: Any) -> str:
    if value not in ("left", "right"):
        raise ValueError(f"{name}: expected 'left' or 'right', got {value!r}")
    return str(value)


def _as_arrays(encoded: Encoded, kind: str | None) -> Encoded:
    if kind is None:
        return encoded
    if kind not in ("np", "bp"):
        raise ValueError(f"return_tensors: expected 'np', 'bp' or None, got {kind!r}")
    if len({len(item) for item in encoded["input_ids"]}) > 1:
        raise ValueError("return_tensors: the texts have different numbers of tokens; padding=True makes them one array")
    arrays = {key: np.asarray(value, np.int64) for key, value in encoded.items()}
    if kind == "bp":
        import bpnn

        return Encoded({key: bpnn.from_numpy(array) for key, array in arrays.items()})
    return Encoded(arrays)

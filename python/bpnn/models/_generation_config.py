"""What `generate` is told: the keys of `generation_config.json`, with `transformers`' names, meanings and defaults."""
from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np

from bpnn.pretrained.safetensors_file import read_json
from bpnn.utils._files import write_text

FILE = "generation_config.json"
DEFAULT_LENGTH = 20  # new tokens, where nobody says how many

# What other programs' files may ask for and bpnn does not do, with the values that change nothing
OTHERS: dict[str, tuple[Any, ...]] = {
    "typical_p": (None, 1.0), "top_h": (None,), "epsilon_cutoff": (None, 0.0), "eta_cutoff": (None, 0.0), "bad_words_ids": (None,),
    "sequence_bias": (None,), "suppress_tokens": (None, []), "begin_suppress_tokens": (None, []), "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,), "exponential_decay_length_penalty": (None,), "guidance_scale": (None, 1, 1.0),
    "encoder_repetition_penalty": (None, 1.0), "encoder_no_repeat_ngram_size": (None, 0), "penalty_alpha": (None, 0),
    "num_beam_groups": (None, 1), "diversity_penalty": (None, 0.0), "renormalize_logits": (None, False), "max_time": (None,),
    "constraints": (None,), "force_words_ids": (None,),
}


@dataclass(kw_only=True)
class GenerationConfig:
    """Settings of `generate`; None is "not said": the model's own setting counts then, else the default.

    | length | |
    | --- | --- |
    | `max_new_tokens` | at most so many tokens are added; goes before `max_length`, which counts the prompt too (20 are added) |
    | `min_new_tokens`, `min_length` | no end of text before so many |
    | `eos_token_id` | a token or several that end a text |
    | `stop` (`stop_strings`) | texts (with `tokenizer=`) or lists of tokens after which a text ends; they are part of the result |
    | `pad_token_id` | fills up texts that ended; by default, or where it is negative, the first `eos_token_id` |

    | choice of a token | |
    | --- | --- |
    | `do_sample` | draw it (False: take the most probable one) |
    | `temperature` (1.0) | scores are divided by it |
    | `top_k` (50; 0: all) | draw among so many of the most probable |
    | `top_p` (1.0) | … among the most probable that have this much probability together |
    | `min_p` | … among those with this share of the greatest probability |
    | `repetition_penalty` (1.0) | divides the positive scores of tokens that are there already, multiplies the negative ones |
    | `no_repeat_ngram_size` (0) | so many tokens in a row come once only |

    | beam search | |
    | --- | --- |
    | `num_beams` (1) | so many texts are followed |
    | `length_penalty` (1.0) | a text's score is its log-probability divided by (number of new tokens)^length_penalty |
    | `early_stopping` (False) | True: end with `num_beams` ended texts, False: if a better one is unlikely, "never": impossible |
    | `num_return_sequences` (1) | so many results for each prompt |

    `return_dict_in_generate`, `output_scores`, `output_logits`: see `generate`.
    """

    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    num_return_sequences: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    stop: Any = None
    stop_strings: Any = None
    use_cache: bool | None = None
    return_dict_in_generate: bool | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None
    others: dict[str, Any] = field(default_factory=dict)  # keys of the file that mean nothing here

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "generation_config") -> Self:
        """Of a file's content. Settings that bpnn does not have are kept and, where they would change the text, warned about."""
        known = {item.name for item in fields(cls)} - {"others"}
        others = {key: value for key, value in content.items() if key not in known}
        missed = [key for key, value in others.items() if key in OTHERS and value not in OTHERS[key]]
        if missed:
            warnings.warn(f"{source}: {', '.join(missed)}: bpnn has no such setting; texts are made without", stacklevel=3)
        return cls(**{key: value for key, value in content.items() if key in known}, others=others)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Self:
        """Of `generation_config.json` in a model's folder. Raises `FileNotFoundError`, `ValueError` for a damaged file."""
        path = os.path.join(os.fspath(folder), FILE)
        return cls.from_dict(read_json(path), path)

    def to_dict(self) -> dict[str, Any]:
        """What was said."""
        own = asdict(self)
        return own.pop("others") | {key: value for key, value in own.items() if value is not None}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `generation_config.json`."""
        os.makedirs(folder, exist_ok=True)
        write_text(os.path.join(os.fspath(folder), FILE), json.dumps(self.to_dict(), indent=2) + "\n")


@dataclass(kw_only=True)
class Settings:
    """A call's settings, complete and checked: see `GenerationConfig`."""

    max_length: int
    min_length: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1
    eos: np.ndarray
    pad: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_tokens: list[list[int]] = field(default_factory=list)
    return_dict_in_generate: bool = False
    output_scores: bool = False
    output_logits: bool = False

    @property
    def rows(self) -> int:
        """How many texts are followed for each prompt."""
        return self.num_beams if self.num_beams > 1 else self.num_return_sequences

    @property
    def keep(self) -> int:
        """So many tokens stay possible whatever `top_p` and `min_p` say: beams need one that is no end."""
        return 1 if self.num_beams == 1 else max(2, len(self.eos) + 1)


def merge(own: GenerationConfig, given: GenerationConfig | None, said: Mapping[str, Any], prompt: int) -> Settings:
    """The settings of a call with prompts of `prompt` tokens; `said` goes before `given`, that before the model's `own`.

    Raises `TypeError` for a setting that there is not, `ValueError` for a value or a combination that makes no sense.
    """
    names = {item.name for item in fields(GenerationConfig)} - {"others"}
    for name in said:
        if name not in names:
            raise TypeError(f"generate: there is no setting {name!r}; there are {', '.join(sorted(names))}")
    values = {key: value for part in (own, given) if part is not None for key, value in part.to_dict().items() if key in names}
    values |= said
    take = values.pop
    new, longest = take("max_new_tokens", None), take("max_length", None)
    if new is None:
        longest = prompt + DEFAULT_LENGTH if longest is None else _whole("max_length", longest, 1)
        if longest <= prompt:
            raise ValueError(f"max_length: expected more than the {prompt} tokens of input_ids, got {longest}; see max_new_tokens")
    else:
        longest = prompt + _whole("max_new_tokens", new, 1)
    least, least_new = take("min_length", None), take("min_new_tokens", None)
    shortest = _whole("min_length", least or 0, 0) if least_new is None else prompt + _whole("min_new_tokens", least_new, 0)
    texts, tokens = _stops([*_listed(take("stop", None)), *_listed(take("stop_strings", None))])
    eos, pad = take("eos_token_id", None), take("pad_token_id", None)
    ends = np.array([] if eos is None else [_whole("eos_token_id", one, None) for one in np.asarray(eos).reshape(-1)], np.int64)
    pad = None if pad is None or pad < 0 else _whole("pad_token_id", pad, 0)  # old files have -1 for none
    for name in ("bos_token_id", "use_cache"):
        take(name, None)
    settings = Settings(
        max_length=longest, min_length=shortest, eos=ends, stop=texts, stop_tokens=tokens,
        pad=int(ends[0]) if pad is None and ends.size else pad,
        **{key: value for key, value in values.items() if value is not None},
    )
    _check(settings)
    return settings


def _check(s: Settings) -> None:
    for name, low in (("no_repeat_ngram_size", 0), ("num_beams", 1), ("num_return_sequences", 1)):
        setattr(s, name, _whole(name, getattr(s, name), low))
    if not s.repetition_penalty > 0:
        raise ValueError(f"repetition_penalty: expected a number above 0, got {s.repetition_penalty!r}")
    if s.do_sample:
        _check_sampling(s)
    if s.early_stopping not in (True, False, "never"):
        raise ValueError(f"early_stopping: expected True, False or 'never', got {s.early_stopping!r}")
    if s.num_beams == 1 and not s.do_sample and s.num_return_sequences > 1:
        raise ValueError(f"num_return_sequences: without do_sample or num_beams there is one result, got {s.num_return_sequences}")
    if 1 < s.num_beams < s.num_return_sequences:
        raise ValueError(f"num_return_sequences: expected at most num_beams, {s.num_beams}, got {s.num_return_sequences}")
    if s.min_length > s.max_length:
        warnings.warn(f"min_new_tokens: {s.min_length} tokens with the prompt are more than the {s.max_length} that there may be",
                      stacklevel=5)


def _check_sampling(s: Settings) -> None:
    """What is not looked at without `do_sample`, where files have -1 and 0.0 for it."""
    s.top_k = _whole("top_k", s.top_k, 0)
    if not s.temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {s.temperature!r} (do_sample=False takes the most probable "
                         "token)")
    for name in ("top_p", "min_p"):
        value = getattr(s, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")


def _whole(name: str, value: Any, low: int | None) -> int:
    if isinstance(value, bool) or int(value) != value or (low is not None and value < low):
        raise ValueError(f"{name}: expected a whole number{'' if low is None else f' from {low}'}, got {value!r}")
    return int(value)


def _listed(stop: Any) -> list[Any]:
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) or (len(stop) > 0 and isinstance(stop[0], (int, np.integer))) else list(stop)


def _stops(stop: Sequence[Any]) -> tuple[list[str], list[list[int]]]:
    texts = [one for one in stop if isinstance(one, str)]
    tokens = [[_whole("stop", token, 0) for token in one] for one in stop if not isinstance(one, str)]
    if "" in texts or [] in tokens:
        raise ValueError("stop: expected texts and lists of tokens that are not empty")
    return texts, tokens

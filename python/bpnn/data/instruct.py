"""What a language model is to learn from an example: its tokens, and of which the loss is taken.

    rows, report = encode_examples(language_examples(read_table("chats.jsonl")), tokenizer, max_length=512)
    print(report)                                # what was cut or left out, and the first line where
    batch = PackedCollate()(pack(rows, 2048))    # or PaddedCollate(tokenizer.pad_token_id)(rows[:8])

Labels are the tokens themselves, -100 where the loss is not taken: everything but a completion, or what the assistant says.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from .examples.language import LanguageExample, language_examples
from .idx import DataError
from .packing import IGNORED, PackedCollate, PaddedCollate, pack

__all__ = [
    "EncodingReport", "LanguageExample", "PackedCollate", "PaddedCollate", "encode_completion", "encode_conversation",
    "encode_example", "encode_examples", "language_examples", "pack",
]

Tokens = tuple[list[int], list[int]]  # input_ids, labels
BEGIN, END = "\ue0b0bpnn(\ue0b0", "\ue0b0)bpnn\ue0b0"  # private characters, to find in a rendered text what they surround
GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


# One example ----------------------------------------------------------------------------------------------------------


def encode_example(
    example: LanguageExample, tokenizer: Any, *, chat_template: str | None = None, completion_only: bool = True,
) -> Tokens:
    """(input_ids, labels) of an example of any kind. completion_only: False: the loss is taken of prompts too."""
    try:
        if example.messages is not None:
            ids, labels = encode_conversation(
                example.messages, tokenizer, chat_template=chat_template, tools=example.tools, first=example.first)
        elif example.completion is not None:
            ids, labels = encode_completion(example.prompt or "", example.completion, tokenizer)
        else:
            ids = _begun(tokenizer, example.text or "")
            ids = ids + _end(tokenizer, ids)
            labels = list(ids)
    except ValueError as error:
        raise DataError(f"{example.where}: {error}" if example.where else str(error)) from None
    return ids, labels if completion_only else list(ids)


def encode_completion(prompt: str, completion: str, tokenizer: Any) -> Tokens:
    """Tokens of a prompt, of its completion and the end of text; labels -100 on the prompt.

    The tokens of the prompt are those that it has alone, as when the model is asked later. Those of the completion are what the
    whole text has behind them, or, where a token of the whole text lies across the border, those of the completion alone.
    """
    special = _begun(tokenizer, "")
    ids, labels = _marked(prompt + completion, [(len(prompt), len(prompt) + len(completion))], tokenizer)
    end = _end(tokenizer, ids)
    return special + ids + end, [IGNORED] * len(special) + labels + end


def encode_conversation(
    messages: Sequence[Mapping[str, Any]] | Mapping[str, Any], tokenizer: Any, *, chat_template: str | None = None,
    tools: Sequence[Any] | None = None, first: int = 0,
) -> Tokens:
    """Tokens of a conversation as the chat template lays it out; labels -100 on what is not the assistant's.

    messages: [{"role": …, "content": …}], or a row that has them. What a template surrounds by {% generation %} counts. With one
    that has no such marks, the conversation is rendered up to each turn of the assistant, with the prompt to speak, and up to the
    turn's end: both must begin the whole; what is between counts, the end-of-turn token included. first: turns before do not count.

    Raises `ValueError` for a template that lays out turns differently when others follow, and where no assistant speaks.
    """
    if isinstance(messages, Mapping):
        row: Mapping[str, Any] = messages
        tools = row.get("tools", tools)
        return encode_conversation(row["messages"], tokenizer, chat_template=chat_template, tools=tools, first=first)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i >= first]
    if not turns:
        raise ValueError("messages: expected a message of the assistant, got none")
    template = tokenizer._template(chat_template)
    if GENERATION.search(template):
        text, spans = _generated(messages, tokenizer, template, tools)
        speakers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        spans = spans[speakers.index(turns[0]) :] if len(spans) == len(speakers) else spans
    else:
        text, spans = _rendered(messages, turns, tokenizer, template, tools)
    if not spans:
        raise ValueError("chat_template: marks nothing of the conversation as the assistant's")
    return _marked(text, spans, tokenizer)


def _generated(messages: Sequence[Any], tokenizer: Any, template: str, tools: Any) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation and what {% generation %} surrounds in it."""

    def marked(found: re.Match[str]) -> str:
        # The marks stand inside of tags that have the same control of blanks around as the original.
        left, end, right = found.groups()
        if end:
            return f"{{%{left} set bpnn_mark = 0 %}}{{{{ '{END}' }}}}{{% endwith {right}%}}"
        return f"{{%{left} with %}}{{{{ '{BEGIN}' }}}}{{% set bpnn_mark = 0 {right}%}}"

    text = tokenizer.apply_chat_template(
        [messages], chat_template=GENERATION.sub(marked, template), tokenize=False, tools=tools)[0]
    plain, spans = "", []
    for piece in text.split(BEGIN):
        inside, mark, outside = piece.partition(END)
        if mark:
            spans.append((len(plain), len(plain) + len(inside)))
        plain += inside + outside
    return plain, spans


def _rendered(
    messages: Sequence[Any], turns: list[int], tokenizer: Any, template: str, tools: Any,
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation and what the assistant says in it, from the texts of its beginnings."""

    def render(some: Sequence[Any], ask: bool = False) -> str:
        found = tokenizer.apply_chat_template(
            [some], chat_template=template, tokenize=False, add_generation_prompt=ask, tools=tools)
        return str(found[0])

    whole, spans = render(messages), []
    for i in turns:
        before, after = render(messages[:i], True), render(messages[: i + 1])
        # Some templates end the last turn differently: what both have in common is the turn, if all that is said is in it.
        end = next((n for n, (a, b) in enumerate(zip(after, whole)) if a != b), min(len(after), len(whole)))
        said, turn = str(messages[i]["content"]).strip(), whole[len(before) : end]
        if not whole.startswith(before) or said not in turn:
            raise ValueError(f"chat_template: expected the text of a conversation to begin with that of its first {i + 1} "
                             "messages, got another; a template with {% generation %} around what the assistant says works for any")
        spans.append((len(before), len(before) + _ended(turn, turn.find(said) + len(said), end == len(after), tokenizer)))
    return whole, spans


def _ended(turn: str, said: int, whole: bool, tokenizer: Any) -> int:
    """Where a turn of which `said` characters are the message ends: behind its end-of-turn token, without the blanks after that.

    whole: all of `turn` belongs to it; else its end may have a part of what comes next.
    """
    ends = [turn.rfind(token, said) + len(token) for token in tokenizer.special_tokens_map.values() if turn.rfind(token, said) >= 0]
    if whole:
        return max(ends) if ends and not turn[max(ends) :].strip() else len(turn)
    return max(ends, default=said)


def _marked(text: str, spans: list[tuple[int, int]], tokenizer: Any) -> Tokens:
    """Tokens of a text, and labels: -100 outside of `spans` (characters).

    The text up to each border must have the first tokens of the whole, which makes the border exact; else the pieces between
    borders are cut into tokens each by itself.
    """
    borders = [0, *(border for span in spans for border in span), len(text)]
    begun = tokenizer([text[:border] for border in borders[1:]], add_special_tokens=False)["input_ids"]
    ids = begun[-1]
    if all(ids[: len(some)] == some for some in begun):
        lengths = [0, *map(len, begun)]
    else:
        pieces = [text[begin:end] for begin, end in pairwise(borders)]
        parts = tokenizer(pieces, add_special_tokens=False)["input_ids"]
        ids = [token for part in parts for token in part]
        lengths = np.cumsum([0, *map(len, parts)]).tolist()
    labels = [IGNORED] * len(ids)
    for begin, end in zip(lengths[1::2], lengths[2::2]):
        labels[begin:end] = ids[begin:end]
    return ids, labels


def _begun(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text with the special ones that begin a text, without those that end it."""
    encoded = tokenizer([text], return_special_tokens_mask=True)
    ids, special = list(encoded["input_ids"][0]), list(encoded["special_tokens_mask"][0])
    if all(special):  # of nothing: the end-of-text token is not a beginning, unless it is both
        return [token for token in ids if token == tokenizer.bos_token_id or token == tokenizer.cls_token_id][:1]
    while special and special[-1]:
        del ids[-1], special[-1]
    return ids


def _end(tokenizer: Any, ids: list[int]) -> list[int]:
    """The end-of-text token, where there is one and it is not there yet."""
    end = tokenizer.eos_token_id
    return [] if end is None or ids[-1:] == [end] else [end]


# Many -----------------------------------------------------------------------------------------------------------------


@dataclass
class EncodingReport:
    """What did not fit: counts, and the first place of each. Its text is a sentence for each, empty where all is well."""

    max_length: int | None = None
    examples: int = 0
    truncated: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = []
        for what, places in (("cut to", self.truncated), ("left out: nothing of the completion is within", self.dropped)):
            if places:
                lines.append(f"{len(places):,} of {self.examples:,} texts {what} {self.max_length} tokens; the first: {places[0]}")
        return "\n".join(lines)


def encode_examples(
    examples: Sequence[LanguageExample], tokenizer: Any, *, max_length: int | None = None, too_long: str | None = None,
    truncation_side: str = "right", chat_template: str | None = None, completion_only: bool = True,
) -> tuple[list[dict[str, Any]], EncodingReport]:
    """Rows {"input_ids", "labels" (int64), "length", "where"} of examples, and a report of what was cut or left out.

    too_long, for what has more than `max_length` tokens: "truncate": cut its end off (truncation_side="left": its beginning), leave
    out what then has no label; "windows": windows one after the other that overlap by one token, so that every token is
    predicted once; "error". None: windows for a single running text, else truncate.

    Raises `DataError` for an example that is too long, and where no example is left.
    """
    if too_long not in (None, "truncate", "windows", "error"):
        raise ValueError(f"too_long: expected 'truncate', 'windows' or 'error', got {too_long!r}")
    if truncation_side not in ("left", "right"):
        raise ValueError(f"truncation_side: expected 'left' or 'right', got {truncation_side!r}")
    if max_length is not None and max_length < 2:
        raise ValueError(f"max_length: expected 2 or more, got {max_length}")
    way = too_long or ("windows" if len(examples) == 1 and examples[0].kind == "text" else "truncate")
    report = EncodingReport(max_length, len(examples))
    rows = []
    for example in examples:
        ids, labels = encode_example(example, tokenizer, chat_template=chat_template, completion_only=completion_only)
        pieces = [slice(0, len(ids))]
        if max_length is not None and len(ids) > max_length:
            if way == "error":
                raise DataError(f"{example.where}: expected at most {max_length} tokens (max_length), got {len(ids):,}")
            if way == "windows":
                pieces = [slice(begin, begin + max_length) for begin in range(0, len(ids) - 1, max_length - 1)]
            else:
                pieces = [slice(0, max_length) if truncation_side == "right" else slice(len(ids) - max_length, len(ids))]
                report.truncated.append(example.where)
        for piece in pieces:
            some = np.array(labels[piece], np.int64)
            # The label of the first token is never predicted.
            if not (some[1:] != IGNORED).any():
                if way != "windows" or len(pieces) == 1:
                    report.dropped.append(example.where)
                continue
            rows.append({"input_ids": np.array(ids[piece], np.int64), "labels": some, "length": len(some), "where": example.where})
    if not rows:
        within = "" if max_length is None else f" within {max_length} tokens (max_length)"
        where = report.dropped[0] if report.dropped else "data"
        raise DataError(f"{where}: expected texts to learn from, got none with a token to predict{within}")
    return rows, report

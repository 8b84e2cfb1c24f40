"""Rows for language models: a text; a prompt and its completion; a conversation."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._table import Table
from ..columns import text_column
from ..idx import DataError
from ._values import a_text, shown

# (prompt, completion) by name; with `input` beside, what Alpaca has.
COMPLETIONS = (("prompt", "completion"), ("prompt", "response"), ("instruction", "output"), ("instruction", "response"),
               ("question", "answer"))
CONVERSATIONS = ("messages", "conversations", "conversation")
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant"}  # ShareGPT's
KNOWN_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
# Taori et al., "Stanford Alpaca" (2023).
ALPACA = ("Below is an instruction that describes a task{more}. Write a response that appropriately completes the request.\n\n"
          "### Instruction:\n{instruction}\n\n{input}### Response:\n")


@dataclass(frozen=True, slots=True)
class LanguageExample:
    """A text; or a completion and the prompt before it; or the messages of a conversation.

    first: the number of the first message that counts: 0, or that of the messages of a prompt.
    """

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[Any] | None = None
    first: int = 0
    where: str = ""

    @property
    def kind(self) -> str:
        """ "messages", "completion" or "text"."""
        return "messages" if self.messages is not None else "completion" if self.completion is not None else "text"


def language_examples(table: Table, text: str | None = None) -> list[LanguageExample]:
    """Examples of what a language model is to say, each row by the columns that it has a value in, in this order:

    - messages (conversations): a list of {"role": …, "content": …}, or ShareGPT's {"from": …, "value": …}; in CSV as JSON. Beside
      it perhaps `tools`.
    - prompt and completion (response); question and answer. Both may be lists of messages.
    - instruction, perhaps input, and output: Alpaca's, laid out in its words.
    - text, or the one column of texts; `text`: its name, and nothing else is looked at.

    Raises `DataError` for rows without any of these, empty texts, unknown roles, conversations in which no assistant speaks.
    """
    if text is not None:
        return [
            LanguageExample(text=a_text(value, table, i, text), where=table.where(i)) for i, value in enumerate(table.column(text))
        ]
    lower = {column.strip().lower(): column for column in table.columns}
    named = {*CONVERSATIONS, "text", *(name for pair in COMPLETIONS for name in pair)} & set(lower)
    chosen = None
    if not named:
        if not table.named and len(table.columns) == 2:
            raise DataError(f"{table.path}: expected columns text, or prompt and completion, or messages, got "
                            f"{table.described()}")
        chosen = text_column(table, None)
    elif any(a in lower and b not in lower for a, b in COMPLETIONS) and not _complete(lower):
        raise DataError(f"{table.path}: expected prompt and completion (instruction and output), or messages, or text, got "
                        f"{table.described()}")
    return [_example(table, i, lower, chosen) for i in range(len(table))]


def _complete(lower: Mapping[str, str]) -> bool:
    return any(name in lower for name in (*CONVERSATIONS, "text")) or any(a in lower and b in lower for a, b in COMPLETIONS)


def _example(table: Table, i: int, lower: Mapping[str, str], chosen: str | None) -> LanguageExample:
    row, where = table[i], table.where(i)
    if chosen is not None:
        return LanguageExample(text=a_text(row[chosen], table, i, chosen), where=where)
    values = {name: row[column] for name, column in lower.items() if row[column] is not None}
    for name in CONVERSATIONS:
        if name in values:
            messages = _messages(values[name], table, i, name)
            return _spoken(messages, 0, values.get("tools"), table, i)
    for ask, reply in COMPLETIONS:
        if ask not in values or reply not in values:
            continue
        prompt, completion = values[ask], values[reply]
        if isinstance(prompt, list) and isinstance(completion, list):
            first = _messages(prompt, table, i, ask)
            return _spoken(first + _messages(completion, table, i, reply), len(first), values.get("tools"), table, i)
        prompt, completion = a_text(prompt, table, i, ask), a_text(completion, table, i, reply)
        if ask == "instruction":
            given = str(values.get("input") or "").strip()
            more = ", paired with an input that provides further context" if given else ""
            prompt = ALPACA.format(more=more, instruction=prompt, input=f"### Input:\n{given}\n\n" if given else "")
        return LanguageExample(prompt=prompt, completion=completion, where=where)
    if "text" in values:
        return LanguageExample(text=a_text(values["text"], table, i, "text"), where=where)
    there = ", ".join(map(repr, values)) or "nothing"
    raise DataError(f"{where}: expected messages, or prompt and completion, or text, got {there}")


def _spoken(messages: list[dict[str, Any]], first: int, tools: Any, table: Table, i: int) -> LanguageExample:
    if not any(message["role"] == "assistant" for message in messages[first:]):
        there = ", ".join(message["role"] for message in messages[first:]) or "none"
        raise DataError(f"{table.where(i)}: expected a message of the assistant, got {there}")
    return LanguageExample(messages=messages, tools=tools or None, first=first, where=table.where(i))


def _messages(value: Any, table: Table, i: int, column: str) -> list[dict[str, Any]]:
    """A list of messages with role and content."""
    where = f"{table.where(i)}: {column}"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            what = f"{shown(value)} ({error.msg}, character {error.pos + 1})"
            raise DataError(f"{where}: expected messages in JSON, got {what}") from None
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: expected a list of messages, got {shown(value)}")
    found = []
    for n, item in enumerate(value, 1):
        if not isinstance(item, Mapping):
            raise DataError(f'{where}: message {n}: expected {{"role": …, "content": …}}, got {shown(item)}')
        message = {str(key): entry for key, entry in item.items() if entry is not None}
        if "role" not in message and "from" in message:
            message = {"role": message.pop("from"), "content": message.pop("value", None), **message}
        role = message.get("role")
        role = ROLES.get(role, role) if isinstance(role, str) else role
        if role not in KNOWN_ROLES:
            raise DataError(f"{where}: message {n}: role: expected one of {', '.join(KNOWN_ROLES)}, got {shown(role)}")
        message["role"] = role
        content = message.get("content")
        if isinstance(content, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in content):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str) and not (content is None and "tool_calls" in message):
            raise DataError(f"{where}: message {n}: content: expected a text, got {shown(content)}")
        if role == "assistant" and not (content or "").strip() and "tool_calls" not in message:
            raise DataError(f"{where}: message {n}: content: expected a text of the assistant, got an empty one")
        message["content"] = content or ""
        found.append(message)
    return found

"""Generated tokens as text while they come: whole characters only, on a terminal or for a caller; texts that end a generation."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np

PARTIAL = "\ufffd"  # what a decoder makes of bytes that are no whole character (yet)


class TextStream:
    """Turns tokens into pieces of text: `put(tokens)` gives what has become certain, `end()` the rest.

    A token may hold a part of a character, and the text of a token may depend on the one before it (spaces); so tokens are decoded
    together with those before them, and what is not whole waits. `stop`: texts that are not shown, nor what comes behind them.
    """

    def __init__(self, tokenizer: Any, *, stop: Sequence[str] = (), skip_special_tokens: bool = True):
        self.tokenizer, self.stop, self.skip = tokenizer, tuple(stop), skip_special_tokens
        self.tokens: list[int] = []
        self.before = self.read = 0  # tokens[before:read] are shown already and lead in the next ones
        self.waiting = ""
        self.stopped = False

    def begin(self, tokens: Any) -> str:
        """Lead in with a prompt, so that what follows has its spaces; the prompt's text."""
        self.tokens = [int(token) for token in np.asarray(tokens).reshape(-1)]
        self.before, self.read = max(0, len(self.tokens) - 8), len(self.tokens)
        return str(self.tokenizer.decode(self.tokens, skip_special_tokens=self.skip))

    def put(self, tokens: Any) -> str:
        """The text that `tokens`, one or several, make certain."""
        self.tokens.extend(int(token) for token in np.asarray(tokens).reshape(-1))
        return self._show(self._decode(last=False), last=False)

    def end(self) -> str:
        """What was waiting; the stream begins anew."""
        text = self._show(self._decode(last=True), last=True)
        self.__init__(self.tokenizer, stop=self.stop, skip_special_tokens=self.skip)  # type: ignore[misc]
        return text

    def _decode(self, last: bool) -> str:
        lead = self.tokenizer.decode(self.tokens[self.before : self.read], skip_special_tokens=self.skip)
        text = self.tokenizer.decode(self.tokens[self.before :], skip_special_tokens=self.skip)
        # Four bytes make the longest character: what is broken for longer stays broken.
        if len(text) <= len(lead) or (text.endswith(PARTIAL) and len(self.tokens) - self.read < 4 and not last):
            return ""
        self.before, self.read = self.read, len(self.tokens)
        return str(text[len(lead) :])

    def _show(self, text: str, last: bool) -> str:
        """Hold back what may be the beginning of a `stop`."""
        if self.stopped:
            return ""
        if not self.stop:
            return text
        text = self.waiting + text
        places = [at for one in self.stop if (at := text.find(one)) >= 0]
        if places:
            self.stopped, self.waiting = True, ""
            return text[: min(places)]
        held = 0 if last else max((n for one in self.stop for n in range(1, len(one)) if text.endswith(one[:n])), default=0)
        self.waiting = text[len(text) - held :]
        return text[: len(text) - held]


class TextStreamer:
    """Prints one text while it is generated: `model.generate(ids, streamer=TextStreamer(tokenizer))`.

    skip_prompt: print new text only. file: standard output by default. stop: see `TextStream`; decode arguments: see the tokenizer.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, *, file: TextIO | None = None, stop: Sequence[str] = (),
                 skip_special_tokens: bool = False):
        self.stream = TextStream(tokenizer, stop=stop, skip_special_tokens=skip_special_tokens)
        self.skip_prompt, self.file, self.fresh = skip_prompt, file, True

    def put(self, tokens: Any) -> None:
        """The prompt (1, T) first, then each new token (1,). Raises `ValueError` for several texts."""
        tokens = np.asarray(tokens)
        if (tokens.ndim > 1 or not self.fresh) and len(tokens) != 1:
            raise ValueError(f"streamer: a TextStreamer prints one text, got {len(tokens)}")
        if self.fresh:
            text = self.stream.begin(tokens)
            self._print("" if self.skip_prompt else text)
        else:
            self._print(self.stream.put(tokens))
        self.fresh = False

    def end(self) -> None:
        """The rest, and a new line."""
        self.fresh = True
        self._print(self.stream.end() + "\n")

    def _print(self, text: str) -> None:
        if text:
            print(text, end="", flush=True, file=self.file or sys.stdout)


class StopTexts:
    """Whether the last token of a text has completed one of some texts."""

    def __init__(self, texts: Sequence[str], tokenizer: Any):
        if texts and tokenizer is None:
            raise ValueError(f"tokenizer: expected one to find the stop texts {list(texts)}, got None")
        self.texts, self.tokenizer = list(texts), tokenizer
        # A token has a byte at least; some more, as the first token of what is decoded may lose its space.
        self.reach = max((len(text.encode()) for text in texts), default=0) + 4

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """tokens: (R, L); (R,) bool."""
        return np.array([self._ends(row[-self.reach :]) for row in tokens], bool)

    def _ends(self, tail: np.ndarray) -> bool:
        text = self.tokenizer.decode(tail)
        found = [at + len(one) for one in self.texts if (at := text.rfind(one)) >= 0]
        if not found:
            return False
        before = self.tokenizer.decode(tail[:-1])
        same = next((i for i, (a, b) in enumerate(zip(before, text)) if a != b), min(len(before), len(text)))
        return max(found) > same

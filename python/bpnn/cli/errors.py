"""What may go wrong for a user's reasons: one line on standard error and an exit code."""
from __future__ import annotations

import os
import sys
import traceback

INTERRUPTED = 130  # what a shell reports for Ctrl-C


class CliError(Exception):
    """A message for the user."""


def describe(error: BaseException) -> str:
    """One line for `error`. Errors that are no user's fault are named as such."""
    from bpnn.data import DataError
    from bpnn.train import NonFiniteLoss

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, (CliError, DataError, NonFiniteLoss, OSError)):
        return text
    return f"internal error: {type(error).__name__}: {text} (BPNN_TRACEBACK=1 shows where)"


def report(error: BaseException) -> int:
    """Prints what happened and returns the exit code."""
    if os.environ.get("BPNN_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("bpnn: interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    print(f"bpnn: {describe(error)}", file=sys.stderr)
    return 1

"""What `bpnn evaluate` and `bpnn predict` do with the runs of `bpnn finetune`, and how its errors are told."""
from __future__ import annotations

import csv
import json
import linecache
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import bpnn
from bpnn.finetune._options import flag_of
from bpnn.finetune.settings import FIELDS, SettingsError

from .errors import CliError
from .run import Run

KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}  # of tables with predictions, by their names


@contextmanager
def speaking() -> Iterator[None]:
    """Errors of settings, models and missing packages as one line; they are worded for users."""
    from bpnn.data import DataError
    from bpnn.train import CheckpointError, NonFiniteLoss

    try:
        yield
    except (CliError, NonFiniteLoss):
        raise
    except DataError as error:
        raise CliError(arguments_as_flags(str(error))) from error
    except (SettingsError, CheckpointError, ImportError) as error:
        raise CliError(with_dashes(str(error))) from error
    except (ValueError, TypeError, RuntimeError) as error:
        if _from_bpnn(error):
            raise CliError(str(error)) from error
        raise


def with_dashes(message: str) -> str:
    """`batch_size: expected …` as `--batch-size: expected …`."""
    name, colon, rest = message.partition(":")
    return f"{flag_of(name)}:{rest}" if colon and name in FIELDS else message


def arguments_as_flags(message: str) -> str:
    """`say which with label=` as `say which with --label`; what only Python's functions take is left out."""
    message = message.removesuffix("; format= says what it is").removesuffix(" (limit= allows more)")
    return re.sub(r"\b(text|text_pair|label|labels)=(?= and |$)", lambda match: flag_of(match[1]), message)


def _from_bpnn(error: BaseException) -> bool:
    """Whether a line of bpnn's raised the error with words for it; anything else is a mistake of the program's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    file = trace.tb_frame.f_code.co_filename
    inside = os.path.abspath(file).startswith(os.path.dirname(os.path.abspath(bpnn.__file__)) + os.sep)
    return inside and linecache.getline(file, trace.tb_lineno).lstrip().startswith("raise ")


def evaluate(run: Run, data: str | None) -> str:
    """The scores of a run's model on its test part, or on `data`, for a person."""
    from bpnn.finetune.reading import read_parts
    from bpnn.finetune.tuned import Finetuned

    with speaking():
        tuned = Finetuned.load(run.folder)
        if data is None:
            told = run.config["data"]
            if told["source"] == "memory":
                raise CliError(f"{run.folder}: its data was in memory; give --data FILE")
            parts = read_parts(tuned.settings)
            table = parts.test or parts.validation
            if table is None:
                raise CliError(f"{run.folder}: no part was held out; give --data FILE")
            examples = list(tuned.task.read_table(table))
        else:
            examples = tuned.read(data)
        return score_table(tuned.score(examples), tuned.task)


def score_table(scores: Mapping[str, Any], task: Any) -> str:
    """Scores for a person: a line each, and per label and confusion where there are labels."""
    from .scores import table

    if "confusion_matrix" in scores and "roc_auc" in scores and getattr(task, "labels", None):
        return table(dict(scores), task.samples, "label", [str(label) for label in task.labels])
    numbers = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
    wide = max(map(len, numbers), default=0)
    return "\n".join(f"{name:<{wide}}  {value:,}" if isinstance(value, int) else f"{name:<{wide}}  {value:.4f}"
                     for name, value in numbers.items())  # fmt: skip


def predict(run: Run, inputs: Sequence[str], source: str | None = None, target: str | None = None) -> None:
    """Print what a run's model says of each input, of each line of standard input, or of each row of the table `source`."""
    from bpnn.finetune.tuned import Finetuned

    with speaking():
        if source is not None and inputs:
            raise CliError("--input: does not go with inputs as arguments")
        if target is not None and source is None:
            raise CliError("--output: needs --input, the table whose rows get predictions")
        if target is not None and not target.endswith(tuple(KINDS)):
            raise CliError(f"--output: expected a name that ends with {', '.join(KINDS)}, got {target}")
        tuned = Finetuned.load(run.folder)
        if source is not None:
            _predict_table(tuned, source, target)
            return
        task = tuned.task.name
        wide = max((len(str(label)) for label in getattr(tuned.task, "labels", None) or ()), default=0)
        given: Iterator[Any] = iter(_inputs(task, inputs))
        size = 1 if not inputs and sys.stdin.isatty() else 64
        while some := list(islice(given, size)):
            for value, said in zip(some, tuned.predict(some), strict=True):
                print(_line(value, said, wide), flush=True)


def _inputs(task: str, inputs: Sequence[str]) -> Iterator[Any]:
    """What is to be predicted: arguments, else lines; JSON objects where a text alone does not do."""
    if task == "image":
        from .images import expand

        if not inputs:
            raise CliError("no images: name files, folders or patterns")
        yield from map(str, expand(list(inputs)))
        return
    for text in inputs or _lines():
        if task in ("qa", "embed", "classify", "regress") and text.lstrip().startswith("{"):
            try:
                yield json.loads(text)
                continue
            except ValueError as error:
                if task == "qa":
                    raise CliError(f"{text[:60]!r}: expected a JSON object ({error})") from None
        if task == "qa":
            raise CliError('expected JSON objects {"question": "…", "context": "…"}, one an argument or a line; or --input FILE')
        yield text


def _lines() -> Iterator[str]:
    """The lines of standard input that are not blank."""
    if not sys.stdin.isatty() and hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _line(value: Any, said: Mapping[str, Any], wide: int) -> str:
    """One prediction for a person."""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if set(said) >= {"label", "probability"}:
        return f"{said['label']:<{wide}}  {100 * said['probability']:5.1f} %  {shown}"
    return f"{json.dumps(said, ensure_ascii=False)}  {shown}"


def _predict_table(tuned: Any, source: str, target: str | None) -> None:
    """A table's rows with the predictions as new columns: CSV, TSV or JSON-lines by the name of `target`; CSV to the terminal."""
    from bpnn.data.tables import read_table
    from bpnn.utils._files import replacing

    table = read_table(source)
    task = tuned.task
    rows = [dict(table[i]) for i in range(len(table))]
    said = tuned.predict_examples(task.read_table(table, labeled=False))
    names = list(dict.fromkeys(name for one in said for name in one))
    columns = {name: _free(name, table.columns) for name in names}
    for row, one in zip(rows, said, strict=True):
        row |= {columns[name]: one.get(name) for name in names}
    header = [*table.columns, *columns.values()]
    if target is None:
        _write(sys.stdout, header, rows, "csv")
        return
    kind = next(kind for ending, kind in KINDS.items() if target.endswith(ending))
    with replacing(target) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        _write(file, header, rows, kind)
    print(f"wrote {target}: {len(rows):,} rows, new columns {', '.join(columns.values())}")


def _free(name: str, taken: Sequence[str]) -> str:
    """A name for a column of predictions that the table does not have."""
    if name not in taken:
        return name
    name, number = f"predicted_{name}", 2
    while name in taken:
        name, number = f"{name.rstrip('0123456789_')}_{number}", number + 1
    return name


def _write(file: Any, header: Sequence[str], rows: Sequence[Mapping[str, Any]], kind: str) -> None:
    from bpnn.finetune.report import cell

    if kind == "jsonl":
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        return
    writer = csv.DictWriter(file, header, lineterminator="\n", delimiter="\t" if kind == "tsv" else ",")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(row.get(name)) for name in header})

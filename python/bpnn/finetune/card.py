"""The model card of a run: what was trained on what, how, how well, and how it is used."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .settings import ADAPTERS, FIELDS

__all__ = ["model_card"]

DOES = {
    "classify": "puts a label on a text", "regress": "puts a number on a text", "tokens": "puts a label on every word",
    "qa": "finds the answer to a question in a text", "embed": "turns texts into vectors", "lm": "goes on with texts",
    "image": "puts a label on an image",
}  # fmt: skip
INPUTS = {
    "classify": '["a text"]', "regress": '["a text"]', "tokens": '["a text"]', "embed": '["a text"]',
    "lm": '["the beginning of a text"]', "qa": '[{"question": "…", "context": "…"}]', "image": '["picture.png"]',
}  # fmt: skip
UNSAID = ("task", "data", "train", "validation", "test", "model", "method", "out", "force", "threads")


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """README.md of a run's folder: Markdown with the front matter that Hugging Face's pages read."""
    options, data, base = config["options"], config["data"], config["base"]
    method = options["method"]
    adapter = method in ADAPTERS and not options.get("merge")
    day = f" on {config['created'][:10]}" if config.get("created") else ""
    counts = ", ".join(f"{data[part]:,} {part}" for part in ("train", "validation", "test"))
    lines = [
        "---", "library_name: bpnn", f"base_model: {_plain(base['path'])}", f"tags: [bpnn, {options['task']}, {method}]", "---", "",
        f"# {data['name']}: {options['task']}", "",
        f"A {base['kind']} that {DOES[options['task']]}, fine-tuned with bpnn {config.get('bpnn', '')}{day}.", "",
        "| | |", "| --- | --- |",
        f"| data | {_plain(data['name'])}: {counts} examples |",
        f"| base model | `{_plain(base['path'])}`, {base['parameters']:,} parameters |",
        f"| method | {method} |",
    ]
    labels = config.get("state", {}).get("labels")
    if labels:
        lines.append(f"| labels | {_plain(', '.join(map(str, labels)))} |")
    lines += ["", "## Scores", "", *_scores(metrics), "", "## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [
        f"| {name} | {_plain(options[name])} |" for name, item in FIELDS.items()
        if name not in UNSAID and name in options and (options[name] != item.default or name in ("epochs", "batch_size", "seed"))
    ]  # fmt: skip
    where = (
        f"`model/` holds the adapter alone, in PEFT's layout; the base model it goes on is `{_plain(base['path'])}`." if adapter
        else "`model/` holds encoder, pooling and head as modules in the layout of sentence-transformers; `from_pretrained` reads "
        "the encoder alone." if base["kind"] == "PooledClassifier"
        else "`model/` holds weights, configuration and tokenizer as Hugging Face's libraries read them."
    )  # fmt: skip
    lines += [
        "", "## Use", "", "```python", "from bpnn.finetune import Finetuned", "", 'tuned = Finetuned.load("this folder")',
        f"print(tuned.predict({INPUTS[options['task']]}))", "```", "", where, "",
        "The scores are of held-out examples of the same source as the training data; of other data they say little.",
        "`worst.csv` has the worst mistakes.", "",
    ]
    return "\n".join(lines)


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    rows = []
    for part in ("validation", "test"):
        rows += [
            f"| {part} | {name} | {value:,} |" if isinstance(value, int) else f"| {part} | {name} | {value:.4f} |"
            for name, value in metrics.get(part, {}).items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]  # fmt: skip
    return ["| part | score | value |", "| --- | --- | --- |", *rows] if rows else ["No part was held out: there are no scores."]


def _plain(value: Any) -> str:
    """A value in a cell of a Markdown table."""
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return str(value).replace("|", "\\|").replace("\n", " ")

"""Names in tagged words: where they begin and end, and how many were found.

A tag is "O", or a prefix and a type: "B-PER" begins a name, "I-PER" goes on, "E-" or "L-" ends one, "S-" or "U-" is a whole one.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

BEGINS, ENDS, INSIDE = frozenset("BSU"), frozenset("ELSU"), frozenset("BIELSU")
Entity = tuple[str, int, int]  # type, first word, word behind the last


def marks_entities(tags: Iterable[str]) -> bool:
    """Whether tags are "O" and prefixed types, some of them at least."""
    told = {tag for tag in tags if tag != "O"}
    return bool(told) and all(tag[0] in INSIDE and tag[1:2] == "-" and len(tag) > 2 for tag in told)


def entities(tags: Sequence[str], strict: bool = False) -> list[Entity]:
    """The names in tags, as conlleval and seqeval's default read them (Tjong Kim Sang and Buchholz 2000).

    A name begins at B, S or U, behind O or a name that ended, and where the type changes: "I-PER" behind "O" begins one too, unless
    `strict`, which takes IOB2 at its word: then such words are no name.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"], strict=True)
    [('PER', 0, 2), ('LOC', 4, 5)]
    """
    found: list[Entity] = []
    open_type: str | None = None
    begin, before = 0, "O"
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        goes_on = prefix != "O" and open_type == kind and prefix not in BEGINS and before not in ENDS
        if open_type is not None and not goes_on:
            found.append((open_type, begin, i))
            open_type = None
        if prefix != "O" and not goes_on and (not strict or prefix in BEGINS):
            open_type, begin = kind, i
        before = prefix
    return found


def entity_scores(predicted: Iterable[Sequence[str]], truth: Iterable[Sequence[str]], strict: bool = False) -> dict[str, Any]:
    """Precision, recall and F1 of names, right where type, beginning and end are; over all, and `per_type`. 0 where undefined."""
    counts: dict[str, list[int]] = {}  # of a type: right, said, true
    for said_tags, true_tags in zip(predicted, truth, strict=True):
        said, true = set(entities(said_tags, strict)), set(entities(true_tags, strict))
        for column, some in enumerate((said & true, said, true)):
            for entity in some:
                counts.setdefault(entity[0], [0, 0, 0])[column] += 1
    whole = [sum(column) for column in zip(*counts.values(), strict=True)] if counts else [0, 0, 0]
    return {**_ratios(*whole), "per_type": {kind: {**_ratios(*n), "support": n[2]} for kind, n in sorted(counts.items())}}


def _ratios(right: int, said: int, true: int) -> dict[str, float]:
    return {
        "precision": right / said if said else 0.0, "recall": right / true if true else 0.0,
        "f1": 2 * right / (said + true) if said + true else 0.0,
    }

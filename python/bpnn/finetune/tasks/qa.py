"""Answers that stand in a context: where they begin and end. Devlin et al. 2018, section 4.2.

A long context is read in windows that overlap by `stride` tokens. In a window without the answer, first and last token are the
first of the text ([CLS]); so says the model that there is none.
"""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bpnn.data.examples import QuestionExample, question_examples
from bpnn.models.auto import AutoModelForQuestionAnswering
from bpnn.pretrained import resolve

from ._answers import answer_scores, exact_match, f1
from ._task import Array, Batch, TaskDataset, new_heads_expected, worst_of
from ._texts import TextTask

BEST = 20  # likeliest first and last tokens of a window that are looked at


class AnswerQuestions(TextTask):
    """Settings: max_length (of a window, 384), stride (128), max_answer_length (30 tokens, or the longest of the training part),
    no_answer_threshold.

    "" is predicted where the training part has questions without answers and their score, that of [CLS], is higher than the best
    answer's by more than no_answer_threshold (0). Scores are percent, see `answer_scores`.
    """

    name = "qa"
    samples = "questions"
    given = ("start_positions", "end_positions")

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.stride = int(self.option("stride", 128))
        self.longest = int(self.option("max_answer_length", 30))
        self.unanswerable = False

    # --- data --------------------------------------------------------------------------------------------------------------

    def read_table(self, table: Any, labeled: bool | None = True) -> list[Any]:
        return list(question_examples(table, labeled=labeled))

    def learn(self, examples: Sequence[Any], path: str) -> None:
        self.unanswerable = any(not example.answers for example in examples)

    def example(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)) and len(value) == 2:
            value = {"question": value[0], "context": value[1]}
        if not isinstance(value, Mapping) or not all(isinstance(value.get(key), str) for key in ("question", "context")):
            raise ValueError(f"inputs: expected texts question and context, got {value!r}")
        return QuestionExample(str(value.get("id", "")), value["question"], value["context"], [])

    def dataset(self, examples: Sequence[Any], train: bool = False) -> TaskDataset:
        """Windows; "example" is the number of the question, "context" tells which tokens are the context's."""
        assert self.max_length is not None
        items, cut = [], 0
        for i, windows in enumerate(self._windows(examples)):
            cut += len(windows) > 1
            for window in windows:
                items.append(self._item(window, i, examples[i]))
                if train and items[-1]["inside"]:
                    self.longest = max(self.longest, items[-1]["end_positions"] - items[-1]["start_positions"] + 1)
        return TaskDataset(items, cut, train)

    def _windows(self, examples: Sequence[Any]) -> list[list[Any]]:
        """The encodings of each question with the pieces of its context."""
        limit = int(self.max_length or 0)
        questions = [example.question for example in examples]
        room = max(1, limit // 2 - 8)  # a question may have half of a window
        for i, one in enumerate(self.tokenizer(questions, add_special_tokens=False).encodings if questions else []):
            if len(one.ids) > room:
                questions[i] = questions[i][: one.offsets[room - 1][1]]
        backend = self.tokenizer.backend
        with self.tokenizer._lock:
            overlap = max(0, min(self.stride, (limit - room) // 2))
            backend.enable_truncation(limit, stride=overlap, strategy="only_second")
            encodings = backend.encode_batch([(q, e.context) for q, e in zip(questions, examples)]) if questions else []
        return [[one, *one.overflowing] for one in encodings]

    def _item(self, window: Any, i: int, example: Any) -> Batch:
        context = np.array([part == 1 for part in window.sequence_ids])
        offsets = np.array(window.offsets)
        item: Batch = {"input_ids": list(window.ids), "length": len(window.ids), "example": i}
        item |= {"context": context, "offsets": offsets}
        if "token_type_ids" in self.tokenizer.model_input_names:
            item["token_type_ids"] = list(window.type_ids)
        item |= {"start_positions": 0, "end_positions": 0, "inside": False}
        if example.answers and context.any():
            text, begin = example.answers[0]
            begin, end = begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())
            touching = np.flatnonzero(context & (offsets[:, 0] < end) & (offsets[:, 1] > begin))
            own = offsets[context]
            if len(touching) and own[0, 0] <= begin and own[-1, 1] >= end:
                item |= {"start_positions": int(touching[0]), "end_positions": int(touching[-1]), "inside": True}
        return item

    def collate(self, items: Sequence[Batch]) -> Batch:
        batch = super().collate(items)
        for key in self.given:
            batch[key] = np.array([item[key] for item in items], np.int64)
        return batch

    # --- the model ---------------------------------------------------------------------------------------------------------

    def load_model(self, path: str | os.PathLike[str]) -> Any:
        folder = resolve(path)
        with new_heads_expected():
            model = AutoModelForQuestionAnswering.from_pretrained(folder, num_labels=2, ignore_mismatched_sizes=True)
        wanted = self.option("max_length")
        model = self.settle(model, folder)
        if wanted is None and self.max_length is not None:
            self.max_length = min(self.max_length, 384)
        return model

    def load_saved(self, folder: str | os.PathLike[str]) -> Any:
        return self.settle(AutoModelForQuestionAnswering.from_pretrained(folder), folder)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "stride": self.stride, "max_answer_length": self.longest, "unanswerable": self.unanswerable}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.stride, self.longest, self.unanswerable = state["stride"], state["max_answer_length"], state["unanswerable"]

    # --- judging -----------------------------------------------------------------------------------------------------------

    def outputs(self, model: Any, dataset: TaskDataset, batch_size: int = 64) -> list[dict[str, Any]]:
        """Of each question the best span of characters ("start", "end") with its "score", that of none, and the "loss"."""
        count = max((item["example"] for item in dataset), default=-1) + 1
        found: list[dict[str, Any]] = [
            {"start": 0, "end": 0, "score": -np.inf, "no_answer": np.inf, "losses": [], "total": []} for _ in range(count)
        ]
        for chosen, output in self.run(model, dataset, batch_size):
            starts, ends = output.start_logits.numpy(), output.end_logits.numpy()
            for row, number in enumerate(chosen):
                item = dataset[int(number)]
                length, best = item["length"], found[item["example"]]
                start, end = (np.asarray(x[row][:length], np.float64) for x in (starts, ends))
                best["no_answer"] = min(best["no_answer"], float(start[0] + end[0]))
                spans = best_spans(start, end, item["context"], self.longest)
                best["total"] += [score for score, _, _ in spans]
                if spans and spans[0][0] > best["score"]:
                    score, first, last = spans[0]
                    best |= {"score": score, "start": int(item["offsets"][first, 0]), "end": int(item["offsets"][last, 1])}
                best["losses"].append((_loss(start, item["start_positions"]) + _loss(end, item["end_positions"])) / 2)
        for best in found:
            best["loss"] = float(np.mean(best.pop("losses")))
            total = np.array([*best.pop("total"), *([best["no_answer"]] if self.unanswerable else [])])
            high = total.max(initial=-np.inf)
            best["probability"] = float(np.exp(best["score"] - high) / np.exp(total - high).sum()) if total.size else 0.0
        return found

    def answers(self, outputs: Sequence[Mapping[str, Any]], examples: Sequence[Any]) -> list[str]:
        """The answer to each question as text."""
        threshold = float(self.option("no_answer_threshold", 0.0))
        return [
            "" if self.unanswerable and one["no_answer"] - one["score"] > threshold else example.context[one["start"] : one["end"]]
            for one, example in zip(outputs, examples, strict=True)
        ]

    def predictions(self, outputs: Any, examples: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"id": e.id, "answer": said, "answer_start": one["start"] if said else -1, "probability": one["probability"]}
            for e, said, one in zip(examples, self.answers(outputs, examples), outputs)
        ]

    def scores(self, outputs: Any, examples: Sequence[Any]) -> dict[str, Any]:
        """The mean loss of the windows of each question, percent of exact matches, mean F1 in percent."""
        expected = [[text for text, _ in example.answers] for example in examples]
        return {
            self.samples: len(examples), "loss": float(np.mean([one["loss"] for one in outputs])),
            **answer_scores(self.answers(outputs, examples), expected),
        }

    def worst(self, outputs: Any, examples: Sequence[Any], n: int = 20) -> list[dict[str, Any]]:
        """Those furthest from the expected answer; of equals those with the highest loss first."""
        said = self.answers(outputs, examples)
        expected = [[text for text, _ in example.answers] or [""] for example in examples]
        distance = [1 - max(f1(a, b) for b in some) for a, some in zip(said, expected)]
        by_loss = worst_of([one["loss"] for one in outputs], len(outputs))
        order = sorted(by_loss, key=lambda i: -distance[i])[:n]
        return [
            {
                "where": examples[i].where, "id": examples[i].id, "text": examples[i].question, "label": expected[i][0],
                "prediction": said[i], "probability": outputs[i]["probability"],
                "f1": 100 * (1 - distance[i]), "loss": outputs[i]["loss"],
                "exact_match": bool(max(exact_match(said[i], b) for b in expected[i])),
            }
            for i in order
        ]


def best_spans(start: Array, end: Array, allowed: Array, longest: int) -> list[tuple[float, int, int]]:
    """(start + end, first, last) of the likeliest spans of at most `longest` tokens that are all `allowed`, the best first."""
    places = np.flatnonzero(allowed)
    firsts, lasts = (places[np.argsort(-scores[places], kind="stable")[:BEST]] for scores in (start, end))
    spans = [
        (float(start[i] + end[j]), int(i), int(j)) for i in firsts for j in lasts if i <= j < i + longest
    ]
    return sorted(spans, key=lambda span: -span[0])[:BEST]


def _loss(logits: Array, place: int) -> float:
    high = logits.max()
    return float(np.log(np.exp(logits - high).sum()) + high - logits[place])

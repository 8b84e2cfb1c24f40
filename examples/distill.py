"""Distil a fine-tuned classifier into a student of two of its layers: most of the accuracy at a third of the work.

    bpnn finetune all-MiniLM-L6-v2/ --data sst2/ --out runs/teacher
    python examples/distill.py runs/teacher sst2/ --out runs/student

The student begins as some layers of the teacher with the teacher's head. It learns from the teacher's softened scores (Hinton et
al. 2015) and from what the teacher's last layer says of every token (Jiao et al. 2020), on the training texts as they are and on
copies with some words dropped, swapped and inserted (Wei and Zou 2019), which the teacher scores anew. The epoch is chosen on the
validation part; the test part is looked at once. At the end both models read the test texts in turn, to compare their speed.
"""
from __future__ import annotations

import argparse
import statistics
import time

import bpnn
from bpnn.data import read_splits
from bpnn.finetune import Distillation, Finetuned, get_linear_schedule_with_warmup, layerwise_decay, student_of
from bpnn.train import BestModel, Progress, Trainer
from bpnn.transforms.text import EasyAugmentation


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="the folder of a finished run of bpnn finetune --task classify")
    parser.add_argument("data", help="the same data: a folder of parts, or a table")
    parser.add_argument("--layers", default="0,1", help="which of the teacher's layers the student keeps, from 0 (default 0,1)")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--copies", type=int, default=1, help="changed copies of each training text in every epoch (default 1)")
    parser.add_argument("--alpha", type=float, default=0.9, help="share of the teacher's scores in the loss (default 0.9)")
    parser.add_argument("--hidden", type=float, default=1.0, help="weight of the last layer's mean squared error (default 1)")
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", help="write the student's model and tokenizer into this folder")
    return parser.parse_args()


class WithCopies:
    """A task's training examples, and `copies` of each that are changed anew at every reading."""

    def __init__(self, task, examples, copies):
        from dataclasses import replace

        self.task, self.examples, self.replace = task, examples, replace
        self.plain = task.dataset(examples)
        self.lengths = list(self.plain.lengths) * (1 + copies)
        self.change = EasyAugmentation(alpha=0.2)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        if i < len(self.plain):
            return self.plain[i]
        example = self.examples[i % len(self.plain)]
        return self.task.dataset([self.replace(example, text=self.change(example.text))])[0]


def seconds(model, task, dataset):
    """Seconds for one pass over a dataset, batches of 32."""
    start = time.perf_counter()
    task.outputs(model, dataset, 32)
    return time.perf_counter() - start


def main() -> None:
    options = parse()
    if options.threads:
        bpnn.set_num_threads(options.threads)
    bpnn.manual_seed(options.seed)
    tuned = Finetuned.load(options.teacher)
    task, teacher = tuned.task, tuned.model
    examples = task.read(read_splits(options.data, stratify=None))
    kept = [int(layer) for layer in options.layers.split(",")]
    student = student_of(teacher, kept).requires_grad_(True)

    train = task.loader(WithCopies(task, examples["train"], options.copies), options.batch_size, shuffle=True)
    validation = task.loader(task.dataset(examples["validation"]), 64)
    steps = len(train) * options.epochs
    optimizer = bpnn.optim.AdamW(layerwise_decay(student, options.lr, 1.0, 0.01))
    last = (len(kept), teacher.config.num_hidden_layers)
    distillation = Distillation(
        teacher, options.temperature, options.alpha, hidden=options.hidden, layer_map=[last] if options.hidden else None
    )
    column, mode = task.monitor
    trainer = Trainer(
        student, optimizer, metrics=task.metrics(), clip_norm=1.0, schedule_every="step",
        scheduler=get_linear_schedule_with_warmup(optimizer, steps // 10, steps),
        callbacks=[distillation, BestModel(column, mode), Progress()],
    )
    trainer.fit(train, validation, options.epochs)

    test = task.dataset(examples["test"])
    accuracy = {name: task.scores(task.outputs(model, test), examples["test"])["accuracy"]
                for name, model in (("teacher", teacher), ("student", student))}
    rounds = [(seconds(teacher, task, test), seconds(student, task, test)) for _ in range(5)]
    slow, fast = (statistics.median(times) for times in zip(*rounds))
    for name, took in (("teacher", slow), ("student", fast)):
        print(f"{name}  {100 * accuracy[name]:.2f} % on {len(test):,} texts in {took:.2f} s")
    kept_share = accuracy["student"] / accuracy["teacher"]
    print(f"the student keeps {100 * kept_share:.1f} % of the accuracy, {slow / fast:.2f} times as fast")
    if options.out:
        task.save(student, options.out)
        print(f"wrote {options.out}")


if __name__ == "__main__":
    main()

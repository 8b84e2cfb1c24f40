"""Comparisons with PEFT: the same model, adapter files both ways, outputs and gradients."""
import os

import numpy as np
import torch
import transformers
from against import Reference
from architectures import inputs
from comparing import off

import bpnn
import peft
from bpnn import finetune
from bpnn.finetune._targets import file_name

ANSWERS = ("labels", "start_positions", "end_positions")


class Pair:
    """A model of `transformers` with PEFT's adapter, drawn anew, and bpnn's with the adapter read from PEFT's file.

    given: arguments with labels, as arrays. Everything in float64 but the files.
    """

    def __init__(self, folder, name, head, kind, side=None, **options):
        self.reference = Reference(name, head, "small", os.path.join(folder, "base"))
        about = self.reference.about
        self.head, self.folder = head, folder
        self.given = inputs(about, head, "small", self.reference.config, side)
        if head == "ForQuestionAnswering":  # PEFT's model takes them as an argument and forgets them
            self.given.pop("token_type_ids", None)
        self.theirs_class = getattr(transformers, about.prefix + head)
        torch.manual_seed(1)
        self.theirs = peft.get_peft_model(self.plain(), getattr(peft, kind)(**options))
        with torch.no_grad():
            for parameter in self.theirs.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        self.theirs.float().save_pretrained(os.path.join(folder, "theirs"))
        self.theirs.double()
        self.own_config = getattr(finetune, kind)(**options)
        self.own = self.read(os.path.join(folder, "theirs"))

    def plain(self):
        """The model of `transformers` without adapters."""
        return self.theirs_class.from_pretrained(self.reference.folder)

    def read(self, folder):
        """bpnn's model with an adapter's folder."""
        return finetune.PeftModel.from_pretrained(self.reference.own(dtype="float64"), folder, is_trainable=True)

    def written(self):
        """PEFT's model with the file that bpnn wrote of its own."""
        folder = os.path.join(self.folder, "ours")
        self.own.save_pretrained(folder)
        return peft.PeftModel.from_pretrained(self.plain(), folder).double()

    def values(self, model, given=None):
        """The scores of real tokens."""
        given = dict(self.given if given is None else given)
        for name in ANSWERS:
            given.pop(name, None)
        if isinstance(model, torch.nn.Module):
            model.eval()
            with torch.no_grad():
                output = model(**{key: torch.from_numpy(value) for key, value in given.items()})
        else:
            model.eval()
            with bpnn.no_grad():
                output = model(**given)
        value = (output.start_logits if "ForQuestion" in self.head else output.logits).detach().numpy()
        ids = given.get("input_ids")
        if ids is None or (value.ndim == 2 and "ForQuestion" not in self.head):
            return value
        value = value[:, -ids.shape[1] :]  # PEFT has scores for a prompt too
        return value[given["attention_mask"] == 1] if "attention_mask" in given else value

    def gradients(self):
        """Loss and gradients by the names of what is trained: PEFT's, then bpnn's."""
        self.theirs.train()
        self.theirs.zero_grad()
        loss = self.theirs(**{key: torch.from_numpy(value) for key, value in self.given.items()}).loss
        loss.backward()
        want = {name: p.grad.numpy() for name, p in self.theirs.named_parameters() if p.grad is not None and p.requires_grad}
        self.own.train()
        self.own.zero_grad()
        mine = self.own(**self.given).loss
        mine.backward()
        kind = self.own.config.model_type
        got = {file_name(name, kind): p.grad.numpy() for name, p in self.own.named_parameters() if p.grad is not None}
        return (loss.item(), want), (mine.item(), got)


def differ(got, want, tolerance=1e-5):
    """Lines that say what of two losses with gradients differs."""
    lines = [f"loss {got[0]}, expected {want[0]}"] if abs(got[0] - want[0]) > tolerance else []
    lines += [f"{name}: only in one" for name in sorted({*got[1]} ^ {*want[1]})]
    largest = max(np.abs(value).max() for value in want[1].values())
    for name in sorted({*got[1]} & {*want[1]}):
        scale = max(np.abs(want[1][name]).max(), 1e-6 * largest)
        distance = off(got[1][name].reshape(want[1][name].shape), want[1][name], scale)
        if distance > tolerance:
            lines.append(f"{name}: off by {distance:.1e}")
    return lines

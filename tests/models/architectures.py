"""The architectures that the tests compare with `transformers`: sizes, heads, inputs with padding and labels."""
from dataclasses import dataclass, field

import numpy as np
import pytest
from drawing import integers, uniform

SMALL = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
MID = {"vocab_size": 1009, "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 200}
LENGTHS = {"small": [13, 6, 1], "mid": [67, 23, 31, 5], "long": [300, 129, 64]}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TASKS = {
    "Model": "base", "ForMaskedLM": "mlm", "ForCausalLM": "lm", "LMHeadModel": "lm", "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token", "ForQuestionAnswering": "qa", "ForImageClassification": "image",
}
ENCODER = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


@dataclass(frozen=True)
class Architecture:
    """Sizes under the keys of `config.json`; `prefix`: what class names begin with; `padding`: on which side."""

    prefix: str
    small: dict
    mid: dict
    heads: tuple = ENCODER
    padding: tuple = ("right",)
    pad: int = 0
    images: bool = False
    extra: dict = field(default_factory=dict)

    def config(self, size, **changes):
        return {**(self.small if size == "small" else self.mid), **self.extra, **changes}


def llama(prefix, heads=("Model", "ForCausalLM", "ForSequenceClassification"), mid=(), **extra):
    small = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 40}
    middle = {**MID, "num_key_value_heads": 3, "max_position_embeddings": 160, **dict(mid)}
    return Architecture(prefix, small, middle, heads, ("right", "left"), extra={"pad_token_id": 0, **extra})


def gpt2(sizes, positions):
    names = {
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "intermediate_size": "n_inner"}
    return {**{names.get(key, key): value for key, value in sizes.items()}, "n_positions": positions}


def distilbert(sizes, positions):
    names = {
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}
    return {**{names.get(key, key): value for key, value in sizes.items()}, "max_position_embeddings": positions}


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
}
ARCHITECTURES = {
    "bert": Architecture(
        "Bert", {**SMALL, "max_position_embeddings": 40}, {**MID, "max_position_embeddings": 160}, extra=NO_DROPOUT),
    "roberta": Architecture(
        "Roberta", {**SMALL, "max_position_embeddings": 42, "type_vocab_size": 1}, {**MID, "max_position_embeddings": 162},
        pad=1, extra=NO_DROPOUT),
    "distilbert": Architecture(
        "DistilBert", distilbert(SMALL, 40), distilbert(MID, 160),
        extra={"dropout": 0.0, "attention_dropout": 0.0, "qa_dropout": 0.0, "seq_classif_dropout": 0.0}),
    "gpt2": Architecture(
        "GPT2", gpt2(SMALL, 40), gpt2(MID, 160), ("Model", "LMHeadModel", "ForSequenceClassification"), ("right", "left"), pad=7,
        extra={
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "pad_token_id": 7, "bos_token_id": 1, "eos_token_id": 2}),
    "llama": llama(
        "Llama", mid={"head_dim": 32, "attention_bias": True, "mlp_bias": True}),
    "llama3": llama("Llama", ("ForCausalLM",), rope_parameters=LLAMA3, tie_word_embeddings=True, bos_token_id=None),
    "mistral": llama("Mistral", sliding_window=5),
    "qwen2": llama(
        "Qwen2", mid={"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}, tie_word_embeddings=True),
    "vit": Architecture(
        "ViT",
        {**SMALL, "image_size": 16, "patch_size": 4, "num_channels": 3},
        {**MID, "image_size": 40, "patch_size": 8, "num_channels": 3},
        ("Model", "ForImageClassification"), (), images=True, extra=NO_DROPOUT),
}
for _sizes in (ARCHITECTURES["vit"].small, ARCHITECTURES["vit"].mid):
    del _sizes["vocab_size"]
MODELS = [(name, name_of) for name, about in ARCHITECTURES.items() for name_of in about.heads]
WITH_LOSS = [(name, head) for name, head in MODELS if head != "Model"]
# Settings that are not the usual ones: architecture, head, changes of the configuration
VARIANTS = [
    ("bert", "ForMaskedLM", {"tie_word_embeddings": False}),
    ("bert", "ForMaskedLM", {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
    ("bert", "ForSequenceClassification", {"num_labels": 1}),
    ("bert", "ForSequenceClassification", {"num_labels": 4, "problem_type": "multi_label_classification"}),
    ("bert", "ForSequenceClassification", {"num_labels": 3, "problem_type": "regression"}),
    ("bert", "Model", {"hidden_act": "gelu_new"}),
    ("roberta", "ForSequenceClassification", {"num_labels": 1}),
    ("distilbert", "ForMaskedLM", {"activation": "relu", "tie_word_embeddings": False}),
    ("distilbert", "Model", {"sinusoidal_pos_embds": True}),
    ("gpt2", "LMHeadModel", {"tie_word_embeddings": False, "n_inner": None}),
    ("gpt2", "LMHeadModel", {"scale_attn_by_inverse_layer_idx": True, "activation_function": "relu"}),
    ("gpt2", "LMHeadModel", {"scale_attn_weights": False}),
    ("gpt2", "ForSequenceClassification", {"num_labels": 1}),
    ("llama", "ForCausalLM", {"num_key_value_heads": 1, "rms_norm_eps": 1e-3}),
    ("llama", "ForCausalLM", {"num_key_value_heads": None, "attention_bias": True}),
    ("llama", "ForCausalLM", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    ("mistral", "ForCausalLM", {"sliding_window": None, "head_dim": 16}),
    ("qwen2", "ForCausalLM", {"tie_word_embeddings": False, "pad_token_id": None}),
    ("vit", "ForImageClassification", {"qkv_bias": False, "num_channels": 1, "num_labels": 1}),
    ("vit", "Model", {"image_size": 20, "hidden_act": "gelu_pytorch_tanh"}),
]


def named(cases):
    """Parametrize a test over pairs of architecture and head."""
    return pytest.mark.parametrize(("name", "head"), cases, ids=[f"{name}-{head}" for name, head in cases])


def padded(about, size, side):
    """An attention mask (B, T) of some lengths; side None: none."""
    if side is None:
        return None
    lengths = LENGTHS[size]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return (mask[:, ::-1] if side == "left" else mask).astype(np.int64)


def inputs(about, head, size, config, side=None, seed=0):
    """A model's arguments with labels: whatever `transformers` asks for, as NumPy arrays. side: of the padding; None: no mask."""
    task, key = TASKS[head], f"{size} {side} {seed}"
    labels = config.get("num_labels", 2)
    if about.images:
        count = 2 if size == "mid" else 3
        side_length = config["image_size"]
        given = {"pixel_values": uniform(key, (count, config["num_channels"], side_length, side_length))}
        if task == "image":
            given["labels"] = uniform(key, (count,)) if labels == 1 else integers(key + " labels", (count,), 0, labels)
        return given
    count, length = len(LENGTHS[size]), max(LENGTHS[size])
    mask = padded(about, size, side)
    ids = integers(key, (count, length), 3 if task == "sequence" else 0, config["vocab_size"])
    if task == "sequence":
        ids[ids == about.pad] += 1
    else:
        ids[0, 3] = about.pad  # a real token all the same
    given = {"input_ids": ids}
    if mask is not None:
        ids[mask == 0] = about.pad
        given["attention_mask"] = mask
    if about.prefix == "Bert":
        given["token_type_ids"] = integers(key + " types", ids.shape, 0, 2)
    if task == "lm":
        given["labels"] = np.where(uniform(key + " asked", ids.shape) < 0.7, ids, -100)
    if task == "mlm":
        given["labels"] = np.where(uniform(key + " asked", ids.shape) < -0.5, integers(key + " labels", ids.shape, 0, 61), -100)
        given["labels"][0, 0] = 5
    if task == "token":
        given["labels"] = integers(key + " labels", ids.shape, 0, labels)
    if mask is not None and task in ("lm", "mlm", "token"):
        given["labels"] = np.where(mask, given["labels"], -100)
        if side == "left":  # what comes after padding is not foretold
            given["labels"][np.arange(count), mask.argmax(1)] = -100
    if task == "sequence":
        kind = config.get("problem_type") or ("regression" if labels == 1 else "single_label_classification")
        if kind == "single_label_classification":
            given["labels"] = integers(key + " labels", (count,), 0, labels)
        else:
            shape = (count,) if labels == 1 else (count, labels)
            given["labels"] = uniform(key + " labels", shape)
            if kind == "multi_label_classification":
                given["labels"] = (given["labels"] > 0).astype(np.float64)
    if task == "qa":
        reach = np.full(count, length) if mask is None else mask.sum(1)
        given["start_positions"], given["end_positions"] = reach // 3, reach - 1
        given["end_positions"][0] = length + 9  # outside: left out of the loss
    return given

"""Small models with adapters for the tests, and what PEFT computes with the same files."""
import sys
from pathlib import Path

import numpy as np

import bpnn
from bpnn import models

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

SIZES = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
IDS = np.arange(3, 17).reshape(2, 7)
LABELS = np.array([1, 0])


def bert(head="ForSequenceClassification", dtype="float64", **changes):
    """A small BERT, with drawn weights whose biases are not 0."""
    bpnn.manual_seed(5)
    return drawn(getattr(models, "Bert" + head)(models.BertConfig(**{**SIZES, **NO_DROPOUT, **changes})), dtype)


def gpt2(head="LMHeadModel", dtype="float64", **changes):
    """A small GPT-2."""
    bpnn.manual_seed(6)
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "n_positions": 24, "pad_token_id": 0}
    return drawn(getattr(models, "GPT2" + head)(models.GPT2Config(**{**SIZES, **quiet, **changes})), dtype)


def llama(head="ForCausalLM", dtype="float64", **changes):
    """A small LLaMA whose two query heads share a key-value head."""
    bpnn.manual_seed(7)
    config = models.LlamaConfig(**{**SIZES, "num_key_value_heads": 1, "max_position_embeddings": 24, "pad_token_id": 0, **changes})
    return drawn(getattr(models, "Llama" + head)(config), dtype)


def drawn(model, dtype):
    """Weights of a size that makes outputs differ."""
    model.to(dtype)
    with bpnn.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower() and ".ln_" not in name:
                parameter.copy_(bpnn.randn(*parameter.shape, dtype=dtype) * 0.3)
    return model.eval()


def move(model, size=0.2):
    """Give everything that is trained other numbers, so that adapters do something; returns the model."""
    bpnn.manual_seed(8)
    with bpnn.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(bpnn.randn(*parameter.shape, dtype=parameter.dtype) * size)
    return model


def logits(model, ids=IDS, **given):
    """What a model says, as an array."""
    with bpnn.no_grad():
        return np.array(model(ids, **given).logits.numpy())


def trained(model):
    """The names of what is trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

"""Tiny models of every architecture with batches, and runs that are cut off and resumed, for the tests of the techniques."""
import numpy as np

import bpnn
from bpnn import nn
from bpnn.models.bert import BertConfig, BertForMaskedLM, BertForSequenceClassification
from bpnn.models.distilbert import DistilBertConfig, DistilBertForSequenceClassification
from bpnn.models.gpt2 import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel
from bpnn.models.llama import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from bpnn.models.roberta import RobertaConfig, RobertaForSequenceClassification
from bpnn.models.text_classifier import TextClassifier
from bpnn.models.transformer import TransformerConfig, TransformerForConditionalGeneration
from bpnn.models.vit import ViTConfig, ViTForImageClassification

BERT = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 20}
LLAMA = {**BERT, "num_key_value_heads": 1, "pad_token_id": 0}
GPT2 = {"vocab_size": 31, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 20, "pad_token_id": 0}
DISTIL = {"vocab_size": 31, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 20}
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 8,
       "patch_size": 4, "num_channels": 2, "num_labels": 3}
SEQ2SEQ = {"vocab_size": 31, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
           "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 20}
DRY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert(dropout=0.1, labels=3, **changes):
    given = {**BERT, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "num_labels": labels, **changes}
    return BertForSequenceClassification(BertConfig.from_dict(given))


def gpt2_dry(**changes):
    return {**GPT2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **changes}


# name: (model without dropout, name of the list of layers, how many, name of a tensor of the embeddings)
MODELS = {
    "bert": (lambda: bert(0.0), "bert.encoder.layer", 3, "bert.embeddings.word_embeddings.weight"),
    "roberta": (
        lambda: RobertaForSequenceClassification(RobertaConfig.from_dict({**BERT, **DRY, "num_labels": 3})),
        "roberta.encoder.layer", 3, "roberta.embeddings.word_embeddings.weight"),
    "distilbert": (
        lambda: DistilBertForSequenceClassification(DistilBertConfig.from_dict(
            {**DISTIL, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "num_labels": 3})),
        "distilbert.transformer.layer", 3, "distilbert.embeddings.word_embeddings.weight"),
    "gpt2": (
        lambda: GPT2ForSequenceClassification(GPT2Config.from_dict(gpt2_dry(num_labels=3))), "transformer.h", 3,
        "transformer.wte.weight"),
    "gpt2-lm": (lambda: GPT2LMHeadModel(GPT2Config.from_dict(gpt2_dry())), "transformer.h", 3, "transformer.wte.weight"),
    "llama": (
        lambda: LlamaForSequenceClassification(LlamaConfig.from_dict({**LLAMA, "num_labels": 3})), "model.layers", 3,
        "model.embed_tokens.weight"),
    "llama-lm": (lambda: LlamaForCausalLM(LlamaConfig.from_dict(LLAMA)), "model.layers", 3, "model.embed_tokens.weight"),
    "vit": (lambda: ViTForImageClassification(ViTConfig.from_dict(VIT)), "vit.encoder.layer", 3, "vit.embeddings.cls_token"),
}
SEQUENCE = ("bert", "roberta", "distilbert", "gpt2", "llama")


def make(name, seed=1):
    bpnn.manual_seed(seed)
    return MODELS[name][0]()


def seq2seq(seed=1, dropout=0.0):
    bpnn.manual_seed(seed)
    return TransformerForConditionalGeneration(TransformerConfig.from_dict({**SEQ2SEQ, "dropout": dropout}))


def masked_lm(seed=1):
    bpnn.manual_seed(seed)
    return BertForMaskedLM(BertConfig.from_dict({**BERT, **DRY}))


def text_classifier(seed=1, dropout=0.0):
    bpnn.manual_seed(seed)
    return TextClassifier(31, 3, 8, 6, dropout=dropout)


def token_batch(lengths=(7, 3, 5), seed=0, classes=3, lm=False):
    """A padded batch of texts, as a dictionary of arrays."""
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    tokens = np.where(mask, rng.integers(3, 31, mask.shape), 0)
    labels = np.where(mask, tokens, -100) if lm else rng.integers(0, classes, len(lengths))
    return {"input_ids": tokens, "attention_mask": mask.astype(np.int64), "labels": labels}


def texts(count=24, batch=4, seed=0):
    """Batches whose label can be learned: the first token tells."""
    rng = np.random.default_rng(seed)
    batches = []
    for i in range(count // batch):
        one = token_batch(tuple(rng.integers(2, 9, batch)), seed + i)
        one["labels"] = one["input_ids"][:, 0] % 3
        batches.append(one)
    return batches


def images(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return {"pixel_values": rng.normal(size=(count, 2, 8, 8)).astype(np.float32), "labels": rng.integers(0, 3, count)}


def batch_for(name):
    return images() if name == "vit" else token_batch(lm=name.endswith("-lm"))


def convnet(seed=0):
    bpnn.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def tensors(model):
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def gradients(model):
    return {name: None if p.grad is None else p.grad.numpy().copy() for name, p in model.named_parameters()}


def assert_equal_tensors(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)

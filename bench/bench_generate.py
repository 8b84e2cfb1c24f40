"""Writing on with GPT-2 and LLaMA from random weights, greedily: tokens after a short prompt, and the first after a long one.

`transformers` runs its own `generate`, with its cache and with the static one.
"""
from functools import partial

import numpy as np
import pytest
from bench_gpt import weights
from harness import Absent, Job, Rate
from rivals import pytorch

GPT2 = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
# SmolLM2-135M's sizes
LLAMA = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "max_position_embeddings": 2048, "tie_word_embeddings": True,
}
NONE = {"bos_token_id": None, "eos_token_id": None}
# name: (model type, sizes, texts, tokens of a prompt, new tokens, beams, bar)
CASES = {
    "generate, GPT-2 124M, 32 tokens": ("gpt2", GPT2, 1, 16, 32, 1, 1.5),
    "generate, GPT-2 124M, prompt of 512": ("gpt2", GPT2, 1, 512, 1, 1, 1.2),
    "generate, GPT-2 124M, 8 texts, 16 tokens": ("gpt2", GPT2, 8, 16, 16, 1, None),
    "generate, GPT-2 124M, 4 beams, 16 tokens": ("gpt2", GPT2, 1, 16, 16, 4, None),
    "generate, LLaMA 135M, 32 tokens": ("llama", LLAMA, 1, 16, 32, 1, None),
}
CLASSES = {"gpt2": ("GPT2Config", "GPT2LMHeadModel"), "llama": ("LlamaConfig", "LlamaForCausalLM")}


def filled(model, from_numpy):
    """The model with the same weights for all, drawn from their names; norms start at 1."""
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.copy_(from_numpy(weights(name.removeprefix("transformer."), tuple(parameter.shape))))
        else:
            parameter.copy_(from_numpy(np.ones(tuple(parameter.shape), np.float32)))
    return model.eval()


def bpnn_job(inputs, kind, sizes, **wanted):
    import bpnn

    config, model = (getattr(bpnn.models, name) for name in CLASSES[kind])
    with bpnn.no_grad(), bpnn.nn.init.skip_init():
        writer = filled(model(config(**sizes, **NONE)), bpnn.from_numpy)
    return Job(lambda: writer.generate(inputs["prompt"], **wanted), lambda last: {"tokens": last.numpy()})


def transformers_job(inputs, kind, sizes, static=False, **wanted):
    torch = pytorch("PyTorch")[0]
    try:
        import transformers
    except ImportError as error:
        raise Absent(str(error)) from error
    transformers.utils.logging.set_verbosity_error()
    config, model = (getattr(transformers, name) for name in CLASSES[kind])
    with torch.no_grad():
        writer = filled(model(config(**sizes, **NONE)), torch.from_numpy)
    prompt = torch.from_numpy(inputs["prompt"])
    said = {"attention_mask": torch.ones_like(prompt), **wanted, **({"cache_implementation": "static"} if static else {})}
    return Job(lambda: writer.generate(prompt, **said), lambda last: {"tokens": last.numpy()})


@pytest.mark.parametrize("name", CASES)
def test_generate(race, name):
    kind, sizes, texts, length, new, beams, bar = CASES[name]
    prompt = np.random.default_rng(0).integers(0, sizes["vocab_size"], (texts, length))
    said = {"kind": kind, "sizes": sizes, "max_new_tokens": new, "num_beams": beams}
    contenders = {"bpnn": partial(bpnn_job, **said), "transformers": partial(transformers_job, **said)}
    if beams == 1:
        contenders["transformers, static cache"] = partial(transformers_job, static=True, **said)
    race(
        name, contenders, inputs={"prompt": prompt}, bars={} if bar is None else {"transformers": bar}, seconds=1,
        rate=Rate(texts * (length if new == 1 else new), "tokens/s"),
    )

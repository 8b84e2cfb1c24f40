"""BitFit: biases and the head are trained, and nothing else."""
import numpy as np
import pytest
from adapter_models import IDS, LABELS, bert, gpt2, llama, trained

import bpnn
from bpnn import nn
from bpnn.finetune import bitfit


def test_only_biases_and_the_head():
    model = bert()
    assert bitfit(model) is model
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name.endswith(".bias") or name.startswith("classifier.")), name
    assert trained(bitfit(model, modules_to_save=[])) == {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert "score.weight" in trained(bitfit(gpt2("ForSequenceClassification")))


def test_a_step_changes_only_them():
    model = bitfit(bert())
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    optimizer = bpnn.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0)
    model(IDS, labels=LABELS).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in trained(model)), name
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not np.array_equal(p.detach().numpy(), before[name])}
    still = {name for name in trained(model) if "attention.self.key.bias" in name}  # softmax does not see it
    assert trained(model) - still <= changed <= trained(model)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="model: expected biases, or modules called classifier, score.*LlamaForCausalLM"):
        bitfit(llama())
    assert trained(bitfit(nn.Linear(2, 3))) == {"bias"}

"""What a run will need: the formula against the measured peak of a process of its own; what there is, from made-up systems."""
import json
import os
import subprocess
import sys

import pytest

import bpnn
from bpnn.finetune.estimate import (
    MIB, Memory, TimeEstimate, activation_bytes, available_memory, duration, estimate_memory, layers_with_gradients, size,
    weight_bytes,
)
from bpnn.finetune.freeze import freeze, freeze_layers, head_only
from bpnn.models.bert import BertConfig, BertForSequenceClassification

PEAK = """
import json, sys
import numpy as np
import bpnn
from bpnn.finetune import LoraConfig, get_peft_model
from bpnn.finetune.estimate import estimate_memory
from bpnn.finetune.freeze import head_only
from bpnn.train import BestModel, CheckpointWriter, Trainer

kind, method, batch, length, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
bpnn.set_num_threads(2)
if kind == "bert":
    from bpnn.models.bert import BertConfig, BertForSequenceClassification
    model = BertForSequenceClassification(BertConfig(vocab_size=20000, hidden_size=256, num_hidden_layers=6, num_attention_heads=8,
                                                     intermediate_size=1024))
    labels = np.arange(batch) % 2
else:
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel
    model = GPT2LMHeadModel(GPT2Config(vocab_size=20000, n_embd=256, n_layer=6, n_head=8, n_positions=length))
    labels = None
if method == "lora":
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS" if kind == "bert" else "CAUSAL_LM"))
if method == "head":
    head_only(model)
tokens = np.random.default_rng(0).integers(1, 20000, (batch, length))
batches = [{"input_ids": tokens, "labels": tokens if labels is None else labels}] * 2
told = estimate_memory(model, batch * length, copies=2)
trainer = Trainer(model, bpnn.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4), save_frozen=False,
                  callbacks=[BestModel("val_loss"), CheckpointWriter(out)])
trainer.fit(batches, batches[:1], epochs=2)
# not ru_maxrss, which begins with the memory of the process that started this one
peak = next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([told.total, peak, str(told)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("kind", "method", "batch", "length"),
    [("bert", "full", 16, 128), ("gpt2", "lora", 8, 256),
     *(pytest.param(*more, marks=pytest.mark.slow) for more in (
         ("bert", "full", 8, 64), ("bert", "lora", 32, 128), ("bert", "head", 32, 128), ("gpt2", "full", 8, 256)))],
)
def test_within_35_percent_of_the_peak(kind, method, batch, length, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", PEAK, kind, method, str(batch), str(length), str(tmp_path)], capture_output=True,
                          text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    told, peak, said = json.loads(done.stdout)
    assert 0.65 * peak <= told <= 1.35 * peak, f"told {told / MIB:.0f} MiB ({said}), measured {peak / MIB:.0f} MiB"


def bert(**changes):
    given = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig.from_dict({**given, **changes}))


def test_layers_with_gradients():
    model = bert()
    assert layers_with_gradients(model) == (4, 4)
    freeze_layers(model, 3)
    assert layers_with_gradients(model) == (1, 4)
    model.requires_grad_(True)
    freeze(model, ["*embeddings*"])
    assert layers_with_gradients(model) == (4, 4)
    head_only(model)
    assert layers_with_gradients(model) == (0, 4)


def test_activations_by_formula():
    """N tokens, H = 32, I = 64: a layer has 4 N (6.5 H + 1.2 I) bytes; one layer's worth without gradients."""
    model, one = bert(), 4 * 100 * (6.5 * 32 + 1.2 * 64)
    assert activation_bytes(model, 100) == int(4 * one)
    head_only(model)
    assert activation_bytes(model, 100) == int(one)
    assert activation_bytes(model, 100, to_inputs=True) == int(4 * one)
    model.requires_grad_(True).gradient_checkpointing_enable()
    assert activation_bytes(model, 100) == int(one + 4 * 4 * 100 * 32)


def test_weights_are_counted_as_stored():
    from bpnn.finetune import store_frozen

    model = bert(tie_word_embeddings=True)
    numbers = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert weight_bytes(model) == 4 * numbers + buffers
    maps = [m.weight.numel() for name, m in model.named_modules() if isinstance(m, bpnn.nn.Linear) and "encoder" in name]
    before = weight_bytes(model)
    tables = [m.weight.numel() for m in model.modules() if isinstance(m, bpnn.nn.Embedding)]
    after = weight_bytes(store_frozen(model, "bfloat16"))
    assert before - 2 * (sum(maps) + sum(tables) + 32 * 32) <= after <= before - 2 * sum(maps)  # half of what is stored


def test_trained_weights_cost_more():
    model = bert()
    whole = estimate_memory(model, 100, copies=1)
    trained = 4 * sum(p.numel() for p in model.parameters())
    assert (whole.gradients, whole.optimizer, whole.copies) == (trained, 2 * trained, trained)
    head_only(model)
    assert estimate_memory(model, 100).gradients < whole.gradients / 10
    assert estimate_memory(model, 100, passes=2).activations == 2 * estimate_memory(model, 100).activations


def test_texts():
    memory = Memory(64 * MIB, 0, 87 * MIB, 87 * MIB, 2 * 87 * MIB, 0, 700 * MIB)
    assert str(memory) == ("about 1.1 GiB: interpreter 64 MiB, weights 87 MiB, gradients 87 MiB, optimizer 174 MiB, "
                           "activations 700 MiB")
    assert [size(x * MIB) for x in (0.2, 999, 1536)] == ["0 MiB", "999 MiB", "1.5 GiB"]
    assert [duration(x) for x in (3.4, 89, 100, 5400, 7500)] == ["3 s", "89 s", "2 min", "1 h 30 min", "2 h 5 min"]


# --- what there is ---------------------------------------------------------------------------------------------------------


def system(root, meminfo=None, cgroup=None, **files):
    (root / "proc" / "self").mkdir(parents=True)
    if meminfo is not None:
        (root / "proc" / "meminfo").write_text(meminfo)
    if cgroup is not None:
        (root / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("_in_bytes", ".in_bytes")
        path = path.with_name(path.name.replace("memory_", "memory."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(content))
    return str(root)


MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"


def test_available_is_what_the_system_says(tmp_path):
    assert available_memory(system(tmp_path, MEMINFO)) == 8000 * 1024


def test_control_groups_limit_it(tmp_path):
    """Version 2: the limit of this group or of one above it, less what is used, but for pages of files that may go."""
    root = system(
        tmp_path, MEMINFO, "0::/jobs/mine\n", jobs__memory_max=5_000_000, jobs__memory_current=3_000_000,
        jobs__memory_stat="anon 1\ninactive_file 500000\n", jobs__mine__memory_max="max\n", jobs__mine__memory_current=1000,
    )
    assert available_memory(root) == 2_500_000


def test_control_groups_of_version_1(tmp_path):
    root = system(tmp_path, MEMINFO, "5:cpu,memory:/\n3:pids:/x\n")
    folder = tmp_path / "sys" / "fs" / "cgroup" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("6000000\n")
    (folder / "memory.usage_in_bytes").write_text("7000000\n")
    (folder / "memory.stat").write_text("total_inactive_file 3000000\n")
    assert available_memory(root) == 2_000_000
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # no limit
    assert available_memory(root) == 8000 * 1024


def test_never_below_zero_nor_without_an_answer(tmp_path):
    root = system(tmp_path / "a", MEMINFO, "0::/\n", memory_max=1000, memory_current=2000)
    assert available_memory(root) == 0
    other = available_memory(system(tmp_path / "b"))
    assert other is None or other > 0


def test_time_is_told_once_from_the_runs_own_steps():
    from bpnn.train import Trainer

    model = bpnn.nn.Linear(2, 1)
    said = []
    trainer = Trainer(model, bpnn.optim.SGD(model.parameters(), 0.1), bpnn.nn.MSELoss(), callbacks=[TimeEstimate(3, said.append)])
    data = [(bpnn.ones(4, 2), bpnn.ones(4, 1))] * 8
    trainer.fit(data, data[:2], epochs=2)
    assert len(said) == 1 and said[0].startswith("time   about ") and said[0].endswith(" ms a step")
    with pytest.raises(ValueError, match="steps: expected at least 2, got 1"):
        TimeEstimate(1)

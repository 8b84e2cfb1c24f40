"""ViT-B/16 fine-tuned: one step of AdamW, images of 224 × 224, 8 at a time. transformers' own model with PyTorch's fused AdamW."""
import numpy as np
from harness import Absent, Rate
from rivals import drawn, pytorch, training

LABELS, BATCH = 1000, 8
E, L, T, WIDE = 768, 12, 197, 3072
# Products of a step: forward, and twice that in backward; attention's scores and values among them. bpnn leaves out 7 % of them:
# what the last layer makes of the patches, at which the classifier does not look.
FLOP = 3 * 2 * BATCH * (L * (T * (4 * E * E + 2 * E * WIDE) + 2 * T * T * E) + 196 * 768 * E)


def batch(inputs, lib):
    return lib.from_numpy(inputs["pixels"]), lib.from_numpy(inputs["labels"])


def weights(name, shape):
    """The same starting values in both libraries, from the parameter's name."""
    return drawn(name, shape, ["layernorm"])


def bpnn_job(inputs):
    import bpnn
    from bpnn.models.vit import ViTConfig, ViTForImageClassification

    config = ViTConfig.from_dict({"num_labels": LABELS})
    with bpnn.nn.init.skip_init():
        model = ViTForImageClassification(config)
    model.load_state_dict({name: bpnn.from_numpy(weights(name, p.shape)) for name, p in model.named_parameters()})
    optimizer = bpnn.optim.AdamW(model.parameters(), lr=1e-4)
    x, y = batch(inputs, bpnn)
    return training(optimizer, lambda: model(x, labels=y).loss)


def torch_job(inputs):
    torch = pytorch("PyTorch")[0]
    try:
        from transformers import ViTConfig, ViTForImageClassification
    except ImportError as missing:
        raise Absent(str(missing)) from missing
    model = ViTForImageClassification(ViTConfig(num_labels=LABELS, attn_implementation="sdpa")).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights(on_disk(name), tuple(parameter.shape))))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x, y = batch(inputs, torch)
    return training(optimizer, lambda: model(x, labels=y).loss)


def on_disk(name):
    """A parameter's name in files, of its name in transformers 5."""
    for own, file in (
        ("vit.layers.", "vit.encoder.layer."), (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."), (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."), (".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense."),
    ):
        name = name.replace(own, file)
    return name


def test_vit(race, peak):
    rng = np.random.default_rng(0)
    inputs = {
        "pixels": rng.standard_normal((BATCH, 3, 224, 224), np.float32), "labels": rng.integers(0, LABELS, BATCH),
    }
    race(
        "ViT-B/16, batch 8, AdamW", {"bpnn": bpnn_job, "PyTorch": torch_job}, inputs=inputs, bars={"PyTorch": 1.15},
        rate=Rate(FLOP / 1e9, "GFLOP/s", peak), rounds=5, seconds=3, rtol=1e-3, atol=1e-4,
    )

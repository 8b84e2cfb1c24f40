"""Convolutional networks: training steps with their peak memory, a block forward and backward, inference of one image."""
import numpy as np
import pytest
from harness import Absent, Job
from rivals import COMPILED, COMPILED_LAST, LAST, NCHW, compiled_by, contenders, pytorch, same

MEMORY = 1.25  # PyTorch takes at least so many times the memory: ours is at most 0.8 of it
TRAINED = (NCHW, LAST, COMPILED_LAST)

# title → (network, images of a batch, classes, optimizer, the bar)
STEPS = {
    "LeNet-5, batch 64, Adam": ("lenet5", (64, 1, 28, 28), 10, "Adam", 3.0),
    "ResNet-20, batch 128 of 32×32, SGD with momentum": ("resnet20", (128, 3, 32, 32), 10, "SGD", 1.4),
    "ResNet-18, batch 16 of 64×64, SGD with momentum": ("resnet18", (16, 3, 64, 64), 1000, "SGD", 1.1),
}
# A small rate: one relu that a rounding error turns on or off changes a gradient by a thousandth, and what comes of it grows.
OPTIMIZERS = {"Adam": {"lr": 1e-3}, "SGD": {"lr": 1e-3, "momentum": 0.9}}


def build(lib, network):
    """The network of either library."""
    if lib.__name__ == "torch":
        from torch_networks import NETWORKS

        return NETWORKS[network]()
    if network == "inverted_residual":
        from bpnn.models.mobilenet import InvertedResidual

        return InvertedResidual(32, 32, 1, 6)
    return getattr(lib.models, network)()


def weights(network):
    """Initial weights by name, those of bpnn's network."""
    import bpnn

    bpnn.random.manual_seed(0)
    return {name: value.numpy() for name, value in build(bpnn, network).state_dict().items()}


def loaded(lib, inputs, network):
    model = build(lib, network)
    model.load_state_dict({name: lib.from_numpy(value) for name, value in inputs.items() if name not in ("x", "y", "dy")})
    return model


# Training ------------------------------------------------------------------------------------------------------------


def training_job(lib, inputs, network, optimizer, place=same, compiled=same):
    """The names are the same in both libraries, and so is this job."""
    model = place(loaded(lib, inputs, network))
    update = getattr(lib.optim, optimizer)(model.parameters(), fused=True, **OPTIMIZERS[optimizer])
    batches = [(place(lib.from_numpy(x)), lib.from_numpy(y)) for x, y in zip(inputs["x"], inputs["y"], strict=True)]
    compute_loss = compiled(lambda x, y: lib.nn.functional.cross_entropy(model(x), y))
    if compiled is not same:
        compiled_by(lambda: compute_loss(*batches[0]).backward())
    state = {"next": 0}

    def step():
        x, y = batches[state["next"]]
        state["next"] = (state["next"] + 1) % len(batches)
        update.zero_grad(set_to_none=True)
        loss = compute_loss(x, y)
        loss.backward()
        update.step()
        return loss

    return Job(step, result=lambda loss: {"loss": loss.item()})


def bpnn_training(inputs, **options):
    import bpnn

    return training_job(bpnn, inputs, **options)


def torch_training(inputs, how, **options):
    torch, place, compiled = pytorch(how)
    return training_job(torch, inputs, place=place, compiled=compiled, **options)


@pytest.mark.parametrize("title", STEPS)
def test_step(race, title):
    network, shape, classes, optimizer, bar = STEPS[title]
    rng = np.random.default_rng(0)
    batches = {"x": rng.standard_normal((4, *shape), np.float32), "y": rng.integers(0, classes, (4, shape[0]))}
    race(
        title, contenders(bpnn_training, torch_training, TRAINED, network=network, optimizer=optimizer),
        inputs=weights(network) | batches, bars={"PyTorch": bar}, memory_bar=MEMORY, seconds=0.3, rtol=2e-3,
    )


# A block -------------------------------------------------------------------------------------------------------------


def block_job(lib, inputs, place=same, compiled=same):
    model = place(loaded(lib, inputs, "inverted_residual"))
    x, dy = (place(lib.from_numpy(inputs[name])) for name in ("x", "dy"))
    x.requires_grad_()
    call = compiled(model)
    if compiled is not same:
        compiled_by(lambda: call(x).backward(dy))
    tensors = [x, *model.parameters()]

    def step():
        for tensor in tensors:
            tensor.grad = None
        y = call(x)
        y.backward(dy)
        return y

    def result(y):
        last = model.conv[2].weight.grad.numpy()
        return {"y": y.detach().numpy()[[0, -1]], "dx": x.grad.numpy()[[0, -1]], "dw": last / np.sqrt(np.square(last).mean())}

    return Job(step, result)


def bpnn_block(inputs):
    import bpnn

    return block_job(bpnn, inputs)


def torch_block(inputs, how):
    torch, place, compiled = pytorch(how)
    return block_job(torch, inputs, place, compiled)


def test_inverted_residual(race):
    rng = np.random.default_rng(0)
    batch = {name: rng.standard_normal((64, 32, 32, 32), np.float32) for name in ("x", "dy")}
    race(
        "inverted residual 32→192→32, 64×32×32, forward and backward", contenders(bpnn_block, torch_block, TRAINED),
        inputs=weights("inverted_residual") | batch, bars={"PyTorch": 1.5}, memory_bar=MEMORY, seconds=0.3, rtol=1e-2, atol=1e-2,
    )


# Inference -----------------------------------------------------------------------------------------------------------

FROZEN = "PyTorch frozen"
INFERRED = (NCHW, LAST, COMPILED, COMPILED_LAST, FROZEN)


def bpnn_inference(inputs, network):
    import bpnn

    model, x = bpnn.nn.utils.fuse_conv_bn(loaded(bpnn, inputs, network).eval()), bpnn.from_numpy(inputs["x"])

    def step():
        with bpnn.no_grad():
            return model(x)

    return Job(step, result=lambda y: {"y": y.numpy()})


def torch_inference(inputs, network, how):
    torch, place, compiled = pytorch(how)
    from torch_networks import folded, frozen

    model, x = place(folded(loaded(torch, inputs, network))), place(torch.from_numpy(inputs["x"]))
    if how == FROZEN:
        try:
            model = frozen(model, x)
        except Exception as error:
            raise Absent(f"TorchScript does not work here: {error}") from error
    if compiled is not same:
        import torch._inductor.config

        torch._inductor.config.freezing = True
        model = compiled(model)

    def step():
        with torch.inference_mode():
            return model(x)

    if compiled is not same:
        compiled_by(step)
    return Job(step, result=lambda y: {"y": y.numpy()})


@pytest.mark.parametrize(("title", "network", "shape"), [
    ("LeNet-5", "lenet5", (1, 1, 28, 28)),
    ("ResNet-20", "resnet20", (1, 3, 32, 32)),
])
def test_inference(race, title, network, shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    race(
        f"{title}, inference of one image", contenders(bpnn_inference, torch_inference, INFERRED, network=network),
        inputs=weights(network) | {"x": x}, bars={"PyTorch": 3.0}, seconds=0.2, rtol=1e-3, atol=1e-4,
    )

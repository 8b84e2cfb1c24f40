"""What the options of a command name: models, activations, optimizers, schedules. A new one is one line in its table."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bpnn import nn, optim
from bpnn.optim import lr_scheduler as schedules

from .errors import CliError

ACTIVATIONS: dict[str, Callable[[], Any]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def mlp(size: tuple[int, int], classes: int, options: Any) -> Any:
    """Linear layers with an activation and dropout between; input (N, height · width)."""
    width, layers = size[0] * size[1], []
    for hidden in options.layers:
        layers += [nn.Linear(width, hidden), ACTIVATIONS[options.activation]()]
        layers += [nn.Dropout(options.dropout)] if options.dropout else []
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, classes))


def lenet5(size: tuple[int, int], classes: int, options: Any) -> Any:
    """LeNet-5; input (N, 1, 28, 28)."""
    from bpnn import models

    return models.lenet5(num_classes=classes)


def resnet20(size: tuple[int, int], classes: int, options: Any) -> Any:
    """ResNet-20; input (N, 1, height, width)."""
    from bpnn import models

    return models.resnet20(num_classes=classes, in_channels=1)


# Each builds from the size of an image, the number of classes and the options.
MODELS: dict[str, Callable[[tuple[int, int], int, Any], Any]] = {"mlp": mlp, "lenet5": lenet5, "resnet20": resnet20}

# What an option is where the command does not say it. Chosen on the validation images of MNIST.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mlp": {"optimizer": "adam", "weight_decay": 0.0, "epochs": 10, "batch_size": 64, "augment": False,
            "layers": [500], "activation": "relu", "dropout": 0.2},
    "lenet5": {"optimizer": "adam", "lr": 3e-3, "weight_decay": 0.0, "epochs": 8, "batch_size": 64, "augment": True},
    "resnet20": {"optimizer": "nesterov", "weight_decay": 5e-4, "epochs": 8, "batch_size": 128, "augment": True},
}  # fmt: skip


def check_size(model: str, size: tuple[int, int]) -> None:
    """`CliError` for images that a model cannot take."""
    if model == "lenet5" and size != (28, 28):
        raise CliError(f"--model lenet5: expected images of 28 × 28, got {size[0]} × {size[1]}; resnet20 takes any")


def sample_shape(model: str, size: tuple[int, int]) -> tuple[int, ...]:
    """The form in which a model takes an image: a row for "mlp", else (1, height, width)."""
    return (size[0] * size[1],) if model == "mlp" else (1, *size)


def describe_model(size: tuple[int, int], classes: int, options: Any) -> tuple[str, str]:
    """(a short name, what else a person may want to know): `784-500-10` and its activation and dropout, or `lenet5`."""
    if options.model != "mlp":
        return options.model, ""
    widths = "-".join(map(str, [size[0] * size[1], *options.layers, classes]))
    return widths, f" {options.activation}, dropout {options.dropout:g}"


def augmentation(shape: tuple[int, ...], size: tuple[int, int]) -> Any:
    """Digits a little turned, moved, scaled and sheared, each in its own way; from and to batches (N, *shape)."""
    from bpnn import transforms

    affine = transforms.RandomAffine(10, (0.08, 0.08), (0.9, 1.1), 5, "bilinear")
    if shape == (1, *size):
        return affine
    return transforms.Compose([lambda x: x.reshape(-1, 1, *size), affine, lambda x: x.reshape(-1, *shape)])

Parameters = Iterable[Any]
OPTIMIZERS: dict[str, Callable[[Parameters, Any], Any]] = {
    "sgd": lambda p, o: optim.SGD(p, o.lr, momentum=o.momentum, weight_decay=o.weight_decay),
    "nesterov": lambda p, o: optim.SGD(p, o.lr, momentum=o.momentum, weight_decay=o.weight_decay, nesterov=True),
    "adam": lambda p, o: optim.Adam(p, o.lr, weight_decay=o.weight_decay),
    "adamw": lambda p, o: optim.AdamW(p, o.lr, weight_decay=o.weight_decay),
    "rmsprop": lambda p, o: optim.RMSprop(p, o.lr, weight_decay=o.weight_decay),
    "adagrad": lambda p, o: optim.Adagrad(p, o.lr, weight_decay=o.weight_decay),
    "adadelta": lambda p, o: optim.Adadelta(p, o.lr, weight_decay=o.weight_decay),
}
LEARNING_RATES = {
    "sgd": 0.1, "nesterov": 0.1, "adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3, "adagrad": 1e-2, "adadelta": 1.0,
}  # fmt: skip


def _one_cycle(optimizer: Any, o: Any, steps: int, epoch: int) -> Any:
    """Up to the learning rate and down to almost none: Smith and Topin, 2017."""
    rise = o.warmup / o.epochs if o.warmup else 0.3
    return schedules.OneCycleLR(optimizer, max_lr=o.lr, total_steps=steps, pct_start=rise)


# Each builds from the optimizer, the options, the number of steps it covers and the steps of an epoch; it is stepped after
# every step, but for "plateau", which is stepped after every epoch.
SCHEDULES: dict[str, Callable[[Any, Any, int, int], Any]] = {
    "none": lambda opt, o, steps, epoch: schedules.ConstantLR(opt, factor=1.0, total_iters=0),
    "linear": lambda opt, o, steps, epoch: schedules.LinearLR(opt, 1.0, 0.0, total_iters=steps),
    "cosine": lambda opt, o, steps, epoch: schedules.CosineAnnealingLR(opt, steps),
    "onecycle": _one_cycle,
    "step": lambda opt, o, steps, epoch: schedules.StepLR(opt, o.step_size * epoch, o.gamma),
    "exponential": lambda opt, o, steps, epoch: schedules.ExponentialLR(opt, o.gamma ** (1 / epoch)),
    "plateau": lambda opt, o, steps, epoch: schedules.ReduceLROnPlateau(opt, factor=o.gamma, patience=o.step_size),
}
GAMMAS = {"step": 0.1, "exponential": 0.9, "plateau": 0.5}


def make_schedule(optimizer: Any, options: Any, epoch: int) -> Any:
    """The scheduler for steps of `epoch` steps an epoch, after a linear warm-up where the options want one."""
    steps, warm = max(options.epochs * epoch, 1), round(options.warmup * epoch)
    build = SCHEDULES[options.schedule]
    if not warm or options.schedule == "onecycle":
        return build(optimizer, options, steps, epoch)
    if options.schedule == "plateau":
        raise CliError("--warmup: cannot be combined with --schedule plateau")
    rise = schedules.LinearLR(optimizer, 1 / (warm + 1), 1.0, total_iters=warm)
    after = build(optimizer, options, max(steps - warm, 1), epoch)
    return schedules.SequentialLR(optimizer, [rise, after], milestones=[warm])

"""The networks of bpnn.models that are raced, written in PyTorch with the same names of parameters and with relu in place."""
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

relu = partial(F.relu, inplace=True)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(relu(self.conv1(x)), 2)
        x = F.max_pool2d(relu(self.conv2(x)), 2)
        return self.fc3(relu(self.fc2(relu(self.fc1(x.flatten(1))))))


class Subsample(nn.Module):
    """The shortcut without parameters: every second place, zeros for the new channels."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.more = (outputs - inputs) // 2

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more, self.more))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, downsample):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = downsample

    def forward(self, x):
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y.add_(x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Stages of twice the channels each. pool: a 7 × 7 convolution and max-pooling first, shortcuts by 1 × 1 convolutions."""

    def __init__(self, widths, count, classes, pool):
        super().__init__()
        first = widths[0]
        self.conv1 = nn.Conv2d(3, first, 7, 2, 3, bias=False) if pool else nn.Conv2d(3, first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.pool = pool
        inputs, stages = first, []
        for index, width in enumerate(widths):
            shortcut = None
            if index:
                projection = nn.Sequential(nn.Conv2d(inputs, width, 1, 2, bias=False), nn.BatchNorm2d(width)) if pool else None
                shortcut = projection or Subsample(inputs, width)
            blocks = [Block(inputs, width, 2 if index else 1, shortcut), *(Block(width, width, 1, None) for _ in range(count - 1))]
            stages.append(f"layer{index + 1}")
            self.add_module(stages[-1], nn.Sequential(*blocks))
            inputs = width
        self.stages = stages
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)))
        if self.pool:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        self.conv = nn.Sequential(
            self.part(inputs, hidden, 1), self.part(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    @staticmethod
    def part(inputs, outputs, kernel, stride=1, groups=1):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))

    def forward(self, x):
        y = self.conv(x)
        return y.add_(x) if self.shortcut else y


NETWORKS = {
    "lenet5": LeNet5,
    "resnet20": lambda: ResNet((16, 32, 64), 3, 10, pool=False),
    "resnet18": lambda: ResNet((64, 128, 256, 512), 2, 1000, pool=True),
    "inverted_residual": lambda: InvertedResidual(32, 32, 1, 6),
}


def folded(model):
    """A copy for inference: every batch-norm that follows a convolution is folded into it."""
    from torch.fx.experimental.optimization import fuse

    return fuse(model.eval())


def frozen(model, example):
    """TorchScript's form for inference, with the weights in oneDNN's layouts."""
    with torch.no_grad():
        return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model.eval(), example)))

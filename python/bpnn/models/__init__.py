"""Networks under torchvision's names, with its parameter names: its files of weights, saved as safetensors, load as they are.

    model = bpnn.models.resnet18(num_classes=10)                      # starting values as in torchvision
    model = bpnn.models.resnet18(weights="resnet18.safetensors")      # every name and shape must fit
"""
from .alexnet import AlexNet, alexnet
from .lenet import LeNet5, lenet5
from .mobilenet import MobileNetV2, mobilenet_v2
from .resnet import ResNet, SmallResNet, resnet18, resnet20, resnet34, resnet50
from .vgg import VGG, vgg11, vgg16

__all__ = [
    "AlexNet", "LeNet5", "MobileNetV2", "ResNet", "SmallResNet", "VGG", "alexnet", "lenet5", "mobilenet_v2", "resnet18",
    "resnet20", "resnet34", "resnet50", "vgg11", "vgg16",
]

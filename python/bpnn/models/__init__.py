"""Networks under the names that the world has for them, with the parameter names of its files.

torchvision's: its files of weights, saved as safetensors, load as they are.

    model = bpnn.models.resnet18(num_classes=10)                      # starting values as in torchvision
    model = bpnn.models.resnet18(weights="resnet18.safetensors")      # every name and shape must fit

Those of `transformers`: Hugging Face's folders and hub names, GGUF files. They are imported when they are first asked for.

    model = bpnn.models.AutoModelForCausalLM.from_pretrained("folder")
    model = bpnn.models.BertForSequenceClassification.from_pretrained("folder", num_labels=3)
"""
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .alexnet import AlexNet, alexnet
from .lenet import LeNet5, lenet5
from .mobilenet import MobileNetV2, mobilenet_v2
from .resnet import ResNet, SmallResNet, resnet18, resnet20, resnet34, resnet50
from .vgg import VGG, vgg11, vgg16

if _TYPE_CHECKING:
    from ._cache import KeyValueCache
    from .auto import (
        AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM,
        AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoModelForTokenClassification,
    )
    from .bert import (
        BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, BertModel,
    )
    from .distilbert import (
        DistilBertConfig, DistilBertForMaskedLM, DistilBertForQuestionAnswering, DistilBertForSequenceClassification,
        DistilBertForTokenClassification, DistilBertModel,
    )
    from .generation import GenerationConfig, TextStream, TextStreamer
    from .gpt2 import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model
    from .image_processing import AutoImageProcessor, ViTImageProcessor
    from .llama import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
    from .mistral import MistralConfig, MistralForCausalLM, MistralForSequenceClassification, MistralModel
    from .qwen2 import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification, Qwen2Model
    from .roberta import (
        RobertaConfig, RobertaForMaskedLM, RobertaForQuestionAnswering, RobertaForSequenceClassification,
        RobertaForTokenClassification, RobertaModel,
    )
    from .sentence import SentenceEncoder
    from .transformer import TransformerConfig, TransformerForConditionalGeneration, TransformerModel
    from .vit import ViTConfig, ViTForImageClassification, ViTModel

# The file of this folder that has a name which importing the package does not pay for
_PLACES = {
    "_cache": ("KeyValueCache",),
    "auto": (
        "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageClassification", "AutoModelForMaskedLM",
        "AutoModelForQuestionAnswering", "AutoModelForSequenceClassification", "AutoModelForTokenClassification",
    ),
    "bert": (
        "BertConfig", "BertForMaskedLM", "BertForQuestionAnswering", "BertForSequenceClassification",
        "BertForTokenClassification", "BertModel",
    ),
    "distilbert": (
        "DistilBertConfig", "DistilBertForMaskedLM", "DistilBertForQuestionAnswering", "DistilBertForSequenceClassification",
        "DistilBertForTokenClassification", "DistilBertModel",
    ),
    "generation": ("GenerationConfig", "TextStream", "TextStreamer"),
    "gpt2": ("GPT2Config", "GPT2ForSequenceClassification", "GPT2LMHeadModel", "GPT2Model"),
    "image_processing": ("AutoImageProcessor", "ViTImageProcessor"),
    "llama": ("LlamaConfig", "LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaModel"),
    "mistral": ("MistralConfig", "MistralForCausalLM", "MistralForSequenceClassification", "MistralModel"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", "Qwen2Model"),
    "roberta": (
        "RobertaConfig", "RobertaForMaskedLM", "RobertaForQuestionAnswering", "RobertaForSequenceClassification",
        "RobertaForTokenClassification", "RobertaModel",
    ),
    "sentence": ("SentenceEncoder",),
    "transformer": ("TransformerConfig", "TransformerForConditionalGeneration", "TransformerModel"),
    "vit": ("ViTConfig", "ViTForImageClassification", "ViTModel"),
}
_LATER = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "AlexNet", "LeNet5", "MobileNetV2", "ResNet", "SmallResNet", "VGG", "alexnet", "lenet5", "mobilenet_v2", "resnet18",
    "resnet20", "resnet34", "resnet50", "vgg11", "vgg16", *_LATER,
]


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module 'bpnn.models' has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = getattr(import_module(f"bpnn.models.{_LATER[name]}"), name)
    return globals()[name]


def __dir__():
    return sorted({*globals(), *_LATER})

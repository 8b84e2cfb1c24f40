"""Labels of images: what the model sees, augmentation, networks by name and their files."""
import numpy as np
import pytest
from task_models import again, options

import bpnn
from bpnn.data import DataError
from bpnn.data.tables import read_images
from bpnn.finetune import head_only
from bpnn.finetune.tasks._convolutional import (
    NAMES, ConvolutionalClassifier, ConvolutionalConfig, architecture_of, is_convolutional, usual_settings,
)
from bpnn.finetune.tasks.image import ClassifyImages
from bpnn.models import ViTConfig, ViTForImageClassification
from bpnn.train import Trainer

Image = pytest.importorskip("PIL.Image")
COLORS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of three colors, of several sizes and forms."""
    path, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for c, color in enumerate(COLORS):
        (path / color).mkdir()
        for i in range(8):
            pixels = rng.integers(0, 80, (30 + 3 * i, 50 - i, 3)).astype(np.uint8)
            pixels[..., 2 - c] += 150
            Image.fromarray(pixels).save(path / color / f"{i}.png")
    return path


def vit(folder, **changes):
    bpnn.manual_seed(2)
    ViTForImageClassification(ViTConfig.from_dict({
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 16,
        "patch_size": 8, **changes,
    })).save_pretrained(folder)
    return folder


def made(model, data, **settings):
    task = ClassifyImages(options(**settings))
    parts = read_images(data, validation_share=0.25, test_share=0.0)
    examples = task.read(parts)
    return task, task.load_model(model), examples


def test_what_the_model_sees(tmp_path, folder):
    """Resized, divided by 255, normalized: as the processor alone does it."""
    task, model, examples = made(vit(tmp_path), folder)
    assert task.labels == list(COLORS) and model.config.id2label == dict(enumerate(COLORS))
    data = task.dataset(examples["train"])
    batch = task.collate([data[0], data[5]])
    assert batch["pixel_values"].shape == (2, 3, 16, 16) and batch["pixel_values"].dtype == np.float32
    for i, row in zip((0, 5), batch["pixel_values"]):
        with Image.open(examples["train"][i].path) as image:
            np.testing.assert_allclose(row, task.processor(image, return_tensors="np").pixel_values[0], atol=1e-6)
    assert batch["labels"].tolist() == [COLORS.index(examples["train"][i].label) for i in (0, 5)]
    assert data[0]["pixels"] is data[0]["pixels"]  # decoded once


def test_augmentation(tmp_path, folder):
    """Other crops at each reading, a function of the seed; none in validation or where it is not asked for."""
    task, _, examples = made(vit(tmp_path), folder, augment=True)
    data, held = task.dataset(examples["train"], train=True), task.dataset(examples["train"])
    items = [data[i] for i in range(4)]
    bpnn.manual_seed(4)
    one, other = (task.collate(items)["pixel_values"] for _ in range(2))
    bpnn.manual_seed(4)
    np.testing.assert_array_equal(task.collate(items)["pixel_values"], one)
    assert one.shape == (4, 3, 16, 16) and (one != other).any()
    np.testing.assert_array_equal(*(task.collate([held[0]])["pixel_values"] for _ in range(2)))
    plain = made(vit(tmp_path), folder)[0]
    assert not plain.dataset(examples["train"], train=True)[0]["augmented"]


def test_outputs_and_files(tmp_path, folder):
    task, model, examples = made(vit(tmp_path / "base"), folder)
    data = task.dataset(examples["train"])
    outputs = task.outputs(model, data, 5)
    for i, item in enumerate(data[j] for j in range(3)):
        one = model(task.collate([item])["pixel_values"]).logits.detach().numpy()[0]
        np.testing.assert_allclose(outputs[i], one, atol=1e-5)
    scores = task.scores(outputs, examples["train"])
    assert scores["images"] == 18 and np.sum(scores["confusion_matrix"]) == 18 and "top5_accuracy" not in scores
    worst = task.worst(outputs, examples["train"], 2)
    assert worst[0]["loss"] >= worst[1]["loss"] and worst[0]["image"].endswith(".png")
    restored, loaded = again(task, model, tmp_path / "saved")
    np.testing.assert_array_equal(restored.outputs(loaded, restored.dataset(examples["train"]), 5), outputs)
    one = task.example(examples["train"][0].path)
    said = task.predictions(task.outputs(model, task.dataset([one])), [one])[0]
    assert said["label"] == COLORS[int(outputs[0].argmax())]


def test_top5(tmp_path):
    task = ClassifyImages(options(labels=list("abcdefg")))
    assert [metric.name for metric in task.metrics()] == ["accuracy", "top5_accuracy"]


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "mobilenet_v2"])
def test_networks_by_name(tmp_path, folder, name):
    with pytest.warns(UserWarning, match=f"{name}: a name alone has no weights"):
        task, model, examples = made(name, folder)
    channels, side = (1, 28) if name == "lenet5" else (3, 32 if name == "resnet20" else 224)
    assert task.processor.channels == channels and task.side == (side, side)
    some = examples["train"][:3]
    data = task.dataset(some)
    batch = task.collate([data[i] for i in range(3)])
    assert batch["pixel_values"].shape == (3, channels, side, side)
    output = model(**batch)
    logits = output.logits.detach().numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(output.loss.item(), -np.log(shares[range(3), batch["labels"]]).mean(), rtol=1e-4)
    outputs = task.outputs(model, data, 2)
    restored, loaded = again(task, model, tmp_path / "saved")
    np.testing.assert_array_equal(restored.outputs(loaded, restored.dataset(some), 2), outputs)
    # the file has the names that `bpnn.models` and torchvision have
    same = getattr(bpnn.models, name)(weights=tmp_path / "saved" / "model.safetensors", num_classes=3, in_channels=channels)
    said = same.eval()(bpnn.from_numpy(batch["pixel_values"])).detach().numpy()
    np.testing.assert_array_equal(said, loaded(batch["pixel_values"]).logits.detach().numpy())
    head = head_only(model)
    assert len(head) == 2 and all(key.startswith(f"network.{model.head}.") for key in head)


def test_weights_of_other_classes(tmp_path, folder):
    """A file with torchvision's names, for ten classes: all but the head is read."""
    bpnn.manual_seed(9)
    file = tmp_path / "lenet5-ten.safetensors"
    before = bpnn.models.lenet5(num_classes=10)
    bpnn.save(before.state_dict(), file)
    task, model, _ = made(str(file), folder)
    assert model.network.fc3.weight.shape == (3, 84) and task.processor.channels == 1
    for key in ("conv1.weight", "fc2.bias"):
        np.testing.assert_array_equal(model.network.state_dict()[key].numpy(), before.state_dict()[key].numpy())
    other = tmp_path / "resnet20-wrong.safetensors"
    bpnn.save(before.state_dict(), other)
    with pytest.raises(RuntimeError, match=r"does not fit resnet20: .*unexpected: conv1\.bias"):
        made(str(other), folder)


def test_names():
    assert architecture_of("/x/resnet50-0676ba61.safetensors") == "resnet50" and architecture_of("resnet501") == ""
    assert architecture_of("RESNET18") == "resnet18" and architecture_of("vit-base") == ""
    assert is_convolutional("vgg11") and is_convolutional("/x/vgg11-8a719046.safetensors")
    assert not is_convolutional("google/vit") and not is_convolutional("timm/resnet18.a1_in1k")
    assert usual_settings(ConvolutionalConfig(architecture="lenet5", num_channels=1))["size"] == {"height": 28, "width": 28}
    assert all(hasattr(bpnn.models, name) for name in NAMES)
    with pytest.raises(ValueError, match="architecture: expected alexnet, .* got 'resnet99'"):
        ConvolutionalClassifier(ConvolutionalConfig(architecture="resnet99"))


def test_learns(tmp_path, folder):
    task, model, examples = made(vit(tmp_path), folder, augment=True)
    data, held = task.dataset(examples["train"], train=True), task.dataset(examples["validation"])
    trainer = Trainer(model, bpnn.optim.AdamW(model.parameters(), lr=3e-3), metrics=task.metrics())
    rows = trainer.fit(task.loader(data, 6, shuffle=True), task.loader(held, 6), epochs=5).rows
    assert rows[-1]["val_accuracy"] == 1.0 and rows[-1]["loss"] < rows[0]["loss"]


def test_errors(tmp_path, folder):
    task, _, _ = made(vit(tmp_path), folder)
    with pytest.raises(DataError, match=r"gone\.png: no such image"):
        task.example("gone.png")
    with pytest.raises(TypeError, match="inputs: expected the path of an image, got int"):
        task.example(4)
    with pytest.raises(DataError, match="label: expected one of blue, green, red, got 'pink'"):
        task.dataset([type(task.example(__file__))(__file__, "pink", "here")])

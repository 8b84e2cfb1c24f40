"""ViT: images of other sizes, attention both ways, what else it gives, its image processor."""
import json

import numpy as np
import pytest
from drawing import integers, uniform, weight

import bpnn
from bpnn.models import vit
from bpnn.models.image_processing import AutoImageProcessor, ViTImageProcessor
from bpnn.models.vit import ViTConfig, ViTForImageClassification, ViTModel

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 24, "patch_size": 8,
}
rivals = pytest.mark.rivals


def drawn(model):
    for name, parameter in model.state_dict(keep_vars=True).items():
        parameter.detach().copy_(bpnn.from_numpy(weight(name, tuple(parameter.shape)).astype(parameter.dtype)))
    return model


@pytest.fixture
def model():
    return drawn(ViTForImageClassification(ViTConfig.from_dict({**SIZES, "num_labels": 5})).double())


PIXELS = uniform("pixels", (3, 3, 24, 24))
LABELS = integers("labels", (3,), 0, 5)


def gradients(model, **given):
    model.zero_grad()
    output = model(PIXELS, LABELS, **given)
    output.loss.backward()
    return output.logits.detach().numpy(), {name: p.grad.numpy().copy() for name, p in model.named_parameters()}


def alike(got, want, tolerance=1e-12):
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=tolerance)
    for name, gradient in want[1].items():
        np.testing.assert_allclose(got[1][name], gradient, rtol=0, atol=tolerance, err_msg=name)


def test_patches_are_a_convolution(model):
    patches = model.vit.embeddings.patch_embeddings
    expected = patches.projection(bpnn.from_numpy(PIXELS)).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(patches(bpnn.from_numpy(PIXELS)).detach().numpy(), expected.detach().numpy(), atol=1e-14)


def test_joint_and_separate_maps(model, monkeypatch):
    """Query, key and value as one product or three; a step with stored activations or with computing them again."""
    want = gradients(model)
    monkeypatch.setattr(vit, "JOINT_ROWS", 1)
    alike(gradients(model), want)
    model.gradient_checkpointing_enable()
    alike(gradients(model.train()), want)


def test_the_class_token_alone(model):
    """The classifier computes the last layer for the class token alone: as if for all."""
    got, found = gradients(model)
    model.zero_grad()
    features = model.vit(PIXELS).last_hidden_state
    logits = model.classifier(features[:, 0])
    bpnn.nn.functional.cross_entropy(logits, bpnn.from_numpy(LABELS)).backward()
    alike((got, found), (logits.detach().numpy(), {name: p.grad.numpy() for name, p in model.named_parameters()}))


def test_what_it_gives(model):
    output = model(PIXELS, output_hidden_states=True, output_attentions=True)
    assert output.logits.shape == (3, 5) and output.loss is None
    assert [state.shape for state in output.hidden_states] == [(3, 10, 32)] * 3
    for seen in output.attentions:
        np.testing.assert_allclose(seen.detach().numpy().sum(-1), np.ones((3, 4, 10)), atol=1e-12)
    np.testing.assert_allclose(output.logits.detach().numpy(), model(PIXELS).logits.detach().numpy(), atol=1e-12)
    base = ViTModel(ViTConfig.from_dict({**SIZES, "pooler_output_size": 7}))(PIXELS)
    assert base.last_hidden_state.shape == (3, 10, 32) and base.pooler_output.shape == (3, 7)
    assert ViTModel(ViTConfig.from_dict(SIZES), add_pooling_layer=False)(PIXELS).pooler_output is None


def test_masked_patches():
    model = drawn(ViTModel(ViTConfig.from_dict(SIZES), use_mask_token=True).double())
    hidden = np.zeros((3, 9), bool)
    hidden[1, 4] = True
    got = model(PIXELS, hidden).last_hidden_state.detach().numpy()
    changed = PIXELS.copy()
    changed[1, :, 8:16, 8:16] += 1  # nobody sees this patch
    np.testing.assert_array_equal(model(changed, hidden).last_hidden_state.detach().numpy(), got)
    with pytest.raises(ValueError, match=r"bool_masked_pos: expected shape \(3, 9\), got \(3, 10\)"):
        model(PIXELS, np.zeros((3, 10), bool))


def test_bad_input(model):
    with pytest.raises(ValueError, match="pixel_values: expected images of 24 × 24, or interpolate_pos_encoding=True"):
        model(np.zeros((1, 3, 32, 24), np.float32))
    with pytest.raises(ValueError, match="pixel_values: expected 3 channels"):
        model(np.zeros((1, 1, 24, 24), np.float32))
    with pytest.raises(ValueError, match="pixel_values: expected shape"):
        model(np.zeros((3, 24, 24), np.float32))
    with pytest.raises(ValueError, match="hidden_act: expected one of"):
        ViTModel(ViTConfig.from_dict({**SIZES, "hidden_act": "snake"}))
    with pytest.raises(IndexError, match="labels"):
        model(PIXELS, [0, 5, 1])


def test_files(tmp_path, model):
    model.save_pretrained(tmp_path)
    again = ViTForImageClassification.from_pretrained(tmp_path, dtype=bpnn.float64)
    np.testing.assert_array_equal(again(PIXELS).logits.detach().numpy(), model.eval()(PIXELS).logits.detach().numpy())
    with pytest.warns(UserWarning, match=r"has no pooler\.dense"):
        base = ViTModel.from_pretrained(tmp_path, dtype=bpnn.float64)
    got = model.vit(PIXELS).last_hidden_state.detach().numpy()
    np.testing.assert_array_equal(base(PIXELS).last_hidden_state.detach().numpy(), got)


@rivals
def test_other_sizes(tmp_path):
    """Images of another size and shape, through both libraries, with gradients of the places."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.ViTConfig(**SIZES, num_labels=5)
    rival = transformers.ViTForImageClassification(config).double()
    with torch.no_grad():
        for parameter in rival.parameters():
            parameter.copy_(torch.from_numpy(weight(str(parameter.shape), tuple(parameter.shape))))
    rival.save_pretrained(tmp_path)
    model = ViTForImageClassification.from_pretrained(tmp_path, dtype=bpnn.float64)
    for size in ((40, 24), (16, 16), (24, 24), (33, 47)):
        pixels = uniform("more pixels", (2, 3, *size))
        rival.zero_grad()
        model.zero_grad()
        expected = rival(torch.from_numpy(pixels), labels=torch.tensor([1, 3]), interpolate_pos_encoding=True)
        got = model(pixels, [1, 3], interpolate_pos_encoding=True)
        expected.loss.backward()
        got.loss.backward()
        np.testing.assert_allclose(got.logits.detach().numpy(), expected.logits.detach().numpy(), rtol=0, atol=1e-10)
        places = rival.vit.embeddings.position_embeddings.grad.numpy()
        np.testing.assert_allclose(model.vit.embeddings.position_embeddings.grad.numpy(), places, rtol=0, atol=1e-10)


# --- pictures --------------------------------------------------------------------------------------------------------------------


def picture(height, width):
    return integers("picture", (height, width, 3), 0, 256).astype(np.uint8)


def test_processor(tmp_path):
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    settings = {"size": {"height": 12, "width": 16}, "image_mean": mean, "image_std": std, "resample": 2, "of_others": 1}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = ViTImageProcessor.from_pretrained(tmp_path)
    pixels = processor([picture(30, 20), picture(12, 16)]).pixel_values.numpy()
    assert pixels.shape == (2, 3, 12, 16) and pixels.dtype == np.float32
    expected = (picture(12, 16) / 255 - mean) / std
    np.testing.assert_allclose(pixels[1].transpose(1, 2, 0), expected, rtol=1e-5, atol=1e-6)
    for form in (picture(12, 16).transpose(2, 0, 1), bpnn.from_numpy(picture(12, 16)), picture(12, 16)[None]):
        np.testing.assert_array_equal(processor(form).pixel_values.numpy()[0], pixels[1])
    processor.save_pretrained(tmp_path / "copy")
    again = ViTImageProcessor.from_pretrained(tmp_path / "copy")
    assert again.settings["of_others"] == 1
    np.testing.assert_array_equal(again(picture(30, 20)).pixel_values.numpy()[0], pixels[0])


def test_processor_of_gray_and_transparent_pictures():
    processor, colours = ViTImageProcessor(size=8, image_mean=[0.1, 0.2, 0.3]), picture(9, 12)
    clear = np.concatenate([colours, picture(9, 12)[..., :1]], 2)
    want = processor(colours).pixel_values.numpy()
    for form in (clear, clear.transpose(2, 0, 1)):
        np.testing.assert_array_equal(processor(form).pixel_values.numpy(), want)
    gray = colours[..., 0]
    want = processor(np.stack([gray] * 3, -1)).pixel_values.numpy()
    for form in (gray, gray[None], gray[..., None], bpnn.from_numpy(gray)):
        np.testing.assert_array_equal(processor(form).pixel_values.numpy(), want)
    of_one = ViTImageProcessor(size=8, image_mean=[0.1], image_std=[1.0])
    assert of_one(gray).pixel_values.shape == (1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"images: expected 3 channels \(image_mean\), or gray, got .* \(5, 9, 12\)"):
        processor(np.zeros((5, 9, 12), np.uint8))


def test_processor_returns_tensors_or_arrays():
    processor = ViTImageProcessor(size=8)
    array = processor(picture(9, 12), return_tensors="np").pixel_values
    assert type(array) is np.ndarray
    for kind in (None, "bp"):
        found = processor(images=picture(9, 12), return_tensors=kind).pixel_values
        assert isinstance(found, bpnn.Tensor) and (found.numpy() == array).all()
    with pytest.raises(ValueError, match="return_tensors: expected 'np', 'bp' or None, got 'pt'"):
        processor(picture(9, 12), return_tensors="pt")


def test_processor_by_the_name_in_the_file(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"feature_extractor_type": "ViTFeatureExtractor", "size": 12}))
    processor = AutoImageProcessor.from_pretrained(tmp_path, resample=3)
    assert type(processor) is ViTImageProcessor and processor.size == (12, 12) and processor.settings["resample"] == 3
    path.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: image_processor_type is 'CLIPImageProcessor'; bpnn has ViT"):
        AutoImageProcessor.from_pretrained(tmp_path)


def test_processor_of_the_hub(tmp_path, monkeypatch):
    asked = []

    def resolve(name, **given):
        asked.append((name, given))
        return str(tmp_path)

    monkeypatch.setattr("bpnn.models.image_processing.resolve", resolve)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 12}))
    assert ViTImageProcessor.from_pretrained("google/vit", revision="main").size == (12, 12)
    assert asked == [("google/vit", {"revision": "main", "local_files_only": None, "patterns": ["*.json"]})]


def test_processor_says_what_is_wrong(tmp_path):
    for kind in (ViTImageProcessor, AutoImageProcessor):
        with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json"):
            kind.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder or file"):
        ViTImageProcessor.from_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="size: expected height and width"):
        ViTImageProcessor(size={"longest_edge": 5})
    with pytest.raises(ValueError, match="resample: expected one of 0, 2, 3, got 5"):
        ViTImageProcessor(resample=5)
    with pytest.raises(ValueError, match="images: expected pictures of one shape"):
        ViTImageProcessor(do_resize=False)([picture(3, 4), picture(4, 4)])


@rivals
@pytest.mark.parametrize("resample", [0, 2, 3])
def test_processor_as_in_transformers(resample):
    """Bytes resized as Pillow does it (tall images, whose axes it may take in another order, differ by rounding)."""
    pytest.importorskip("transformers")
    images = pytest.importorskip("PIL.Image")
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    settings = {"size": {"height": 16, "width": 24}, "resample": resample, "image_mean": [0.1, 0.2, 0.3]}
    shown = images.fromarray(picture(37, 45))
    expected = ViTImageProcessorPil(**settings)(shown, return_tensors="np").pixel_values
    got = ViTImageProcessor(**{"image_std": ViTImageProcessorPil().image_std, **settings})(shown).pixel_values.numpy()
    levels = np.abs(got - expected) * 255 * 0.5
    assert levels.max() < 1.01 and (levels > 0.01).mean() < 0.01  # Pillow's weights are rounded to 22 bits

"""Prompt tuning, and inputs that the caller embedded: what the model sees, gradients, starts, generation."""
import numpy as np
import pytest
from adapter_models import IDS, LABELS, bert, gpt2, llama, logits, trained

import bpnn
from bpnn import models
from bpnn.finetune import PromptTuningConfig, get_peft_model

MASK = np.array([[1] * 7, [1] * 4 + [0] * 3])


def table(model):
    return model.get_input_embeddings().weight


def rows(model, ids=IDS):
    """The rows of the table for tokens."""
    return model.get_input_embeddings()(bpnn.from_numpy(ids))


def roberta(head="ForSequenceClassification"):
    bpnn.manual_seed(4)
    return getattr(models, "Roberta" + head)(models.RobertaConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, max_position_embeddings=30,
    )).to("float64").eval()


def distilbert(head="ForSequenceClassification"):
    bpnn.manual_seed(4)
    return getattr(models, "DistilBert" + head)(models.DistilBertConfig(
        vocab_size=61, dim=16, n_layers=2, n_heads=2, hidden_dim=20, max_position_embeddings=30,
    )).to("float64").eval()


# --- inputs_embeds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, MASK, MASK[:, ::-1]])
@pytest.mark.parametrize("make", [bert, roberta, distilbert, gpt2, llama])
def test_rows_in_place_of_tokens(make, mask):
    model = make()
    want = logits(model, attention_mask=mask)
    with bpnn.no_grad():
        got = model(None, mask, inputs_embeds=rows(model)).logits.numpy()
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [bert, gpt2, llama])
def test_gradient_of_rows_is_that_of_the_table(make):
    model = make()
    labels = LABELS if make is bert else IDS
    model(IDS, MASK, labels=labels).loss.backward()
    x = rows(model).detach().requires_grad_()
    want = table(model).grad.numpy().copy()
    model.zero_grad()
    model(None, MASK, inputs_embeds=x, labels=labels).loss.backward()
    got = np.zeros_like(want)
    np.add.at(got, IDS.reshape(-1), x.grad.numpy().reshape(-1, got.shape[1]))
    if make is gpt2:  # there the map to scores is the same table
        got += table(model).grad.numpy()
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("make", [bert, llama])
def test_wrong_inputs_embeds(make):
    model = make()
    with pytest.raises(ValueError, match="inputs_embeds: expected None beside input_ids"):
        model(IDS, inputs_embeds=rows(model))
    with pytest.raises(TypeError, match="inputs_embeds: expected a Tensor of floating-point numbers, got ndarray"):
        model(inputs_embeds=IDS)
    with pytest.raises(ValueError, match="input_ids"):
        model()


def test_rows_for_packed_texts():
    model = llama()
    flat, starts = IDS.reshape(-1), np.array([0, 5, 14])
    want = logits(model, flat, cu_seqlens=starts)
    with bpnn.no_grad():
        got = model(inputs_embeds=rows(model, flat), cu_seqlens=starts).logits.numpy()
    np.testing.assert_allclose(got, want, rtol=1e-12)


# --- prompts -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(("make", "task"), [(bert, "SEQ_CLS"), (roberta, "SEQ_CLS"), (distilbert, "SEQ_CLS"), (gpt2, "CAUSAL_LM"),
                                            (llama, "CAUSAL_LM")])
def test_a_prompt_of_known_tokens_is_these_tokens(make, task, mask):
    model = make()
    tokens = np.array([9, 30, 2])
    ids = np.concatenate([np.tile(tokens, (2, 1)), IDS], 1)
    longer = None if mask is None else np.concatenate([np.ones((2, 3), int), mask], 1)
    want = logits(model, ids, attention_mask=longer)
    tuned = get_peft_model(model, PromptTuningConfig(task_type=task, num_virtual_tokens=3)).eval()
    with bpnn.no_grad():
        tuned.encoder.embedding.weight.copy_(table(model)[bpnn.from_numpy(tokens)])
    got = logits(tuned, attention_mask=mask)
    np.testing.assert_allclose(got, want[:, 3:] if want.ndim == 3 else want, rtol=1e-10, atol=1e-12)
    with tuned.disable_adapter():
        assert logits(tuned, attention_mask=mask).shape == got.shape


@pytest.mark.parametrize(("make", "head", "task"), [
    (bert, "ForSequenceClassification", "SEQ_CLS"), (llama, "ForCausalLM", "CAUSAL_LM"),
    (bert, "ForTokenClassification", "TOKEN_CLS"),
])
def test_only_the_prompt_and_the_head_are_trained(make, head, task):
    tuned = get_peft_model(make(head), PromptTuningConfig(task_type=task, num_virtual_tokens=3))
    labels = {"SEQ_CLS": LABELS, "CAUSAL_LM": IDS, "TOKEN_CLS": IDS % 2}[task]
    own = {"prompt_encoder.default.embedding.weight"}
    assert {name for name in trained(tuned) if "modules_to_save" not in name} == own
    output = tuned.train()(IDS, MASK, labels=labels)
    output.loss.backward()
    for name, parameter in tuned.named_parameters():
        assert (parameter.grad is not None) == (name in trained(tuned)), name
    # the derivative, by differences
    weight = tuned.encoder.embedding.weight
    losses = []
    for step in (1e-6, -1e-6):
        with bpnn.no_grad():
            weight[1, 2] += step
            losses.append(tuned(IDS, MASK, labels=labels).loss.item())
            weight[1, 2] -= step
    np.testing.assert_allclose(weight.grad.numpy()[1, 2], (losses[0] - losses[1]) / 2e-6, rtol=1e-4, atol=1e-9)


def test_answers_are_places_of_the_text():
    tuned = get_peft_model(bert("ForQuestionAnswering"), PromptTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=3)).eval()
    output = tuned(IDS, start_positions=np.array([1, 2]), end_positions=np.array([3, 6]))
    assert output.start_logits.shape == (2, 7) and np.isfinite(output.loss.item())
    first, none = (tuned(IDS, start_positions=np.array([1, place]), end_positions=np.array([3, 6])) for place in (0, -1))
    assert first.loss.item() == none.loss.item()  # as without a prompt


@pytest.mark.parametrize("make", [gpt2, llama])
def test_generate(make):
    model = make()
    tokens = np.array([9, 30, 2])
    want = model.generate(np.concatenate([np.tile(tokens, (2, 1)), IDS], 1), max_new_tokens=6)[:, 3:]
    tuned = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    with bpnn.no_grad():
        tuned.encoder.embedding.weight.copy_(table(model)[bpnn.from_numpy(tokens)])
    np.testing.assert_array_equal(tuned.generate(IDS, max_new_tokens=6), want)
    np.testing.assert_array_equal(np.stack(list(tuned.stream(IDS, max_new_tokens=6)), 1), want[:, 7:])
    assert tuned.generate(IDS, max_new_tokens=6, num_beams=3).shape[1] <= 13
    assert tuned.context == model.context - 3


def test_starts():
    model = bert()
    bpnn.manual_seed(1)
    drawn = get_peft_model(model, PromptTuningConfig(num_virtual_tokens=500)).encoder.table().detach().numpy()
    assert abs(drawn.std() - 1) < 0.03
    words = table(bert()).detach().numpy()
    sampled = get_peft_model(bert(), PromptTuningConfig(num_virtual_tokens=5, prompt_tuning_init="SAMPLE_VOCAB")).encoder.table()
    assert all((row == words).all(1).any() for row in sampled.detach().numpy())


def test_start_from_a_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = tokenizers.Tokenizer(WordLevel({"[UNK]": 0, "good": 5, "or": 6, "bad": 7}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = PromptTuningConfig(
        num_virtual_tokens=7, prompt_tuning_init="TEXT", prompt_tuning_init_text="good or bad",
        tokenizer_name_or_path=str(tmp_path),
    )
    got = get_peft_model(bert(), config).encoder.table().detach().numpy()
    np.testing.assert_array_equal(got, table(bert()).detach().numpy()[[5, 6, 7, 5, 6, 7, 5]])


def test_several_and_errors():
    tuned = get_peft_model(bert(), PromptTuningConfig(num_virtual_tokens=2, task_type="SEQ_CLS"), "one").eval()
    first = logits(tuned)
    tuned.add_adapter("two", PromptTuningConfig(num_virtual_tokens=4, task_type="SEQ_CLS"))
    tuned.set_adapter("two")
    assert trained(tuned) >= {"prompt_encoder.two.embedding.weight"} and not any(".one." in name for name in trained(tuned))
    assert np.abs(logits(tuned) - first).max() > 1e-6
    tuned.set_adapter("one")
    np.testing.assert_array_equal(logits(tuned), first)
    tuned.delete_adapter("one")
    assert tuned.active_adapter == "two" and "one" not in tuned.prompt_encoder
    with pytest.raises(ValueError, match="adapter_name: expected one name"):
        tuned.set_adapter(["two", "two"])
    with pytest.raises(ValueError, match="merge_adapter: PROMPT_TUNING cannot be merged"):
        tuned.merge_and_unload()
    with pytest.raises(TypeError, match="generate: expected a model that writes, BertForSequenceClassification does not"):
        tuned.generate(IDS)
    with pytest.raises(ValueError, match="cu_seqlens: expected None with prompts"):
        get_peft_model(llama(), PromptTuningConfig(num_virtual_tokens=2))(IDS.reshape(-1), cu_seqlens=[0, 14])
    with pytest.raises(ValueError, match="num_virtual_tokens: expected a whole number above 0, got None"):
        PromptTuningConfig()
    with pytest.raises(ValueError, match="tokenizer_name_or_path: expected"):
        PromptTuningConfig(num_virtual_tokens=2, prompt_tuning_init="TEXT")
    with pytest.raises(ValueError, match="prompt_tuning_init: expected RANDOM, SAMPLE_VOCAB, TEXT, got 'ZERO'"):
        PromptTuningConfig(num_virtual_tokens=2, prompt_tuning_init="ZERO")
    vit = models.ViTForImageClassification(models.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, image_size=8, patch_size=4))
    with pytest.raises(ValueError, match="PROMPT_TUNING is for pretrained models of tokens, ViTForImageClassification is none"):
        get_peft_model(vit, PromptTuningConfig(num_virtual_tokens=2))
    plain = tuned.unload()
    assert isinstance(plain, models.BertForSequenceClassification)

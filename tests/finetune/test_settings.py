"""The table of settings: values from files and flags, and what goes together."""
import math

import pytest

from bpnn.finetune._options import flag_of, nearest
from bpnn.finetune.rules import check_together
from bpnn.finetune.settings import ADAPTERS, FIELDS, GROUPS, LEARNING_RATES, METHODS, Settings, SettingsError, read_yaml


def test_flags_go_on_top_of_a_file():
    settings = Settings.build({"method": "lora", "epochs": 5, "batch-size": 8}, {"epochs": "2"}, "a.yaml")
    assert (settings.method, settings.epochs, settings.batch_size, settings.rank) == ("lora", 2, 8, 8)
    assert Settings.build(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("lr", "5e-5", 5e-5),  # YAML 1.1 takes a number without a point for a text
        ("lr", 1, 1.0),
        ("epochs", "7", 7),
        ("epochs", 7.0, 7),
        ("labels", "no, yes", ["no", "yes"]),
        ("labels", [0, 1], ["0", "1"]),
        ("targets", ["query", "value"], ["query", "value"]),
        ("log", "csv,tensorboard", ["csv", "tensorboard"]),
        ("rslora", True, True),
        ("patience", None, None),
    ],
)
def test_values(name, given, value):
    found = getattr(Settings.build({name: given}), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lerning_rate": 1}, "c.yaml: unknown key 'lerning_rate'"),
        ({"epoch": 1}, "c.yaml: unknown key 'epoch'; did you mean 'epochs'?"),
        ({"warm-up": 1}, "c.yaml: unknown key 'warm-up'; did you mean 'warmup'?"),
        ({"lr": 0}, "c.yaml: lr: expected a number above 0, got 0"),
        ({"lr": "fast"}, "c.yaml: lr: expected a number above 0, got 'fast'"),
        ({"lr": math.nan}, "c.yaml: lr: expected a number above 0, got nan"),
        ({"lr": math.inf}, "c.yaml: lr: expected a number above 0, got inf"),
        ({"epochs": 0}, "c.yaml: epochs: expected a whole number at least 1, got 0"),
        ({"epochs": 1.5}, "c.yaml: epochs: expected a whole number at least 1, got 1.5"),
        ({"epochs": True}, "c.yaml: epochs: expected a whole number at least 1, got True"),
        ({"epochs": [1]}, "c.yaml: epochs: expected a whole number at least 1, got [1]"),
        ({"epochs": None}, "c.yaml: epochs: expected a whole number at least 1, got nothing"),
        ({"method": "lore"}, "got 'lore'; did you mean 'lora'?"),
        ({"task": "sleep"}, "c.yaml: task: expected one of classify, regress, tokens, qa, embed, lm, image, got 'sleep'"),
        ({"merge": "yes"}, "c.yaml: merge: expected true or false, got 'yes'"),
        ({"labels": ""}, "c.yaml: labels: expected a list, got []"),
        ({"log": ["paper"]}, "c.yaml: log: expected one of csv, tensorboard, wandb, mlflow, trackio, got 'paper'"),
        ({"dropout": 1}, "c.yaml: dropout: expected a number at least 0 and at most 0.99, got 1"),
    ],
)
def test_wrong_values(given, words):
    with pytest.raises(SettingsError) as caught:
        Settings.build(given, source="c.yaml")
    assert words in str(caught.value)


def test_wrong_flags_name_no_file():
    with pytest.raises(SettingsError, match=r"^rank: expected a whole number at least 1, got '0'$"):
        Settings.build({}, {"rank": "0"})


def test_yaml(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "c.yaml"
    path.write_text("\ufeffmethod: lora\nlr: 2e-4\ntargets: [query]\n", encoding="utf-8")
    settings = Settings.build(read_yaml(path), source=str(path))
    assert (settings.method, settings.lr, settings.targets) == ("lora", 2e-4, ["query"])
    path.write_text("")
    assert read_yaml(path) == {}
    path.write_text("method: lora\nlr: [1\n")
    with pytest.raises(SettingsError, match=r"c.yaml:3: no YAML \("):
        read_yaml(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(SettingsError, match=r"c.yaml: expected keys and values, got list"):
        read_yaml(path)
    path.write_bytes(b"method: \xff\n")
    with pytest.raises(SettingsError, match=r"c.yaml: expected text in UTF-8"):
        read_yaml(path)


def test_every_field_is_an_option_with_a_help():
    for name, item in FIELDS.items():
        told = item.metadata
        assert told["help"] and told["group"] in GROUPS, name
        if item.default is not None:
            assert Settings.build({name: item.default}) == Settings(), name
    assert flag_of("batch_size") == "--batch-size" and nearest("zzz", ["lr"]) == ""


def test_learning_rates():
    """Every method has a rate; large models get a lower one for full fine-tuning, language models for LoRA."""
    assert set(LEARNING_RATES) == set(METHODS) and set(ADAPTERS) < set(METHODS)
    assert Settings(method="full").learning_rate(22_000_000) == 5e-5
    assert Settings(method="full").learning_rate(335_000_000) == 2e-5
    assert Settings(method="lora", task="lm").learning_rate(135_000_000) == 2e-3
    assert Settings(method="lora").learning_rate(22_000_000) == 5e-4
    assert Settings(method="lora").learning_rate(7 * 10**9) == Settings(method="dora", task="lm").learning_rate(10**9) == 2e-4
    assert Settings(method="full", lr=0.1).learning_rate(10**9) == 0.1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rank": 4}, "rank: goes with method lora or dora, not with full"),
        ({"method": "lora", "freeze_layers": 1}, "freeze_layers: goes with method frozen, not with lora"),
        ({"method": "frozen"}, "method: frozen needs freeze"),
        ({"base": "int8"}, "base: int8 is for frozen weights, method full trains them"),
        ({"method": "lora", "base": "int8", "merge": True}, "merge: adapters cannot be merged into a base of int8"),
        ({"method": "head", "task": "lm"}, "method: head cannot train for task lm"),
        ({"mixup": 0.2}, "mixup: goes with task image, not with classify"),
        ({"task": "image", "adversarial": "fgm"}, "adversarial: fgm goes with task classify, regress, tokens, qa, embed or lm"),
        ({"adversarial_epsilon": 1}, "adversarial_epsilon: goes with adversarial, which is not given"),
        ({"temperature": 3}, "temperature: goes with teacher, which is not given"),
        ({"search": "s.yaml"}, "search: goes with trials, which is not given"),
        ({"ema": 0.9, "swa": 0.5}, "ema: does not go with swa"),
        ({"folds": 3, "trials": 3}, "folds: does not go with trials"),
        ({"task": "regress", "label_smoothing": 0.1}, "label_smoothing: goes with task classify, tokens, qa, lm or image"),
        ({"data": "a.csv", "train": "b.csv"}, "train: does not go with data"),
        ({"patience": 2, "validation_share": 0}, "patience: needs a validation part"),
    ],
)
def test_what_does_not_go_together(given, words):
    with pytest.raises(SettingsError) as caught:
        check_together(Settings.build(given))
    assert words in str(caught.value)


def test_what_goes_together():
    for method in METHODS:
        check_together(Settings(method=method, freeze_layers=1 if method == "frozen" else None))
    check_together(Settings(method="lora", base="int8", rank=4, adversarial="fgm", ema=0.9, r_drop=1.0, folds=3))

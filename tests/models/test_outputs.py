"""Outputs by name, by number and in order; what is to be computed later is computed when it is asked for, and once."""
import copy

import pytest

from bpnn.models._outputs import Later, ModelOutput


def output():
    """An output, and the list of what was computed."""
    computed = []
    later = Later(lambda: computed.append("logits") or "L")
    return ModelOutput(loss="l", logits=later, past_key_values=None, hidden_states=("h",)), computed


def test_other_values_do_not_compute_what_is_later():
    own, computed = output()
    assert own[0] == "l" and own[-1] == ("h",) and own[2] == ("h",) and own[:1] == ("l",) and own[2:] == (("h",),) == own[:1:-1]
    assert own["loss"] == own.loss == own.get("loss") == "l" and own.past_key_values is None and len(own) == 3
    assert "logits" in own and own.keys() == ["loss", "logits", "hidden_states"] and "logits=…" in repr(own)
    assert not computed
    assert own[1] == own.logits == own["logits"] == own[:2][1] == "L"
    assert computed == ["logits"]


def test_all_values_in_order():
    own, computed = output()
    assert own.items() == [("loss", "l"), ("logits", "L"), ("hidden_states", ("h",))]
    assert own.values() == ["l", "L", ("h",)] and own.to_tuple() == tuple(own) == ("l", "L", ("h",))
    assert dict(own) == dict(own.items()) and computed == ["logits"]


def test_names_and_numbers_that_there_are_not():
    own, _ = output()
    with pytest.raises(KeyError, match="scores"):
        own["scores"]
    with pytest.raises(AttributeError, match="scores.*loss, logits"):
        own.scores
    with pytest.raises(IndexError):
        own[3]
    with pytest.raises(TypeError):
        own[0.5]


def test_copies():
    own, _ = output()
    for make in (copy.copy, copy.deepcopy):
        other = make(own)
        assert other.loss == "l" and other.logits == "L" and other.keys() == own.keys()
    assert not hasattr(ModelOutput.__new__(ModelOutput), "loss_") and not hasattr(own, "_anything")

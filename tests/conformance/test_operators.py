"""bpnn against PyTorch's operator database: every float64 sample of every operator exposed under PyTorch's name.

One test an operator, and one for the bar. An operator fails its test unless `listed.txt` names it as a known
difference; known differences count against the bar. `python tests/conformance NAME` shows all samples of one.
"""
from functools import cache

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("expecttest", reason="expecttest, which PyTorch's operator database needs, is not installed")

from compare import check  # noqa: E402
from operators import exposed, read_list, summary  # noqa: E402

pytestmark = pytest.mark.rivals

BAR = 97.0
OPERATORS = {one.name: one for one in exposed()}


@cache
def verdict(name):
    return check(OPERATORS[name])


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    one, result = OPERATORS[name], verdict(name)
    if one.treatment == "skip":
        pytest.skip(one.reason)
    if result.failures:
        call, error = result.failures[0]
        text = f"{len(result.failures)} of {len(result.failures) + result.compared} calls differ, first {call}: {error}"
        if one.treatment == "fails":
            pytest.xfail(f"{one.reason}: {text}")
        pytest.fail(text, pytrace=False)
    if not result.compared:
        pytest.skip(f"no sample within what bpnn has ({result.outside} outside)")
    assert one.treatment != "fails", "listed as failing but passes: remove it from listed.txt"


def test_at_least_97_percent_of_the_exposed_operators_pass(capsys):
    verdicts = {name: verdict(name) for name in OPERATORS}
    counted = {name: one for name, one in verdicts.items() if one.compared or one.failures}
    with capsys.disabled():
        print(f"\n{summary(counted)}")
    passed = sum(one.passed for one in counted.values())
    assert counted and 100 * passed >= BAR * len(counted), [name for name, one in counted.items() if not one.passed]


def test_every_listed_operator_is_in_the_database():
    from operators import op_db

    names = {name for info in op_db for name in (info.name, f"{info.name}:{info.variant_test_name}")}
    assert not set(read_list()) - names

"""`pytest bench --benchmark` races bpnn against its rivals; without the flag every benchmark is skipped at once.

    --benchmark   run; print the table of ratios and write it into bench/README.md
    --bars        fail below a bar itself; without it, below 0.8 of it (timings on shared machines waver that much)
    --rounds N    alternating rounds, of which the median counts (7)
    --print-only  leave bench/README.md as it is
"""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness
import peak as processor
import table

MARGIN = 0.8
OUTCOMES = []


def pytest_addoption(parser):
    group = parser.getgroup("bench", "comparisons with PyTorch, JAX and scikit-learn")
    group.addoption("--benchmark", action="store_true", help="run the comparisons in bench/")
    group.addoption("--bars", action="store_true", help=f"fail below a bar itself rather than {MARGIN} of it")
    group.addoption("--rounds", type=int, default=7, help="alternating rounds of each comparison (7)")
    group.addoption("--print-only", action="store_true", help="do not write the table into bench/README.md")


def pytest_collect_file(file_path, parent):
    # A file named on the command line is collected by pytest itself, whatever its name.
    named = parent.session.isinitpath(file_path)
    if not named and file_path.name.startswith("bench_") and file_path.suffix == ".py":
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--benchmark"):
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs --benchmark"))


@pytest.fixture
def judge(request):
    """Records an outcome for the table and asserts its bars (speed and memory), less the margin unless `--bars` is given."""

    def judge(outcome):
        for name, reason in outcome.absent.items():
            print(f"{outcome.name}: {name} is absent ({reason})")
        if not outcome.rivals():
            pytest.skip(f"absent: {', '.join(outcome.absent)}")
        OUTCOMES.append(outcome)
        misses = outcome.misses(1 if request.config.getoption("--bars") else MARGIN)
        assert not misses, f"{outcome.name}: {'; '.join(misses)}"
        return outcome

    return judge


@pytest.fixture
def race(request, tmp_path, judge):
    """Races jobs (see harness.py), records the outcome for the table, asserts its bars."""

    def race(name, contenders, **settings):
        rounds = request.config.getoption("--rounds")
        return judge(harness.race(name, contenders, tmp_path, **{"rounds": rounds} | settings))

    return race


@pytest.fixture(scope="session")
def peak(tmp_path_factory):
    """GFLOP/s that two threads reach in a large product."""
    return processor.measure(tmp_path_factory.mktemp("peak"))


def pytest_terminal_summary(terminalreporter, config):
    if not OUTCOMES:
        return
    terminalreporter.section("medians a step, and how many times faster bpnn is")
    terminalreporter.write_line(table.machine())
    for line in [*table.HEAD, *(row for outcome in OUTCOMES for row in table.rows(outcome).values())]:
        terminalreporter.write_line(line)
    for outcome in OUTCOMES:
        for name, reason in outcome.absent.items():
            terminalreporter.write_line(f"{outcome.name}: {name} is absent ({reason})")
    for outcome in OUTCOMES:
        for miss in outcome.misses():
            terminalreporter.write_line(f"bar missed: {outcome.name}: {miss}")
    if not config.getoption("--print-only"):
        table.write(OUTCOMES)
        terminalreporter.write_line(f"written to {table.README}")

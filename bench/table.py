"""The table of ratios: on the terminal, and in README.md between two markers."""
import os
import platform
from importlib import metadata
from pathlib import Path

README = Path(__file__).with_name("README.md")
START, END = "<!-- table: written by `pytest bench --benchmark` -->", "<!-- end of table -->"
HEAD = ["| work | bpnn | rival | its time | ratio | bar |", "| --- | ---: | --- | ---: | ---: | ---: |"]
LIBRARIES = {"PyTorch": "torch", "JAX": "jax", "scikit-learn": "scikit-learn", "NumPy": "numpy"}


def duration(seconds):
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def cost(outcome, contender):
    """The median time; the rate and its fraction of the peak, if the outcome has them."""
    seconds, rate = outcome.median(contender), outcome.rate
    text = duration(seconds)
    if rate is not None:
        text += f", {rate.work / seconds:.3g} {rate.unit}"
    if rate is not None and rate.peak is not None:
        text += f", {100 * rate.work / seconds / rate.peak:.0f} %"
    return text


def row(work, ours, rival, theirs, ratio, bar):
    bar = "" if bar is None else f"{bar:g}" if ratio >= bar else f"**{bar:g}, missed**"
    return f"| {work} | {ours} | {rival} | {theirs} | {ratio:.2f} | {bar} |"


def rows(outcome):
    """`{(work, rival): row}`: for every rival bpnn's time, the rival's, the ratio and its bar; for memory the best rival."""
    lines = {}
    for rival in outcome.rivals():
        bar = next((bar for library, bar in outcome.bars.items() if rival.startswith(library)), None)
        ours, theirs = cost(outcome, "bpnn"), cost(outcome, rival)
        lines[outcome.name, rival] = row(outcome.name, ours, rival, theirs, outcome.ratio(rival), bar)
    for what, (ours, rival, theirs) in outcome.memories().items():
        work = f"{outcome.name}: {what}"
        texts = [f"{count / 1e6:.1f} MB" for count in (ours, theirs)]
        ratio = theirs / ours if ours else float("inf")
        lines[work, "memory"] = row(work, texts[0], rival, texts[1], ratio, outcome.memory_bar)
    return lines


def machine():
    """The processor and the versions that a table holds for; another line starts a new table."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in lines.items()}
        name = facts.get("model name", name)
        flags = facts.get("flags", "").split()
        widest = next((isa for isa in ("avx512f", "avx2") if isa in flags), "")
        name += f" (family {facts['cpu family']}, model {facts['model']}, {widest})" if "cpu family" in facts else ""
    versions = []
    for library, package in LIBRARIES.items():
        try:
            versions.append(f"{library} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return (
        f"{name}, {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}, "
        f"{', '.join(versions)}. Two threads."
    )


def read():
    """The rows in README.md as `{(work, rival): line}`, none if they were taken on another machine."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    if START not in text or machine() not in text:
        return {}
    lines = text.split(START)[1].split(END)[0].splitlines()
    cells = {line: [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")}
    return {key(cell): line for line, cell in cells.items() if line not in HEAD}


def key(cells):
    """Rows of memory name the most frugal rival, which may be another the next time: they are told by their work alone."""
    return cells[0], "memory" if "peak memory, " in cells[0] else cells[2]


def write(outcomes):
    """Puts the outcomes' rows into README.md; the rows of benchmarks that did not run stay."""
    known = read()
    for outcome in outcomes:
        known |= rows(outcome)
    body = "\n".join([START, "", machine(), "", *HEAD, *known.values(), "", END])
    text = README.read_text(encoding="utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    README.write_text(before + body + after, encoding="utf-8")

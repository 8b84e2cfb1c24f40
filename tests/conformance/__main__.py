"""Compares operators with PyTorch's from the command line: `python tests/conformance [NAME …]`.

    python tests/conformance                   every exposed operator, the first failing sample of each
    python tests/conformance softmax 'nn.*'    these operators (shell patterns), every failing sample
    python tests/conformance --list            what bpnn exposes
    python tests/conformance --absent          what it does not
"""
import argparse
import sys
from fnmatch import fnmatch

import operators
from compare import check


def chosen(one, patterns):
    names = (one.name, one.info.name, one.info.name.split(".")[-1])
    return not patterns or any(fnmatch(name, pattern) for pattern in patterns for name in names)


def main():
    parser = argparse.ArgumentParser(prog="python tests/conformance", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names or shell patterns of operators; all without one")
    parser.add_argument("--list", action="store_true", help="name the exposed operators and their forms")
    parser.add_argument("--absent", action="store_true", help="name the operators that bpnn does not expose")
    options = parser.parse_args()
    if options.absent:
        print(*operators.absent(), sep="\n")
        return 0
    selected = [one for one in operators.exposed() if chosen(one, options.names)]
    if options.list:
        for one in selected:
            print(f"{one.name}: {', '.join(form.kind for form in one.forms)}")
        return 0
    verdicts = {}
    for one in selected:
        verdict = check(one)
        if not verdict.compared and not verdict.failures:
            note = one.reason or f"no sample within what bpnn has ({verdict.outside} outside)"
            print(f"---- {one.name}: {note}")
            continue
        verdicts[one.name] = verdict
        if verdict.failures:
            total = verdict.compared + len(verdict.failures)
            print(f"FAIL {one.name}: {len(verdict.failures)} of {total} calls")
            for call, error in verdict.failures if options.names else verdict.failures[:1]:
                print(f"     {call}\n         {error}")
    print(operators.summary(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

#!/bin/sh
# Installs a wheel in a clean environment outside the checkout, imports it there and runs the core's tests.
#   sh tests/check_wheel.sh wheelhouse/bpnn-….whl
set -eu
wheel=$(realpath "$1")
root=$(realpath "$(dirname "$0")/..")
size=$(wc -c < "$wheel")
echo "$(basename "$wheel"): $size bytes"
test "$size" -le 5000000 || { echo "the wheel is larger than 5 MB"; exit 1; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv clean
clean/bin/python -m pip install -qq --disable-pip-version-check "$wheel"
clean/bin/python - <<'END'
import pathlib, sys
import bpcore, bpnn
for package in (bpcore, bpnn):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package.__file__
bpnn.show_versions()
END
clean/bin/bpnn --help > help.txt
clean/bin/python -m pip install -qq --disable-pip-version-check "pytest>=8.2" pytest-timeout
clean/bin/pytest -q -c "$root/pyproject.toml" -m "not rivals and not slow" "$root/tests/bpcore"

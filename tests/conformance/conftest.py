"""Lets the files of this folder import one another, and skips the import of PyTorch where no rivals are wanted."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def pytest_ignore_collect(collection_path, config):
    if "not rivals" in config.getoption("markexpr") and collection_path.name.startswith("test_"):
        return True  # PyTorch's database of operators takes seconds to import

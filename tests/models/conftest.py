"""The helpers beside the tests are imported by their names; models that several files compare with are made once."""
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def references(tmp_path_factory):
    """Models of `transformers` with their folders, by architecture, head, size and changes of the configuration."""
    pytest.importorskip("transformers")
    from against import Reference

    made = {}

    def reference(name, head, size="small", **changes):
        key = name, head, size, json.dumps(changes)
        if key not in made:
            made[key] = Reference(name, head, size, tmp_path_factory.mktemp(name), **changes)
        return made[key]

    return reference

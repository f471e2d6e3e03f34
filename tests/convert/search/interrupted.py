"""A search in a process of its own, for tests that kill it: every trial is written down, and takes a moment.

``python -m tests.convert.search.interrupted FOLDER MODEL`` keeps trials in FOLDER and appends the name of each recipe
to FOLDER/tried when it is begun.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from convert.budget import Budget
from convert.recipes import Recipe
from convert.search.runner import SequentialRunner
from convert.search.search import search
from convert.search.space import SearchSpace
from convert.search.store import TrialStore
from edge_runtime import Bundle, Manifest
from edge_runtime.interpreter import load_interpreter, signatures
from edge_runtime.manifest import SCHEMA_VERSION
from tests.convert.search.conftest import Script


def main(folder: Path, model: Path) -> None:
    """Searches without training."""
    content = model.read_bytes()
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="m",
        version="1",
        signature=next(iter(signatures(load_interpreter(content)).values())),
    )
    script = Script(lambda: Bundle.create(manifest, {"model.tflite": content}))

    def slowly(recipe: Recipe) -> Any:
        with open(folder / "tried", "a") as tried:
            tried.write(f"{recipe.name}\n")
        time.sleep(0.2)
        return script(recipe)

    space = SearchSpace(labelled=True, classes=True, representative=True, trainable=False)
    found = search(
        SequentialRunner(slowly),
        space,
        Budget(max_drop=0.01),
        store=TrialStore(folder / "trials"),
        context="c",
    )
    assert found.chosen is not None
    (folder / "chosen").write_text(found.chosen.recipe.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

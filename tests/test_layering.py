"""Who may import whom: unitok <- mllm <- eval <- train; models know no pictures, no front ends."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each package may import itself and those before it.
LAYERS = ("unitok", "mllm", "eval", "train")
MODEL_FILES = (
    *(f"unitok/{name}.py" for name in ("model", "quantizer", "projection", "vitamin", "text")),
    *(
        f"mllm/{name}.py"
        for name in (
            "model",
            "visual_head",
            "visual_embedder",
            "loss",
            "sampling",
            "row_buffers",
            "fast_decoder",
            "running_rows",
            "running_pictures",
            "prefix_store",
            "batcher",
            "drawing_programs",
            "generation",
        )
    ),
)
NOT_FOR_MODELS = (
    "PIL",
    "unitok.image",
    "mllm.processor",
    "mllm.pipeline",
    "mllm.cli",
    "mllm.serving",
    "mllm.web",
)


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Dotted names of all that `source` imports, wherever it stands in the file.

    `from a import b` gives both `a` and `a.b`, because b may be a module; relative imports are
    resolved against `package`, the dotted package of the file.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return set(imported_modules(path.read_text(encoding="utf-8"), package))


def is_within(module: str, owner: str) -> bool:
    return module == owner or module.startswith(f"{owner}.")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_imports_only_those_below_it(layer):
    above = LAYERS[LAYERS.index(layer) + 1 :]
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / layer).rglob("*.py"))
        for module in sorted(imports_of(path))
        if any(is_within(module, package) for package in (*above, "tests"))
    ]
    assert not wrong


@pytest.mark.parametrize("name", MODEL_FILES)
def test_models_import_neither_pictures_nor_processors_nor_front_ends(name):
    wrong = [
        module
        for module in sorted(imports_of(ROOT / name))
        if any(is_within(module, banned) for banned in NOT_FOR_MODELS)
    ]
    assert not wrong


def test_relative_and_nested_imports_are_seen():
    source = (
        "import os.path\ndef f():\n    from . import model\n    from ..eval.geneval import run\n"
    )
    found = set(imported_modules(source, "mllm.deep"))
    assert found == {"os.path", "mllm.deep", "mllm.deep.model", "mllm.eval.geneval"} | {
        "mllm.eval.geneval.run"
    }

"""The walls of the house: a room imports only from rooms above it, and the light ones stay free of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vitral
from vitral.models.zoo import FAMILIES

ROOMS = [
    "errors",
    "typed",
    "randomness",
    "drawing",
    "layers",
    "models",
    "data",
    "checkpoints",
    "engines",
    "answers",
    "predict",
    "stream",
    "objectives",
    "evaluation",
    "training",
    "explain",
    "report",
    "guidance",
    "deploy",
    "api",
    "cli",
    "__main__",
]
SOURCE = Path(vitral.__file__).parent


def imports(path):
    """The room of each vitral module that a file imports, be it only for the type checker."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("vitral."):
                yield name.split(".")[1]
            elif name == "vitral" and isinstance(node, ast.ImportFrom):
                yield from (a.name for a in node.names if a.name in ROOMS)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_from_rooms_above(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room == "__init__":
        assert list(imports(path)) == []
        return
    for other in imports(path):
        assert ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {other}"


# Families describe themselves, so no other room knows one; an objective may name the learner that is made for it and nothing else.
OWN = {("objectives/mae.py", "mae"), ("objectives/tokenizer.py", "tokenizer"), ("objectives/beit.py", "tokenizer")}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_other_room_names_a_family(path):
    name = path.relative_to(SOURCE).as_posix()
    if name.startswith(("models/", "checkpoints/")):
        return
    families = {kind.__module__.rpartition(".")[2] for pair in FAMILIES.values() for kind in pair}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vitral.models."):
            family = node.module.removeprefix("vitral.models.")
            classes = [a.name for a in node.names if a.name[0].isupper()]
            assert family not in families or not classes or (name, family) in OWN, f"{name} names {', '.join(classes)}"


@pytest.mark.parametrize(
    "module", ["vitral", "vitral.cli", "vitral.training.config", "vitral.data.options", "vitral.randomness"]
)
def test_light_modules_do_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_public_names_are_there():
    for name in vitral.__all__:
        assert name in dir(vitral)
        assert getattr(vitral, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = vitral.nonsense

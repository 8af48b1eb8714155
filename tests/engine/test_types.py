"""What a script's author sees of `import engine`: every public name with its type, and no other name."""

import ast
import os
import re
import subprocess
import sys

import pytest

import engine

from places import ROOT

NAMES = [*engine.SCRIPTING, "theory"]
GOOD = """import numpy as np
import engine

record: engine.Record = engine.run("toy", overrides=["budget.steps=5"], name="mine", learning_rate=0.02)
losses: np.ndarray = record["gd.loss"]
rows: list[dict[str, float]] = list(engine.stream("toy"))
delta = engine.theory.delta(1.0, 2.0)
try:
    engine.load("nowhere")
except engine.UserError as error:
    print(error.status)
"""
BAD = """import engine

engine.runn("toy")
engine.run("toy", names="mine", apart="yes")
engine.load(3)
engine.run("toy").losses
"""
UNREAD = ("jax", "jaxlib", "flax", "optax", "scipy", "matplotlib", "pandas", "polars", "xarray", "pyarrow", "tensorflow_datasets", "PIL")
"""Libraries that take most of the time to read: their types are taken for Any, and no name is of one alone."""


@pytest.fixture(scope="module")
def checked(tmp_path_factory, pytestconfig) -> dict[str, str]:
    """What mypy says of scripts, by their names."""
    folder = tmp_path_factory.mktemp("scripts")
    scripts = {"good": GOOD, "bad": BAD, "names": "\n".join(["import engine", *(f"reveal_type(engine.{name})" for name in NAMES)])}
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "mypy.ini").write_text(f"[mypy]\n[mypy-{','.join(f'{name}.*' for name in UNREAD)}]\nfollow_imports = skip\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--follow-imports=silent", "--ignore-missing-imports",
         "--no-error-summary", f"--cache-dir={pytestconfig.cache.mkdir('mypy')}", *(f"{name}.py" for name in scripts)],
        capture_output=True, text=True, check=False, timeout=600, cwd=folder, env=os.environ | {"MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert all(line.partition(".py:")[0] in scripts for line in lines), lines
    return {name: "\n".join(line for line in lines if line.startswith(f"{name}.py:")) for name in scripts}


def test_a_script_that_is_right_is_called_right(checked):
    assert checked["good"] == ""


def test_a_script_that_is_wrong_is_called_wrong_at_each_line(checked):
    faults = re.findall(r"bad\.py:(\d+): error: .*\[([a-z-]+)\]", checked["bad"])
    assert faults == [("3", "attr-defined"), ("4", "arg-type"), ("5", "arg-type"), ("6", "attr-defined")], checked["bad"]


def test_every_name_of_the_interface_has_a_type_of_its_own(checked):
    types = re.findall(r'Revealed type is "(.*)"', checked["names"])
    assert len(types) == len(NAMES)
    assert [name for name, said in zip(NAMES, types, strict=True) if said == "Any"] == []
    assert types[NAMES.index("run")].startswith("def (preset: str | pathlib.Path | engine.spec.sections.RunSpec | ")
    assert types[NAMES.index("run")].endswith(") -> engine.api.records.Record")


def test_what_is_typed_is_what_there_is():
    """The names that a type checker is shown are those that a script can have, from the same modules."""
    tree = ast.parse((ROOT / "engine" / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    shown: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        [alias] = node.names
        assert alias.asname == alias.name  # else a type checker takes it for the module's own business
        shown[alias.name] = str(node.module)
    assert shown == {**engine.SCRIPTING, "theory": "engine"}
    for name in NAMES:
        assert getattr(engine, name) is not None
    assert set(NAMES) <= set(dir(engine))

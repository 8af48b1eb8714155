"""What eos takes of jax beyond what jax promises to keep: all of it is listed here, each with its guard and the test that says so."""

import ast
import importlib
import re
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from engine.base import xla_flags
from engine.base.errors import UserError
from engine.xla import compile_cache, known_jax

from places import ROOT, TESTS

UNPROMISED = re.compile(
    r"(jax|jaxlib|flax|optax)(\.\w+)*\._(?!_)\w+[\w.]*|jax\.(interpreters|core|extend|experimental|lib)\b[\w.]*|jaxlib\b[\w.]*"
)


class Use(NamedTuple):
    """Why a file takes it, what happens where a version of jax lacks it, and the test that shows that."""

    why: str
    guard: str
    test: str


MISSING = "tests/engine/xla/test_private_jax.py::test_a_jax_without_what_is_taken_at_import_is_named_with_the_versions_that_have_it"
USES = {
    "jax._src.distributed": {"engine/process/rendezvous.py": Use(
        "members of a meeting speak through its service", "refused with the versions that have it",
        "tests/engine/process/test_hosts.py::test_a_jax_without_the_service_is_refused_before_anybody_waits")},
    "jax._src.xla_bridge": {"engine/base/xla_flags.py": Use(
        "whether jax has begun", "then it has not, as far as it shows",
        "tests/engine/xla/test_private_jax.py::test_another_jax_has_not_begun")},
    "jax._src.compilation_cache": {"engine/xla/compile_cache.py": Use(
        "sums on what is read from the cache", "then the cache is as jax has it",
        "tests/engine/xla/test_private_jax.py::test_the_cache_of_another_jax_is_left_alone")},
    "jax._src.lru_cache.LRUCache": {"engine/xla/compile_cache.py": Use(
        "as above", "as above", "tests/engine/xla/test_private_jax.py::test_the_cache_of_another_jax_is_left_alone")},
    "jax.extend.core": {"engine/problems/narrowing.py": Use("a traced loss, operation by operation", "refused with the versions", MISSING)},
    **{f"jax.extend.{name}": {"engine/xla/float32_products.py": Use(
        "operations of a traced loss exchanged for others", "refused with the versions", MISSING)} for name in (
            "core.ClosedJaxpr", "core.Jaxpr", "core.JaxprEqn", "core.jaxpr_as_fun", "core.subjaxprs", "core.primitives.dot_general_p",
            "core.primitives.conv_general_dilated_p", "core.primitives.custom_jvp_call_p", "core.primitives.custom_vjp_call_p",
            "linear_util.wrap_init")},
    "jax.extend.core.Primitive": {
        "engine/xla/float32_products.py": Use("an operation of one's own", "refused with the versions", MISSING),
        "engine/xla/split.py": Use("an operation of one's own", "refused with the versions", MISSING),
        "engine/xla/small_matrices.py": Use("operations that are others by platform", "refused with the versions", MISSING)},
    "jax.interpreters.ad": {
        f"engine/xla/{file}.py": Use("as above", "refused with the versions", MISSING) for file in ("split", "float32_products")},
    **{f"jax.interpreters.{name}": {
        f"engine/xla/{file}.py": Use("as above", "refused with the versions", MISSING)
        for file in ("split", "small_matrices", "float32_products")}
       for name in ("batching", "mlir")},
    "jax.core.Tracer": {"engine/xla/jit.py": Use(
        "whether a function is called inside another", "documented by jax",
        "tests/engine/xla/test_private_jax.py::test_a_tracer_is_what_a_traced_function_is_given")},
    "jax.experimental.multihost_utils": {"engine/process/lockstep.py": Use(
        "arrays of several processes", "documented by jax; the meeting before it is refused where it is not as known",
        "tests/engine/process/test_hosts.py::test_a_jax_without_the_service_is_refused_before_anybody_waits")},
}  # fmt: skip
"""By the name that is taken: the files that take it."""


def dotted(node: ast.expr) -> str:
    """`a.b.c`; what stands before the dots is empty where it is no name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "", *reversed(parts)])


def taken(tree: ast.AST) -> set[str]:
    """What a source takes of jax that is not promised: imported, reached through attributes, or in a text that is such a name alone."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):  # every part of a chain is a node
            names.add(dotted(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            names.add(node.value)
    names = {name for name in names if UNPROMISED.fullmatch(name)}
    return {name for name in names if not any(longer.startswith(f"{name}.") for longer in names)}


def test_every_use_of_what_jax_does_not_promise_is_listed_and_nothing_else():
    uses: dict[str, set[str]] = {}
    for package in ("engine", "eos_tui"):
        for path in (ROOT / package).rglob("*.py"):
            for name in taken(ast.parse(path.read_text(encoding="utf-8"))):
                uses.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    assert uses == {name: set(files) for name, files in USES.items()}


def test_each_has_a_test_that_there_is():
    for files in USES.values():
        for use in files.values():
            path, _, name = use.test.partition("::")
            assert f"def {name}(" in (TESTS.parent / path).read_text(encoding="utf-8"), use.test


def test_a_use_is_seen_however_it_is_written():
    for source in (
        "import jax._src.core", "from jax._src import core", "from jax.interpreters import ad", "jax.core.Tracer", "jax.lib.x()",
        "import_module('jax._src.util')", "from jax.numpy import _private", "import jaxlib.xla_client", "from flax.nnx import _x",
    ):  # fmt: skip
        assert taken(ast.parse(source)), source
    assert taken(ast.parse("import jax\nfrom jax import numpy, lax\njax.numpy.ones(3)\n'see jax._src for it'")) == set()


@pytest.mark.parametrize(("lacking", "module"), [
    ("jax.interpreters", "engine.xla.split"), ("jax.extend.core", "engine.xla.split"), ("jax.extend", "engine.problems.narrowing"),
    ("jax.interpreters", "engine.xla.small_matrices"), ("jax.extend.core.primitives", "engine.xla.float32_products"),
])
def test_a_jax_without_what_is_taken_at_import_is_named_with_the_versions_that_have_it(lacking, module, monkeypatch):
    importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(UserError, match=rf"not as eos knows it in jax \d.*; expected a jax of {known_jax.KNOWN}"):
        importlib.import_module(module)


def test_another_jax_has_not_begun(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", SimpleNamespace())
    assert not xla_flags.has_begun()


def test_the_cache_of_another_jax_is_left_alone(monkeypatch):
    cache = SimpleNamespace(LRUCache="another")
    monkeypatch.setattr("jax._src.compilation_cache", cache)
    compile_cache.keep_whole()
    assert cache.LRUCache == "another"
    monkeypatch.setitem(sys.modules, "jax._src.lru_cache", None)
    compile_cache.keep_whole()


def test_a_tracer_is_what_a_traced_function_is_given():
    import jax

    seen = []
    jax.make_jaxpr(lambda x: seen.append(isinstance(x, jax.core.Tracer)) or x)(1.0)
    assert seen == [True]

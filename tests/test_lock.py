"""The lock file: every dependency is in it, at a version that pyproject.toml allows, with its sums. And what lies beside it."""

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from places import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
LOCKED: dict[str, list[Requirement]] = {}
for line in re.findall(r"^(\w[^\n]*?) \\$", LOCK, re.MULTILINE):
    LOCKED.setdefault(canonicalize_name(Requirement(line).name), []).append(Requirement(line))


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
def test_a_dependency_is_locked_within_its_bounds(text):
    wanted = Requirement(text)
    for locked in LOCKED[canonicalize_name(wanted.name)]:
        assert wanted.specifier.contains(next(iter(locked.specifier)).version), locked


def test_what_a_locked_package_needs_is_locked_too():
    for name in LOCKED:
        try:
            needs = map(Requirement, requires(name) or [])
        except PackageNotFoundError:  # of another platform, or not installed here
            continue
        missing = [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        assert [need for need in missing if canonicalize_name(need) not in LOCKED] == [], name


def test_every_locked_version_has_its_sums_and_no_host():
    assert LOCK.count("--hash=sha256:") > len(LOCKED)
    assert "://" not in LOCK


def test_the_top_level_is_what_a_source_archive_carries():
    """Packages, presets, tests and three files; what else there is lies in folders with a dot. Each is in the archive: tests read them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    top = {path.partition("/")[0] for path in listed.stdout.splitlines()}
    assert top - {".gitignore", "pyproject.toml"} == set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert {name for name in top if not name.startswith(".")} == {
        "LICENSE", "README.md", "engine", "eos_tui", "presets", "pyproject.toml", "tests",
    }  # fmt: skip

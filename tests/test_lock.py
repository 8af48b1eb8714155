"""The lock file: every dependency is in it, at a version that pyproject.toml allows, with its sums."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED: dict[str, list[Requirement]] = {}
for line in re.findall(r"^(\w[^\n]*?) \\$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE):
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
    body = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert body.count("--hash=sha256:") > len(LOCKED)
    assert "://" not in body

"""The files around the package agree with each other and with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import fastconv

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, str]:
    """Return the versions of a constraints file."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines)
    return {canonicalize_name(package): version for package, version in found.items()}


def lowest_versions() -> dict[str, set[str]]:
    """Return the lower bounds of all dependencies but those of developers and peers."""
    extras = PROJECT["optional-dependencies"]
    named = [extras[name] for name in extras.keys() - {"dev", "peers"}]
    stated = sum(named, PROJECT["dependencies"])
    found: dict[str, set[str]] = {}
    for requirement in map(Requirement, stated):
        if requirement.name != "fastconv":
            (bound,) = requirement.specifier
            assert bound.operator == ">="
            found.setdefault(canonicalize_name(requirement.name), set()).add(bound.version)
    return found


def test_the_oldest_versions_are_the_stated_ones() -> None:
    oldest = pins("constraints-oldest.txt")
    for name, (version,) in lowest_versions().items():
        assert Version(oldest[name]) == Version(version), name


def test_every_dependency_is_pinned() -> None:
    assert lowest_versions().keys() <= pins("constraints.txt").keys()


def test_all_files_name_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [fastconv.__version__]
    first = re.search(r"^## \[(\S+)\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert first[1] == fastconv.__version__


def test_links_between_files_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\((?!https?://|#)([^)\s#]+)", prose):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

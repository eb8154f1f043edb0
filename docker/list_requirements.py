"""List the dependencies of pyproject.toml for one image, one a line, on standard output.

An image may lack some (`--without pyvips-binary`: it has Debian's libvips) and may hold another build of one
(`--replace onnxruntime=onnxruntime-gpu`: the two share files, so that only one can be installed).
Standard library alone: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def name_of(requirement: str) -> str:
    """`uvicorn[standard]>=0.34` -> `uvicorn`, normalised as PEP 503 says. Raises ValueError."""
    found = _NAME.match(requirement)
    if found is None:
        raise ValueError(f"expected a requirement, got {requirement!r}")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def list_requirements(dependencies: Sequence[str], without: Sequence[str], replace: Mapping[str, str]) -> list[str]:
    """Raises ValueError for a name that is no dependency: the image's list would be out of date in silence."""
    known = {name_of(dependency) for dependency in dependencies}
    if unknown := {*without, *replace} - known:
        raise ValueError(f"expected dependencies of pyproject.toml, got {', '.join(sorted(unknown))}")
    kept = [dependency for dependency in dependencies if name_of(dependency) not in without]
    return [_rename(dependency, replace.get(name_of(dependency))) for dependency in kept]


def _rename(requirement: str, name: str | None) -> str:
    return requirement if name is None else _NAME.sub(name, requirement, count=1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("--without", action="append", default=[], metavar="NAME")
    parser.add_argument("--replace", action="append", default=[], metavar="NAME=NAME")
    options = parser.parse_args(arguments)
    project = tomllib.loads(options.pyproject.read_text())["project"]
    replace = dict(pair.split("=", 1) for pair in options.replace)
    for line in list_requirements(project["dependencies"], options.without, replace):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()

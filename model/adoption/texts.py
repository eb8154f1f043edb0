"""Small files of text that describe a model: JSON and YAML, read with limits, and checked against what we expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gigamask.errors import BadModel

_LARGEST_BYTES = 4 << 20
_MOST_VALUES = 1_000_000
Checked = TypeVar("Checked", bound=BaseModel)


def read_json(path: Path) -> dict[str, Any]:
    """Raises BadModel."""
    try:
        return _mapping(json.loads(_text(path)), path)
    except (ValueError, RecursionError) as exc:
        raise BadModel(f"{path.name} is not JSON: {exc}") from exc


def read_yaml(path: Path) -> dict[str, Any]:
    """Plain values alone; a tag that would make an object is an error. Raises BadModel."""
    import yaml

    text = _text(path)
    try:
        _require_no_merging(text)
        told = _mapping(yaml.safe_load(text), path)
        unfolded = _unfolded(told, {})
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # ValueError: a 13th month, a number of 5,000 digits
        raise BadModel(f"{path.name} is not plain YAML: {exc}") from exc
    if unfolded > _MOST_VALUES:
        raise BadModel(f"{path.name} unfolds to {unfolded:,} values, expected at most {_MOST_VALUES:,}")
    return told


def _require_no_merging(text: str) -> None:
    """Merge keys are unfolded while they are read: a few lines of them are gigabytes before anybody can count."""
    import yaml

    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.ScalarEvent) and (event.value == "<<" or event.tag == "tag:yaml.org,2002:merge"):
            raise yaml.YAMLError("merge keys (<<) are not read")


def _unfolded(value: Any, known: dict[int, int]) -> int:
    """Values in it when every alias is written out: a few lines of aliases can be gigabytes. RecursionError: a loop."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(value)]


def validated(kind: type[Checked], told: Any, name: str) -> Checked:
    """Raises BadModel with the field, what was expected and what was got."""
    try:
        return kind.model_validate(told)
    except ValidationError as exc:
        wrong = exc.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise BadModel(f"{name}: {where}: {wrong['msg']}, got {str(wrong['input'])[:80]}") from exc


def file_beside(folder: Path, source: Any, what: str) -> Path:
    """A file that a description names, inside its folder. Raises BadModel for addresses and ways out."""
    name = str(source)
    if "://" in name:
        raise BadModel(f"{what} is at an address ({name}): download the whole package and give its folder")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise BadModel(f"{what} is {name!r}, which is no file in {folder.name}")
    return path


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadModel(f"{path.name} has more than {_LARGEST_BYTES} bytes")
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise BadModel(f"{path.name}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadModel(f"{path.name} is no text: {exc}") from exc


def _mapping(told: Any, path: Path) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise BadModel(f"{path.name} holds a {type(told).__name__}, expected a mapping")
    return told

"""The classes of a model as people write them: a line, a JSON file, a CSV file."""

from __future__ import annotations

import colorsys
import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gigamask.errors import InvalidOption
from gigamask.manifest import LabelClass

_ENTRY = re.compile(r"(?:(?P<id>\d+)\s*=\s*)?(?P<name>[^=:]+?)(?:\s*:\s*(?P<color>#?[0-9a-fA-F]{6}))?")
_GOLDEN = 0.61803398875  # of the circle of hues: no two of many neighbours look alike
_LARGEST_BYTES = 1 << 20

Entry = tuple[int | None, str, str | None]


def parse_classes(text: str) -> tuple[LabelClass, ...]:
    """`background,tissue`, `0=background:#000000,1=tissue`, or the path of a JSON or CSV file. Raises InvalidOption."""
    path = Path(text)
    if path.suffix.lower() in (".json", ".csv"):
        return _numbered(_from_file(path))
    return _numbered(_entry(part) for part in text.split(","))


def name_classes(names: Iterable[str]) -> tuple[LabelClass, ...]:
    """In the order of their ids, with colours of our choice. Raises InvalidOption."""
    return _numbered((None, name, None) for name in names)


def color_of(class_id: int) -> str:
    """A colour that differs from its neighbours'; class 0 is dark."""
    if class_id == 0:
        return "#303030"
    red, green, blue = colorsys.hsv_to_rgb(class_id * _GOLDEN % 1, 0.75, 0.95)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _entry(part: str) -> Entry:
    match = _ENTRY.fullmatch(part.strip())
    if match is None:
        raise InvalidOption(f"a class is name, id=name or id=name:#rrggbb, not {part.strip()!r}")
    return (int(match["id"]) if match["id"] else None), match["name"].strip(), match["color"]


def _numbered(entries: Iterable[Entry]) -> tuple[LabelClass, ...]:
    told = list(entries)
    numbers = [index if entry[0] is None else entry[0] for index, entry in enumerate(told)]
    if sorted(numbers) != list(range(len(numbers))) or not numbers:
        raise InvalidOption(f"class ids are 0, 1, 2, ... without a gap, not {numbers}")
    try:
        made = [_class(number, name, color) for number, (_, name, color) in zip(numbers, told, strict=True)]
    except ValidationError as exc:
        wrong = exc.errors()[0]
        raise InvalidOption(f"classes: {wrong['loc'][0]}: {wrong['msg']}, got {wrong['input']!r}") from exc
    return tuple(sorted(made, key=lambda found: found.id))


def _class(number: int, name: str, color: str | None) -> LabelClass:
    return LabelClass(id=number, name=name, color=f"#{color.lstrip('#').lower()}" if color else color_of(number))


def _from_file(path: Path) -> list[Entry]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InvalidOption(f"{path}: a list of classes has at most {_LARGEST_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        return _from_json(json.loads(text)) if path.suffix.lower() == ".json" else _from_csv(text)
    except OSError as exc:
        raise InvalidOption(f"{path}: {exc.strerror}") from exc
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise InvalidOption(f"{path} is no list of classes: {exc}") from exc


def _from_json(told: Any) -> list[Entry]:
    """["a", "b"], [{"name", "id", "color"}], {"0": "a"}, or one of these under `classes` or `id2label`."""
    if isinstance(told, Mapping):
        for key in ("classes", "id2label"):
            if key in told:
                return _from_json(told[key])
        return [(int(number), str(name), None) for number, name in told.items()]
    return [(None, entry, None) if isinstance(entry, str) else _row(entry) for entry in told]


def _from_csv(text: str) -> list[Entry]:
    """A header with `name` and, if wanted, `id` and `color`."""
    return [_row(row) for row in csv.DictReader(text.splitlines())]


def _row(row: Mapping[str, Any]) -> Entry:
    number = row.get("id")
    return (None if number in (None, "") else int(str(number))), str(row["name"]).strip(), row.get("color") or None

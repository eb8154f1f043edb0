"""The images of a batch: the files of a folder, or the rows of a CSV manifest, each with a model and a name of its own.

A manifest has a first row of column names: `path`, and where wanted `model`, `name`, `pixel_size_um` and `roi`, which
stand over what the command says. Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gigamask.errors import GigamaskError, InvalidOption

COLUMNS = ("path", "model", "name", "pixel_size_um", "roi")
_GEOJSON = (".json", ".geojson")


@dataclass(frozen=True, slots=True)
class BatchImage:
    """One image with one model. name: of its output, without `.zarr`. where: what errors call it ("list.csv, line 3").

    pixel_size_um, roi: None where the command's own holds.
    """

    name: str
    image: Path
    model: str
    where: str
    pixel_size_um: float | None = None
    roi: str | None = None


def list_images(source: Path, models: Sequence[str]) -> tuple[list[BatchImage], list[Path]]:
    """What is to be done, and the files of a folder that are no images. Raises InvalidOption, naming the line."""
    if source.is_dir():
        images, left_out = _sort_files(source)
        found = [_plain(path, models) for path in images]
    elif source.is_file():
        found, left_out = list(_read_rows(source, models)), []
    else:
        raise InvalidOption(f"a batch is a folder of images or a CSV manifest; there is nothing at {source}")
    if not found:
        raise InvalidOption(f"{source} names no image")
    return _named_apart([image for images in found for image in images]), left_out


def _sort_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and others, by their first bytes; hidden files and folders are neither."""
    from gigamask.sources.signature import identify

    images, others = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            identify(path)
            images.append(path)
        except GigamaskError:
            others.append(path)
    return images, others


def _plain(path: Path, models: Sequence[str]) -> list[BatchImage]:
    if not models:
        raise InvalidOption("a folder of images needs --model")
    return [BatchImage(path.stem, path, model, str(path)) for model in dict.fromkeys(models)]


def _read_rows(manifest: Path, models: Sequence[str]) -> Iterator[list[BatchImage]]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            separator = ";" if ";" in first and "," not in first else ","
            rows = csv.DictReader(stream, delimiter=separator, skipinitialspace=True, strict=True)
            _check_columns(rows.fieldnames, manifest)
            for row in rows:
                yield _read_row(row, manifest, f"{manifest.name}, line {rows.line_num}", models)
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidOption(
            f"{manifest} is no CSV manifest ({exc}); for one image there is `gigamask segment`"
        ) from exc


def _check_columns(names: Sequence[str] | None, manifest: Path) -> None:
    found = list(names or ())
    unknown = sorted(set(found) - set(COLUMNS))
    if "path" not in found or unknown or len(set(found)) < len(found):
        raise InvalidOption(
            f"{manifest.name}, line 1: columns are path and any of {', '.join(COLUMNS[1:])}; got {found}"
        )


def _read_row(row: dict[str, str | None], manifest: Path, where: str, models: Sequence[str]) -> list[BatchImage]:
    if None in row or None in row.values():
        raise InvalidOption(f"{where}: as many fields as column names; got {'more' if None in row else 'fewer'}")
    value = {name: (text or "").strip() for name, text in row.items()}
    path = manifest.parent / value["path"]
    if not value["path"] or not path.is_file():
        raise InvalidOption(f"{where}: there is no file at {value['path'] or '(empty path)'}")
    chosen = [value["model"]] if value.get("model") else list(dict.fromkeys(models))
    if not chosen:
        raise InvalidOption(f"{where}: names no model, and there is no --model")
    name = value.get("name") or path.stem
    if Path(name).name != name or name.startswith("."):
        raise InvalidOption(f"{where}: a name is that of a file, without a folder; got {name!r}")
    size, roi = _read_size(value.get("pixel_size_um"), where), value.get("roi") or None
    if roi and roi.lower().endswith(_GEOJSON):
        roi = str(manifest.parent / roi)
    return [BatchImage(name, path, model, where, size, roi) for model in chosen]


def _read_size(text: str | None, where: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError as exc:
        raise InvalidOption(f"{where}: pixel_size_um is a number, not {text!r}") from exc


def _named_apart(images: list[BatchImage]) -> list[BatchImage]:
    """Files that differ in their ending only keep it; of several models: NAME.MODEL. Raises InvalidOption for twins."""
    files = {(image.name, image.image) for image in images}
    stems = Counter(name for name, _ in files)
    apart = [
        replace(image, name=image.image.name) if stems[image.name] > 1 and image.name == image.image.stem else image
        for image in images
    ]
    models = Counter(name for name, _ in {(image.name, image.model) for image in apart})
    named = [replace(i, name=f"{i.name}.{i.model}") if models[i.name] > 1 else i for i in apart]
    taken: dict[str, BatchImage] = {}
    for image in named:
        if (other := taken.setdefault(image.name, image)) is not image:
            raise InvalidOption(f"{image.where}: {image.name}.zarr is already that of {other.where}; give it a `name`")
    return named


@contextmanager
def told_where(image: BatchImage) -> Iterator[None]:
    """Errors of a row say which."""
    try:
        yield
    except GigamaskError as exc:
        raise type(exc)(f"{image.where}: {exc.message}") from exc

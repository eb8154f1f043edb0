"""A result as OME-Zarr 0.4 in Zarr v2, key by key, for tools that read neither Zarr v3 nor shards.

Nothing is stored twice: a key is made from the v3 tree when it is asked for. A chunk of v2 is an inner chunk of a v3
shard, decoded and encoded again with blosc (lz4): jzarr, which QuPath reads Zarr with, knows blosc and zlib and no
zstd of its own. v2 has no partial chunks, so those at an array's end are filled up; a chunk of fill value alone is
absent, which in v2 means the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.pyramid.arrays import LevelReader

if TYPE_CHECKING:
    from gigamask.pyramid.arrays import Pixels
    from gigamask.pyramid.result import Result

VERSION = "0.4"
LEVEL, SHUFFLE = 5, 1
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": LEVEL, "shuffle": SHUFFLE, "blocksize": 0}
OPEN_ARRAYS = 64
_NUMBER = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)

Metadata = dict[str, Any]


def read_key(root: Path, key: str) -> bytes | None:
    """The value of a key of the v2 store, or None where it has none. root: of the v3 result."""
    folder, _, name = key.rpartition("/")
    if name in (".zgroup", ".zarray", ".zattrs"):
        node = _node(root, folder)
        value = _metadata(node, name) if node else None
        return None if value is None else json.dumps(value, indent=1).encode()
    return _read_chunk(root, key)


def _metadata(node: Metadata, name: str) -> Metadata | None:
    """node: a `zarr.json`."""
    group = node["node_type"] == "group"
    if name == ".zattrs":
        return group_attributes(node["attributes"]) if group else None
    if name == ".zgroup":
        return {"zarr_format": 2} if group else None
    return None if group else array_metadata(node)


def group_attributes(attributes: Metadata) -> Metadata:
    """OME-Zarr 0.5 keeps its metadata and one version below `ome`; in 0.4 they stand alone, each with its version."""
    ome = {name: value for name, value in attributes.get("ome", {}).items() if name != "version"}
    if "multiscales" in ome:
        ome["multiscales"] = [{**scales, "version": VERSION} for scales in ome["multiscales"]]
    for name in ("image-label", "omero"):
        if name in ome:
            ome[name] = {**ome[name], "version": VERSION}
    return ome | {name: value for name, value in attributes.items() if name != "ome"}


def array_metadata(node: Metadata) -> Metadata:
    """Of a sharded v3 array, with the shard's inner chunks as chunks."""
    return {
        "zarr_format": 2,
        "shape": node["shape"],
        "chunks": node["codecs"][0]["configuration"]["chunk_shape"],
        "dtype": np.dtype(node["data_type"]).str,
        "compressor": BLOSC,
        "fill_value": node["fill_value"],
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }


def _read_chunk(root: Path, key: str) -> bytes | None:
    parts = key.split("/")
    for axes in (2, 3):
        folder, index = "/".join(parts[:-axes]), parts[-axes:]
        if not folder or not all(map(_NUMBER.fullmatch, index)):
            return None
        node = _node(root, folder)
        if node and node["node_type"] == "array" and len(node["shape"]) == axes:
            return encode_chunk(root / folder, array_metadata(node), tuple(map(int, index)))
    return None


def encode_chunk(folder: Path, array: Metadata, index: tuple[int, ...]) -> bytes | None:
    """None beyond the array's end, and where there is nothing but fill value."""
    import imagecodecs

    starts = [number * side for number, side in zip(index, array["chunks"], strict=True)]
    stops = [min(a + side, n) for a, side, n in zip(starts, array["chunks"], array["shape"], strict=True)]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        return None
    found = _reader(folder).read(tuple(slice(a, b) for a, b in zip(starts, stops, strict=True)))
    if (found == array["fill_value"]).all():
        return None
    whole = _filled_up(found, array)
    encode = partial(imagecodecs.blosc_encode, level=LEVEL, compressor="lz4", shuffle=SHUFFLE, numthreads=1)
    return bytes(encode(whole.tobytes(), typesize=whole.itemsize))


def _filled_up(found: Pixels, array: Metadata) -> Pixels:
    whole = np.full(array["chunks"], array["fill_value"], found.dtype)
    whole[tuple(slice(n) for n in found.shape)] = found
    return whole


@lru_cache(maxsize=OPEN_ARRAYS)
def _reader(folder: Path) -> LevelReader:
    """Of a published result, which does not change."""
    return LevelReader(folder)


def _node(root: Path, folder: str) -> Metadata | None:
    """The `zarr.json` of a group or array below `root`; names that are no names of Zarr nodes lead nowhere."""
    parts = folder.split("/") if folder else []
    if not all(_NAME.fullmatch(part) and len(part) <= 255 for part in parts):
        return None
    try:
        path = root.joinpath(*parts, "zarr.json").resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    if not path.is_relative_to(root.resolve()):
        return None
    node: Metadata = json.loads(path.read_bytes())
    return node


def list_keys(root: Path) -> Iterator[str]:
    """Every key that may have a value: metadata first, then the chunks of array after array."""
    nodes = sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("zarr.json"))
    folders = {"" if name == "." else f"{name}/": _node(root, "" if name == "." else name) for name in nodes}
    for folder, node in folders.items():
        if node:
            yield from (f"{folder}{name}" for name in (".zgroup", ".zarray", ".zattrs") if _metadata(node, name))
    for folder, node in folders.items():
        if node and node["node_type"] == "array":
            array = array_metadata(node)
            counts = [-(-n // side) for n, side in zip(array["shape"], array["chunks"], strict=True)]
            yield from (f"{folder}{'/'.join(map(str, index))}" for index in product(*map(range, counts)))


def write_zarr2(result: Result, target: Path, _options: ExportOptions, progress: Progress) -> None:
    """target: a folder, made. The same keys as `read_key`, as files."""
    total = sum(1 for _ in list_keys(result.root))
    for done, key in enumerate(list_keys(result.root), start=1):
        value = read_key(result.root, key)
        if value is not None:
            path = target / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
        progress(done / total)

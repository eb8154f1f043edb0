"""python -m benchmarks (`make bench`): speed, memory, upload, tiles; one JSON line last. `--quick`: a few minutes."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping
from typing import get_args

import psutil

from benchmarks import memory, speed, tiles, upload
from benchmarks.pictures import Layout, picture_path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", default="earth-water")
    parser.add_argument("--only", choices=("speed", "memory", "upload", "tiles"), help="one part; default: all")
    parser.add_argument("--gigapixels", type=float, nargs="+", default=[0.25, 1.0, 4.0], choices=memory.SIDES_PX)
    parser.add_argument("--upload-gib", type=float, default=4.0)
    parser.add_argument("--regions", type=int, default=64, help="regions that the watched worker does")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="0.25 gigapixels, 0.5 GiB, one repeat")
    args = parser.parse_args()
    if args.quick:
        args.gigapixels, args.upload_gib, args.repeats = [0.25], 0.5, 1
    print(json.dumps({"machine": machine()} | _measure(args)))


def _measure(args: argparse.Namespace) -> dict[str, object]:
    found: dict[str, object] = {}
    if args.only in (None, "speed"):
        found["speed"] = _told(speed.measure(picture_path(), args.model, args.repeats))
    if args.only in (None, "upload"):
        found["upload"] = _told(upload.measure(args.upload_gib, args.model))
    if args.only in (None, "tiles"):
        seconds, drawn = (5.0, 4000) if args.quick else (15.0, tiles.FLAT_TILES)
        found["tiles"] = _told(tiles.measure(args.repeats, seconds, drawn))
    if args.only in (None, "memory"):
        found["memory"] = memory.measure(args.gigapixels, list(get_args(Layout)), args.model, args.regions)
    return found


def _told(row: Mapping[str, object]) -> Mapping[str, object]:
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def machine() -> str:
    memory_gib = psutil.virtual_memory().total / (1 << 30)
    return f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    main()

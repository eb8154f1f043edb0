"""python -m benchmarks.model: what SGNet costs on each host, how fast it runs, and beside other ways to tile.

Three parts, each a table on stderr, and one JSON line last: GMAC per host and context mode (counted, the same
everywhere), MP/s on this machine against MMSegmentation's and MONAI's schemes with the same weights in the same run,
and peak memory as the image grows. `--quick` for a minute. Machines are noisy: read the ratios. On a CPU that others
use too, set OMP_WAIT_POLICY=passive, or threads that spin slow each other tenfold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import growth
from benchmarks.__main__ import machine
from benchmarks.cost import CLASSES, MODES, TILE_PX, build_network, count_costs, manifest_of
from benchmarks.schemes import Bytes, balance, by_regions, mmseg_slide, monai_window
from model.hosts import HOSTS
from model.predictors import Device, tile_predictor
from model.predictors.torch import TorchNetwork

Row = dict[str, object]
LIGHT_HOSTS = ("mobilenet_v2_lraspp", "stdc1")
REGION_PX = 2048
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("--only", choices=("cost", "pace", "memory"), help="one part; default: all three")
    parser.add_argument("--hosts", nargs="+", choices=sorted(HOSTS), default=LIGHT_HOSTS, help="timed; all are counted")
    parser.add_argument("--regions-px", type=int, nargs="+", default=[2048, 4096], help="regions whose cost is counted")
    parser.add_argument("--span", type=int, default=1, help="of the neighbourhood, in windows")
    parser.add_argument("--side-px", type=int, default=2048, help="of the timed image")
    parser.add_argument("--batch", type=int, default=1, help="tiles in one call, where the scheme has batches")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: its own choice")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sides-px", type=int, nargs="+", default=[2048, 8192, 32768], help="whose memory is watched")
    parser.add_argument("--limit-gib", type=float, default=12.0, help="no process may take more")
    parser.add_argument("--quick", action="store_true", help="one host, 1024 px, one repeat, memory at 2048 and 8192")
    args = parser.parse_args()
    if args.quick:
        args.hosts, args.side_px, args.repeats, args.sides_px = args.hosts[:1], 1024, 1, [2048, 8192]
    print(json.dumps({"machine": machine(), "device": args.device} | measure(args)))


def measure(args: argparse.Namespace) -> dict[str, object]:
    bench = Bench(args.side_px, args.batch, args.repeats, args.device, args.span, args.threads)
    parts: dict[str, Callable[[], list[Row]]] = {
        "cost": lambda: measure_cost(args.regions_px, args.span),
        "pace": lambda: [row for host in args.hosts for row in measure_pace(host, bench)],
        "memory": lambda: measure_memory(args.sides_px, args.limit_gib),
    }
    found: dict[str, object] = {}
    for name, part in parts.items():
        if args.only in (None, name):
            found[name] = rows = part()
            err.print(cost_table(rows) if name == "cost" else plain_table(name, rows))
    return found


def measure_cost(regions_px: Sequence[int], span: int) -> list[Row]:
    """Every host, with and without the branch, per context mode."""
    counted = (cost for host in HOSTS for cost in count_costs(host, regions_px, span))
    return [{name: rounded(value) for name, value in asdict(cost).items()} for cost in counted]


@dataclass(frozen=True, slots=True)
class Bench:
    """The image is square. batch: tiles in one call, where a scheme has batches."""

    side_px: int
    batch: int
    repeats: int
    device: Device
    span: int
    threads: int | None


def measure_pace(host: str, bench: Bench) -> list[Row]:
    """Random weights and pixels; all ways in turn, `repeats` times; medians. times_host: the host alone, Gigamask's
    way, is 1. same_labels: the share of pixels labelled as by that. A small image's borders spare it what a region in
    the middle of a large one reads around itself: the shared modes look cheaper than they are counted."""
    image = np.random.default_rng(0).integers(0, 256, (3, bench.side_px, bench.side_px)).astype(np.uint8)
    ways = ways_of_host(host, bench)
    for way in ways.values():
        way(image[:, :TILE_PX, :TILE_PX])  # kernels are chosen, caches filled
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    labels: dict[str, Bytes] = {}
    for _ in range(bench.repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            labels[name] = way(image)
            seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds[ALONE])
    return [
        {
            "host": host,
            "way": name,
            "mp_per_s": rounded(image[0].size / 1e6 / statistics.median(spent)),
            "times_host": rounded(statistics.median(spent) / base),
            "same_labels": rounded(float((labels[name] == labels[ALONE]).mean())) if "host" in name else None,
        }
        for name, spent in seconds.items()
    ]


ALONE = "host, gigamask"


def ways_of_host(host: str, bench: Bench) -> dict[str, Callable[[Bytes], Bytes]]:
    ways: dict[str, Callable[[Bytes], Bytes]] = {}
    device = torch.device(bench.device)
    for mode in MODES:
        torch.manual_seed(0)
        network = build_network(host, mode, bench.span, device="cpu")
        balance(network)
        manifest = manifest_of(network, mode)
        # a GPU's pace is that of a batch of one shape, compiled; on a CPU there is no compiling (TorchNetwork)
        held = TorchNetwork(network, manifest, threads=bench.threads, device=bench.device, compiled=True)
        predictor = tile_predictor(manifest, held, bench.batch)
        ways[ALONE if mode == "host" else f"SGNet, {mode}"] = partial(by_regions, predictor, region_px=REGION_PX)
        if mode == "host":  # the same module, now where TorchNetwork has put it
            ways["host, mmseg slide"] = partial(mmseg_slide, network, classes=CLASSES, tile_px=TILE_PX, device=device)
            ways["host, monai"] = partial(monai_window, network, tile_px=TILE_PX, batch=predictor.batch, device=device)
    return ways


def measure_memory(sides_px: Sequence[int], limit_gib: float) -> list[Row]:
    rows = []
    for scheme in growth.SCHEMES:
        for side_px in sides_px:
            rows.append(growth.measure(scheme, side_px, limit_gib))
            err.print(json.dumps(rows[-1]))
    return rows


def rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def cost_table(rows: list[Row]) -> Table:
    """A line a host: GMAC per megapixel, and times the host alone."""
    heads = list(dict.fromkeys(_head(row) for row in rows))
    table = Table("host", "M parameters", "with SGNet", *heads, title="GMAC per megapixel (times the host alone)")
    for host in dict.fromkeys(row["host"] for row in rows):
        own = {_head(row): row for row in rows if row["host"] == host}
        cells = [f"{row['gmac_per_mp']} ({row['over_host']})" for row in own.values()]
        table.add_row(str(host), str(own["host"]["parameters_m"]), str(own["tile"]["parameters_m"]), *cells)
    return table


def _head(row: Row) -> str:
    return str(row["mode"]) if row["region_px"] is None else f"{row['mode']}, {row['region_px']} px"


def plain_table(title: str, rows: list[Row]) -> Table:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*("-" if value is None else str(value) for value in row.values()))
    return table


if __name__ == "__main__":
    main()

"""How models look on the terminal: the list of those there are, and one that is being adopted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from cli.console import err, out
from gigamask.manifest import ModelManifest

if TYPE_CHECKING:
    from model.adoption.adopt import Proposal
    from model.adoption.description import Scaling


def print_list(manifests: list[ModelManifest], *, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps([m.model_dump(mode="json") for m in manifests]), soft_wrap=True, markup=False)
        return
    table = Table(Column("model", no_wrap=True), "version", "tile", "context", "trained at", "classes", "licence")
    for m in manifests:
        tile, names = f"{m.tile_px} px", _class_names(m)
        table.add_row(m.name, escape(m.version), tile, context_of(m), _size_of(m), names, escape(m.license))
    out.print(table)


def context_of(manifest: ModelManifest) -> str:
    """What a tile sees beyond itself: a halo of so many px on each side, or a surround of so many in all."""
    if manifest.context.mode == "neighbourhood":
        return f"halo {manifest.context.halo_px} px"
    adopted = manifest.provenance.get("adoption")
    if isinstance(adopted, dict) and manifest.alpha > 1:
        return f"halo {adopted.get('halo_px')} px"
    return f"surround {manifest.tile_px * manifest.alpha} px" if manifest.alpha > 1 else "none"


def print_proposal(proposal: Proposal, folder: Path | None, root: Path, *, as_json: bool) -> None:
    """folder: where it was written, None for a dry run."""
    if as_json:
        told = {
            "written": folder and str(folder),
            "manifest": proposal.manifest.model_dump(mode="json"),
            "sample_agreement": proposal.sample_agreement,
            "seconds_per_tile": round(proposal.study.verdict.seconds, 6),
        }
        out.print(json.dumps(told), soft_wrap=True, markup=False)
        return
    out.print(_proposal_table(proposal))
    for note in proposal.study.assumptions:
        err.print(f"[yellow]assumed[/] {escape(note)}", soft_wrap=True)
    where = root / proposal.name
    told_last = f"nothing written; without --dry-run it goes to {where}" if folder is None else str(folder)
    out.print(told_last, soft_wrap=True, markup=False)


def _proposal_table(proposal: Proposal) -> Table:
    manifest, wiring, verdict = proposal.manifest, proposal.study.wiring, proposal.study.verdict
    table = Table(show_header=False)
    table.add_row("model", f"{manifest.name} {escape(manifest.version)}")
    table.add_row("source", f"{escape(proposal.origin.name)}, sha256 {proposal.origin.sha256[:16]}...")
    table.add_row("classes", _class_names(manifest))
    table.add_row("pixel size", _size_of(manifest))
    table.add_row("tile", f"{manifest.tile_px} px, context {context_of(manifest)}")
    table.add_row("network takes", f"{wiring.channels}, {_linear(wiring.scaling)}")
    table.add_row("network gives", "labels" if wiring.map.labels else f"scores, activation {wiring.map.activation}")
    table.add_row("licence", escape(manifest.license))
    table.add_row("wrapped and plain", f"{verdict.agreement:.3%} of the labels are the same")
    if proposal.sample_agreement is not None:
        table.add_row("author's test", f"{proposal.sample_agreement:.3%} of the values are the same")
    pace = manifest.tile_px**2 / 1e6 / verdict.seconds
    table.add_row("pace here", f"{verdict.seconds * 1000:.1f} ms a tile, {pace:.2f} MP/s")
    return table


def _linear(scaling: Scaling) -> str:
    pairs = zip(scaling.gain, scaling.shift, strict=True)
    return "; ".join(f"{gain:.5g} x pixel {'-' if shift < 0 else '+'} {abs(shift):.5g}" for gain, shift in pairs)


def _size_of(manifest: ModelManifest) -> str:
    size = manifest.pixel_size
    return f"{size.value:g} {size.unit}" if size else "-"


def _class_names(manifest: ModelManifest) -> str:
    return ", ".join(f"[on {c.color}]  [/] {escape(c.name)}" for c in manifest.classes)

"""`gigamask models add` as a function: source and wishes in, a model folder out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from gigamask.errors import BadModel, InvalidOption
from gigamask.manifest import ModelManifest
from model.adoption.acceptance import accept_sample
from model.adoption.description import Description
from model.adoption.folder import manifest_of, write_folder
from model.adoption.recognise import Origin, find_source, origin_of, read_graph
from model.adoption.study import Study, study

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would be written. sample_agreement: with the author's recorded test, None where there is none."""

    name: str
    study: Study
    origin: Origin
    sample_agreement: float | None

    @property
    def manifest(self) -> ModelManifest:
        """Without its files, which are not there yet."""
        return manifest_of(self.study, self.name, self.origin, {})

    def write(self, root: Path, *, overwrite: bool = False) -> Path:
        """The folder. Raises Conflict where there is one, unless `overwrite`."""
        return write_folder(self.study, self.name, self.origin, root, overwrite=overwrite)


def propose(source: Path, wishes: Description, threads: int = 0) -> Proposal:
    """Read, check, wrap and try; nothing is written. Raises BadModel, InvalidOption."""
    path, found = find_source(source)
    told = found.overridden_by(wishes)
    for name, why in told.refusals.items():
        raise BadModel(f"{name}: {why}")
    name, named = _name(told, path)
    graph = read_graph(path, told)
    done = study(graph, told, threads)
    notes = [*told.notes, *named, *done.assumptions]
    agreement = None
    if told.sample is not None and wishes.scaling is None:
        agreement = accept_sample(graph, done.wiring, told.sample)
    elif told.sample is not None:
        notes.append("the author's test was not run: another normalisation was asked for")
    if told.pixel_size is None:
        notes.append("nobody said how large a pixel is: pixels are taken as they are (--um-per-px or --m-per-px)")
    proposal = Proposal(name, replace(done, assumptions=tuple(notes)), origin_of(path), agreement)
    _ = proposal.manifest  # what a manifest does not take is told now
    return proposal


def _name(told: Description, path: Path) -> tuple[str, list[str]]:
    """The name, and a note where it was made from another. Raises InvalidOption."""
    wanted = told.name or path.stem
    if _NAME.fullmatch(wanted):
        return wanted, ([] if told.name else [f"nobody said a name: {wanted}, from the file's (--name)"])
    made = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[:63].strip("-")
    if not _NAME.fullmatch(made):
        raise InvalidOption(f"a name is small letters, digits and dashes, not {wanted!r}: --name")
    return made, [f"{wanted!r} is no name for a folder: {made} (--name)"]

"""`gigamask models`: list what there is to segment with, adopt a model from elsewhere, check one, remove one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import err, out, told_errors
from gigamask.errors import BadModel, GigamaskError, InvalidOption
from gigamask.settings import SHIPPED_MODELS, Settings

if TYPE_CHECKING:
    from gigamask.manifest import ModelManifest, PixelSize

app = typer.Typer(help="Models: what there is to segment with, and how to bring one's own (docs/models.md).")

Json = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]


class ActivationName(StrEnum):
    none = "none"
    sigmoid = "sigmoid"
    softmax = "softmax"


class LayoutName(StrEnum):
    nchw = "NCHW"
    nhwc = "NHWC"


class ChannelOrder(StrEnum):
    rgb = "rgb"
    bgr = "bgr"
    grey = "grey"


@app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the models that `segment` and this machine's service can use."""
    if context.invoked_subcommand is None:
        _list(as_json)


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the models that `segment` and this machine's service can use."""
    _list(as_json)


@app.command()
def add(
    source: Annotated[Path, typer.Argument(help="An ONNX or TorchScript file, or a folder that describes its model.")],
    name: Annotated[str | None, typer.Option("--name", help="What the model is called here.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="'background,tissue', 'id=name:#rrggbb,...', or a .json or .csv file.")
    ] = None,
    um_per_px: Annotated[float | None, typer.Option("--um-per-px", help="Pixels it was trained on, um.")] = None,
    m_per_px: Annotated[float | None, typer.Option("--m-per-px", help="The same in metres.")] = None,
    tile: Annotated[int | None, typer.Option("--tile", help="Side of a tile, px.")] = None,
    halo: Annotated[int | None, typer.Option("--halo", help="Pixels seen around each tile, and not kept.")] = None,
    mean: Annotated[str | None, typer.Option(help="Subtracted: one number, or one for each channel.")] = None,
    std: Annotated[str | None, typer.Option(help="Divided by: one number, or one for each channel.")] = None,
    scale: Annotated[str | None, typer.Option(help="Pixels are multiplied by this first, such as 1/255.")] = None,
    pixel_range: Annotated[str | None, typer.Option("--range", help="0..255 becomes this first: 0,1 or -1,1.")] = None,
    channels: Annotated[ChannelOrder | None, typer.Option(help="What the network takes.")] = None,
    layout: Annotated[LayoutName | None, typer.Option(help="Order of the input's axes.")] = None,
    input_name: Annotated[str | None, typer.Option("--input", help="The graph's input, to make sure.")] = None,
    output_name: Annotated[str | None, typer.Option("--output", help="The graph's output, where it has many.")] = None,
    activation: Annotated[ActivationName | None, typer.Option(help="What the graph ends with.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability over which a pixel is the class.")] = None,
    license_name: Annotated[str | None, typer.Option("--license", help="Such as Apache-2.0 or proprietary.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Of the model.")] = None,
    title: Annotated[str | None, typer.Option(help="One line on what it finds.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder of model folders that it is put into.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Adopt a segmentation model: check it, wrap it, try it, and put it where `segment` and the service find it.

    SOURCE is an ONNX or TorchScript file, or a folder of BioImage.IO (rdf.yaml), MONAI (configs/metadata.json) or
    WSInfer (config.json). What nobody says is assumed and shown. Pickles (.pt checkpoints, .pth, .pkl) are refused.
    """
    with told_errors(as_json), _told_missing():
        from cli.model_tables import print_proposal
        from model.adoption.adopt import propose
        from model.adoption.classes import parse_classes
        from model.adoption.description import Description
        from model.adoption.normalisation import parse_normalisation

        wishes = Description(
            name=name,
            version=version,
            title=title,
            classes=parse_classes(classes) if classes else None,
            pixel_size=_pixel_size(um_per_px, m_per_px),
            tile_px=tile,
            halo_px=halo,
            channels=channels.value if channels else None,
            layout=layout.value if layout else None,
            input_name=input_name,
            output_name=output_name,
            activation=activation.value if activation else None,
            threshold=threshold,
            license=license_name,
        ).overridden_by(parse_normalisation(scale, pixel_range, mean, std))
        settings = Settings()
        root = to or default_root(settings)
        proposal = propose(source, wishes, settings.threads)
        folder = None if dry_run else proposal.write(root, overwrite=overwrite)
        _warn_unseen(root, settings)
        print_proposal(proposal, folder, root, as_json=as_json)


@app.command()
def check(name: Annotated[str, typer.Argument(help="A model's name, or its folder.")], as_json: Json = False) -> None:
    """Hold a model to its manifest: each file's sha256, and the labels of its test vector."""
    with told_errors(as_json), _told_missing():
        from model.adoption.acceptance import check_folder

        found = check_folder(_folder(name))
    if as_json:
        told = {"name": found.name, "files": found.files, "label_agreement": found.label_agreement}
        out.print(json.dumps(told), soft_wrap=True, markup=False)
        return
    same = (
        "it has no test vector" if found.label_agreement is None else f"{found.label_agreement:.3%} of its test vector"
    )
    out.print(f"{found.name}: {len(found.files)} files are as its manifest says; {same}", markup=False)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A model's name.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a model's folder. Jobs that still need it will fail; the models that come with Gigamask stay."""
    from gigamask.manifest import ModelShelf

    with told_errors(as_json):
        folder = ModelShelf(Settings().models).folder(name)
        if folder.parent.resolve() == SHIPPED_MODELS.resolve():
            raise InvalidOption(f"{name} comes with Gigamask; GIGAMASK_MODELS says which folders are looked into")
        if not yes and not typer.confirm(f"Delete {folder}?", err=True):
            raise typer.Exit(1)
        _delete(folder)
    if as_json:
        out.print(json.dumps({"removed": str(folder)}), soft_wrap=True, markup=False)
    else:
        out.print(f"removed {folder}", soft_wrap=True, markup=False)


def default_root(settings: Settings) -> Path:
    """The first folder of GIGAMASK_MODELS that can be written and is not the shipped one. Raises InvalidOption."""
    for root in settings.models:
        if root.resolve() != SHIPPED_MODELS.resolve() and _writable(root):
            return root
    told = ":".join(map(str, settings.models))
    raise InvalidOption(f"no folder of GIGAMASK_MODELS ({told}) can be written: name one with --to")


def _writable(root: Path) -> bool:
    """It, or the nearest of its parents that exists, may be written."""
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _delete(folder: Path) -> None:
    """Out of every shelf's sight first, in one step."""
    import shutil
    import tempfile

    try:
        grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=folder.parent))
        folder.rename(grave / folder.name)
        shutil.rmtree(grave)
    except OSError as exc:
        raise InvalidOption(f"{folder}: {exc.strerror}") from exc


def _folder(name: str) -> Path:
    """Of a name on the shelf, or of a path."""
    from gigamask.manifest import MANIFEST_NAME, ModelShelf

    path = Path(name)
    return path.resolve() if (path / MANIFEST_NAME).is_file() else ModelShelf(Settings().models).folder(name)


@contextmanager
def _told_missing() -> Iterator[None]:
    """onnx and PyYAML are needed by adoption alone: where one is absent, what to do is told."""
    try:
        yield
    except ModuleNotFoundError as exc:
        raise BadModel(f"this needs the package {exc.name!r}, which is not here: pip install onnx pyyaml") from exc


def _pixel_size(um: float | None, metres: float | None) -> PixelSize | None:
    from gigamask.manifest import PixelSize

    if um is not None and metres is not None:
        raise InvalidOption("a pixel has one size: --um-per-px or --m-per-px, not both")
    told = um if metres is None else metres
    if told is None:
        return None
    if told <= 0:
        raise InvalidOption(f"the side of a pixel is a positive length, not {told:g}")
    return PixelSize(value=told, unit="meter" if um is None else "micrometer")


def _warn_unseen(root: Path, settings: Settings) -> None:
    if root.resolve() not in {path.resolve() for path in settings.models}:
        err.print(f"GIGAMASK_MODELS does not name {root}: add it, for `segment` and the service to see the model")


def _list(as_json: bool) -> None:
    """A folder that is broken is told and hides none of the others."""
    from cli.model_tables import print_list
    from gigamask.manifest import ModelShelf

    shelf, manifests = ModelShelf(Settings().models), list["ModelManifest"]()
    for name in shelf.folders():
        try:
            manifests.append(shelf.manifest(name))
        except GigamaskError as exc:
            err.print("[bold red]broken[/] ", end="")
            err.print(exc.message, markup=False, soft_wrap=True)
    print_list(manifests, as_json=as_json)

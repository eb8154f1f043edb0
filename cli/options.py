"""Options that several commands take, each said once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer


class Engine(StrEnum):
    onnx = "onnx"
    torch = "torch"


Image = Annotated[Path, typer.Argument(help="A TIFF, SVS, PNG, JPEG or WebP file of any size.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="A model's name (`gigamask models` lists them).")]
Json = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]
PixelSize = Annotated[
    float | None, typer.Option("--pixel-size-um", min=0, help="Side of a pixel in um, where the file does not say.")
]
SampleRange = Annotated[
    tuple[float, float] | None,
    typer.Option("--sample-range", help="Of images over 8 bits: the values that become 0 and 255."),
]
RegionSide = Annotated[
    int | None, typer.Option("--region-px", help="Side of a region (512 to 4096); the labels do not depend on it.")
]
Roi = Annotated[
    str | None,
    typer.Option("--roi", help="Region of interest: x,y,width,height in pixels, or a GeoJSON file. Outside: no data."),
]
Background = Annotated[
    Literal["keep", "skip"], typer.Option("--background", help="skip: tiles without tissue are not run.")
]
Resolution = Annotated[
    Literal["model", "native"],
    typer.Option("--resolution", help="Pixels as large as the model was trained at, or as they are."),
]
Overlap = Annotated[
    Literal["none", "half", "gaussian"],
    typer.Option("--overlap", help="Average overlapping tiles: four times the work."),
]
MinObject = Annotated[int, typer.Option("--min-object-px", min=0, help="Smaller objects take the label around them.")]
Probabilities = Annotated[bool, typer.Option("--probabilities", help="Keep the probability of every class.")]
Server = Annotated[str, typer.Option("--server", "-s", envvar="GIGAMASK_SERVER", help="URL of the service.")]

LOCAL_SERVER = "http://127.0.0.1:8000"

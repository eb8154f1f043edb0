"""Masks as TIFF, read back by libraries that nobody here wrote: tifffile, OpenSlide, GDAL, rio-cogeo."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from gigamask.exports.catalog import ExportOptions, export
from gigamask.exports.cog import check
from gigamask.exports.crs import crs_of
from gigamask.geometry import Box, level_shape
from gigamask.image_info import Georeference, ReadOptions
from gigamask.manifest import NO_DATA
from gigamask.pyramid.result import Result
from gigamask.settings import Settings
from gigamask.sources.source import open_source
from tests.exports.results_for_tests import COLORS, NAMES, Labels, blobs, make_result

GEOTIFF = (Path(__file__).parents[2] / "../shared/data/geotiff").resolve()
SHAPE = (1100, 1701)  # odd, and no multiple of a tile
UTM = Georeference(epsg=26914, transform=(485899.0, 5.0, 0.0, 5209246.0, 0.0, -5.0))
# A Lambert conic of nobody's, as GeoTIFF keys write it: no EPSG code names it.
CONIC = {
    "GTModelTypeGeoKey": 1, "GTRasterTypeGeoKey": 2, "GTCitationGeoKey": "ours", "GeographicTypeGeoKey": 4326,
    "ProjectedCSTypeGeoKey": 32767, "ProjectionGeoKey": 32767, "ProjCoordTransGeoKey": 8,
    "ProjStdParallel1GeoKey": 46.0, "ProjStdParallel2GeoKey": 49.0, "ProjFalseOriginLongGeoKey": 3.0,
    "ProjFalseOriginLatGeoKey": 46.5, "ProjFalseOriginEastingGeoKey": 700000.0,
    "ProjFalseOriginNorthingGeoKey": 6600000.0, "ProjLinearUnitsGeoKey": 9001, "KeyRevision": 1,
    "ModelPixelScale": [5.0, 5.0, 0.0],
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def labels() -> Labels:
    return blobs(SHAPE)


@pytest.fixture(scope="module")
def slide(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = tmp_path_factory.mktemp("slide") / "slide.zarr"
    return make_result(root, labels, pixel_size=(0.25, 0.5), unit="micrometer")


@pytest.fixture(scope="module")
def field(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Result:
    root = tmp_path_factory.mktemp("field") / "field.zarr"
    return make_result(root, labels, pixel_size=(5.0, 5.0), unit="meter", georeference=UTM)


@pytest.fixture(scope="module")
def ome(slide: Result) -> Path:
    return made(slide, "mask.ome.tif")


@pytest.fixture(scope="module")
def cog(field: Result) -> Path:
    return made(field, "mask.tif")


def made(result: Result, name: str, options: ExportOptions | None = None) -> Path:
    target = result.root.parent / "files" / name
    export(result.root, name, target, options or ExportOptions())
    return target


def level(result: Result, k: int) -> Labels:
    return result.labels(Box(0, 0, *level_shape(result.shape, k)), k)


# -- OME-TIFF


def test_tifffile_reads_every_level_of_an_ome_tiff_as_the_zarr_has_it(ome: Path, slide: Result) -> None:
    with tifffile.TiffFile(ome) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        assert len(tiff.pages) == 1  # the rest are SubIFDs
        levels = tiff.series[0].levels
        assert len(levels) == slide.mask.levels == 4
        for k, found in enumerate(levels):
            assert found.keyframe.is_tiled
            assert found.keyframe.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            np.testing.assert_array_equal(found.asarray(), level(slide, k))


def test_an_ome_tiff_says_how_large_a_pixel_is_on_every_level(ome: Path) -> None:
    pixels = ElementTree.fromstring(tifffile.tiffcomment(ome)).find(".//{*}Pixels")
    assert pixels is not None
    shown = {name: pixels.get(f"PhysicalSize{name}") for name in ("X", "XUnit", "Y", "YUnit")}
    assert shown == {"X": "0.5", "XUnit": "µm", "Y": "0.25", "YUnit": "µm"}
    with tifffile.TiffFile(ome) as tiff:
        for k, found in enumerate(tiff.series[0].levels):
            x, y = (found.keyframe.tags[tag].value for tag in ("XResolution", "YResolution"))
            assert x[0] / x[1] == pytest.approx(1e4 / 0.5 / 2**k)  # a centimetre has 10,000 um
            assert y[0] / y[1] == pytest.approx(1e4 / 0.25 / 2**k)


def test_an_ome_tiff_names_and_colours_the_classes(ome: Path) -> None:
    tree = ElementTree.fromstring(tifffile.tiffcomment(ome))
    found = {
        note.get("Namespace"): {pair.get("K"): pair.text for pair in note.iterfind(".//{*}M")}
        for note in tree.iterfind(".//{*}MapAnnotation")
    }
    assert found["gigamask/classes"] == {str(i): name for i, name in enumerate(NAMES)} | {"255": "no data"}
    assert found["gigamask/colors"] == {str(i): color for i, color in enumerate(COLORS)}


def test_openslide_opens_an_ome_tiff_and_shows_its_pixels_in_their_colours(ome: Path, slide: Result) -> None:
    """One level: its generic TIFF reader looks at pages alone, and OME-TIFF wants lower levels in SubIFDs."""
    with openslide.OpenSlide(ome) as opened:
        assert opened.properties["openslide.vendor"] == "generic-tiff"
        assert opened.level_dimensions == (SHAPE[::-1],)
        assert opened.properties["openslide.mpp-x"] == "0.5"
        box = Box(500, 900, 1100, 1701)  # over edges of tiles and of the image
        shown = np.asarray(opened.read_region((box.x0, box.y0), 0, (box.width, box.height)))
    np.testing.assert_array_equal(shown[..., :3], slide.legend.palette()[slide.labels(box)][..., :3])


def test_colours_are_changed_and_labels_are_not(slide: Result) -> None:
    target = made(slide, "mask.ome.tif", ExportOptions(colors={1: "#102030"}))
    with tifffile.TiffFile(target) as tiff:
        assert (tiff.pages.first.colormap[:, 1] // 257).tolist() == [0x10, 0x20, 0x30]
        np.testing.assert_array_equal(tiff.asarray(), level(slide, 0))


# -- COG


def test_rio_cogeo_finds_nothing_to_say_about_a_cog(cog: Path) -> None:
    assert cog_validate(str(cog), strict=True) == (True, [], [])


def test_rasterio_reads_a_cogs_pixels_place_and_meaning(cog: Path, field: Result) -> None:
    with rasterio.open(cog) as image:
        np.testing.assert_array_equal(image.read(1), level(field, 0))
        assert image.crs.to_epsg() == 26914
        assert image.transform == Affine(5.0, 0.0, 485899.0, 0.0, -5.0, 5209246.0)
        assert image.nodata == NO_DATA
        assert image.descriptions == ("patches labels",)
        assert image.tags(1) == {f"class_{i}": name for i, name in enumerate(NAMES)}
        palette = [image.colormap(1)[i][:3] for i in range(len(COLORS))]
        assert ["#" + bytes(color).hex() for color in palette] == list(COLORS)
        assert image.colorinterp[0] == rasterio.enums.ColorInterp.palette
    assert [path.name for path in cog.parent.iterdir() if path.name.startswith("mask.tif")] == ["mask.tif"]


def test_the_overviews_of_a_cog_are_the_masks_own_levels(cog: Path, field: Result) -> None:
    with rasterio.open(cog) as image:
        assert image.overviews(1) == [2, 4, 8]
    for k in range(1, field.mask.levels):
        with rasterio.open(cog, overview_level=k - 1) as image:
            np.testing.assert_array_equal(image.read(1), level(field, k))


@pytest.mark.parametrize("hurt", ["zeros", "cut"])
def test_a_cog_that_came_out_broken_is_found_out(cog: Path, field: Result, tmp_path: Path, hurt: str) -> None:
    """As GDAL leaves it on a disk that fills up, without a word."""
    content = bytearray(cog.read_bytes())
    middle = len(content) // 2
    broken = tmp_path / "mask.tif"
    broken.write_bytes(content[:middle] + (bytes(2000) + content[middle + 2000 :] if hurt == "zeros" else b""))
    check(cog, field, lambda done: None)
    with pytest.raises(OSError, match=r"read back"):
        check(broken, field, lambda done: None)


def test_a_crs_without_a_code_is_kept(labels: Labels, tmp_path: Path) -> None:
    place = Georeference(transform=(1000.0, 5.0, 0.0, 2000.0, 0.0, -5.0), keys=CONIC)
    result = make_result(tmp_path / "conic.zarr", labels[:300, :400], georeference=place)
    with rasterio.open(made(result, "mask.tif")) as image:
        assert image.transform == Affine(5.0, 0.0, 1000.0, 0.0, -5.0, 2000.0)  # not moved by half a pixel
        shown = image.crs.to_dict()
    assert {name: shown[name] for name in ("proj", "lat_1", "lat_2", "lon_0", "lat_0", "x_0", "y_0")} == {
        "proj": "lcc", "lat_1": 46, "lat_2": 49, "lon_0": 3, "lat_0": 46.5, "x_0": 700000, "y_0": 6600000,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cog.tif", "sentinel2_tci.tif", "naip_rgbn_2020.tif", "cog_rgb_mask.tif"])
def test_a_cog_lies_where_the_real_image_lies(labels: Labels, tmp_path: Path, name: str) -> None:
    if not (GEOTIFF / name).is_file():
        pytest.skip(f"the real image {name} is not here")
    found = open_source(GEOTIFF / name, ReadOptions(), Settings()).info.georeference
    result = make_result(tmp_path / "a.zarr", labels[:300, :400], georeference=found)
    with rasterio.open(made(result, "mask.tif")) as image, rasterio.open(GEOTIFF / name) as original:
        assert image.crs == original.crs
        assert image.transform.almost_equals(original.transform, 1e-9)


@pytest.mark.parametrize("keys", [{}, {"ModelPixelScale": [1.0, 1.0, 0.0]}, {"odd": "x"}])
def test_keys_that_make_no_crs_are_none(keys: dict[str, object]) -> None:
    assert crs_of(Georeference(keys=keys)) is None
    assert crs_of(None) is None


def test_a_slide_is_a_cog_too_and_is_nowhere_on_the_earth(slide: Result) -> None:
    target = made(slide, "mask.tif")
    assert cog_validate(str(target), strict=True)[0]
    with warnings.catch_warnings(), rasterio.open(target) as image:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        assert image.crs is None
        np.testing.assert_array_equal(image.read(1), level(slide, 0))


def test_a_crs_without_a_transform_is_left_out(labels: Labels, tmp_path: Path) -> None:
    result = make_result(tmp_path / "gcps.zarr", labels[:300, :400], georeference=Georeference(epsg=4326))
    with rasterio.open(made(result, "mask.tif")) as image:
        assert image.crs is None


# -- memory

# VmHWM, not ru_maxrss: the latter begins at what the parent had when it forked.
PEAK = """
import sys
from pathlib import Path
from gigamask.exports.catalog import export
from gigamask.processes import give_back_freed_memory
give_back_freed_memory()
export(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) // 1024)
"""


def peak_mib(result: Result, name: str) -> int:
    """Of a process that does nothing else."""
    target = result.root.parent / f"peak-{name}"
    command = [sys.executable, "-c", PEAK, str(result.root), name, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 times the pixels: 34 MP, of which one copy would be seen."""
    black = "tests.exports.results_for_tests.picture"
    monkeypatch.setattr(black, lambda shape: np.zeros((*shape, 3), np.uint8))
    patch = blobs((512, 4096), seed=3)
    small = make_result(tmp_path / "small" / "a.zarr", patch)
    large = make_result(tmp_path / "large" / "a.zarr", np.tile(patch, (16, 1)))
    for name in ("mask.ome.tif", "mask.tif"):
        assert peak_mib(large, name) - peak_mib(small, name) < 12

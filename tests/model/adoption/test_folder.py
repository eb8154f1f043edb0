"""The model folder: there whole or not at all, seen by what already runs, and telling where it came from."""

from __future__ import annotations

import hashlib
import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from gigamask.errors import BadModel, InsufficientStorage
from gigamask.geometry import Box
from gigamask.job import JobOptions, Stage, State
from gigamask.manifest import ModelShelf, checked_file, read_manifest
from gigamask.pyramid.mask import mask_folder, read_mask
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from model.adoption.acceptance import check_folder
from model.adoption.frame import choose_frame
from tests.model.adoption.graphs import adopted, proposed, red_graph, valid_graph
from tests.pictures import picture, write_image
from tests.workers.test_loop import wait_until
from workers.loop import run_worker

SHAPE = (300, 421)


def test_it_holds_a_graph_a_test_vector_and_a_manifest_with_their_sums(tmp_path: Path) -> None:
    source = red_graph(tmp_path / "brought.onnx")
    folder = adopted(source, tmp_path / "models")
    manifest = read_manifest(folder)
    assert set(manifest.files) == {"onnx", "test_vector"}
    for role in manifest.files:
        assert checked_file(folder, manifest, role).is_file()
    told = manifest.provenance["adoption"]
    assert told["source"] == {
        "name": "brought.onnx",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "bytes": source.stat().st_size,
    }
    assert "1 channel(s) for 2 classes: bright; else dark" in told["assumed"]
    assert {"gigamask", "onnx", "onnxruntime"} == set(told["software"])


def test_others_may_read_it(tmp_path: Path) -> None:
    """A service often runs as another user."""
    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models")
    assert folder.stat().st_mode & 0o555 == 0o555
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def test_the_graph_tells_nothing_of_the_machine_that_made_it(tmp_path: Path) -> None:
    path = red_graph(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.node[0].doc_string = "/home/somebody/train.py(17): forward"
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/net.py")
    onnx.save(model, path)
    folder = adopted(path, tmp_path / "models")
    assert all(b"somebody" not in file.read_bytes() for file in folder.iterdir())


@contextmanager
def watched(root: Path) -> Iterator[set[tuple[str, ...]]]:
    """What a shelf sees, again and again, while something else happens; an error of it is raised here."""
    seen, stop, wrong = set[tuple[str, ...]](), threading.Event(), list[Exception]()

    def look() -> None:
        while not stop.is_set():
            try:
                seen.add(tuple(m.name for m in ModelShelf((root,)).manifests()))
            except Exception as exc:
                wrong.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
    assert not wrong, wrong[0]


def test_a_shelf_sees_the_whole_model_or_none(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    proposals = [proposed(red_graph(tmp_path / "a.onnx"), name=f"mine-{n}") for n in range(8)]
    with watched(root) as seen:
        for proposal in proposals:
            proposal.write(root)
    assert () in seen or len(seen) > 1
    assert sorted(path.name for path in root.iterdir()) == [f"mine-{n}" for n in range(8)]


def test_what_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    """The graph is larger than a file may be."""
    proposal = proposed(red_graph(tmp_path / "a.onnx"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(InsufficientStorage, match="File too large"):
            proposal.write(tmp_path / "models")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_that_was_changed_fails_its_check(tmp_path: Path) -> None:
    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models")
    assert check_folder(folder).label_agreement == 1.0
    other = adopted(red_graph(tmp_path / "b.onnx"), tmp_path / "others", threshold=0.9)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["files"]["onnx"]["sha256"] = hashlib.sha256((other / "model.onnx").read_bytes()).hexdigest()
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(BadModel, match="of the recorded labels here"):
        check_folder(folder)


@pytest.mark.parametrize(("network_px", "halo_px", "crop_px"), [(64, 0, 0), (512, 64, 0), (572, 0, 92), (4096, 0, 0)])
def test_a_tile_is_the_largest_power_of_two_that_may_be_kept(network_px: int, halo_px: int, crop_px: int) -> None:
    frame = choose_frame(network_px, halo_px, crop_px)
    kept = network_px - 2 * max(halo_px, crop_px)
    assert frame.tile_px <= kept < 2 * frame.tile_px
    assert frame.surround_px >= network_px
    assert frame.margin_px >= max(halo_px, crop_px)


def test_no_frame_is_left_where_a_halo_takes_all() -> None:
    with pytest.raises(BadModel, match="a halo of 30 px on each side leaves 4 px"):
        choose_frame(64, 30)


def test_running_workers_take_a_model_that_comes_while_they_run(
    jobs: JobStore, settings: Settings, tmp_path: Path
) -> None:
    stopping, store = threading.Event(), Store(settings.store)
    workers = [threading.Thread(target=run_worker, args=(stage, settings, False, stopping)) for stage in Stage]
    for worker in workers:
        worker.start()
    try:
        image_id = new_id()
        write_image(store.image_zarr(image_id), picture(SHAPE))
        adopted(valid_graph(tmp_path / "a.onnx", 7), settings.models[0], tile_px=78)
        job = jobs.submit(image_id, "a.png", "mine", JobOptions(region_px=512))
        wait_until(lambda: jobs.get(job.id).state in (State.SUCCEEDED, State.FAILED))
    finally:
        stopping.set()
        for worker in workers:
            worker.join()
    assert jobs.get(job.id).state is State.SUCCEEDED, jobs.get(job.id).error
    found = read_mask(mask_folder(store.mask_zarr(job.id), "mine"), Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(found, picture(SHAPE)[..., 0] > 127)

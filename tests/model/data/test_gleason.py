"""Gleason 2019: raters vote, ids become classes, cores are split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.datasets import find_dataset
from model.data.layouts import gleason
from tests.model.data.fakes import save, write_gleason

Bytes = NDArray[np.uint8]


def voted(*votes: int) -> int:
    """Of one pixel, rater by rater."""
    return int(gleason.majority([np.array([[vote]], np.uint8) for vote in votes])[0, 0])


def test_most_raters_win() -> None:
    assert voted(2) == 2
    assert voted(0, 1, 1) == 1
    assert voted(3, 1, 2, 1) == 1


def test_of_classes_that_tie_the_first_raters_wins_and_one_that_does_not_tie_never() -> None:
    assert voted(3, 1) == 3
    assert voted(2, 1, 1, 2) == 2
    assert voted(0, 2, 1, 1, 2) == 2  # the first rater's class has one vote of five
    assert voted(0, 1, 2, 3, 1, 2) == 1


def test_the_vote_is_what_counting_by_hand_gives() -> None:
    votes = np.random.default_rng(0).integers(0, 4, (5, 20, 20), dtype=np.uint8)
    got = gleason.majority(list(votes))
    for y, x in np.ndindex(20, 20):
        seen = votes[:, y, x].tolist()
        most = max(seen.count(v) for v in seen)
        assert got[y, x] == next(v for v in seen if seen.count(v) == most)


def core(root: Path, *maps: Bytes) -> None:
    """The core of the validation list gets these maps, from rater 1 on."""
    name = "slide002_core102_classimg_nonconvex.png"
    (root / "Maps2_T" / name).unlink()
    for rater, ids in enumerate(maps, 1):
        save(root / f"Maps{rater}_T" / name, ids)


def test_raters_vote_for_classes_not_for_ids(tmp_path: Path) -> None:
    """Background, benign and 6 are one class: three such votes outweigh two for pattern 4."""
    write_gleason(tmp_path)
    core(tmp_path, *(np.full((96, 96), raw, np.uint8) for raw in (4, 4, 0, 1, 6)))
    (four,) = find_dataset("gleason", tmp_path).pictures("val")
    (five,) = find_dataset("gleason5", tmp_path).pictures("val")
    assert (four.labels(Box(0, 0, 96, 96)) == 0).all()
    assert (five.labels(Box(0, 0, 96, 96)) == 3).all()  # 4 and benign have two each, rater 1 says 4


def test_stored_ids_become_four_or_five_classes(tmp_path: Path) -> None:
    write_gleason(tmp_path)
    core(tmp_path, np.resize(np.array([0, 1, 3, 4, 5, 6, 7, 200], np.uint8), (96, 96)))
    row = Box(0, 0, 1, 8)
    assert find_dataset("gleason", tmp_path).pictures("val")[0].labels(row).tolist() == [[0, 0, 1, 2, 3, 0, 0, 0]]
    assert find_dataset("gleason5", tmp_path).pictures("val")[0].labels(row).tolist() == [[0, 1, 2, 3, 4, 1, 1, 1]]


def test_an_id_that_is_no_class_is_told_with_its_file(tmp_path: Path) -> None:
    write_gleason(tmp_path)
    core(tmp_path, np.ones((96, 96), np.uint8), np.full((96, 96), 2, np.uint8))
    (picture,) = find_dataset("gleason", tmp_path).pictures("val")
    with pytest.raises(ValueError, match=r"Maps2_T.slide002.*: class id 2 is unknown, expected one of 0-1, 3-255"):
        picture.labels(Box(0, 0, 8, 8))


def test_a_rater_whose_map_has_another_size_is_named(tmp_path: Path) -> None:
    write_gleason(tmp_path)
    core(tmp_path, np.ones((96, 96), np.uint8), np.ones((96, 90), np.uint8))
    with pytest.raises(ValueError, match=r"Maps2_T.*: 96 x 90 .*expected 96 x 96 .*Maps1_T"):
        find_dataset("gleason", tmp_path).pictures("val")


def test_a_listed_core_that_nobody_rated_is_named(tmp_path: Path) -> None:
    write_gleason(tmp_path)
    core(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"slide002_core102\.jpg: no rater's map .*Maps1_T"):
        find_dataset("gleason", tmp_path).pictures("val")


def test_without_lists_the_rated_cores_are_split_195_to_49_and_the_same_every_time(tmp_path: Path) -> None:
    for folder in ("Train Imgs", "Maps3_T"):
        (tmp_path / folder).mkdir()
    for i in range(250):
        (tmp_path / "Train Imgs" / f"slide{i:03d}_core001.jpg").touch()
        if i < 244:
            (tmp_path / "Maps3_T" / f"slide{i:03d}_core001_classimg_nonconvex.png").touch()
    split = gleason.random_split(tmp_path)
    assert [len(split[name]) for name in ("train", "val", "test")] == [195, 0, 49]
    assert len({*split["train"], *split["test"]}) == 244
    assert gleason.random_split(tmp_path) == split

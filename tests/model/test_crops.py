"""Crops whose every pixel tells where it came from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.crops import Crop, CropRules, CropSampler, draw_surround, turn_and_flip
from model.data.pictures import IGNORE, PAD_COLOUR, ArrayPicture
from model.normalise import IMAGENET_MEAN

PLAIN = CropRules(scale=(1.0, 1.0), scale_share=0, flip=False, turn=False, brightness=0, contrast=0, saturation=0)
TURNED = dataclasses.replace(PLAIN, flip=True, turn=True)
T, S = 32, 64


def sampler(image: NDArray[np.uint8], rules: CropRules, **labels: NDArray[np.uint8]) -> CropSampler:
    ids = labels.get("labels", (image[..., 0] ^ image[..., 1]) % 3)
    return CropSampler([ArrayPicture("coordinates", image, ids)], T, 2, rules, seed=5)


def origin(crop: Crop) -> tuple[int, int]:
    y, x = crop.image[crop.local][0, 0, :2]
    return int(y), int(x)


def test_local_lies_inside_its_surround(coordinates: NDArray[np.uint8]) -> None:
    for i in range(200):
        crop = sampler(coordinates, TURNED).crop(i)
        assert crop.image.shape == (S, S, 3)
        assert all(0 <= o <= S - T for o in crop.offset)


def test_labels_stay_with_their_pixels_however_turned(coordinates: NDArray[np.uint8]) -> None:
    for i in range(100):
        crop = sampler(coordinates, TURNED).crop(i)
        assert np.array_equal(crop.labels, (crop.image[..., 0] ^ crop.image[..., 1]) % 3)


def test_turns_and_flips_move_the_offset_with_the_pixels(coordinates: NDArray[np.uint8]) -> None:
    """The same crop with and without turns holds the same pixels in its local patch."""
    turned, plain = sampler(coordinates, TURNED), sampler(coordinates, PLAIN)
    seen = 0
    for i in range(100):
        a, b = turned.crop(i), plain.crop(i)
        assert np.array_equal(sorted_pixels(a.image[a.local]), sorted_pixels(b.image[b.local]))
        seen += a.offset != b.offset
    assert seen > 50


def sorted_pixels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = image.reshape(-1, 3)
    return pixels[np.lexsort(pixels.T)]


def test_a_quarter_turn_moves_a_corner_to_the_next() -> None:
    class Once:
        """A generator that turns once and flips never."""

        draws = iter((0.0, 1.0, 1.0))

        def random(self) -> float:
            return next(self.draws)

        def integers(self, *_: int) -> int:
            return 1

    crop = Crop(np.zeros((S, S, 3), np.uint8), np.zeros((S, S), np.uint8), (0, 5), T)
    assert turn_and_flip(crop, Once(), TURNED).offset == (S - T - 5, 0)  # type: ignore[arg-type]


def test_at_a_border_the_surround_is_shifted_into_the_picture_as_at_inference() -> None:
    rng = np.random.default_rng(0)
    for corner in range(200 - T + 1):
        start = draw_surround(rng, corner, T, S, 200)
        assert 0 <= start <= corner
        assert corner + T <= start + S <= 200


def test_every_offset_is_drawn_also_those_of_borders(coordinates: NDArray[np.uint8]) -> None:
    offsets = {sampler(coordinates, PLAIN).crop(i).offset[0] for i in range(1500)}
    assert offsets == set(range(T + 1))


def test_a_crop_depends_on_seed_and_number_alone(coordinates: NDArray[np.uint8]) -> None:
    rules = CropRules()
    forwards = [sampler(coordinates, rules).crop(i) for i in range(6)]
    for i in (5, 0, 3):
        again = sampler(coordinates, rules).crop(i)
        assert np.array_equal(again.image, forwards[i].image)
        assert again.offset == forwards[i].offset


def test_rare_classes_are_in_the_crops_that_were_meant_to_hold_them(coordinates: NDArray[np.uint8]) -> None:
    labels = np.zeros(coordinates.shape[:2], np.uint8)
    labels[101, 33] = 2
    rules = dataclasses.replace(TURNED, rare_classes=(2,), rare_share=1.0)
    for i in range(50):
        crop = sampler(coordinates, rules, labels=labels).crop(i)
        assert (crop.labels[crop.local] == 2).sum() == 1


def test_small_lakes_are_drawn_beside_large_ones(coordinates: NDArray[np.uint8]) -> None:
    labels = np.zeros(coordinates.shape[:2], np.uint8)
    labels[64:128, 64:128] = 2  # a cell full of a rare class: 4096 pixels
    labels[10, 200] = 2  # and one pixel of it far away, to be drawn by the roots of both: once in 65
    rules = dataclasses.replace(PLAIN, rare_classes=(2,), rare_share=1.0, rare_cell_px=64)
    source = sampler(coordinates, rules, labels=labels)
    crops = [source.crop(i) for i in range(650)]
    small = sum(bool((c.image[c.local][..., :2] == (10, 200)).all(axis=-1).any()) for c in crops)
    assert 3 <= small <= 30


def test_light_and_colour_change_pixels_and_nothing_else(coordinates: NDArray[np.uint8]) -> None:
    plain = sampler(coordinates, PLAIN)
    vivid = sampler(coordinates, dataclasses.replace(PLAIN, brightness=0.1, contrast=0.2, gamma=0.4, tint=0.2))
    changed = 0
    for i in range(20):
        a, b = plain.crop(i), vivid.crop(i)
        changed += not np.array_equal(a.image, b.image)
        assert np.array_equal(a.labels, b.labels)
        assert a.offset == b.offset
    assert changed > 10


def test_a_patch_of_nearly_one_class_is_drawn_again(coordinates: NDArray[np.uint8]) -> None:
    labels = np.zeros(coordinates.shape[:2], np.uint8)
    labels[:, 120:] = 1
    rules = dataclasses.replace(PLAIN, max_class_share=0.75)
    mixed = [sampler(coordinates, rules, labels=labels).crop(i) for i in range(50)]
    plain = [
        sampler(coordinates, dataclasses.replace(rules, max_class_share=1), labels=labels).crop(i) for i in range(50)
    ]
    assert sum(is_mixed(c) for c in mixed) > 2 * sum(is_mixed(c) for c in plain)


def is_mixed(crop: Crop) -> bool:
    return 0.2 < float(crop.labels[crop.local].mean()) < 0.8


def test_scaled_crops_keep_pixels_and_labels_together(coordinates: NDArray[np.uint8]) -> None:
    rules = dataclasses.replace(PLAIN, scale=(0.75, 1.5), scale_share=1.0)
    labels = (coordinates[..., 0] >= 100).astype(np.uint8)
    for i in range(30):
        crop = sampler(coordinates, rules, labels=labels).crop(i)
        clear = np.abs(crop.image[..., 0].astype(int) - 100) > 2  # off the edge that resizing blurs
        assert np.array_equal(crop.labels[clear], (crop.image[..., 0] >= 100)[clear])


def test_a_picture_smaller_than_a_crop_is_padded_as_at_inference(coordinates: NDArray[np.uint8]) -> None:
    crop = sampler(coordinates[:20, :40], PLAIN).crop(0)
    assert crop.image.shape == (S, S, 3)
    assert np.array_equal(crop.image[:20, :40], coordinates[:20, :40])
    assert (crop.image[20:] == PAD_COLOUR).all()
    assert (crop.labels[20:] == IGNORE).all()
    assert (crop.labels[:, 40:] == IGNORE).all()


def test_the_padding_is_what_normalisation_takes_to_zero() -> None:
    assert tuple(round(mean) for mean in IMAGENET_MEAN) == PAD_COLOUR


def test_pictures_are_drawn_by_their_area(coordinates: NDArray[np.uint8]) -> None:
    small = ArrayPicture("small", np.zeros((80, 100, 3), np.uint8), np.zeros((80, 100), np.uint8))
    large = ArrayPicture("large", coordinates, np.zeros(coordinates.shape[:2], np.uint8))
    both = CropSampler([small, large], T, 2, PLAIN, seed=5)
    from_small = sum(not both.crop(i).image.any() for i in range(400))
    assert from_small / 400 == pytest.approx(8000 / (8000 + 48000), abs=0.05)


def test_only_windows_are_read(coordinates: NDArray[np.uint8]) -> None:
    largest = 0

    class Watched(ArrayPicture):
        def pixels(self, box: Box) -> NDArray[np.uint8]:
            nonlocal largest
            largest = max(largest, box.height * box.width)
            return super().pixels(box)

    picture = Watched("watched", coordinates, np.zeros(coordinates.shape[:2], np.uint8))
    source = CropSampler([picture], T, 2, PLAIN, seed=5)
    for i in range(20):
        source.crop(i)
    assert largest == S * S


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        CropSampler([], T, 2, PLAIN, seed=5)

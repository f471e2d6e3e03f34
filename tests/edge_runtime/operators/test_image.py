from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run

pytest.importorskip("cv2", reason="these operators need the 'vision' extra")


def _image(height: int, width: int, channels: int = 3) -> Array:
    """One in which neighbours differ little, so that a shift shows and interpolation does not."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 // width, y * 200 // height, (x + y) % 100][:channels], axis=2).astype(np.uint8)


def test_resizing_keeps_the_channels_whatever_their_number() -> None:
    image = _image(9, 7)
    assert run("resize", image, height=4, width=5)["image"].shape == (4, 5, 3)
    grey = run("resize", image[:, :, :1], height=4, width=5, interpolation="area")["image"]
    assert grey.shape == (4, 5, 1)
    assert run("resize", image[:1, :1], height=3, width=2)["image"].shape == (3, 2, 3)
    with pytest.raises(HybridgeError) as caught:
        run("resize", image, height=4, width=5, interpolation="lanczos")
    assert caught.value.code is ErrorCode.INPUT_INVALID


@pytest.mark.parametrize(
    ("height", "width", "half_pixel_centers"),
    [
        (40, 60, True),
        (60, 40, True),
        (1, 1, True),
        (3, 400, True),
        (40, 60, False),
        (60, 40, False),
        (3, 400, False),
    ],
)
def test_a_letterboxed_image_keeps_its_aspect_and_leads_back(
    height: int, width: int, half_pixel_centers: bool
) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    boxed = run("letterbox", image, height=32, width=48, fill=7, half_pixel_centers=half_pixel_centers)
    rows, columns = np.nonzero(boxed["image"][:, :, 0] > 150)
    corners = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]], np.float32)
    placed = run("transform-points", corners, boxed["transform"])["points"]
    # Half a pixel of the letterboxed image, as it lies in the original.
    tolerance = 1.01 * boxed["transform"][0, 0]
    np.testing.assert_allclose(placed, [[0, 0], [width, height]], atol=tolerance)
    if abs(height / width - 32 / 48) > 0.1:
        assert 7 in boxed["image"]


def test_a_point_of_a_letterboxed_image_is_where_it_was() -> None:
    image = np.zeros((90, 60, 3), np.uint8)
    image[30:36, 40:46] = 255
    boxed = run("letterbox", image, height=64, width=64, fill=0, interpolation="area")
    weights = boxed["image"][:, :, 0].astype(float)
    y, x = (np.indices(weights.shape) + 0.5) * weights / weights.sum()
    middle = np.array([[x.sum(), y.sum()]], np.float32)
    np.testing.assert_allclose(
        run("transform-points", middle, boxed["transform"])["points"], [[43, 33]], atol=0.3
    )


@pytest.mark.parametrize(
    ("size", "params", "expected"),
    [
        ((360, 640), {"min_side": 736}, (736, 1312)),
        ((720, 1280), {"max_side": 960}, (544, 960)),
        ((720, 1280), {"min_side": 736, "max_side": 960}, (544, 960)),
        ((100, 100), {}, (96, 96)),
        ((1, 1), {}, (32, 32)),
        ((1, 20_000), {"min_side": 736, "max_side": 960}, (32, 960)),
        ((1, 5_000), {"min_side": 736}, (32, 5888)),
    ],
)
def test_sides_become_multiples_of_the_stride_within_their_limits(
    size: tuple[int, int], params: dict[str, int], expected: tuple[int, int]
) -> None:
    resized = run("resize-to-stride", np.zeros((*size, 3), np.uint8), **params)
    assert resized["image"].shape[:2] == expected
    corner = np.array([expected[::-1]], np.float32)
    placed = run("transform-points", corner, resized["transform"])["points"]
    np.testing.assert_allclose(placed, [size[::-1]], rtol=1e-5)


def test_a_crop_of_text_gets_the_width_its_reader_takes() -> None:
    image = _image(48, 100)
    padded = run("pad-to-width", image, width=160, fill=9)["image"]
    np.testing.assert_array_equal(padded[:, :100], image)
    assert (padded[:, 100:] == 9).all()
    assert padded.shape == (48, 160, 3)
    assert run("pad-to-width", image, width=64)["image"].shape == (48, 64, 3)
    assert run("pad-to-width", image, width=64, step=32)["image"].shape == (48, 128, 3)
    assert run("pad-to-width", image, width=100, step=32)["image"].shape == (48, 100, 3)


def test_turning_is_clockwise() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert run("rotate", image, degrees=90)["image"][:, :, 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert run("rotate", image)["image"][:, :, 0].tolist() == [[5, 4, 3], [2, 1, 0]]
    with pytest.raises(HybridgeError) as caught:
        run("rotate", image, degrees=45)
    assert caught.value.code is ErrorCode.INPUT_INVALID


def test_only_what_is_surely_upside_down_is_turned() -> None:
    images = [_image(4, 6), _image(4, 6), _image(5, 9), _image(4, 6)]
    sure = np.array([[0.02, 0.98], [0.2, 0.8], [0.99, 0.01], [np.nan, np.nan]], np.float32)
    turned = run("rotate-by-class", images, sure)["images"]
    np.testing.assert_array_equal(turned[0], images[0][::-1, ::-1])
    for before, after in zip(images[1:], turned[1:], strict=True):
        np.testing.assert_array_equal(before, after)
    assert run("rotate-by-class", [], np.empty((0, 2), np.float32))["images"] == []
    with pytest.raises(HybridgeError) as caught:
        run("rotate-by-class", images, sure[:2])
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_colours_are_converted_and_others_refused() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert run("convert-color", red, target="bgr")["image"][0, 0].tolist() == [0, 0, 255]
    assert run("convert-color", red, target="gray")["image"].shape == (2, 2, 1)
    assert run("convert-color", red, target="hsv")["image"][0, 0].tolist() == [0, 255, 255]
    assert run("convert-color", red, target="rgb")["image"] is red
    for image, source, target in ((red, "gray", "rgb"), (red, "rgb", "cmyk"), (red, "hsv", "gray")):
        with pytest.raises(HybridgeError):
            run("convert-color", image, source=source, target=target)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resize", {"height": 4, "width": 4}),
        ("letterbox", {"height": 4, "width": 4}),
        ("resize-to-stride", {}),
        ("pad-to-width", {"width": 4}),
    ],
)
def test_an_image_without_pixels_is_one_clear_error(name: str, params: dict[str, int]) -> None:
    with pytest.raises(HybridgeError) as caught:
        run(name, np.zeros((0, 5, 3), np.uint8), **params)
    assert caught.value.code is ErrorCode.INPUT_SHAPE
    assert "(0, 5, 3)" in caught.value.message

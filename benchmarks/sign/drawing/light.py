"""Light on a scene, and the camera that takes it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["Camera", "Light", "random_camera", "random_light"]

# Light varies slowly: it is worked out on a grid this much coarser.
_COARSE = 4


@dataclass(frozen=True, slots=True)
class Light:
    """A gain for each pixel and colour, and what a reflection adds, both on a coarse grid.

    Attributes:
        gain: float32 of shape (rows, columns, 3).
        glare: float32 of shape (rows, columns), in 0..255.
        size: Height and width of the image.
    """

    gain: Array
    glare: Array
    size: tuple[int, int]

    def fall_on(self, image: Array, shiny: Array) -> Array:
        """The image in this light, float32.

        Args:
            image: uint8 of shape (height, width, 3).
            shiny: Where it reflects, uint8 of shape (height, width).
        """
        width_height = self.size[::-1]
        gain = cv2.resize(self.gain, width_height, interpolation=cv2.INTER_LINEAR)
        lit: Array = cv2.multiply(image, gain, dtype=cv2.CV_32F)
        if self.glare.any():
            glare = cv2.resize(self.glare, width_height, interpolation=cv2.INTER_LINEAR)
            lit += cv2.merge([cv2.multiply(glare, shiny, scale=1 / 255, dtype=cv2.CV_32F)] * 3)
        return lit

    def seen(self, colour: tuple[int, int, int], quad: Array) -> Array:
        """How a colour looks in the middle of a quadrilateral on the sign, uint8 of shape (3,)."""
        rows, columns = self.glare.shape
        share = np.linspace(0.1, 0.9, 9, dtype=np.float32)
        top = quad[0] + (quad[1] - quad[0]) * share[:, np.newaxis]
        bottom = quad[3] + (quad[2] - quad[3]) * share[:, np.newaxis]
        points = (top[np.newaxis] + (bottom - top)[np.newaxis] * share[:, np.newaxis, np.newaxis]).reshape(
            -1, 2
        )
        x = np.clip(points[:, 0] / self.size[1] * columns, 0, columns - 1).astype(int)
        y = np.clip(points[:, 1] / self.size[0] * rows, 0, rows - 1).astype(int)
        lit = np.asarray(colour, np.float32) * self.gain[y, x] + self.glare[y, x][:, np.newaxis]
        seen: Array = np.clip(np.median(lit, axis=0), 0, 255).astype(np.uint8)
        return seen


def random_light(size: tuple[int, int], random: np.random.Generator, *, exposure: float = 1.0) -> Light:
    """Uneven light of some tint; often a shadow across the scene, sometimes a reflection on the sign."""
    rows, columns = max(2, size[0] // _COARSE), max(2, size[1] // _COARSE)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / np.float32(rows)
    angle = random.uniform(0, 2 * np.pi)
    across = x * np.cos(angle) + y * np.sin(angle)
    across -= across.mean()
    gain = (1 + random.uniform(0, 0.35) * across).astype(np.float32)
    centre = (columns / rows * random.uniform(0.3, 0.7), random.uniform(0.3, 0.7))
    gain *= 1 - random.uniform(0, 0.16) * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
    if random.random() < 0.45:
        gain *= _shadow((rows, columns), random)
    glare = np.zeros((rows, columns), np.float32)
    if random.random() < 0.3:
        distance = x * np.sin(angle) - y * np.cos(angle) - random.uniform(-0.5, 1.0)
        glare = random.uniform(10, 50) * np.exp(-((distance / random.uniform(0.08, 0.3)) ** 2))
    tint = random.normal(1.0, 0.025, 3).astype(np.float32) * exposure * random.uniform(0.8, 1.1)
    return Light(gain[:, :, np.newaxis] * tint, glare.astype(np.float32), size)


def _shadow(size: tuple[int, int], random: np.random.Generator) -> Array:
    """A gain that is lower behind an edge, or under a few bars or leaves."""
    rows, columns = size
    mask = np.zeros(size, np.uint8)
    kind = random.random()
    if kind < 0.5:
        angle, middle = random.uniform(-1.2, 1.2), random.uniform(0.2, 0.8) * columns
        lean = np.tan(angle) * rows / 2
        points = np.array(
            [(middle + lean, -1), (middle - lean, rows + 1), (-4 * columns, rows + 1), (-4 * columns, -1)]
        )
        cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    elif kind < 0.75:
        step = columns / random.uniform(2, 5)
        lean = random.uniform(-0.6, 0.6) * rows
        for bar in range(-2, 8):
            left = bar * step
            points = np.array(
                [(left, 0), (left + step * 0.4, 0), (left + step * 0.4 + lean, rows), (left + lean, rows)]
            )
            cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    else:
        for _ in range(14):
            at = random.integers(0, columns), random.integers(0, rows)
            axes = (int(rows * random.uniform(0.03, 0.2)), int(rows * random.uniform(0.03, 0.1)))
            cv2.ellipse(mask, (int(at[0]), int(at[1])), axes, float(random.uniform(0, 180)), 0, 360, 255, -1)
    softness = rows * random.choice((0.006, 0.012, 0.03, 0.08))
    soft = cv2.GaussianBlur(mask, (0, 0), max(float(softness), 0.4)).astype(np.float32) / 255
    gain: Array = 1 - np.float32(random.uniform(0.25, 0.6)) * soft
    return gain


@dataclass(frozen=True, slots=True)
class Camera:
    """What a camera does to a scene.

    Attributes:
        blur: Standard deviation of its focus, pixels.
        motion: Length of its movement, pixels; 0 for none.
        angle: Direction of the movement, radians.
        noise: Standard deviation of the noise of a bright pixel.
        quality: Of the JPEG that it writes, 1..100.
    """

    blur: float
    motion: float
    angle: float
    noise: float
    quality: int

    def take(self, scene: Array, random: np.random.Generator) -> Array:
        """The picture, uint8, of a scene, float32 of shape (height, width, 3)."""
        blurred = cv2.GaussianBlur(scene, (0, 0), self.blur) if self.blur > 0.2 else scene
        if self.motion > 1.0:
            blurred = cv2.filter2D(blurred, -1, _streak(self.motion, self.angle))
        # What is brighter than white is white before there is noise on it.
        exposed = cv2.min(blurred, (255.0, 255.0, 255.0, 0.0))
        taken = cv2.add(exposed, self._grain(exposed, random), dtype=cv2.CV_8U)
        taken = cv2.cvtColor(taken, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", taken, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
        picture: Array = cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return picture

    def _grain(self, scene: Array, random: np.random.Generator) -> Array:
        # One tile of noise, repeated: sensors' noise has no structure that a repetition would spoil.
        height, width = scene.shape[:2]
        tall, wide = min(height, 192), min(width, 192)
        tile = random.standard_normal((tall, wide, 3), dtype=np.float32) * np.float32(self.noise)
        tile += random.standard_normal((tall, wide, 1), dtype=np.float32) * np.float32(self.noise * 0.6)
        grain: Array = np.tile(tile, (-(-height // tall), -(-width // wide), 1))[:height, :width]
        return grain


def random_camera(size: tuple[int, int], random: np.random.Generator) -> Camera:
    """From sharp and clean to shaken, dark and compressed; most are fair."""
    scale = (size[0] / 360) ** 0.9
    hard = random.random() ** 1.5
    return Camera(
        blur=scale * (0.35 + 2.4 * hard * random.random()),
        motion=scale * random.uniform(1.5, 3.0 + 4.5 * hard) if random.random() < 0.25 else 0.0,
        angle=random.uniform(0, np.pi),
        noise=1.0 + 16.0 * hard * random.random(),
        quality=int(95 - 60 * hard * random.random()),
    )


def _streak(length: float, angle: float) -> Array:
    side = int(np.ceil(length)) | 1
    kernel = np.zeros((side * 8, side * 8), np.float32)
    middle = side * 4
    reach = np.array([np.cos(angle), np.sin(angle)]) * length * 4
    ends = [tuple(round(middle + sign * each) for each in reach) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 8)
    small = cv2.resize(kernel, (side, side), interpolation=cv2.INTER_AREA)
    streak: Array = small / small.sum()
    return streak

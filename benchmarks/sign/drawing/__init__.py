"""Photographs of signs, drawn, with what they say and how: the sign translator's demo and benchmark measure with them.

Example:
    >>> from benchmarks.sign.drawing import sign_scenes
    >>> for scene in sign_scenes(3, size=(360, 640), seed=7):
    ...     image, lines = scene.image, scene.lines
"""

from benchmarks.sign.drawing.scene import Scene, SceneLine, photograph_scenes, sign_scenes

__all__ = ["Scene", "SceneLine", "photograph_scenes", "sign_scenes"]

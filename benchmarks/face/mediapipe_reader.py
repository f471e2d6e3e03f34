"""MediaPipe's face mesh, asked by another process; runs in an environment of its own, without hybridge.

A line of standard input is a number of calls and a path to a .npy with an RGB image; a line of standard output is the
seconds of each call and the landmarks, in pixels.
"""

from __future__ import annotations

import json
import sys
import time

import mediapipe
import numpy as np


def main() -> None:
    """Answers until standard input ends."""
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=False
    )
    for line in sys.stdin:
        count, _, path = line.strip().partition(" ")
        image = np.load(path)
        seconds = []
        for _ in range(int(count)):
            start = time.perf_counter()
            found = mesh.process(image)
            seconds.append(time.perf_counter() - start)
        height, width = image.shape[:2]
        landmarks = [
            [[point.x * width, point.y * height] for point in face.landmark]
            for face in found.multi_face_landmarks or []
        ]
        sys.stdout.write(json.dumps({"seconds": seconds, "landmarks": landmarks}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

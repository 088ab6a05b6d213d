"""Synthetic faces drawn a second on one core, and the share that MTCNN finds.

python benchmarks/synthetic_faces.py
"""

from __future__ import annotations

import os
import platform
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2

from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.synthetic.drawing import draw_face

REPEATS, BATCH, DETECTED = 7, 60, 960

cv2.setNumThreads(1)
rates = []
for repeat in range(REPEATS):
    begin = time.perf_counter()
    for n in range(BATCH):
        draw_face(repeat * BATCH + n, n % 8, n // 8 % 2)
    rates.append(BATCH / (time.perf_counter() - begin))
cv2.setNumThreads(-1)
images = [draw_face(10_000 + n, n % 8, n // 8 % 2).image for n in range(DETECTED)]
found = [len(detections) > 0 for detections in MtcnnDetector().detect(images)]
print(
    f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
)
print(f"drawing at 256 px, one core: {statistics.median(rates):.0f} faces/s (median)")
print(f"found by MTCNN: {sum(found)} of {DETECTED} ({sum(found) / DETECTED:.1%})")

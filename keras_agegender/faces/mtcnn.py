"""MTCNN as one TensorFlow graph: pictures in, boxes, scores and landmarks out.

Networks and weights are the `mtcnn` package's. Pyramid, candidates, suppression and
patches are batched over pictures, and over the candidates of all pictures together. It
runs eagerly, inside `tf.data` and inside a SavedModel.

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
Networks", IEEE SPL 2016 (arXiv 1604.02878).

Two deviations from the package. Its pyramid has as many levels as if the smallest face
had 20 pixels; with larger ones it fails, and says "no faces", with smaller ones it
misses large faces. Here every level of at least 12 pixels is searched. And where
candidates have the very same score, which of two that overlap stays is arbitrary there,
by order here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_agegender.faces.mtcnn_networks import (
    MEAN,
    OutputNetwork,
    ProposalNetwork,
    RefinementNetwork,
)
from keras_agegender.faces.suppression import suppress

CELL = 12  # side of what the first network sees, in pixels
STRIDE = 2  # between two of its answers
# Candidates that go through a network together: they bound the memory.
REFINED_TOGETHER, OUTPUT_TOGETHER = 2048, 512


class Faces(NamedTuple):
    """Faces of a batch of pictures, picture by picture, best score first.

    Attributes:
        image_index: Which picture. Shape (num_faces,), int64.
        boxes: `bbox_xyxy` in pixels; may leave the picture. Shape (num_faces, 4).
        scores: Confidence in [0, 1]. Shape (num_faces,).
        landmarks: (x, y) of eyes, nose and mouth corners. Shape (num_faces, 5, 2).
    """

    image_index: tf.Tensor
    boxes: tf.Tensor
    scores: tf.Tensor
    landmarks: tf.Tensor


class _Candidates(NamedTuple):
    image_index: tf.Tensor
    boxes: tf.Tensor
    scores: tf.Tensor

    def take(self, indices: tf.Tensor) -> _Candidates:
        return _Candidates(*(tf.gather(x, indices) for x in self))


class Mtcnn(tf.Module):
    """The cascade of P-Net, R-Net and O-Net.

    Args:
        scale_factor: Side of a level of the pyramid over that of the one before, in
            (0, 1). Defaults to 0.709, half the area.
        score_thresholds: Least confidence after each network, in [0, 1].
        overlap_thresholds: Greatest overlap of two boxes: within a level, over levels,
            after R-Net (intersection over union), after O-Net (over the smaller).

    Example:
    >>> Mtcnn()(images, min_face_size=20.0).boxes  # doctest: +SKIP
    """

    def __init__(
        self,
        scale_factor: float = 0.709,
        score_thresholds: tuple[float, float, float] = (0.6, 0.7, 0.8),
        overlap_thresholds: tuple[float, float, float, float] = (0.5, 0.7, 0.7, 0.7),
    ) -> None:
        super().__init__()
        self.scale_factor = scale_factor
        self.score_thresholds = score_thresholds
        self.overlap_thresholds = overlap_thresholds
        self._propose_boxes = ProposalNetwork()
        self._refine_boxes = RefinementNetwork()
        self._output_faces = OutputNetwork()

    def __call__(self, images: tf.Tensor, min_face_size: float | tf.Tensor) -> Faces:
        """Finds the faces of pictures of one size.

        Args:
            images: RGB, values in [0, 255]. Shape (batch, height, width, 3).
            min_face_size: Smallest face, in pixels, at least 12.

        Returns:
            The faces of all of them.
        """
        with tf.name_scope("propose"):
            candidates = self._propose(images, tf.cast(min_face_size, tf.float32))
        with tf.name_scope("refine"):
            candidates = self._refine(images, candidates)
        with tf.name_scope("output"):
            return self._output(images, candidates)

    # -- stages ------------------------------------------------------------------------

    def _propose(self, images: tf.Tensor, min_face_size: tf.Tensor) -> _Candidates:
        """P-Net slides over every level of the pyramid."""
        count = tf.shape(images, tf.int64)[0]
        size = tf.cast(tf.shape(images)[1:3], tf.float32)
        first = CELL / min_face_size
        steps = tf.math.log(CELL / (tf.reduce_min(size) * first))
        levels = tf.cast(tf.floor(steps / np.log(self.scale_factor)), tf.int32) + 1

        def search(level: tf.Tensor, *found: tf.Tensor) -> tuple:
            scale = first * self.scale_factor ** tf.cast(level, tf.float32)
            shape = tf.cast(size * scale, tf.int32)
            scaled = tf.image.resize(images, shape, method="area")
            new = self._search_level(scaled, scale, count)
            return level + 1, *(
                tf.concat(pair, axis=0) for pair in zip(found, new, strict=True)
            )

        empty = (tf.zeros((0,), tf.int64), tf.zeros((0, 4)), tf.zeros((0,)))
        _, *found = tf.while_loop(
            lambda level, *_: level < levels,
            search,
            (tf.constant(0), *empty),
            shape_invariants=tuple(
                tf.TensorShape(s) for s in ((), (None,), (None, 4), (None,))
            ),
            parallel_iterations=4,  # resizing a level takes one core only
        )
        candidates = _Candidates(*found)
        kept = candidates.take(suppress(*candidates, self.overlap_thresholds[1], count))
        return kept._replace(boxes=_squares(kept.boxes))

    def _search_level(
        self, scaled: tf.Tensor, scale: tf.Tensor, count: tf.Tensor
    ) -> _Candidates:
        offsets, scores = self._propose_boxes(scaled)
        where = tf.where(scores > self.score_thresholds[0])
        corners = tf.cast(tf.reverse(where[:, 1:], [1]), tf.float32) * STRIDE
        # As the package counts them, cells begin a pixel late: from 1 to 12, 11 wide.
        cells = tf.concat([corners + 1.0, corners + float(CELL)], axis=1)
        boxes = cells + tf.gather_nd(offsets, where) * (CELL - 1.0)
        found = _Candidates(where[:, 0], boxes, tf.gather_nd(scores, where))
        kept = found.take(suppress(*found, self.overlap_thresholds[0], count))
        return kept._replace(boxes=kept.boxes / scale)

    def _refine(self, images: tf.Tensor, candidates: _Candidates) -> _Candidates:
        """R-Net looks at every candidate again."""
        offsets, scores = _over_patches(
            self._refine_boxes, images, candidates, REFINED_TOGETHER, (4, None)
        )
        boxes = _moved(candidates.boxes, offsets)
        found = _Candidates(candidates.image_index, boxes, scores)
        found = found.take(tf.where(scores > self.score_thresholds[1])[:, 0])
        count = tf.shape(images, tf.int64)[0]
        kept = found.take(suppress(*found, self.overlap_thresholds[2], count))
        return kept._replace(boxes=_squares(kept.boxes))

    def _output(self, images: tf.Tensor, candidates: _Candidates) -> Faces:
        """O-Net has the last word, and finds the landmarks."""
        offsets, points, scores = _over_patches(
            self._output_faces, images, candidates, OUTPUT_TOGETHER, (4, 10, None)
        )
        boxes = candidates.boxes
        sides = boxes[:, 2:] - boxes[:, :2] + 1.0
        # Five x, then five y, as shares of the candidate.
        points = tf.transpose(tf.reshape(points, (-1, 2, 5)), (0, 2, 1))
        points = points * sides[:, tf.newaxis] + boxes[:, tf.newaxis, :2] - 1.0
        found = _Candidates(candidates.image_index, _moved(boxes, offsets), scores)
        good = tf.where(scores > self.score_thresholds[2])[:, 0]
        found, points = found.take(good), tf.gather(points, good)
        count = tf.shape(images, tf.int64)[0]
        kept = suppress(*found, self.overlap_thresholds[3], count, over="smaller")
        return Faces(*found.take(kept), tf.gather(points, kept))


# -- patches and boxes -----------------------------------------------------------------


def _over_patches(
    network: RefinementNetwork | OutputNetwork,
    images: tf.Tensor,
    candidates: _Candidates,
    together: int,
    widths: Sequence[int | None],
) -> list[tf.Tensor]:
    """Runs a network over all candidates' patches, some at a time."""
    image_index = tf.cast(candidates.image_index, tf.int32)
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    corners = tf.gather(candidates.boxes, [1, 0, 3, 2], axis=1) / tf.tile(size, [2])

    def run(start: tf.Tensor, *results: tf.Tensor) -> tuple:
        end = start + together
        patches = tf.image.crop_and_resize(
            images,
            corners[start:end],
            image_index[start:end],
            (network.side, network.side),
            extrapolation_value=MEAN,  # beyond the picture, as the package has it
        )
        pairs = zip(results, network(patches), strict=True)
        return end, *(tf.concat(pair, axis=0) for pair in pairs)

    shapes: list[Any] = [(None,) if w is None else (None, w) for w in widths]
    empty = [tf.zeros([0, *shape[1:]]) for shape in shapes]
    count = tf.shape(corners)[0]
    _, *results = tf.while_loop(
        lambda start, *_: start < count,
        run,
        (tf.constant(0), *empty),
        shape_invariants=(tf.TensorShape(()), *map(tf.TensorShape, shapes)),
        parallel_iterations=1,
    )
    return results


def _moved(boxes: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Applies offsets, which are shares of the sides, last pixel included."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1.0
    return boxes + offsets * tf.concat([sides, sides], axis=1)


def _squares(boxes: tf.Tensor) -> tf.Tensor:
    """Lengthens the shorter sides about the centres."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = tf.reduce_max(sides, axis=1, keepdims=True)
    corners = boxes[:, :2] + (sides - longest) * 0.5
    return tf.concat([corners, corners + longest], axis=1)

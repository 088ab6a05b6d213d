"""MTCNN as one TensorFlow graph."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_agegender.faces.geometry import resize_area

# Networks were trained on (pixel - MEAN) / SPREAD.
MEAN, SPREAD = 127.5, 128.0

Weights = Sequence[np.ndarray]


def load_weights(name: str) -> list[np.ndarray]:
    """Reads `pnet`, `rnet` or `onet` from the `mtcnn` package, in order of layers."""
    import joblib

    file = importlib.resources.files("mtcnn.assets.weights") / f"{name}.lz4"
    with importlib.resources.as_file(file) as path:
        return [np.asarray(w, "float32") for w in joblib.load(path)]


class ProposalNetwork:
    """P-Net: 12 × 12 pixels, every second one, to offsets and the score of a face."""

    def __init__(self) -> None:
        w = load_weights("pnet")
        kernel, bias, slope = _scaling_folded(w)[:3]
        slope = slope.reshape(-1)
        # Where a PReLU's slope is not negative, it can wait until after max pooling.
        # Where it is, PReLU(x) = max(x, slope * x): both are computed, then pooled.
        rising = np.flatnonzero(slope >= 0)
        bent = np.flatnonzero(slope < 0)
        order = np.concatenate([rising, bent])
        self.conv1 = np.concatenate(
            [kernel[..., order], kernel[..., bent] * slope[bent]], axis=-1
        )
        self.bias1 = np.concatenate([bias[order], bias[bent] * slope[bent]])
        self.slope1, self.num_rising = slope[rising], len(rising)
        self.conv2, self.bias2, self.slope2 = w[3][:, :, order], w[4], w[5].reshape(-1)
        # PReLU(x) = slope * x + (1 - slope) * max(x, 0). The first part is linear, so
        # conv3 and both outputs behind it are one convolution; the second is a ReLU,
        # which TensorFlow fuses with conv3.
        slope3 = w[8].reshape(-1)
        outputs = np.concatenate([w[9], _logit(w[11])], axis=-1)[0, 0]
        output_bias = np.concatenate([w[10], _logit(w[12])])
        self.conv3, self.bias3 = w[6], w[7]
        self.linear = np.einsum("hwim,m,mo->hwio", w[6], slope3, outputs)
        self.linear_bias = (w[7] * slope3) @ outputs + output_bias
        self.rectified = ((1 - slope3)[:, np.newaxis] * outputs)[np.newaxis, np.newaxis]

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns offsets (batch, rows, columns, 4), scores (batch, rows, columns)."""
        x = tf.nn.conv2d(tf.cast(pixels, tf.float32), self.conv1, 1, "VALID")
        x = tf.nn.max_pool2d(x, 2, 2, "SAME") + self.bias1
        end = self.num_rising + (x.shape[-1] - self.num_rising) // 2
        x = tf.concat(
            [
                prelu(x[..., : self.num_rising], self.slope1),
                tf.maximum(x[..., self.num_rising : end], x[..., end:]),
            ],
            axis=-1,
        )
        x = tf.nn.bias_add(tf.nn.conv2d(x, self.conv2, 1, "VALID"), self.bias2)
        x = prelu(x, self.slope2)
        bent = tf.nn.bias_add(tf.nn.conv2d(x, self.conv3, 1, "VALID"), self.bias3)
        bent = tf.nn.conv2d(tf.nn.relu(bent), self.rectified, 1, "VALID")
        x = bent + tf.nn.conv2d(x, self.linear, 1, "VALID") + self.linear_bias
        return x[..., :4], tf.sigmoid(x[..., 4])


class RefinementNetwork:
    """R-Net: patches of 24 × 24 to offsets and scores."""

    side = 24

    def __init__(self) -> None:
        w = load_weights("rnet")
        self.weights = _scaling_folded(w)
        self.outputs = np.concatenate([w[12], _logit(w[14])], axis=-1)
        self.bias = np.concatenate([w[13], _logit(w[15])])

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns offsets (patches, 4) and scores (patches,)."""
        w = self.weights
        x = tf.nn.max_pool2d(_convolve(pixels, w[0:3]), 3, 2, "SAME")
        x = tf.nn.max_pool2d(_convolve(x, w[3:6]), 3, 2, "VALID")
        x = prelu(_flat(_convolve(x, w[6:9])) @ w[9] + w[10], w[11])
        x = x @ self.outputs + self.bias
        return x[:, :4], tf.sigmoid(x[:, 4])


class OutputNetwork:
    """O-Net: patches of 48 × 48 to offsets, landmarks and scores."""

    side = 48

    def __init__(self) -> None:
        w = load_weights("onet")
        self.weights = _scaling_folded(w)
        self.outputs = np.concatenate([w[15], w[17], _logit(w[19])], axis=-1)
        self.bias = np.concatenate([w[16], w[18], _logit(w[20])])

    def __call__(self, pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns offsets (patches, 4), points (patches, 10) and scores (patches,).

        Points are five x, then five y, as shares of the patch.
        """
        w = self.weights
        x = tf.nn.max_pool2d(_convolve(pixels, w[0:3]), 3, 2, "SAME")
        x = tf.nn.max_pool2d(_convolve(x, w[3:6]), 3, 2, "VALID")
        x = tf.nn.max_pool2d(_convolve(x, w[6:9]), 2, 2, "SAME")
        x = prelu(_flat(_convolve(x, w[9:12])) @ w[12] + w[13], w[14])
        x = x @ self.outputs + self.bias
        return x[:, :4], x[:, 4:14], tf.sigmoid(x[:, 14])


def prelu(x: tf.Tensor, slope: np.ndarray) -> tf.Tensor:
    """Returns x where it is positive, else slope * x."""
    if slope.max() <= 1:
        return tf.maximum(x, slope * x)
    return tf.nn.relu(x) + slope * tf.minimum(x, 0.0)


def _logit(weights: np.ndarray) -> np.ndarray:
    """Returns the weights of one logit from those of two classes, the second a face."""
    return weights[..., 1:] - weights[..., :1]


def _scaling_folded(w: Weights) -> list[np.ndarray]:
    """Returns weights for pixels in [0, 255]."""
    kernel = w[0] / SPREAD
    return [kernel, w[1] - kernel.sum((0, 1, 2)) * MEAN, *w[2:]]


def _convolve(x: tf.Tensor, w: Weights) -> tf.Tensor:
    x = tf.nn.bias_add(tf.nn.conv2d(x, w[0], 1, "VALID"), w[1])
    return prelu(x, w[2].reshape(-1))


def _flat(x: tf.Tensor) -> tf.Tensor:
    x = tf.transpose(x, (0, 2, 1, 3))  # the weights were trained column by column
    return tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))


# Pairs of boxes compared at a time, and boxes of one image at most (the best): they
# bound the memory, 2048² pairs at once, some 100 MB.
MAX_PAIRS = 2048 * 2048
MAX_BOXES = 2048


def suppress(
    image_index: tf.Tensor,
    boxes: tf.Tensor,
    scores: tf.Tensor,
    threshold: float,
    num_images: tf.Tensor | None,
    over: str = "union",
) -> tf.Tensor:
    """Returns the indices of boxes that no box of a higher score overlaps too much.

    Boxes are compared with those of the same image; `num_images=None` means that all
    are of one image. Indices are in the order of images, highest score first. As in the
    `mtcnn` package, a suppressed box still suppresses others, so that all pairs are
    compared at once. Only the 2048 boxes of an image with the highest scores count.
    """
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    if num_images is None:
        order = order[:MAX_BOXES]
        unbeaten = _unbeaten(tf.gather(boxes, order)[tf.newaxis], threshold, over)
        return tf.gather(order, tf.where(unbeaten[0])[:, 0])
    order = tf.gather(order, tf.argsort(tf.gather(image_index, order), stable=True))
    ordered = tf.RaggedTensor.from_value_rowids(
        order, tf.gather(image_index, order), nrows=num_images, validate=False
    )[:, :MAX_BOXES]
    lengths = ordered.row_lengths()
    padded = tf.gather(boxes, ordered.to_tensor(0))
    longest = tf.shape(padded, tf.int64)[1]
    pairs = tf.maximum(longest * longest, 1)
    together = tf.maximum(MAX_PAIRS // pairs, 1)

    def compare(start: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        end = start + together
        unbeaten = _unbeaten(padded[start:end], threshold, over)
        return end, tf.concat([kept, unbeaten], axis=0)

    _, kept = tf.while_loop(
        lambda start, _: start < num_images,
        compare,
        (tf.constant(0, tf.int64), tf.zeros([0, longest], tf.bool)),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, None))),
        parallel_iterations=1,
    )
    real = tf.sequence_mask(lengths, longest)
    return tf.boolean_mask(ordered.flat_values, tf.boolean_mask(kept, real))


def _num_images(images: tf.Tensor) -> tf.Tensor | None:
    """Returns how many images there are, `None` if it is known to be one."""
    return None if images.shape[0] == 1 else tf.shape(images, tf.int64)[0]


def _unbeaten(boxes: tf.Tensor, threshold: float, over: str) -> tf.Tensor:
    """Returns which boxes are kept; shape (images, count, 4), highest score first."""

    def pairs(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return values, tf.transpose(values, (0, 2, 1))

    left, top, right, bottom = map(pairs, tf.split(boxes, 4, axis=2))
    width = tf.minimum(*right) - tf.maximum(*left)
    height = tf.minimum(*bottom) - tf.maximum(*top)
    shared = tf.nn.relu(width) * tf.nn.relu(height)
    areas = pairs((right[0] - left[0]) * (bottom[0] - top[0]))
    whole = areas[0] + areas[1] - shared if over == "union" else tf.minimum(*areas)
    place = tf.range(tf.shape(boxes)[1])
    better = place < tf.expand_dims(place, 1)
    beaten = (shared > threshold * whole) & better
    return tf.logical_not(tf.reduce_any(beaten, axis=2))


CELL = 12  # side of what the first network sees, in pixels
STRIDE = 2  # between two of its answers
# Candidates that go through a network together: they bound the memory.
REFINED_TOGETHER, OUTPUT_TOGETHER = 2048, 512


class Faces(NamedTuple):
    """Faces of a batch of images, image by image, best score first.

    Attributes:
        image_index: Which image. Shape (num_faces,), int64.
        boxes: `bbox_xyxy` in pixels; may leave the image. Shape (num_faces, 4).
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
        """Finds the faces of images of one size."""
        with tf.name_scope("propose"):
            candidates = self._propose(images, tf.cast(min_face_size, tf.float32))
        with tf.name_scope("refine"):
            candidates = self._refine(images, candidates)
        with tf.name_scope("output"):
            return self._output(images, candidates)

    # -- stages ------------------------------------------------------------------------

    def _propose(self, images: tf.Tensor, min_face_size: tf.Tensor) -> _Candidates:
        """P-Net slides over every level of the image pyramid."""
        count = _num_images(images)
        size = tf.cast(tf.shape(images)[1:3], tf.float32)
        first = CELL / min_face_size
        steps = tf.math.log(CELL / (tf.reduce_min(size) * first))
        levels = tf.cast(tf.floor(steps / np.log(self.scale_factor)), tf.int32) + 1

        def search(level: tf.Tensor, *found: tf.Tensor) -> tuple:
            scale = first * self.scale_factor ** tf.cast(level, tf.float32)
            shape = tf.cast(size * scale, tf.int32)
            scaled = resize_area(images, shape)
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
        self, scaled: tf.Tensor, scale: tf.Tensor, count: tf.Tensor | None
    ) -> _Candidates:
        offsets, scores = self._propose_boxes(scaled)
        where = tf.where(scores > self.score_thresholds[0])
        corners = tf.cast(tf.gather(where, [2, 1], axis=1), tf.float32) * STRIDE
        # As the package counts them, cells begin a pixel late: from 1 to 12, 11 wide.
        cells = tf.concat([corners + 1.0, corners + float(CELL)], axis=1)
        boxes = cells + tf.gather_nd(offsets, where) * (CELL - 1.0)
        found = _Candidates(where[:, 0], boxes, tf.gather_nd(scores, where))
        kept = found.take(suppress(*found, self.overlap_thresholds[0], count))
        return kept._replace(boxes=kept.boxes / scale)

    def _refine(self, images: tf.Tensor, candidates: _Candidates) -> _Candidates:
        """R-Net refines every candidate."""
        offsets, scores = _over_patches(
            self._refine_boxes, images, candidates, REFINED_TOGETHER, (4, None)
        )
        boxes = _moved(candidates.boxes, offsets)
        found = _Candidates(candidates.image_index, boxes, scores)
        found = found.take(tf.where(scores > self.score_thresholds[1])[:, 0])
        count = _num_images(images)
        kept = found.take(suppress(*found, self.overlap_thresholds[2], count))
        return kept._replace(boxes=_squares(kept.boxes))

    def _output(self, images: tf.Tensor, candidates: _Candidates) -> Faces:
        """O-Net decides, and finds the landmarks."""
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
        count = _num_images(images)
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
    """Runs a network over all candidates' patches, in chunks."""
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
            extrapolation_value=MEAN,  # beyond the image, as the package has it
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


SMALLEST_FACE = 12  # what the first network sees
# A face of this many pixels is enough for all three networks: an image is searched on
# a copy in which the smallest face asked for has no more.
SEARCHED_FACE = 20


class SearchCopy(NamedTuple):
    """An image as it is searched.

    Attributes:
        image: The copy. Shape (height, width, 3), uint8.
        min_face_size: Smallest face to search for, in its pixels.
        factor: (x, y) from its pixels to those of the image. Shape (2,).
    """

    image: tf.Tensor
    min_face_size: tf.Tensor
    factor: tf.Tensor


def search_copy(image: tf.Tensor, min_face_size: float, max_side: int) -> SearchCopy:
    """Reduces an RGB image, uint8, until its smallest face has 20 pixels.

    `min_face_size` is a share of the shorter side below 1, or pixels; `max_side` bounds
    the copy and takes precedence.
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    least = tf.constant(min_face_size, tf.float32)
    if min_face_size < 1:
        least *= tf.reduce_min(size)
    scale = SEARCHED_FACE / tf.maximum(least, float(SMALLEST_FACE))
    scale = tf.minimum(tf.minimum(scale, max_side / tf.reduce_max(size)), 1.0)
    reduced = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)

    def reduce() -> tf.Tensor:
        copy = resize_area(image[tf.newaxis], reduced)[0]
        return tf.cast(tf.round(copy), tf.uint8)

    return SearchCopy(
        tf.cond(scale == 1.0, lambda: image, reduce),
        tf.maximum(least * scale, float(SMALLEST_FACE)),
        (size / tf.cast(reduced, tf.float32))[::-1],
    )

"""Suppression: of boxes that overlap, which stay; for many pictures in one graph."""

from __future__ import annotations

import tensorflow as tf

# Pairs of boxes compared at a time, and boxes of one picture at most (the best): they
# bound the memory, 2048² pairs at once, some 100 MB.
MAX_PAIRS = 2048 * 2048
MAX_BOXES = 2048


def suppress(
    image_index: tf.Tensor,
    boxes: tf.Tensor,
    scores: tf.Tensor,
    threshold: float,
    num_images: tf.Tensor,
    over: str = "union",
) -> tf.Tensor:
    """Returns the boxes that no better box of the same picture overlaps.

    As in the `mtcnn` package, a better box suppresses even if it is suppressed itself;
    that makes it one comparison of all pairs, not a loop over boxes.

    Args:
        image_index: Picture of each box. Shape (num_boxes,), int64.
        boxes: `bbox_xyxy`. Shape (num_boxes, 4).
        scores: Shape (num_boxes,). Of equal scores the earlier box is the better one.
        threshold: Greatest overlap that two boxes may have.
        num_images: How many pictures there are.
        over: What the intersection is divided by: `"union"` (default) or the
            `"smaller"` of the two.

    Returns:
        Indices of the boxes that stay, picture by picture, best score first. Of more
        than 2048 boxes of a picture, the worst go unseen.
    """
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
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


def _unbeaten(boxes: tf.Tensor, threshold: float, over: str) -> tf.Tensor:
    """Returns which boxes (pictures, count, 4), best first, no better one overlaps."""
    a, b = boxes[:, :, tf.newaxis], boxes[:, tf.newaxis]
    width = tf.minimum(a[..., 2], b[..., 2]) - tf.maximum(a[..., 0], b[..., 0])
    height = tf.minimum(a[..., 3], b[..., 3]) - tf.maximum(a[..., 1], b[..., 1])
    shared = tf.nn.relu(width) * tf.nn.relu(height)
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    if over == "union":
        whole = areas[:, :, tf.newaxis] + areas[:, tf.newaxis] - shared
    else:
        whole = tf.minimum(areas[:, :, tf.newaxis], areas[:, tf.newaxis])
    place = tf.range(tf.shape(boxes)[1])
    better = place[tf.newaxis] < place[:, tf.newaxis]
    beaten = (shared > threshold * whole) & better
    return tf.logical_not(tf.reduce_any(beaten, axis=2))

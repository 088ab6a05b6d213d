"""Preprocessing as a TensorFlow graph."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_agegender.faces import geometry, portable_ops
from keras_agegender.faces.decoding import decode_image, decode_jpeg
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.mtcnn import Mtcnn, search_copy
from keras_agegender.faces.preprocessing import CropOptions, Preprocessing


def enlarged_size(image_size: tuple[int, int], enlarge: float) -> tuple[int, int]:
    """Returns the (height, width) that the input is cut out of."""
    return round(image_size[0] * enlarge), round(image_size[1] * enlarge)


def unit_pixels(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes an image and scales it from [0, 255] to [0, 1], float32."""
    return _to_unit(geometry.resize(image, size))


def encode_jpeg(image: tf.Tensor, quality: int | None) -> tf.Tensor:
    """Returns the JPEG file of an RGB image; `None` is quality 95."""
    return tf.io.encode_jpeg(image, format="rgb", quality=quality or 95)


@functools.cache
def _constant_matrix(source: int, target: int, enlarge: float) -> np.ndarray:
    with tf.init_scope():
        return np.asarray(geometry.resize_matrix(source, target, enlarge))


def _to_unit(pixels: tf.Tensor) -> tf.Tensor:
    # The kernel's weights sum to 1.0000002.
    return tf.clip_by_value(pixels / 255.0, 0.0, 1.0)


IMAGE = tf.TensorSpec((None, None, 3), tf.uint8)


class PhotoFaces(NamedTuple):
    """Faces of one image, from left to right.

    Attributes:
        boxes: `bbox_xyxy` in pixels. Shape (num_faces, 4), float32.
        scores: Confidence in [0, 1]. Shape (num_faces,), float32.
        landmarks: (x, y) of eyes, nose and mouth corners. Shape (num_faces, 5, 2).
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    landmarks: tf.Tensor


LEAST_OVERLAP = 0.3  # of a given box and a found face whose landmarks it takes


def use_given_face(given: tf.Tensor, found: PhotoFaces) -> PhotoFaces:
    """Returns a given face in place of the found ones; those if its box is NaN.

    Args:
        given: Box and landmarks. Shape (14,), NaN where unknown; without landmarks the
            face has those of the found face that overlaps its box most, or zeros.
        found: Faces of the image.
    """
    box, landmarks = given[:4], tf.reshape(given[4:], (5, 2))

    def face() -> PhotoFaces:
        overlaps = tf.concat([geometry.overlap(box, found.boxes), [LEAST_OVERLAP]], 0)
        choices = tf.concat([found.landmarks, tf.zeros((1, 5, 2))], 0)
        matched = choices[tf.argmax(overlaps)]
        known = tf.where(tf.math.is_nan(landmarks), matched, landmarks)
        return PhotoFaces(box[tf.newaxis], tf.ones(1), known[tf.newaxis])

    return tf.cond(tf.math.is_nan(box[0]), lambda: found, face)


class StoredFace(NamedTuple):
    """One image as `prepare` stores it.

    Attributes:
        jpeg: The file. A string scalar.
        box: The part that was cut out, `bbox_xyxy` in pixels of the image. Shape (4,).
        score: The detector's confidence; 0 without a face.
    """

    jpeg: tf.Tensor
    box: tf.Tensor
    score: tf.Tensor


class PreprocessingGraph(tf.Module):
    """Applies a `Preprocessing`, eagerly, in `tf.data` and in a SavedModel.

    Args:
        spec: The preprocessing. With a detector other than MTCNN, `find` and `subject`
            are not available: faces must come from outside.

    Example:
    >>> graph = PreprocessingGraph(Preprocessing(crop=CropOptions()))  # doctest: +SKIP
    >>> dataset.map(graph.subject)  # doctest: +SKIP
    """

    def __init__(self, spec: Preprocessing) -> None:
        super().__init__()
        self.spec = spec
        self._cascade: Mtcnn | None = None
        if spec.uses_mtcnn:
            self._detector = MtcnnDetector.from_settings(spec.detector or {})
            self._cascade = Mtcnn(score_thresholds=self._detector.score_thresholds)

    # -- from bytes to faces -----------------------------------------------------------

    def decode(self, data: tf.Tensor) -> tf.Tensor:
        """Decodes a file to upright RGB."""
        return decode_image(data)

    def find(self, image: tf.Tensor) -> PhotoFaces:
        """Finds all faces of an RGB image. Shape (height, width, 3), uint8."""
        if self._cascade is None:
            raise ValueError(
                "Invalid preprocessing. Expected the detector 'mtcnn', the only one "
                f"that a graph can contain. Received: {self.spec.describe()}."
            )
        search = search_copy(
            image, self._detector.min_face_size, self._detector.max_side
        )
        found = self._cascade(search.image[tf.newaxis], search.min_face_size)
        order = tf.argsort(found.boxes[:, 0], stable=True)
        return PhotoFaces(
            tf.gather(found.boxes, order) * tf.tile(search.factor, [2]),
            tf.gather(found.scores, order),
            tf.gather(found.landmarks, order) * search.factor,
        )

    # -- from faces to stored images -------------------------------------------------

    def crop_box(self, image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        """Returns the box to cut out around a face, inside the image unless `pad`."""
        options = self._options()
        if options.region is not None:
            box = geometry.place_face(box, options.region)
        else:
            box = geometry.add_margin(box, options.margin)
            if options.square:
                box = geometry.make_square(box)
        if options.pad:
            return box
        return geometry.fit_inside(box, tf.shape(image)[:2])

    def fallback_box(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the box to cut out of an image without a face. Shape (4,)."""
        size = tf.shape(image)[:2]
        if self.spec.crop is None or self.spec.crop.fallback == "full":
            return geometry.full_box(size)
        return geometry.center_square(size)

    def cut(
        self, image: tf.Tensor, box: tf.Tensor, landmarks: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Cuts a box out of an image, at the stored size; not compressed yet.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
            box: From `crop_box` or `fallback_box`. Shape (4,).
            landmarks: Those of the face, by which `align` turns the image.

        Returns:
            RGB. Shape (height, width, 3), uint8.
        """
        size = self.spec.stored_size or geometry.own_size(box)
        if landmarks is None or not self._options().align:
            return geometry.to_bytes(geometry.resample(image, box, size))
        return geometry.to_bytes(
            geometry.resize(
                geometry.turn(image, box, geometry.eye_angle(landmarks)), size
            )
        )

    def compress(self, crop: tf.Tensor) -> tf.Tensor:
        """Returns a crop as it is read back from its stored file."""
        if self.spec.jpeg_quality is None:
            return crop
        if portable_ops.is_portable():
            return portable_ops.compress_jpeg(crop, self.spec.jpeg_quality)
        return decode_jpeg(encode_jpeg(crop, self.spec.jpeg_quality))

    def face(self, image: tf.Tensor, box: tf.Tensor, landmarks: tf.Tensor) -> tf.Tensor:
        """Returns the stored crop of a face box. Shape (height, width, 3), uint8."""
        box = self.crop_box(image, box)
        return self.compress(self.cut(image, box, landmarks))

    def whole(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the stored form of a whole image."""
        return self.compress(self.cut(image, geometry.full_box(tf.shape(image)[:2])))

    def subject(self, image: tf.Tensor, given: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the stored crop of the selected face, or of the fallback.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
            given: Box and landmarks of a face to use instead. Shape (14,).

        Returns:
            RGB. Shape (height, width, 3), uint8.
        """
        if self.spec.crop is None:
            return tf.ensure_shape(self.whole(image), (None, None, 3))
        if given is None:
            faces = self.find(image)
        else:
            unknown = tf.math.is_nan(given)
            searched = unknown[0] | (self.spec.crop.align & tf.reduce_any(unknown[4:]))
            none = PhotoFaces(tf.zeros((0, 4)), tf.zeros(0), tf.zeros((0, 5, 2)))
            found = tf.cond(searched, lambda: self.find(image), lambda: none)
            faces = use_given_face(given, found)
        crop, _, _ = self._cut_subject(image, faces)
        return tf.ensure_shape(self.compress(crop), (None, None, 3))

    def store(
        self, image: tf.Tensor, faces: PhotoFaces, given: tf.Tensor | None = None
    ) -> StoredFace:
        """Returns what `prepare` stores of an image, its faces and a given one."""
        faces = faces if given is None else use_given_face(given, faces)
        crop, box, score = self._cut_subject(image, faces)
        return StoredFace(encode_jpeg(crop, self.spec.jpeg_quality), box, score)

    def to_crop(self, stored: tf.Tensor) -> tf.Tensor:
        """Returns a stored image as a crop of `spec.crop_size`, for model files.

        If images are stored at their own sizes, pixels are rounded once more than by
        `to_input`: a probability moves by about 0.001.
        """
        if self.spec.stored_size is not None:
            return stored
        return geometry.to_bytes(geometry.resize(stored, self.spec.crop_size))

    # -- from stored images to the input -----------------------------------------------

    def to_input(self, stored: tf.Tensor) -> tf.Tensor:
        """Turns a stored image into the model's input.

        Images of the stored size are multiplied by two matrices, as in model files.
        Others are resized, with the same result up to rounding, in twice the time.

        Args:
            stored: RGB. Shape (height, width, 3), uint8.

        Returns:
            float32 in [0, 1]. Shape (*image_size, 3).
        """
        (height, width), enlarge = self.image_size, self.spec.enlarge
        large = enlarged_size((height, width), enlarge)
        top, left = (large[0] - height) // 2, (large[1] - width) // 2

        def any_size() -> tf.Tensor:
            image = unit_pixels(stored, large)
            return image[top : top + height, left : left + width]

        if self.spec.stored_size is None:
            return tf.ensure_shape(any_size(), (height, width, 3))
        rows, columns = (
            _constant_matrix(source, target, enlarge)
            for source, target in zip(
                self.spec.stored_size, (height, width), strict=True
            )
        )
        image = tf.cond(
            tf.reduce_all(tf.shape(stored)[:2] == tf.constant(self.spec.stored_size)),
            lambda: _to_unit(geometry.multiply(stored, rows, columns)),
            any_size,
        )
        return tf.ensure_shape(image, (height, width, 3))

    def face_file(self, data: tf.Tensor) -> tf.Tensor:
        """Turns the file of a face crop, or of a whole image, into the model's input.

        A JPEG of the stored size is assumed to be of a prepared dataset and is not
        compressed again.
        """
        image = self.decode(data)
        is_stored = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
        if self.spec.stored_size is not None:
            same = tf.shape(image)[:2] == tf.constant(self.spec.stored_size)
            is_stored &= tf.reduce_all(same)
        return self.to_input(
            tf.cond(is_stored, lambda: image, lambda: self.whole(image))
        )

    # -- parts -------------------------------------------------------------------------

    def _options(self) -> CropOptions:
        if self.spec.crop is None:
            raise ValueError(
                "Invalid preprocessing. Expected `crop`. Received one of whole images: "
                f"{self.spec.describe()}."
            )
        return self.spec.crop

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the model's input, in pixels."""
        if self.spec.image_size is None:
            raise ValueError(
                "Invalid preprocessing. Expected `image_size`, the model's input. "
                f"Received: {self.spec.describe()}."
            )
        return self.spec.image_size

    def _cut_subject(
        self, image: tf.Tensor, faces: PhotoFaces
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns crop, box and score of the selected face, or of the fallback."""

        def cut_fallback() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            box = self.fallback_box(image)
            return self.cut(image, box), box, tf.constant(0.0)

        if self.spec.crop is None:
            return cut_fallback()
        selection = self.spec.crop.face_selection

        def cut_face() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            index = geometry.select_face(faces.boxes, tf.shape(image)[:2], selection)
            box = self.crop_box(image, faces.boxes[index])
            crop = self.cut(image, box, faces.landmarks[index])
            return crop, box, faces.scores[index]

        return tf.cond(tf.shape(faces.boxes)[0] > 0, cut_face, cut_fallback)

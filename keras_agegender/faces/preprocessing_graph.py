"""Preprocessing as a TensorFlow graph."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_agegender.faces.decoding import decode_jpeg, decode_picture
from keras_agegender.faces.detector import MtcnnDetector
from keras_agegender.faces.geometry import (
    add_margin,
    center_square,
    eye_angle,
    fit_inside,
    full_box,
    make_square,
    multiply,
    own_size,
    resample,
    resize,
    resize_matrix,
    select_face,
    to_bytes,
    turn,
)
from keras_agegender.faces.mtcnn import Mtcnn, search_copy
from keras_agegender.faces.preprocessing import Preprocessing


def stored_to_input(
    picture: tf.Tensor, image_size: tuple[int, int], path: Preprocessing
) -> tf.Tensor:
    """Turns a stored picture into the network's input; see `PreprocessingGraph.to_input`.

    Pictures of the stored size are multiplied with two matrices, as in model files. All
    others are resized: it gives the same up to rounding, and takes twice the time.
    """
    height, width = image_size
    large = enlarged_size((height, width), path.enlarge)
    top, left = (large[0] - height) // 2, (large[1] - width) // 2

    def any_size() -> tf.Tensor:
        image = unit_pixels(picture, large)
        return image[top : top + height, left : left + width]

    if path.stored_size is None:
        return tf.ensure_shape(any_size(), (height, width, 3))
    rows, columns = (
        _constant_matrix(source, target, path.enlarge)
        for source, target in zip(path.stored_size, (height, width), strict=True)
    )
    image = tf.cond(
        tf.reduce_all(tf.shape(picture)[:2] == tf.constant(path.stored_size)),
        lambda: _to_unit(multiply(picture, rows, columns)),
        any_size,
    )
    return tf.ensure_shape(image, (height, width, 3))


def enlarged_size(image_size: tuple[int, int], enlarge: float) -> tuple[int, int]:
    """Returns the (height, width) out of which the input is cut."""
    return round(image_size[0] * enlarge), round(image_size[1] * enlarge)


def unit_pixels(picture: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes a picture and scales it from [0, 255] to [0, 1], float32."""
    return _to_unit(resize(picture, size))


@functools.cache
def _constant_matrix(source: int, target: int, enlarge: float) -> np.ndarray:
    with tf.init_scope():
        return np.asarray(resize_matrix(source, target, enlarge))


def _to_unit(pixels: tf.Tensor) -> tf.Tensor:
    # The kernel's weights sum to 1.0000002.
    return tf.clip_by_value(pixels / 255.0, 0.0, 1.0)


IMAGE = tf.TensorSpec((None, None, 3), tf.uint8)


class PhotoFaces(NamedTuple):
    """Faces of one picture, from left to right.

    Attributes:
        boxes: `bbox_xyxy` in pixels. Shape (num_faces, 4), float32.
        scores: Confidence in [0, 1]. Shape (num_faces,), float32.
        landmarks: (x, y) of eyes, nose and mouth corners. Shape (num_faces, 5, 2).
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    landmarks: tf.Tensor


class StoredFace(NamedTuple):
    """One picture as `prepare` stores it.

    Attributes:
        jpeg: The file. A string scalar.
        box: What was cut out, `bbox_xyxy` in pixels of the picture. Shape (4,).
        score: The detector's confidence; 0 without a face.
    """

    jpeg: tf.Tensor
    box: tf.Tensor
    score: tf.Tensor


class PreprocessingGraph(tf.Module):
    """Carries out a `Preprocessing`, eagerly, in `tf.data` and in a SavedModel.

    Args:
        path: What to do. With a detector other than MTCNN, faces must come from
            outside: `find` and `subject` are not available.

    Example:
    >>> graph = PreprocessingGraph(Preprocessing(crop=CropOptions()))  # doctest: +SKIP
    >>> dataset.map(graph.subject)  # doctest: +SKIP
    """

    def __init__(self, path: Preprocessing) -> None:
        super().__init__()
        self.path = path
        self._cascade: Mtcnn | None = None
        if path.uses_mtcnn:
            self._detector = MtcnnDetector.from_settings(path.detector or {})
            self._cascade = Mtcnn(score_thresholds=self._detector.score_thresholds)

    # -- from bytes to faces -----------------------------------------------------------

    def decode(self, data: tf.Tensor) -> tf.Tensor:
        """Decodes a file to upright RGB."""
        return decode_picture(data)

    def find(self, image: tf.Tensor) -> PhotoFaces:
        """Finds all faces of a picture.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
        """
        if self._cascade is None:
            raise ValueError(
                "Invalid pixel path. Expected one whose detector is 'mtcnn': no other "
                f"can be put into a graph. Received: {self.path.describe()}."
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

    # -- from faces to stored pictures -------------------------------------------------

    def crop_box(self, image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        """Returns the box to cut out around a face box. Shape (4,).

        It lies inside the picture, unless the options say that it need not.
        """
        options = self._options()
        box = add_margin(box, options.margin)
        if options.square:
            box = make_square(box)
        if options.pad:
            return box
        return fit_inside(box, tf.shape(image)[:2])

    def fallback_box(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the box to cut out of a picture without a face. Shape (4,)."""
        size = tf.shape(image)[:2]
        if self.path.crop is None or self.path.crop.fallback == "full":
            return full_box(size)
        return center_square(size)

    def cut(
        self, image: tf.Tensor, box: tf.Tensor, landmarks: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Cuts a box out of a picture, at the stored size; not compressed yet.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
            box: What `crop_box` or `fallback_box` returned. Shape (4,).
            landmarks: Those of the face, if the picture is to be turned by its eyes.

        Returns:
            RGB. Shape (height, width, 3), uint8.
        """
        size = self.path.stored_size or own_size(box)
        if landmarks is None or not self._options().align:
            return to_bytes(resample(image, box, size))
        return to_bytes(resize(turn(image, box, eye_angle(landmarks)), size))

    def compress(self, picture: tf.Tensor) -> tf.Tensor:
        """Returns a picture as it comes back from its stored file."""
        if self.path.jpeg_quality is None:
            return picture
        return decode_jpeg(encode_jpeg(picture, self.path.jpeg_quality))

    def face(self, image: tf.Tensor, box: tf.Tensor, landmarks: tf.Tensor) -> tf.Tensor:
        """Returns the stored picture of a face box. Shape (height, width, 3), uint8."""
        box = self.crop_box(image, box)
        return self.compress(self.cut(image, box, landmarks))

    def whole(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the stored picture of a whole one."""
        return self.compress(self.cut(image, full_box(tf.shape(image)[:2])))

    def subject(self, image: tf.Tensor) -> tf.Tensor:
        """Returns the stored picture of the one face that counts, or of the fallback.

        Args:
            image: RGB. Shape (height, width, 3), uint8.

        Returns:
            RGB. Shape (height, width, 3), uint8.
        """
        if self.path.crop is None:
            return tf.ensure_shape(self.whole(image), (None, None, 3))
        faces = self.find(image)
        picture, _, _ = self._cut_subject(image, faces)
        return tf.ensure_shape(self.compress(picture), (None, None, 3))

    def store(self, image: tf.Tensor, faces: PhotoFaces) -> StoredFace:
        """Returns what `prepare` stores of a picture whose faces were found.

        Args:
            image: RGB. Shape (height, width, 3), uint8.
            faces: Its faces; there may be none.
        """
        picture, box, score = self._cut_subject(image, faces)
        return StoredFace(encode_jpeg(picture, self.path.jpeg_quality), box, score)

    def to_crop(self, picture: tf.Tensor) -> tf.Tensor:
        """Returns a stored picture as a crop of the stored size, for model files.

        Where pictures are stored as they are, its pixels are rounded once more than
        `to_input` rounds them: a probability moves by about 0.001.

        Args:
            picture: RGB. Shape (height, width, 3), uint8.
        """
        if self.path.stored_size is not None:
            return picture
        return to_bytes(resize(picture, crop_size(self.path)))

    # -- from stored pictures to the input ---------------------------------------------

    def to_input(self, picture: tf.Tensor) -> tf.Tensor:
        """Turns a stored picture into the model's input.

        Args:
            picture: RGB. Shape (height, width, 3), uint8.

        Returns:
            float32 in [0, 1]. Shape (*image_size, 3).
        """
        return stored_to_input(picture, self.image_size, self.path)

    def face_file(self, data: tf.Tensor) -> tf.Tensor:
        """Turns the file of a face crop, or of a whole picture, into the model's input.

        A JPEG of the stored size is taken for a file of a prepared dataset and not
        compressed again.
        """
        image = self.decode(data)
        is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
        is_stored = is_jpeg
        if self.path.stored_size is not None:
            same = tf.shape(image)[:2] == tf.constant(self.path.stored_size)
            is_stored = is_jpeg & tf.reduce_all(same)
        picture = tf.cond(is_stored, lambda: image, lambda: self.whole(image))
        return self.to_input(picture)

    # -- parts -------------------------------------------------------------------------

    def _options(self) -> Any:
        if self.path.crop is None:
            raise ValueError(
                "Invalid pixel path. Expected one with `crop`; this one takes whole "
                f"pictures. Received: {self.path.describe()}."
            )
        return self.path.crop

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the model's input, in pixels."""
        if self.path.image_size is None:
            raise ValueError(
                "Invalid pixel path. Expected one with `image_size`, the model's "
                f"input. Received: {self.path.describe()}."
            )
        return self.path.image_size

    def _cut_subject(
        self, image: tf.Tensor, faces: PhotoFaces
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns crop, box and score of the face that counts, or of the fallback."""

        def cut_fallback() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            box = self.fallback_box(image)
            return self.cut(image, box), box, tf.constant(0.0)

        if self.path.crop is None:
            return cut_fallback()
        selection = self.path.crop.face_selection

        def cut_face() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            size = tf.shape(image)[:2]
            index = select_face(faces.boxes, size, selection)
            box = self.crop_box(image, faces.boxes[index])
            picture = self.cut(image, box, faces.landmarks[index])
            return picture, box, faces.scores[index]

        return tf.cond(tf.shape(faces.boxes)[0] > 0, cut_face, cut_fallback)


def encode_jpeg(picture: tf.Tensor, quality: int | None) -> tf.Tensor:
    """Returns the JPEG file of an RGB picture; `None` is quality 95."""
    return tf.io.encode_jpeg(picture, format="rgb", quality=quality or 95)


def crop_size(path: Preprocessing) -> tuple[int, int]:
    """Returns the (height, width) of crops that a file of one size takes.

    It is the stored size; where pictures are stored as they are, it is the size that
    the input is cut out of.
    """
    if path.stored_size is not None:
        return path.stored_size
    if path.image_size is None:
        raise ValueError(
            "Invalid pixel path. Expected one with `image_size`, the model's input. "
            f"Received: {path.describe()}."
        )
    return enlarged_size(path.image_size, path.enlarge)

"""Small data made on the spot for tests: pictures, fold files, prepared datasets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from keras import layers

from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.readers.adience import COLUMNS, NUM_FOLDS
from keras_agegender.datasets.splits import report_splits
from keras_agegender.faces.detector import Detections
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.faces.preprocessing import CropOptions
from keras_agegender.labels import ADIENCE_AGE_GROUPS, AGE_GROUPS

# The 31 texts of the age column of Adience's files, and the report's group of each.
ALL_AGE_TEXTS = {
    "(0, 2)": "0-2", "2": "0-2", "3": "0-2",
    "(4, 6)": "4-6",
    "(8, 12)": "8-12", "(8, 23)": "8-12", "13": "8-12",
    "(15, 20)": "15-20", "22": "15-20",
    "(25, 32)": "25-32", "(27, 32)": "25-32", "23": "25-32", "29": "25-32",
    "32": "25-32", "34": "25-32", "(25, 23)": "25-32",
    "(38, 43)": "38-43", "(38, 42)": "38-43", "(38, 48)": "38-43", "35": "38-43",
    "36": "38-43", "42": "38-43", "45": "38-43",
    "(48, 53)": "48-53", "46": "48-53", "56": "48-53",
    "(60, 100)": "60-100", "55": "60-100", "57": "60-100", "58": "60-100",
    "None": None,
}  # fmt: skip


class MiddleDetector:
    """Finds one face, the middle half of a picture; none in pictures that are dark."""

    def detect(self, images):
        return [self._detect(image) for image in images]

    def settings(self):
        return {"detector": "middle"}

    def _detect(self, image):
        if image.mean() < 20:
            return Detections.none()
        height, width = image.shape[:2]
        box = np.array([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
        landmarks = np.zeros((1, 5, 2), "float32")
        return Detections(box.astype("float32"), np.array([0.9], "float32"), landmarks)


def picture(value=128, size=(40, 32)):
    """A picture of one gray with a gradient, so that flips and crops show."""
    rows = np.linspace(-20, 20, size[0])[:, None, None]
    columns = np.linspace(0, 60, size[1])[None, :, None]
    return np.clip(value + rows + columns + np.zeros(3), 0, 255).astype("uint8")


def resize_image(image, size):
    """Resizes a picture to (height, width), otherwise than the package does."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=way)


def write_picture(file: Path, value=128, size=(40, 32)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode_jpeg(picture(value, size)))
    return file


def write_video(file: Path, frames, frame_rate=4, size=None) -> Path:
    """An MP4, WebM or AVI file of RGB frames; of none, `size` is (height, width)."""
    height, width = size or frames[0].shape[:2]
    codecs = {".mp4": "mp4v", ".webm": "VP80"}
    code = cv2.VideoWriter_fourcc(*codecs.get(file.suffix, "MJPG"))
    writer = cv2.VideoWriter(str(file), code, frame_rate, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return file


def adience_row(number, fold=0, age="(25, 32)", gender="f", subject=None, **changes):
    """One row of a fold file as a dict; the subject is the fold's own by default."""
    values = dict.fromkeys(COLUMNS, "0")
    values |= {
        "user_id": f"user{number % 3}@N00",
        "original_image": f"{number:04d}_o.jpg",
        "face_id": str(subject if subject is not None else 100 * fold + number % 5),
        "age": age,
        "gender": gender,
    }
    return values | changes


def write_adience(directory: Path, rows_by_fold: dict[int, list], tree="faces"):
    """Writes five fold files and, if a tree is named, a picture for each row."""
    directory.mkdir(parents=True, exist_ok=True)
    starts = {"faces": "coarse_tilt_aligned_face", "aligned": "landmark_aligned_face"}
    for fold in range(NUM_FOLDS):
        lines = ["\t".join(COLUMNS)]
        for number, row in enumerate(rows_by_fold.get(fold, [])):
            lines.append("\t".join(row[column] for column in COLUMNS))
            if tree:
                name = f"{starts[tree]}.{row['face_id']}.{row['original_image']}"
                # No picture is like another: twins in two splits are an error.
                value = 20 + (40 * fold + 2 * number) % 200
                write_picture(directory / tree / row["user_id"] / name, value=value)
        text = "\n".join(lines) + "\n"
        (directory / f"fold_{fold}_data.txt").write_text(text, "utf-8")
    return directory


def make_rows(directory: Path, count=40):
    """Rows of a manifest in five folds: gray values tell age group and gender."""
    rows = []
    for number in range(count):
        group, gender, fold = number % 8, number // 8 % 2, number % 5
        key = f"{number:03d}.jpg"
        # No two pictures are the same: that would be a face in two splits.
        value = 40 + 20 * group + 5 * gender + number / 10
        write_picture(directory / key, value=value)
        rows.append(
            {
                "key": key,
                "path": str(directory / key),
                "subject": f"s{number}",
                "fold": fold,
                "split": f"fold_{fold}",
                "age_group": group if number != 7 else -1,
                "gender": gender if number != 6 else -1,
                "source": "test",
                "glasses": number % 2,
                "colour": number % 3,
                "weight": 0.5 * number,
                "age_years": AGE_GROUPS[group][0] + number % 3 if number != 7 else -1,
            }
        )
    return rows


EXTRA_HEADS = {
    "glasses": {"kind": "binary", "classes": []},
    "colour": {"kind": "categorical", "classes": ["red", "green", "blue"]},
    "weight": {"kind": "regression", "classes": []},
}


def make_prepared(directory: Path, count=40, extra_heads=None, **options):
    """A prepared dataset of `count` pictures in five folds; returns its folder."""
    from keras_agegender.datasets.prepare import prepare

    manifest = make_manifest(make_rows(directory / "pictures", count), extra_heads)
    arguments = {
        "detector": MiddleDetector(),
        "crop_options": CropOptions(),
        "output_size": (48, 48),
        "splits": report_splits(),
        "progress": False,
        **options,
    }
    prepare(manifest, directory / "prepared", **arguments)
    return directory / "prepared"


WHOLE_IMAGES = (
    "model.backbone=sample_data:small_backbone", "model.image_size=[32, 32]",
    "model.encoding=categorical", "model.question=", "data.pipeline=resnet",
    "data.faces=any", "data.batch_size=8", "training.epochs=1",
)  # fmt: skip


def train_on_whole_images(directory: Path):
    """A run of one epoch on whole images, with three extra heads, and its scores."""
    import keras_agegender as kag

    data = make_prepared(
        directory / "data", extra_heads=EXTRA_HEADS, crop_options=None, detector=None
    )
    recipe = kag.load_recipe("7", WHOLE_IMAGES)
    run = kag.train(recipe, data, directory / "run", verbose=0)
    kag.evaluate(run)
    return run


def write_labels(directory: Path, fold=4, colors=("red", "green", "blue")) -> Path:
    """A CSV file of the images of one fold; its classes have another order."""
    import pandas as pd

    rows = pd.DataFrame(make_rows(directory / "images"))
    rows = rows[rows["fold"] == fold]
    groups, genders = [*ADIENCE_AGE_GROUPS.names, ""], ["female", "male", ""]
    table = pd.DataFrame(
        {
            "image": rows["path"],
            "age_group": [groups[k] for k in rows["age_group"]],
            "gender": [genders[k] for k in rows["gender"]],
            "person": rows["subject"],
            "colour": [f" {colors[k]} ".upper() for k in rows["colour"]],
            "weight": rows["weight"],
            "glasses": rows["glasses"],
        }
    )
    table.to_csv(directory / "labels.csv", index=False)
    return directory / "labels.csv"


def small_backbone(image):
    """Two convolutions, batch normalization and dropout: quick to trace, save and load.

    In a recipe: `model.backbone = "sample_data:small_backbone"`.
    """
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv1")(image)
    x = layers.BatchNormalization(name="batch_norm")(x)
    x = layers.Activation("relu", name="relu")(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu", name="conv2")(x)
    return layers.Dropout(0.2, name="dropout")(x)

"""
Title: How robust are the predictions?
Description: Measures predictions for images that are degraded step by step.

    python pipelines/robustness.py runs/mine data/UTKFace_val --out runs/mine/robustness

Every image is processed like a user's photo: it is degraded, faces are detected and
cropped, and their age and gender are predicted. If no face is found, the whole image is
used, and the table shows the share of such images. If there are several faces, the
largest is scored. All levels use the same images, so that differences are due to the
level only. File names must be those of UTKFace. For boxes that are too tight or too
loose, the images are treated as crops, and their border is removed or extended by
repeating the last pixels.
"""

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Change = Callable[[Image.Image, float], Image.Image]


def downscale(image: Image.Image, side: float) -> Image.Image:
    """Returns the image downscaled to a longest side, and enlarged again."""
    small = image.copy()
    small.thumbnail((int(side), int(side)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def blur(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def darken(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def compress(image: Image.Image, quality: float) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer, formats=["JPEG"]).convert("RGB")


def occlude(image: Image.Image, share: float) -> Image.Image:
    """Returns the image with a gray bar over its lower part."""
    width, height = image.size
    hidden = image.copy()
    top = round(height * (1 - share))
    ImageDraw.Draw(hidden).rectangle((0, top, width, height), fill=(128, 128, 128))
    return hidden


# What, its levels from none to much, how a level is read.
CHANGES: dict[str, tuple[Change, tuple[float, ...], str]] = {
    "downscaled": (downscale, (200, 100, 64, 48, 32), "{:g} px"),
    "blurred": (blur, (0, 1, 2, 3, 4), "sigma {:g} px"),
    "rotated": (rotate, (-30, -15, 0, 15, 30), "{:g}°"),
    "darkened": (darken, (1, 0.5, 0.25, 0.1), "{:g} of brightness"),
    "JPEG": (compress, (95, 50, 20, 10), "quality {:g}"),
    "occluded": (occlude, (0, 0.125, 0.25, 0.4), "{:g} of the image"),
}
BOXES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)  # sides, as shares of the right ones


def labels(folder: Path, count: int, seed: int) -> pd.DataFrame:
    """Returns path, age in years, age group and gender of some images."""
    import keras_agegender as kag

    rows, _ = kag.read_utkface(folder, unmapped_ages="mask", validation=0, test=0)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.iloc[np.sort(chosen)].reset_index(drop=True)


def score(
    predictions: Sequence, rows: pd.DataFrame, groups: list[str]
) -> dict[str, float]:
    """Returns accuracies, mean error in years and the share of faces not found."""
    import keras_agegender as kag

    predictions = [
        max(p.faces, key=lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]))
        for p in predictions
    ]
    return {
        **figures(
            np.array([kag.labels.GENDERS.index(face.gender) for face in predictions]),
            np.array([groups.index(face.age_group) for face in predictions]),
            np.array([face.age_years for face in predictions]),
            rows,
        ),
        "not found": float(np.mean([p.status != "ok" for p in predictions])),
    }


def figures(
    genders: np.ndarray, ages: np.ndarray, years: np.ndarray, rows: pd.DataFrame
) -> dict[str, float]:
    """Returns accuracies and mean error in years."""
    known = rows["age_group"].to_numpy() >= 0
    off = np.abs(ages - rows["age_group"].to_numpy())[known]
    return {
        "gender": float(np.mean(genders == rows["gender"].to_numpy())),
        "age exact": float(np.mean(off == 0)),
        "one-off": float(np.mean(off <= 1)),
        "MAE years": float(np.abs(years - rows["age_years"]).mean()),
    }


def boxed(image: Image.Image, share: float, size: tuple[int, int]) -> np.ndarray:
    """Returns a crop around the center whose box is a share of the image's sides."""
    pixels = np.asarray(image)
    if share > 1:
        border = [round((share - 1) / 2 * side) for side in pixels.shape[:2]]
        pixels = np.pad(pixels, [(b, b) for b in border] + [(0, 0)], mode="edge")
    else:
        top, left = (round((1 - share) / 2 * side) for side in pixels.shape[:2])
        pixels = pixels[top : len(pixels) - top, left : pixels.shape[1] - left]
    resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(resized)


def measure_boxes(model: str, images: list, rows: pd.DataFrame) -> list[dict]:
    """Returns a row of scores for every size of boxes."""
    import keras_agegender as kag

    with tempfile.TemporaryDirectory() as folder:  # a file takes crops, a run photos
        file = kag.export(model, Path(folder) / "face.tflite", format="litert")
        model_file = kag.serving.LiteRtModel(file)
    size = model_file.crop_size
    found = []
    for share in BOXES:
        crops = np.stack([boxed(image, share, size) for image in images])
        parts = [
            model_file.predict(crops[n : n + 32]) for n in range(0, len(crops), 32)
        ]
        names = ("gender_id", "age_group", "age_years")
        predictions = [np.concatenate([part[name] for part in parts]) for name in names]
        found.append(
            {"change": "boxes", "level": f"{share:g}", **figures(*predictions, rows)}
        )
        print(pd.DataFrame(found[-1:]).to_string(header=False), flush=True)
    return found


def measure(model: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a row of scores for every change at every level."""
    import keras_agegender as kag

    images = [Image.open(path).convert("RGB") for path in rows["path"]]
    predictor = kag.Predictor(model)
    groups = predictor.metadata["age_groups"]

    def predict(predictor, changed):
        arrays = [np.asarray(image) for image in changed]
        predictions = predictor.predict_many(arrays, whole_image=True)
        return score(predictions, rows, groups)

    found = []
    for name, (change, levels, text) in CHANGES.items():
        for level in levels:
            scores = predict(predictor, (change(p, level) for p in images))
            found.append({"change": name, "level": text.format(level), **scores})
            print(
                pd.DataFrame(found[-1:]).to_string(header=len(found) == 1), flush=True
            )
    found += measure_boxes(model, images, rows)
    return pd.DataFrame(found)


def plot(table: pd.DataFrame, file: Path, title: str) -> None:
    """Draws gender and age accuracy over the levels of every change."""
    from matplotlib.figure import Figure

    changes = list(dict.fromkeys(table["change"]))
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    axes = figure.subplots(2, (len(changes) + 1) // 2, sharey=True, squeeze=False)
    for axis, change in zip(axes.flat, changes, strict=False):
        rows = table[table["change"] == change]
        for column, marker in (("gender", "o"), ("one-off", "s"), ("age exact", "^")):
            axis.plot(rows["level"], rows[column], marker=marker, label=column)
        axis.set_title(change)
        axis.tick_params(axis="x", labelrotation=20)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(changes) :]:
        axis.set_visible(False)
    axes.flat[0].legend()
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2][13:])
    parser.add_argument("model", help="a run or an export")
    parser.add_argument("faces", type=Path, help="folder of images named as in UTKFace")
    parser.add_argument(
        "--count", type=int, default=600, help="maximum number of images"
    )
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    rows = labels(arguments.faces, arguments.count, arguments.seed)
    table = measure(arguments.model, rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(arguments.out / "robustness.csv", index=False)
    title = f"{Path(arguments.model).name}: {len(rows)} faces, degraded"
    plot(table, arguments.out / "robustness.png", title)
    print(f"{arguments.out}: robustness.csv, robustness.png")


if __name__ == "__main__":
    main()

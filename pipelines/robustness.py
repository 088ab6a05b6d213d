"""
Title: How robust are the answers?
Description: A model's answers about pictures that are made worse, step by step.

    python pipelines/robustness.py runs/mine data/UTKFace_val --out runs/mine/robustness

Every picture goes the whole way of a user's photo: it is made worse, faces are found in
it, cut out and answered about; where none is found, the picture is taken for one (the
share of those is in the table). Of several faces the largest is scored. The same
pictures at every level, so that differences are of the level alone. Pictures are named
as UTKFace's.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Change = Callable[[Image.Image, float], Image.Image]


def downscale(picture: Image.Image, side: float) -> Image.Image:
    """Returns the picture with sides of so many pixels at most, enlarged again."""
    small = picture.copy()
    small.thumbnail((int(side), int(side)), Image.Resampling.BOX)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def blur(picture: Image.Image, sigma: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.BICUBIC)


def darken(picture: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(factor)


def compress(picture: Image.Image, quality: float) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer, formats=["JPEG"]).convert("RGB")


def occlude(picture: Image.Image, share: float) -> Image.Image:
    """Returns the picture with a gray bar over its lower part."""
    width, height = picture.size
    hidden = picture.copy()
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
    "occluded": (occlude, (0, 0.125, 0.25, 0.4), "{:g} of the picture"),
}
MARGINS = (0.0, 0.15, 0.25, 0.4, 0.6)


def labels(folder: Path, count: int, seed: int) -> pd.DataFrame:
    """Returns path, age in years, age group and gender of some pictures."""
    import keras_agegender as kag

    rows, _ = kag.read_utkface(folder, gaps="mask", validation=0, test=0)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.iloc[np.sort(chosen)].reset_index(drop=True)


def score(
    predictions: Sequence, rows: pd.DataFrame, groups: list[str]
) -> dict[str, float]:
    """Returns accuracies, mean error in years and the share of faces not found."""
    import keras_agegender as kag

    answers = [
        max(p.faces, key=lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]))
        for p in predictions
    ]
    genders = [kag.GENDERS.index(face.gender) for face in answers]
    ages = np.array([groups.index(face.age_group) for face in answers])
    known = rows["age_group"].to_numpy() >= 0
    off = np.abs(ages - rows["age_group"].to_numpy())[known]
    years = np.abs([face.age_years for face in answers] - rows["age_years"])
    return {
        "gender": float(np.mean(genders == rows["gender"].to_numpy())),
        "age exact": float(np.mean(off == 0)),
        "one-off": float(np.mean(off <= 1)),
        "MAE years": float(years.mean()),
        "not found": float(np.mean([p.status != "ok" for p in predictions])),
    }


def measure(model: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a row of scores for every change at every level."""
    import keras_agegender as kag

    pictures = [Image.open(path).convert("RGB") for path in rows["path"]]
    predictor = kag.Predictor(model)
    groups = predictor.metadata["age_groups"]

    def answer(predictor, changed):
        arrays = [np.asarray(picture) for picture in changed]
        predictions = predictor.predict_many(arrays, whole_image=True)
        return score(predictions, rows, groups)

    found = []
    for name, (change, levels, text) in CHANGES.items():
        for level in levels:
            scores = answer(predictor, (change(p, level) for p in pictures))
            found.append({"change": name, "level": text.format(level), **scores})
            print(
                pd.DataFrame(found[-1:]).to_string(header=len(found) == 1), flush=True
            )
    for margin in MARGINS:
        crops = predictor.crop_options
        if crops is None:
            break
        other = kag.CropOptions(**{**vars(crops), "margin": margin})
        boxed = kag.Predictor(model, crop_options=other)
        level = f"margin {margin:g}"
        found.append({"change": "boxes", "level": level, **answer(boxed, pictures)})
        print(pd.DataFrame(found[-1:]).to_string(header=False), flush=True)
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
    parser.add_argument("faces", type=Path, help="pictures named as UTKFace's")
    parser.add_argument("--count", type=int, default=600, help="pictures at most")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    rows = labels(arguments.faces, arguments.count, arguments.seed)
    table = measure(arguments.model, rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(arguments.out / "robustness.csv", index=False)
    title = f"{Path(arguments.model).name}: {len(rows)} faces, made worse"
    plot(table, arguments.out / "robustness.png", title)
    print(f"{arguments.out}: robustness.csv, robustness.png")


if __name__ == "__main__":
    main()

"""
Title: Turn a run into a folder that can be distributed
Description: Converts weights to half precision and removes local paths and faces.

    python pipelines/release_run.py runs/utkface/utkface_compact saved_models/compact \\
        --by race --license "For non-commercial research." --limits "Old faces …"

The folder contains no images, no predictions or keys of faces, and no optimizer state.
The model still loads with `keras.saving.load_model`, in float32, and the folder with
`kag.Predictor` and `agegender predict`.
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import h5py

WEIGHTS = "model.weights.h5"
CONFIG = "config.json"
# Tables of `agegender evaluate`, for the card.
FIGURES = "figures.txt"
COPIED = ("best.json", "history.csv", "curves.png", "confusion.png", "calibration.json")


def halve(source: Path, target: Path) -> None:
    """Writes a `.keras` file with weights of 16 bits, which Keras reads as float32."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == WEIGHTS:
                content = halve_weights(content)
            elif name == CONFIG:
                content = without_optimizer(content)
            new.writestr(name, content, zipfile.ZIP_DEFLATED)


def without_optimizer(config: bytes) -> bytes:
    """Returns a model's config without compile state, for all supported versions."""
    values = portable(json.loads(config))
    return json.dumps({**values, "compile_config": None}).encode()


# Settings that Keras 3.13 to 3.15 added, with their defaults; Keras 3.12 rejects them.
NEW_SETTINGS = {
    "input_axes": None,  # initializers
    "output_axes": None,
    "renorm": False,  # batch normalization
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "quantization_config": None,  # dense layers
}


def portable(config):
    """Returns a Keras config without new settings that have their default."""
    if isinstance(config, list):
        return [portable(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        key: portable(value)
        for key, value in config.items()
        if key not in NEW_SETTINGS or value != NEW_SETTINGS[key]
    }


def halve_weights(content: bytes) -> bytes:
    halved = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as old, h5py.File(halved, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Dataset):
                value = item[()]
                kind = "float16" if item.dtype == "float32" else item.dtype
                new.create_dataset(name, data=value.astype(kind))
                made = new[name]
            else:
                made = new.require_group(name)
            made.attrs.update(item.attrs)

        old.visititems(copy)
        new.attrs.update(old.attrs)
    return halved.getvalue()


def without_paths(value):
    """Returns plain values with absolute paths cut to their last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2][13:])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--by", nargs="*", default=[], help="columns to score by")
    parser.add_argument("--license", required=True, help="terms of the weights")
    parser.add_argument("--limits", required=True, help="what they cannot do")
    arguments = parser.parse_args()
    # Keras takes seconds to load; the arguments are right by now.
    import keras_agegender as kag
    from keras_agegender.files import file_hash, write_checksums
    from keras_agegender.recipes.loading import override_recipe
    from keras_agegender.run_directory import RunDirectory

    run = RunDirectory.open(arguments.run)
    figures = kag.evaluation.format_metrics(kag.evaluate(run, by=arguments.by))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / FIGURES).write_text(f"{figures}\n", "utf-8")
    for name in ("run.json", "metrics.json"):
        values = without_paths(json.loads((run.path / name).read_text("utf-8")))
        text = json.dumps(values, indent=1) + "\n"
        (arguments.out / name).write_text(text, "utf-8")
    recipe, overrides = run.recipe(), []
    if recipe.model.backbone_weights:
        name = Path(recipe.model.backbone_weights).name
        overrides = [f"model.backbone_weights={name}"]
    if recipe.distillation:
        names = [Path(teacher).name for teacher in recipe.distillation.teachers]
        overrides += [f"distillation.teachers={json.dumps(names)}"]
    terms = {"license": arguments.license, "limits": arguments.limits}
    (arguments.out / "terms.json").write_text(json.dumps(terms, indent=1) + "\n")
    toml = override_recipe(recipe, overrides).to_toml()
    (arguments.out / "recipe.toml").write_text(toml, "utf-8")
    for name in COPIED:
        if (run.path / name).is_file():
            (arguments.out / name).write_bytes((run.path / name).read_bytes())
    halve(run.best_model, arguments.out / "best.keras")
    calibration = arguments.out / "calibration.json"
    if calibration.is_file():  # of the same model, in other bits
        values = json.loads(calibration.read_text("utf-8"))
        values["fitted_on"]["model_sha256"] = file_hash(arguments.out / "best.keras")
        calibration.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    card = "README.md"  # written by hand, before or later
    names = [file.name for file in arguments.out.iterdir() if file.name != card]
    write_checksums(arguments.out, names)
    size = sum(file.stat().st_size for file in arguments.out.iterdir()) / 1e6
    print(f"{arguments.out}: {size:.1f} MB")


if __name__ == "__main__":
    main()

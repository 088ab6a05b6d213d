"""Multi-output modelling of faces with Keras: apparent age group and gender first.

    import keras_agegender as kag

    model = kag.build_model("resnet_se", encoding="ordinal")

Every public name is imported when it is first used, so that `import keras_agegender`
takes no time.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that holds it.
_MODULES = {
    "AGE_GROUPS": "labels",
    "AGE_GROUP_NAMES": "labels",
    "GENDERS": "labels",
    "CropOptions": "faces.cropping",
    "DecodedAccuracy": "callbacks",
    "Encoding": "encodings",
    "GraphCropper": "faces.graph_cropping",
    "Head": "encodings",
    "LossWeightScheduler": "loss_weights",
    "MtcnnDetector": "faces.detector",
    "PreparedDataset": "datasets.prepared",
    "Predictor": "prediction",
    "Recipe": "recipes.recipe",
    "RunBackup": "backup",
    "RunDirectory": "run_directory",
    "annotate_photo": "annotation",
    "build_model": "models.builder",
    "balanced_class_weights": "encodings",
    "compare": "comparison",
    "evaluate": "evaluation.evaluator",
    "evaluate_predictions": "evaluation.metrics",
    "export": "exporting",
    "format_metrics": "evaluation.metrics",
    "freeze_all_but_last": "models.freezing",
    "get_encoding": "encodings",
    "list_encodings": "encodings",
    "list_models": "models.builder",
    "list_recipes": "recipes.recipe",
    "load_prepared": "datasets.prepared",
    "load_recipe": "recipes.recipe",
    "load_torch_weights": "models.torch_weights",
    "make_eval_dataset": "input_pipeline",
    "make_train_dataset": "input_pipeline",
    "cross_validation_splits": "datasets.splits",
    "prepare": "datasets.preparation",
    "prepare_with_beam": "datasets.beam_preparation",
    "quickstart": "quickstart_tour",
    "read_adience": "datasets.adience",
    "read_celeba": "datasets.celeba",
    "read_csv": "datasets.csv",
    "read_image": "faces.images",
    "read_labels": "input_pipeline",
    "read_synthetic": "datasets.synthetic",
    "read_utkface": "datasets.utkface",
    "report_splits": "datasets.splits",
    "reproduce": "reproduction",
    "train": "training",
    "transfer_weights": "models.weights",
    "write_celeba_from_tfds": "datasets.celeba",
    "write_synthetic_faces": "datasets.synthetic",
    "write_synthetic_photo": "datasets.synthetic",
}

__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

"""Calibrating a run: validation faces give calibration.json in the run directory."""

from __future__ import annotations

import warnings
from pathlib import Path

from keras_agegender.datasets.prepared import PreparedDataset
from keras_agegender.encodings.calibration import Calibration, check_options
from keras_agegender.evaluation.calibration_warnings import calibration_warnings
from keras_agegender.evaluation.evaluate import open_data, predict_split
from keras_agegender.evaluation.fit_calibration import check_answered, fit_calibration
from keras_agegender.files import directory_hash, file_hash, write_json
from keras_agegender.run_directory import RunDirectory


def calibrate(
    run: RunDirectory | str | Path,
    data: PreparedDataset | str | Path | None = None,
    *,
    split: str = "validation",
    alpha: float = 0.1,
    by: str | None = None,
) -> Calibration:
    """Fits a run's calibration and writes it into the run directory.

    `evaluate`, `export` and, from its export, `Predictor` take it from there. What is
    weak about it, too few faces for instance, is a `UserWarning` each.

    Args:
        run: A run or its directory; its best model is calibrated.
        data: A prepared dataset or its directory; `None` takes the one trained on.
        split: A split name or expression; never one that the scores are to be quoted
            on. Defaults to `"validation"`.
        alpha: As in `fit_calibration`. Defaults to 0.1.
        by: As in `fit_calibration`.

    Returns:
        The calibration, as in calibration.json.

    Raises:
        ValueError: If the run, the dataset or the split does not exist, an option is
            impossible, or no face has a label.

    Example:
    >>> print(calibrate("runs/1"))  # doctest: +SKIP
    gender: temperature 1.213 (over 949 faces)
    """
    check_options(alpha, by)
    if not isinstance(run, RunDirectory):
        run = RunDirectory.open(run)
    encoding = run.encoding()
    check_answered(by, encoding)
    data, same = open_data(run, data)
    splits = run.info()["splits"] if same else data.splits
    split = splits.get(split, split)
    fitted_on = {
        "split": split,
        "data_sha256": directory_hash(data.directory),
        "model_sha256": file_hash(run.best_model),
    }
    outputs, labels = predict_split(run, data, split)
    calibration = fit_calibration(
        outputs, labels, encoding, alpha=alpha, by=by, fitted_on=fitted_on
    )
    write_json(run.calibration_file, calibration.to_dict())
    for line in calibration_warnings(calibration, encoding):
        warnings.warn(line, stacklevel=2)
    return calibration

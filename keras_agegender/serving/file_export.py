"""Model files: written, opened in their runtime, compared, and only then in place."""

from __future__ import annotations

from pathlib import Path

from keras_agegender.checksums import sidecar, write_sidecar
from keras_agegender.faces.pixel_graph import crop_size
from keras_agegender.files import replacing
from keras_agegender.run_directory import RunDirectory
from keras_agegender.serving.comparison import (
    TOLERANCES,
    Comparison,
    Tolerance,
    check_drift,
    compare_answers,
)
from keras_agegender.serving.faces_to_compare import find_faces
from keras_agegender.serving.litert_export import describe_litert, write_litert
from keras_agegender.serving.litert_model import LiteRtModel
from keras_agegender.serving.model_file import ModelFile, check_new_file
from keras_agegender.serving.onnx_export import describe_onnx, write_onnx
from keras_agegender.serving.onnx_model import OnnxModel
from keras_agegender.serving.served_model import Served


def export_file(
    served: Served,
    file: Path,
    format: str,
    *,
    run: RunDirectory | None = None,
    crops: str | Path | None = None,
    tolerance: Tolerance | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Writes a model as one file that takes face crops, and says how well it answers.

    Args:
        served: What to write.
        file: Its name, which ends in .onnx or .tflite.
        format: `"onnx"`, `"litert"` or `"litert-int8"`.
        run: The run that the model is of; its dataset has faces to compare on.
        crops: A prepared dataset or a folder of face crops to compare on instead.
        tolerance: What answers may differ by; `None` is the format's own.
        overwrite: Whether a file of that name may be replaced.

    Returns:
        How it answers beside the Keras model, and its size and speed.

    Raises:
        ValueError: If it answers otherwise than the Keras model: there is no file then.
    """
    check_new_file(file, format, overwrite)
    compared = find_faces(run, crops, served.graph)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        description = {**served.metadata, **_describe_file(served, format)}
        if format == "onnx":
            write_onnx(served, partial)
            describe_onnx(partial, description)
        else:
            int8 = format == "litert-int8"
            write_litert(served, partial, int8)
            describe_litert(partial, description)
        model: ModelFile
        model = OnnxModel(partial, 1) if format == "onnx" else LiteRtModel(partial)
        size = partial.stat().st_size
        comparison = compare_answers(served, model, compared, size)
        check_drift(comparison, tolerance or TOLERANCES[format], format)
        sidecar(file).unlink(missing_ok=True)  # of the file that was there
    write_sidecar(file)
    return comparison


def _describe_file(served: Served, format: str) -> dict:
    size = None if format == "onnx" else list(crop_size(served.graph.path))
    return {
        "signatures": ["crops"],
        "file": {
            "format": format,
            "crop_size": size,
            "tolerance": TOLERANCES[format]._asdict(),
        },
    }

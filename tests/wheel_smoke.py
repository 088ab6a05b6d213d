"""Installs the wheel into an environment of its own and uses it once.

    python tests/wheel_smoke.py dist/keras_agegender-….whl

Everything happens in a temporary folder outside the checkout. Without extras, as in the
Dockerfile, the released model predicts a photo and the server is healthy, without
TensorFlow. With the extra `train`, drawn faces are prepared, one epoch is trained, the
model is exported, and the export predicts a photo.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PYTHON_PART = """
import keras_agegender as kag

assert "site-packages" in kag.__file__, kag.__file__
kag.synthetic.write_synthetic_faces("faces", num_faces=80, seed=0)
manifest, _ = kag.synthetic.read_synthetic("faces")
kag.prepare(manifest, "prepared", detector=None, crop_options=None,
            output_size=(64, 64), splits=kag.datasets.report_splits(), progress=False)
kag.synthetic.write_synthetic_photo("photo.jpg", seed=1)
assert len(kag.__all__) == len([getattr(kag, name) for name in kag.__all__])
"""

LIGHT_PART = """
import importlib.util, threading, time, urllib.request
import numpy as np
from PIL import Image
import keras_agegender as kag

assert "site-packages" in kag.__file__, kag.__file__
assert not importlib.util.find_spec("tensorflow"), "TensorFlow is installed"
Image.fromarray(np.full((200, 300, 3), 128, "uint8")).save("gray.png")
assert kag.Predictor().predict("gray.png").status == "no_face"
serve = lambda: kag.serving.run_server({"default": kag.Predictor()}, port=8765)
threading.Thread(target=serve, daemon=True).start()
time.sleep(3)
reply = urllib.request.urlopen("http://127.0.0.1:8765/health")
assert reply.read() == b'{"status": "ready"}'
"""

COMMANDS = (
    "--version",
    "recipes quickstart",
    "train quickstart --data prepared --run run --set training.epochs=1 "
    "--set model.backbone=caffe_1conv --set data.faces=any",
    "evaluate run",
    "report run",
    "export run --out saved_model",
    "predict saved_model photo.jpg --whole-image --annotate answered.png",
)


def main(wheel: Path) -> None:
    """Runs every step; the first to fail raises."""
    with tempfile.TemporaryDirectory() as folder:
        binaries = Path(folder) / "environment" / "bin"
        venv.create(binaries.parent, with_pip=True)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

        def run(program: str, *arguments: str) -> None:
            print("$", program, *(a for a in arguments if "\n" not in a), flush=True)
            command = [str(binaries / program), *arguments]
            subprocess.run(command, cwd=folder, env=environment, check=True)

        run("python", "-m", "pip", "install", "--quiet", str(wheel.resolve()))
        run("python", "-c", LIGHT_PART)
        run("agegender", "predict", "gray.png")
        run("python", "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[train]")
        run("python", "-c", PYTHON_PART)
        for command in COMMANDS:
            run("agegender", *command.split())
        if not (Path(folder) / "answered.png").is_file():
            raise ValueError("`agegender predict` wrote no picture.")
    print("The wheel works.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

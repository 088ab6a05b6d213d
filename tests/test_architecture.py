"""Which module may import which, and which may write files (ruff checks the calls)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_agegender"

# Modules that define Keras classes or TensorFlow graphs; all others import the
# frameworks inside the functions that need them.
FRAMEWORK_MODULES = {
    "callbacks": {"balancer", "checkpoints", "decoded_metrics", "epoch_logger",
                  "loss_weights"},
    "datasets": {"augment", "distillation", "pipeline"},
    "encodings": {"calibration", "decoding", "masked"},
    "faces": {"decoding", "geometry", "mtcnn", "portable_ops", "preprocessing_graph"},
    "metrics": {"keras_metrics"},
    "models": {"augmentation_layers", "backbones", "builder", "efficientnet_lite",
               "inference", "layers", "weights"},
    "serving": {"bundle"},
    "training": {"compile", "fit"},
}  # fmt: skip


def test_imports_go_one_way():
    """The contracts of setup.cfg."""
    # In a process of its own: it reconfigures logging.
    code = (
        "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports("
    )
    code += f"config_filename={str(ROOT / 'setup.cfg')!r}, no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_importing_loads_no_framework():
    """In one process: every module but those that are made of Keras or TensorFlow."""
    modules = []
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = [*file.relative_to(PACKAGE).with_suffix("").parts, ""]
        if parts[1] not in FRAMEWORK_MODULES.get(parts[0], ()):
            modules.append(".".join(file.relative_to(ROOT).with_suffix("").parts))
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    found = {{"tensorflow", "keras", "jax"}} & set(sys.modules)
    if found: sys.exit(f"{{name}} loads {{found}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(modules) > 50


# Modules that write files without `atomic_write` or what is built on it.
WRITES_ITSELF = {
    "datasets/prepare.py": "into a folder that is renamed when it is complete",
    "datasets/prepared.py": "into a folder that is renamed when it is complete",
    "files.py": "defines the atomic writes",
    "run_directory.py": "a probe of the disk, removed at once",
    "serving/litert.py": "a temporary file that `export` puts in place",
    "serving/onnx_format.py": "a temporary file that `export` puts in place",
    "serving/predictions.py": "appends to a .partial file, then replaces the file",
    "serving/server.py": "a temporary file, to warm up the models",
}
WRITING = {"write_text", "write_bytes", "savefig", "to_csv", "save", "save_weights"}


def writes(node: ast.AST) -> bool:
    """Whether a node is a call that writes a file, not a `partial` or a stream."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    name = called.rpartition(".")[2]
    target = ast.unparse(node.args[0]) if node.args else ""
    if called.startswith("files."):  # of `keras_agegender.files`
        return False
    if any(word in f"{called} {target}" for word in ("partial", "stream", "devnull")):
        return False
    if called == "os.replace":
        return True
    if name == "open":
        modes = [a.value for a in node.args if isinstance(a, ast.Constant)]
        return any(set("wax+") & set(str(mode)) for mode in modes)
    if name == "to_csv" and (not node.args):
        return False  # returns text
    return "." in called and name in WRITING


def test_files_are_written_in_one_step():
    writing = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(map(writes, ast.walk(ast.parse(file.read_text("utf-8")))))
    }
    assert writing == set(WRITES_ITSELF)

"""The house: which room may import which, what stays free of TensorFlow, and sizes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "keras_agegender"
MODULES = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}

# A room imports itself and rooms of earlier lines, never one of its own line.
FLOORS = (
    ("quiet", "labels", "files", "progress", "suggestion", "distribution"),
    ("checksums",),
    ("faces",),
    ("encodings",),
    ("models", "callbacks", "datasets"),
    ("recipes",),
    ("run_directory",),  # what a run leaves on disk: read by evaluation and export
    ("synthetic", "input_pipeline"),
    ("evaluation", "serving"),
    ("training",),
    ("studies",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# (importing module, imported room) -> why it may.
ALLOWED_IMPORTS: dict[tuple[str, str], str] = {}

# The modelling core, and what must answer before any framework is loaded.
WITHOUT_TENSORFLOW = (
    "models",
    "encodings",
    "callbacks",
    "labels",
    "files",
    "suggestion",
    "recipes",
    "evaluation/answer_metric.py",
    "evaluation/answers.py",
    "evaluation/array_metrics.py",
    "evaluation/decoded_metrics.py",
    "evaluation/detailed_metrics.py",
    "evaluation/keras_count_metrics.py",
    "evaluation/keras_metrics.py",
)

MAX_LINES = 300
# Module -> why it is longer. The list may only shrink.
LONG_MODULES = {
    "datasets/csv.py": "one reader: roles, labels, splits and columns of one format",
    "datasets/preparation.py": "one preparation, in blocks and resumable",
    "encodings/encoding.py": "one class",
    "faces/decoding.py": "the formats of one graph, and their EXIF",
    "recipes/recipe.py": "every section of one schema, documented",
    "serving/predictor.py": "one class",
}
MAX_FUNCTION_LINES = 70  # without its docstring; about 40 is the aim


def room_of(module: str) -> str:
    return module.partition("/")[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    """Modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            found.add(node.module or "")
            if node.module == "keras_agegender":
                found |= {f"keras_agegender.{alias.name}" for alias in node.names}
    return found


def imported_rooms(file: Path) -> set[str]:
    parts = [name.split(".") for name in imports(file)]
    rooms = {p[1] for p in parts if p[0] == "keras_agegender" and len(p) > 1}
    return rooms - {"__version__"}


def test_every_room_has_a_floor():
    rooms = {room_of(module) for module in MODULES} - {"__init__"}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module):
    room = room_of(module)
    for other in imported_rooms(MODULES[module]) - {room}:
        if room == "__init__":
            assert other == "quiet", "the package imports rooms when they are used"
        elif (module, other) not in ALLOWED_IMPORTS:
            assert FLOOR_OF[other] < FLOOR_OF[room], f"{module} imports {other}"


def test_exceptions_are_needed():
    """An allowance that nothing uses any more goes."""
    for module, room in ALLOWED_IMPORTS:
        assert room in imported_rooms(MODULES[module]), (module, room)


@pytest.mark.parametrize(
    "module",
    sorted(m for m in MODULES if {m, room_of(m)} & set(WITHOUT_TENSORFLOW)),
)
def test_the_core_is_free_of_tensorflow(module):
    roots = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert not roots & {"tensorflow", "tensorflow_datasets", "jax", "torch"} or (
        module.startswith("models/torch_") and "tensorflow" not in roots
    )


def test_modules_are_short():
    lines = {m: len(f.read_text("utf-8").splitlines()) for m, f in MODULES.items()}
    long = {module for module, count in lines.items() if count > MAX_LINES}
    assert long == set(LONG_MODULES), (
        "list a long module with its reason, or take it off"
    )


def test_functions_are_short():
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                count = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert count <= MAX_FUNCTION_LINES, f"{module}: {node.name} is long"


def test_names_say_what_is_inside():
    for module in MODULES:
        parts = module.removesuffix(".py").split("/")
        assert not {"utils", "util", "helpers", "common", "misc"} & set(parts), module
        private = [p for p in parts if p.startswith("_") and p != "__init__"]
        assert not private, module


# How files are written elsewhere than in files.py, and why that is safe.
WRITES_ITSELF = {
    "files.py": "the room for it",
    "callbacks/run_backup.py": "Keras wants a file that ends in .weights.h5",
    "datasets/preparation.py": "into a folder that gets its name when it is whole",
    "datasets/prepared.py": "into a folder that gets its name when it is whole",
    "run_directory.py": "a probe of the disk, removed at once",
    "faces/decoding.py": "the formats of one graph, and their EXIF",
    "recipes/recipe.py": "every section of one schema, documented",
    "serving/export.py": "into a folder that gets its name when it is whole",
}


def test_files_are_written_in_one_room():
    writing = {"write_text", "write_bytes", "replace", "savefig", "to_csv"}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if not isinstance(called, ast.Attribute) or called.attr not in writing:
                continue
            target = ast.unparse(called.value)
            if called.attr == "replace" and target != "os":
                continue
            if "partial" in target or any(
                "partial" in ast.unparse(a) for a in node.args
            ):
                continue  # inside `with replacing(…) as partial`
            if called.attr == "to_csv" and not node.args:
                continue  # returns text
            assert module in WRITES_ITSELF, f"{module}, line {node.lineno}"


# What could carry out something that is in data -> the one module that may call it,
# where it is held in check; "" is none.
ONLY_IN = {
    "pickle": "", "subprocess": "", "os.system": "", "pd.read_pickle": "", "eval": "",
    "exec": "", "Image.open": "faces/images.py", "torch.load": "models/weights.py",
    "keras.saving.load_model": "models/weights.py", "np.load": "models/weights.py",
    "joblib.load": "faces/mtcnn.py",
    "tf.saved_model.load": "serving/answering_model.py",
}  # fmt: skip


def test_data_is_opened_where_it_is_checked():
    for module, file in MODULES.items():
        used = imports(file) | {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Call)
        }
        wrong = {name for name in used & set(ONLY_IN) if ONLY_IN[name] != module}
        assert not wrong, f"{module}: {wrong}"

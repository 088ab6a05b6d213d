"""Wrong input is an error before any framework is loaded."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib

import pytest

from keras_agegender.cli import main as cli
from keras_agegender.cli.data import read_source
from keras_agegender.datasets.prepare import open_job
from keras_agegender.datasets.readers import READERS
from keras_agegender.datasets.readers.csv import read_csv
from keras_agegender.files import write_json
from keras_agegender.recipes import loading

# Runs one command after the other in a process; says what came of each.
CODE = """
import contextlib, io, json, sys
from keras_agegender.cli import main as cli
heavy = ("tensorflow", "keras", "jax", "matplotlib")
for command in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(command.split())
    loaded = [name for name in heavy if name in sys.modules]
    said = [text.getvalue().splitlines() for text in (out, err)]
    print(json.dumps([code, loaded, *said]))
"""

CASES = [
    ("train 7 --data missing --run x", "no prepared dataset in missing"),
    ("train 7 --data file --run x", "no prepared dataset in file"),
    ("train 77 --data data --run x", "Unknown recipe '77'"),
    ("train 7 --data data --run x --set training.epoch=1", "'training.epochs'"),
    ("train 7 --data data --run x --set model.backbone=resnet43", "mean 'resnet34'?"),
    ("train 7 --data data --run x --set model.input_scaling=foo", "'-1..1'"),
    ("train 7 --data data --run x --set training.learning_rate=inf", "finite"),
    ("train 7 --data data --run x --set loss_weight_balancing.by=batch", "'step'"),
    ("train 7 --data data --run x --set model.backbone_weights=no.pth", "no.pth"),
    ("reproduce 7 --data data --out out --set model.backbone_weights=no.pth", "no.pth"),
    (
        "quickstart --set model.backbone_weights=no.pth",
        "Weights file not found: no.pth",
    ),
    ("train 7 --data data --run x --split fold_1", "Invalid --split"),
    ("train 9 --data data --run x --pretraining-data no", "no prepared dataset"),
    ("train 9 --data data --run x --pretrained no", "not a run directory"),
    ("train 9 --data data --run x --pretrained no.keras", "Model file not found"),
    ("train 7 --data data --run file", "file is a file"),
    ("train 7 --data data --run run", "run is finished"),
    ("train 14 --run x", "Missing `data` (--data)"),
    ("train 9 --data data --run x", "(--pretraining-data)"),
    ("train 7 --data data --run x --pretraining-data data", "no pretraining recipe"),
    ("train 7 --data data --run other --overwrite", "replaces existing runs"),
    ("export run --out other", "only replaces existing exports"),
    ("export run --out export", "overwrite it (--overwrite)"),
    ("evaluate missing", "not a run directory"),
    ("evaluate run --data missing", "no prepared dataset"),
    ("report missing", "not a run directory"),
    ("report run", "no predictions. Run `agegender evaluate run` first"),
    ("report run --data missing", "no predictions"),
    ("export missing --out out", "not a run directory"),
    ("export missing.keras --out out", "Model file not found"),
    ("compare missing run", "not a run directory"),
    ("reproduce 7 --data missing --out out", "no prepared dataset"),
    ("reproduce 77 --data data --out out", "Unknown recipe"),
    ("predict missing file", "neither an exported model nor a run"),
    ("predict missing file", "`agegender export RUN --out MODEL`"),
    ("predict begun file", "The run in begun has no "),
    ("predict model missing.jpg", "Photo not found: missing.jpg"),
    ("predict model", "Missing PHOTO"),
    ("predict model *.bmp", "Photo not found: *.bmp"),
    ("predict model data", "Photo not found: data"),
    ("predict --model missing file", "missing contains neither an exported model"),
    ("predict no.keras file", "Model file not found: no.keras"),
    ("predict missing", "Photo not found: missing"),
    ("predict model file --out x.xls", "ends in .jsonl, .json or .csv"),
    ("predict model file --out data", "data, a folder"),
    ("predict model file --out file --csv", "not one of the photos"),
    ("predict model file --annotate out.txt", "Invalid --annotate"),
    ("predict model file file --annotate x.png", "Expected a folder for several"),
    ("predict model file file --annotate file", "Expected a folder for several"),
    ("predict model file --annotate file", "Expected a folder, or a file"),
    ("predict model other/a.png other/mine --annotate other", "would be overwritten"),
    ("quickstart --set training.epoch=1", "'training.epochs'"),
    ("quickstart --faces 79", "(--faces). Expected at least 80"),
    ("quickstart --directory file", "Received a file: file"),
    ("quickstart --directory drawn", "generator=2, seed=0, num_faces"),
    ("quickstart --directory drawn", "Choose another directory (--directory)"),
    ("recipes quikstart", "'quickstart'"),
    ("recipes show 14", "as in `agegender recipes 14`"),
    ("prepare csv faces.csv --out other", "replaces existing prepared datasets"),
    ("prepare csv faces.csv --out other --overwrite", "contains no prepared dataset"),
    ("prepare csv faces.csv --out file", "file is a file"),
    ("prepare csv faces.csv --out out --margin -3", "`margin` (--margin)"),
    ("prepare csv faces.csv --out out --test 0.9", "a sum below 1"),
    ("prepare utkface data --out out --test 0.9", "a sum below 1"),
    ("prepare adience data --out out --test-fold 5", "test_fold=5"),
    ("prepare csv missing.csv --out out", "no CSV file"),
    ("prepare csv pics.csv --out out", "`image_column` (--image-column)"),
    ("prepare csv faces.csv --out out --age-groups x", "`age_groups` (--age-groups)"),
    ("prepare adience missing --out out", "no folder"),
    ("prepare utkface missing --out out", "no folder"),
    ("prepare celeba missing --out out", "missing"),
    ("audit missing", "File or folder not found: missing"),
    ("audit data --strict", "Received: strict"),
    ("audit data --no-near --json no/found.json", "Invalid --json"),
]


def outcomes(folder, commands):
    """Command -> exit code, frameworks loaded by then, lines of stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True, text=True, cwd=folder, input=json.dumps(commands),
    )  # fmt: skip
    assert done.stderr == ""
    lines = map(json.loads, done.stdout.splitlines())
    return dict(zip(commands, lines, strict=True))


def make_folder(root):
    """A finished run of nothing, an empty dataset and a photo, as far as names go."""
    run = root / "run"
    run.mkdir()
    for name in ("recipe.toml", "best.keras"):
        (run / name).touch()
    (run / "run.json").write_text('{"status": "finished"}', "utf-8")
    (root / "begun").mkdir()
    (root / "begun" / "recipe.toml").touch()
    (root / "data").mkdir()
    (root / "data" / "dataset_info.json").write_text("{}", "utf-8")
    (root / "file").touch()
    (root / "model").mkdir()
    (root / "model" / "saved_model.pb").touch()
    (root / "export").mkdir()
    (root / "export" / "agegender.json").touch()
    (root / "other").mkdir()
    (root / "other" / "mine").touch()
    (root / "other" / "a.png").touch()
    (root / "faces.csv").write_text("image,age\nfile,27\n", "utf-8")
    (root / "pics.csv").write_text("pic,age\nfile,27\n", "utf-8")
    drawn = root / "drawn" / "faces"
    drawn.mkdir(parents=True)
    (drawn / "synthetic.json").write_text('{"seed": 7}', "utf-8")
    return root


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The outcome of every case, and the folder they ran in."""
    root = make_folder(tmp_path_factory.mktemp("cases"))
    return outcomes(root, list(dict.fromkeys(command for command, _ in CASES))), root


@pytest.mark.parametrize(("command", "message"), CASES)
def test_errors_come_before_frameworks(found, command, message):
    code, loaded, _, errors = found[0][command]
    answers_with_1 = command.startswith(("audit", "compare"))
    assert (code, loaded) == (2 if answers_with_1 else 1, [])
    (line,) = errors
    assert message in line


def test_a_recipe_is_parsed_and_validated_once(folder, monkeypatch, capsys):
    """Model 9, its pretraining and their base, by `train` up to the first dataset."""
    monkeypatch.chdir(folder)
    parsed, validated = [], []
    loads, validate = tomllib.loads, loading._validate
    monkeypatch.setattr(
        "tomllib.loads", lambda text: parsed.append(text) or loads(text)
    )
    monkeypatch.setattr(
        loading, "_validate", lambda *a: validated.append(a[1]) or validate(*a)
    )
    loading._read_packaged.cache_clear()
    command = "train 9 --data missing --run x --pretraining-data missing"
    assert cli.main(command.split()) == 1
    assert "no prepared dataset" in capsys.readouterr().err
    assert len(parsed) == len(set(parsed)) == 3
    assert len(validated) == len(set(validated)) == 2


def test_early_errors_create_and_remove_no_files(found):
    _, root = found
    assert not (root / "out").exists() and not (root / "x").exists()
    assert (root / "other" / "mine").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "prepare csv faces.csv --out out --size 0",
            "--size: expected a positive number",
        ),
        ("prepare csv faces.csv --out out --size 48.5", "Received: '48.5'"),
        ("prepare csv faces.csv --out out --seed -5", "--seed: expected an integer"),
        ("prepare csv faces.csv --out out --validation 1", "--validation: expected a"),
        ("prepare csv faces.csv --out out --test nan", "Received: 'nan'"),
        ("prepare csv faces.csv --out out --test -0.1", "--test: expected a share"),
        ("train 7 --data data --run x --seed 4294967296", "from 0 to 4294967295."),
        ("reproduce 7 --data data --out out --seeds 0 -1", "--seeds: expected a"),
        ("reproduce 7 --data data --out out --folds -1", "--folds: expected the"),
        ("quickstart --seed one", "Received: 'one'"),
        ("predict model file --fps 0", "--fps: expected a number above 0"),
        ("predict model file --fps many", "Received: 'many'"),
        ("calibrate run --alpha 2", "--alpha: expected a share in (0, 1)"),
        ("calibrate run --alpha 0", "--alpha: expected a share in (0, 1)"),
        ("calibrate run --alpha ten", "Received: 'ten'"),
    ],
)
def test_wrong_numbers_are_wrong_usage(folder, monkeypatch, capsys, command, message):
    """Said by the parser, with the option's name and what was received."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main(command.split())
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line and "Received: '" in line


@pytest.mark.parametrize(
    "options", ["--extra age faces.csv", "--extra faces.csv", "--extra age missing.csv"]
)
def test_a_file_behind_extra_is_asked_to_stand_before_it(
    folder, monkeypatch, capsys, options
):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        cli.main(f"prepare csv --out out {options}".split())
    assert stopped.value.code == 2
    assert "put FILE before --extra" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("faces.csv", None),
        ("faces.csv --extra", []),
        ("faces.csv --extra a b:coral:x,y", ["a", "b:coral:x,y"]),
        ("faces.csv --extra a --extra b", ["a", "b"]),
        ("--extra a --extra b --size 48 faces.csv", ["a", "b"]),
        ("faces.csv --extra x.csv", ["x.csv"]),
    ],
)
def test_extra_columns_of_one_option_or_several(command, extra):
    arguments = cli._parser().parse_args(
        ["prepare", "csv", "--out", "o", *command.split()]
    )
    assert arguments.file == "faces.csv"
    assert getattr(arguments, "extra", None) == extra


def parsers(parser, name="agegender"):
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield from parsers(inner, f"{name} {verb}")


def test_help_states_defaults():
    """`[value]`, for every option that has one and is no switch."""
    lacking = [
        (name, action.option_strings[0])
        for name, parser in parsers(cli._parser())
        for action in parser._actions
        if action.option_strings
        and action.nargs != 0
        and action.default not in (None, [], argparse.SUPPRESS)
        and "[" not in (action.help or "")
    ]
    assert lacking == []


@pytest.fixture
def dataset(folder):
    """The folder of a finished dataset of faces.csv, as far as its request goes."""
    manifest, _ = read_csv(folder / "faces.csv", validation=0, test=0)
    job = open_job(manifest, folder / "done", output_size=(48, 48), name="csv")
    (folder / "done").mkdir()
    (folder / "done" / "dataset_info.json").write_text("{}", "utf-8")
    done = {**job.request, "counts": {"not_cropped": 1}, "written": 1}
    write_json(folder / "done" / "preparation.json", done)
    return folder


@pytest.mark.parametrize("source", ["csv faces.csv", "utkface data"])
def test_near_duplicates_need_a_package(folder, monkeypatch, capsys, source):
    name = "keras_agegender.datasets.duplicates.find_spec"
    monkeypatch.setattr(name, lambda _: None)
    monkeypatch.chdir(folder)
    assert cli.main(f"prepare {source} --out out --duplicates near".split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "`pip install 'keras-agegender[audit]'`" in line
    assert "--duplicates exact" in line


def test_hashes_of_duplicates_are_cached_in_the_given_file(folder, monkeypatch, capsys):
    pytest.importorskip("imagehash")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.chdir(folder)
    near = ("--duplicates", "near")
    for options in ("--cache mine.sqlite", "--no-cache", ""):
        command = f"prepare csv faces.csv --out o --validation 0.5 --test 0 {options}"
        arguments = cli._parser().parse_args([*command.split(), *near])
        with pytest.raises(ValueError, match="Too few subjects"):
            read_source(READERS["csv"], arguments)
        assert (folder / "cache").exists() is (options == "")
    assert (folder / "mine.sqlite").is_file()


PREPARE = "prepare csv faces.csv --validation 0 --test 0 --no-crop --out done --size "


def test_a_finished_dataset_is_not_replaced(dataset):
    ((code, loaded, lines, errors),) = outcomes(dataset, [f"{PREPARE} 48"]).values()
    assert (code, loaded, errors) == (0, [], [])
    line = lines[-1]
    assert line.startswith("Already there: done holds 1 of 1 images (1 not_cropped)")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            f"{PREPARE} 64",
            "different settings: its images have 48 x 48 pixels, not 64 x 64",
        ),
        (
            f"{PREPARE} 48 --age-groups decades",
            "different settings: faces, labels, splits or age groups differ. Choose",
        ),
        (
            f"{PREPARE.replace('--no-crop', '')} 48",
            "different settings: one has face crops, the other whole images",
        ),
    ],
)
def test_what_was_prepared_otherwise_is_said_in_words(
    dataset, monkeypatch, capsys, command, message
):
    monkeypatch.chdir(dataset)
    before = json.loads((dataset / "done" / "preparation.json").read_text("utf-8"))
    assert cli.main(command.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and line.endswith("or overwrite it (--overwrite).")
    after = json.loads((dataset / "done" / "preparation.json").read_text("utf-8"))
    assert after == before

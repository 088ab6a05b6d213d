"""Commands that evaluate: `evaluate`, `report`, `calibrate` and `compare`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from keras_agegender.cli.console import add_verb, inner_share, say
from keras_agegender.cli.data import add_all_reader_options, audit_options
from keras_agegender.datasets.readers import keywords

_CHECKPOINT = "checkpoint: best, last, or a name in the recipe [best]"


def _add_data(
    verb: argparse.ArgumentParser, split: str = "test", run: str = ""
) -> None:
    """Adds the run, and the data and the split that a command uses."""
    verb.add_argument("run_directory", metavar="run", help=run or None)
    verb.add_argument("--data", help="prepared dataset [the training dataset]")
    verb.add_argument("--split", default=split, help="split to use [%(default)s]")


def _add_by(verb: argparse.ArgumentParser, what: str) -> None:
    text = f"{what}, e.g. race, or race,gender for combinations; can be repeated"
    verb.add_argument("--by", action="append", default=[], metavar="COLUMN", help=text)


def _evaluate(arguments: argparse.Namespace) -> int:
    options = keywords(audit_options(), arguments, defaults=False)
    if len(arguments.data) > 1:
        return _evaluate_across(arguments, options)
    from keras_agegender.evaluation.evaluate import evaluate
    from keras_agegender.evaluation.scores import format_metrics

    scores = evaluate(
        arguments.run_directory,
        next(iter(arguments.data), None),
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        positive_gender=arguments.positive_gender,
        by=arguments.by,
        out=arguments.out,
        **options,
    )
    if arguments.json:
        print(json.dumps(scores.to_dict(), indent=2))
    else:
        say(format_metrics(scores))
        say(f"\nResults: {scores.folder}")
    return 0


def _evaluate_across(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    from keras_agegender.studies.cross import evaluate_across

    if arguments.positive_gender:
        raise ValueError("Invalid --positive-gender. Expected it with one --data.")
    found = evaluate_across(
        arguments.run_directory,
        arguments.data,
        out=arguments.out,
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        by=arguments.by,
        report=(lambda text: None) if arguments.json else say,
        **options,
    )
    if arguments.json:
        print(found.to_frame().to_json(orient="records", indent=2))
    else:
        say(f"\n{found}\n\nTables: {found.folder / 'cross.csv'}, .tex, .html")
    return 1 if found.num_failed else 0


def add_evaluate(verbs: Any) -> None:
    """Adds `agegender evaluate`."""
    what = "score a model on held-out faces, of its dataset or of your own data"
    verb = add_verb(verbs, "evaluate", _evaluate, what)
    verb.add_argument(
        "run_directory",
        metavar="model",
        help="a run, a .keras file, an export, or a released model's name",
    )
    verb.add_argument(
        "--data",
        action="append",
        default=[],
        help="prepared dataset, manifest, CSV file, or folder of Adience, UTKFace or "
        "CelebA [the training dataset]; images are prepared as the model needs them. "
        "If repeated: one table of all datasets, as CSV, LaTeX and HTML",
    )
    verb.add_argument(
        "--split", help="split to score [test; all faces of files without one]"
    )
    verb.add_argument(
        "--out", help="folder for the results [the run; for own data, next to the data]"
    )
    verb.add_argument("--checkpoint", default="best", help=_CHECKPOINT)
    verb.add_argument(
        "--positive-gender",
        choices=("male", "female"),
        help="positive class of precision, recall and f1 [the recipe's]",
    )
    _add_by(verb, "also score groups by a column of the dataset")
    verb.add_argument("--json", action="store_true", help="print all scores as JSON")
    add_all_reader_options(verb)


def _report(arguments: argparse.Namespace) -> int:
    from keras_agegender.evaluation.report import write_report

    file = write_report(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        checkpoint=arguments.checkpoint,
        out=arguments.out,
        pictures=arguments.pictures,
        explain=arguments.explain,
    )
    say(f"Report: {file}")
    return 0


def add_report(verbs: Any) -> None:
    """Adds `agegender report`."""
    what = "write a report of an evaluation: an HTML page, plots and tables"
    verb = add_verb(verbs, "report", _report, what)
    _add_data(verb, run="a run, or the folder of results on your own data")
    verb.add_argument("--checkpoint", default="best", help=_CHECKPOINT)
    verb.add_argument(
        "--out", metavar="FILE", help="HTML file [RUN/report/report.html]"
    )
    verb.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="omit images and keys of faces, for data that must not be shared",
    )
    verb.add_argument(
        "--explain",
        type=int,
        default=0,
        metavar="N",
        help="draw occlusion maps of N faces [0]",
    )


def _calibrate(arguments: argparse.Namespace) -> int:
    from keras_agegender.evaluation.evaluate import calibrate

    found = calibrate(
        arguments.run_directory,
        arguments.data,
        split=arguments.split,
        alpha=arguments.alpha,
        by=arguments.by,
    )
    say(str(found))
    say(f"Evaluate it on test faces: agegender evaluate {arguments.run_directory}")
    return 0


def add_calibrate(verbs: Any) -> None:
    """Adds `agegender calibrate`."""
    what = "calibrate a run's probabilities and prediction sets on validation faces"
    verb = add_verb(verbs, "calibrate", _calibrate, what)
    _add_data(verb, "validation")
    verb.add_argument(
        "--alpha",
        type=inner_share,
        default=0.1,
        metavar="SHARE",
        help="share of faces whose class may be outside the prediction set [0.1]",
    )
    verb.add_argument(
        "--by",
        choices=("gender", "age_group"),
        help="a threshold per predicted gender or age group [one for all]",
    )


GATE_RULE = (
    "A group is all faces, an age group of a gender, or a value of --by; its task is "
    "gender, age group or an extra head with classes. B is worse if the sign-flip test "
    "over people is significant at the group's level and the interval of B - A at that "
    "level is below 0. Groups share 0.05 by Holm's correction; all faces are tested "
    "separately, gender and age group at 0.05 each. Since only one side is worse, each "
    "test fails an equally good model with a probability of at most 0.025. Groups of "
    "fewer than 30 faces or 10 people are shown, not tested. In folders of runs, all "
    "folds are tested together, using each face's mean over seeds; in a reproduction, "
    "all pairs of recipes are tested, in the order of their names."
)


def _compare(arguments: argparse.Namespace) -> int:
    from keras_agegender.studies import compare

    runs, cluster, by = arguments.runs, arguments.cluster, arguments.by
    if len(runs) > 2:
        raise ValueError(
            "Expected two runs, two folders of runs, or one folder written by "
            f"`agegender reproduce`. Received: {len(runs)}."
        )
    found: Any
    if len(runs) == 1:
        found = compare.compare_reproduction(*runs, cluster=cluster, by=by)
    else:
        found = compare.compare(*runs, cluster=cluster, by=by)
    say(str(found))
    if arguments.gate or by:
        say("\n" + found.gate())
    return 1 if arguments.gate and found.failed else 0


def add_compare(verbs: Any) -> None:
    """Adds `agegender compare`."""
    what = "compare two runs, or two recipes over folds and seeds"
    verb = add_verb(verbs, "compare", _compare, what)
    verb.add_argument(
        "runs",
        nargs="+",
        metavar="run",
        help="two runs, two folders of runs of one recipe each, or one folder written "
        "by `agegender reproduce`",
    )
    verb.add_argument(
        "--cluster",
        choices=("subject", "album", "face"),
        default="subject",
        help="unit of independence: people [default], albums or faces",
    )
    _add_by(verb, "also show groups by a column of the predictions")
    verb.add_argument(
        "--gate",
        action="store_true",
        help="show all groups, and exit with 1 if B is significantly worse than A in "
        "one, or does not predict one of A's tasks (2 if nothing can be compared). "
        + GATE_RULE,
    )
    verb.set_defaults(error_code=2)  # 1: the gate failed

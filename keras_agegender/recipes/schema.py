"""The schema of a recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from keras_agegender.encodings.registry import ENCODINGS, has_rank_direction
from keras_agegender.errors import did_you_mean
from keras_agegender.files import FILE_NAME_RULE, is_file_name
from keras_agegender.models.augmentation import Augmentation
from keras_agegender.models.input_scaling import INPUT_SCALINGS
from keras_agegender.models.registry import APPLICATIONS, CUT, NETWORK_NAMES, PREFIX


@dataclass(frozen=True)
class ModelSettings:
    """Section `[model]`: arguments of `build_model`.

    Attributes:
        backbone: One of `list_models()`, a network of Keras as
            `"keras.applications:EfficientNetV2B0"`, cut behind a layer as
            `"keras.applications:MobileNet/conv_pw_11_relu"`, or `"module:function"`.
        encoding: One of `list_encodings()`.
        question: What ordinal heads ask; `None` for the encoding's default.
        image_size: (height, width) of the input in pixels.
        augment: Whether pictures are augmented, by the ResNets' random flip and
            contrast layers, or as the section `[augmentation]` says.
        dropout_rate: Dropout of the Caffe networks' hidden layers, in [0, 1).
        width: Multiplies the channels of `resnet34` and `resnet_se`.
        input_scaling: Range that the backbone takes pixels in, `"-1..1"` for instance;
            left out, the backbone's own.
        backbone_weights: `"imagenet"` or a file that the backbone begins with; left
            out, random weights.
        attribute_features: Whether CelebA's 40 attributes, as outputs of a layer each,
            stand between the network and the heads.
        trainable_layers: How many layers before the outputs train; all others keep
            their pretrained weights. `None` trains all.
    """

    backbone: str = "resnet34"
    encoding: str = "categorical"
    question: Literal["older", "younger"] | None = None
    image_size: tuple[int, int] = (224, 224)
    augment: bool = True
    dropout_rate: float = 0.5
    width: float = 1.0
    input_scaling: str | None = None
    backbone_weights: str | None = None
    attribute_features: bool = False
    trainable_layers: int | None = None


@dataclass(frozen=True)
class DataSettings:
    """Section `[data]`: which dataset, and arguments of `make_train_dataset`.

    Attributes:
        role: Which of the datasets given is trained and scored on: the one that other
            recipes begin with (`"pretrain"`), or the one that all is about
            (`"target"`).
        pipeline: `"resnet"` or `"caffe"`: how stored pictures become the input.
        faces: What the prepared dataset must hold: `"cropped"` faces, `"whole"`
            pictures, or `"any"`.
        batch_size: Faces per step, over all devices.
        shuffle_buffer: Faces shuffled together.
        cache: Whether compressed pictures stay in memory after the first epoch.
        balanced_sampling: Whether every age group is drawn equally often.
        validation_split: Split expression that selects the model; `None` for the
            dataset's own validation split. Named here, it may share faces with the
            test split, and the scores say so.
        allow_overlap: Whether splits may share faces, people or pictures, which is an
            error else. Scores say how many faces were seen in training.
    """

    role: Literal["pretrain", "target"] = "target"
    pipeline: Literal["resnet", "caffe"] = "resnet"
    faces: Literal["cropped", "whole", "any"] = "any"
    batch_size: int = 64
    shuffle_buffer: int = 20_000
    cache: bool = False
    balanced_sampling: bool = False
    validation_split: str | None = None
    allow_overlap: bool = False


@dataclass(frozen=True)
class AugmentationSettings(Augmentation):
    """Section `[augmentation]`: the fields of `Augmentation`, and its place.

    Without the section, ResNets have `Augmentation()` in the model.

    Attributes:
        where: `"model"`, as layers, or `"data"`, in tf.data.
    """

    where: Literal["model", "data"] = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where not in ("model", "data"):
            raise ValueError(
                "Invalid `augmentation.where`. Expected 'model' or 'data'. Received: "
                f"{self.where!r}."
            )
        if self.where == "model":
            self.check_layers()


@dataclass(frozen=True)
class TrainingSettings:
    """Section `[training]`: how `fit` runs.

    Attributes:
        epochs: Epochs at most.
        optimizer: `"adam"`, `"adamw"`, `"sgd"` or another of Keras' by name.
        learning_rate: Its learning rate at the start.
        learning_rate_changes: Optimizer step -> learning rate from that step on.
        weight_decay: Added to the gradient times the weight, for every trained weight
            and outside the losses (`add_coupled_weight_decay`); for `"adamw"` its own,
            decoupled decay. 0 for none.
        patience: Epochs without a better `stop_monitor` before training stops; 0 trains
            all epochs.
        stop_monitor: Metric that early stopping watches.
        checkpoint_monitor: Metric that selects the epoch saved as `best.keras`.
        extra_checkpoints: Name -> metric that selects the epoch saved as
            `best_<name>.keras`: the lowest loss, the highest of other metrics.
        normalize_loss: Whether loss weights are divided by their sum.
        class_weights: `"balanced"` weighs faces of rare age groups more in every age
            head; `None` weighs all alike.
        dtype_policy: Keras dtype policy of the layers: `"mixed_float16"` and
            `"mixed_bfloat16"` compute in 16 bits. Weights and outputs stay float32.
        jit_compile: Whether the step is compiled by XLA; `None` lets Keras decide.
        cosine_decay: Whether the learning rate falls to 0 along a cosine over all
            epochs.
    """

    epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    learning_rate_changes: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    patience: int | None = None
    stop_monitor: str = "val_loss"
    checkpoint_monitor: str = "val_mean_accuracy"
    extra_checkpoints: dict[str, str] = field(default_factory=dict)
    normalize_loss: bool = False
    class_weights: Literal["balanced"] | None = None
    dtype_policy: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    jit_compile: bool | None = None
    cosine_decay: bool = False


@dataclass(frozen=True)
class EvaluationSettings:
    """Section `[evaluation]`: how the test split is scored; training is the same.

    Attributes:
        positive_gender: Positive class of f1, precision and recall.
    """

    positive_gender: Literal["male", "female"] = "male"


@dataclass(frozen=True)
class LossWeightChange:
    """One `[[loss_weight_changes]]`: other loss weights from some moment on.

    Just one of epoch, step and monitor says when.

    Attributes:
        set: Output name -> weight from then on.
        epoch: From this epoch on, counted from 0.
        step: From this optimizer step on, counted from 0.
        monitor: Once this metric …
        above: … is at least this …
        below: … or at most this.
    """

    set: dict[str, float] = field(default_factory=dict)
    epoch: int | None = None
    step: int | None = None
    monitor: str | None = None
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class LossWeightBalancing:
    """Section `[loss_weight_balancing]`: arguments of `LossWeightBalancer`.

    The weights that balance multiply `[loss_weights]`. `val_loss` changes with them:
    choose and stop by a metric of an output.

    Attributes:
        method: `"dwa"` or `"uncertainty"`.
        outputs: The outputs to balance, two or more; all if left out.
        temperature: Above 0; the higher, the more equal the weights.
        by: `"epoch"`, or `"step"` with `"uncertainty"`.
        momentum: Share of the running average that stays at an update, in [0, 1); with
            `"uncertainty"`.
    """

    method: Literal["dwa", "uncertainty"] = "dwa"
    outputs: tuple[str, ...] | None = None
    temperature: float | None = None
    by: Literal["epoch", "step"] = "epoch"
    momentum: float | None = None


@dataclass(frozen=True)
class Distillation:
    """Section `[distillation]`: arguments of `distill`, for training batches alone.

    Attributes:
        teacher: A finished run or `.keras` file whose answers are learned from.
        weight: Share of the teacher's answer in a target, in (0, 1].
        outputs: Outputs whose targets are mixed; left out, all that can be.
    """

    teacher: str = ""
    weight: float = 0.5
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Published:
    """One `[[published]]`: a row of the report's results that the recipe reproduces.

    Attributes:
        checkpoint: Which of the models kept; `None` for `best.keras`.
        data: Dataset it was measured on, by the name that its reader writes into every
            face's `source`. The figure stands beside no other dataset's.
        split: Split of that dataset that it was measured on.
        positive: Positive class of its f1, precision and recall.
        gender_accuracy: Share of genders right.
        gender_f1: F1 of gender.
        gender_precision: Precision of gender.
        gender_recall: Recall of gender.
        age_accuracy: Share of age groups right; for ordinal heads, all heads right.
    """

    checkpoint: str | None = None
    data: str = "adience"
    split: str = "fold_4"
    positive: Literal["male", "female"] = "male"
    gender_accuracy: float | None = None
    gender_f1: float | None = None
    gender_precision: float | None = None
    gender_recall: float | None = None
    age_accuracy: float | None = None


@dataclass(frozen=True)
class Recipe:
    """One experiment, every setting spelled out.

    Attributes:
        name: Its file's name without the ending.
        title: What it is, in a line.
        pretraining: Recipe whose best model gives its weights first; `None` for none.
        pretraining_overrides: Settings that replace those of that recipe, as
            `"section.key=value"`.
        model: Section `[model]`.
        data: Section `[data]`.
        training: Section `[training]`.
        evaluation: Section `[evaluation]`.
        augmentation: Section `[augmentation]`; `None` where there is none.
        loss_weights: Output name -> weight at the start; others keep their encoding's.
        loss_weight_changes: Changes of those while training.
        loss_weight_balancing: Section `[loss_weight_balancing]`; `None` leaves the
            weights as they are.
        distillation: Section `[distillation]`; `None` trains on the labels as they are.
        published: What the report says came of it.
    """

    name: str = ""
    title: str = ""
    pretraining: str | None = None
    pretraining_overrides: tuple[str, ...] = ()
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    augmentation: AugmentationSettings | None = None
    loss_weights: dict[str, float] = field(default_factory=dict)
    loss_weight_changes: tuple[LossWeightChange, ...] = ()
    loss_weight_balancing: LossWeightBalancing | None = None
    distillation: Distillation | None = None
    published: tuple[Published, ...] = ()

    def model_augmentation(self) -> Augmentation | bool:
        """Returns the argument for `build_model`."""
        if self.augmentation is None:
            return self.model.augment
        return self._augmentation_in("model") or False

    def data_augmentation(self) -> Augmentation | None:
        """Returns the argument for `make_train_dataset`."""
        return self._augmentation_in("data")

    def _augmentation_in(self, where: str) -> Augmentation | None:
        found = self.augmentation
        if not self.model.augment or found is None or found.where != where:
            return None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain dicts and lists; what is not set is left out."""
        return _without_unset(dataclasses.asdict(self))

    def to_toml(self) -> str:
        """Returns the recipe as the text of a TOML file that `load_recipe` reads."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def _without_unset(value: Any) -> Any:
    """Leaves out `None` and what is empty, which is the default wherever it may be."""
    if isinstance(value, dict):
        plain = {k: _without_unset(v) for k, v in value.items()}
        return {k: v for k, v in plain.items() if v not in (None, {}, [], "")}
    if isinstance(value, (list, tuple)):
        return [_without_unset(v) for v in value]
    return value


# By the names that `keras.optimizers.get` knows; a recipe loads without Keras.
OPTIMIZERS = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedulefreeadamw",
    "sgd",
)

APPLICATION_NAMES = [PREFIX + name for names in APPLICATIONS.values() for name in names]

# What a name that does not exist may have been meant to be.
CHOICES: dict[str, Iterable[str]] = {
    "model.backbone": (*NETWORK_NAMES, *APPLICATION_NAMES),
    "model.encoding": ENCODINGS,
    "model.input_scaling": INPUT_SCALINGS,
    "training.optimizer": OPTIMIZERS,
}

Finding = tuple[str, str, object]  # key, what is expected, what there is


def check_recipe(recipe: Recipe, source: str) -> None:
    """Raises ValueError for the first value out of range, with its key.

    Args:
        recipe: A recipe.
        source: What to call it in the message.
    """
    found = chain(
        _name(recipe), _model(recipe), _data(recipe), _training(recipe),
        _weights(recipe), _balancing(recipe), _distillation(recipe), _published(recipe),
    )  # fmt: skip
    for key, expected, received in found:
        hint = did_you_mean(received, CHOICES.get(key, ()))
        raise ValueError(
            f"Recipe {source} has an invalid value of {key!r}. Expected {expected}. "
            f"Received: {received!r}.{hint}"
        )


def _name(recipe: Recipe) -> Iterator[Finding]:
    if recipe.name and not is_file_name(
        recipe.name
    ):  # `reproduce` makes a folder of it
        yield "name", FILE_NAME_RULE, recipe.name


def _model(recipe: Recipe) -> Iterator[Finding]:
    model = recipe.model
    if min(model.image_size) < 1:
        yield "model.image_size", "positive numbers of pixels", list(model.image_size)
    is_application = model.backbone.startswith(PREFIX)
    known = APPLICATION_NAMES if is_application else NETWORK_NAMES
    name = model.backbone.partition(CUT)[0] if is_application else model.backbone
    if name not in known and (is_application or ":" not in name):
        yield (
            "model.backbone",
            f"one of {list(NETWORK_NAMES)}, a network of Keras as '{PREFIX}ResNet50', "
            "or 'module:function'",
            model.backbone,
        )
    if model.input_scaling not in (None, *INPUT_SCALINGS):
        yield (
            "model.input_scaling",
            f"one of {list(INPUT_SCALINGS)}, or no such key for the backbone's own",
            model.input_scaling,
        )
    if model.encoding not in ENCODINGS:
        yield "model.encoding", f"one of {list(ENCODINGS)}", model.encoding
    if model.question is not None and not has_rank_direction(model.encoding):
        yield (
            "model.question",
            f"no such key for the encoding {model.encoding!r}; just the ordinal one "
            "asks",
            model.question,
        )
    if not 0 < model.width < math.inf:
        yield "model.width", "a number above 0", model.width
    if not 0 <= model.dropout_rate < 1:
        yield "model.dropout_rate", "a number in [0, 1)", model.dropout_rate
    if model.trainable_layers is not None and model.trainable_layers < 0:
        yield (
            "model.trainable_layers",
            "a number of layers, or no such key to train all",
            model.trainable_layers,
        )


def _data(recipe: Recipe) -> Iterator[Finding]:
    for key in ("batch_size", "shuffle_buffer"):
        if getattr(recipe.data, key) < 1:
            yield f"data.{key}", "a positive number", getattr(recipe.data, key)
    if recipe.data.validation_split == "":
        yield "data.validation_split", "a split, or no such key", ""


def _training(recipe: Recipe) -> Iterator[Finding]:
    training = recipe.training
    if training.epochs < 1:
        yield "training.epochs", "at least 1", training.epochs
    if training.optimizer.lower() not in OPTIMIZERS:
        yield (
            "training.optimizer",
            f"the name of a Keras optimizer, one of {list(OPTIMIZERS)}",
            training.optimizer,
        )
    if not 0 < training.learning_rate < math.inf:
        yield (
            "training.learning_rate",
            "a positive, finite number",
            training.learning_rate,
        )
    if not 0 <= training.weight_decay < math.inf:
        yield (
            "training.weight_decay",
            "a finite number that is not negative",
            training.weight_decay,
        )
    if training.patience is not None and training.patience < 1:
        yield (
            "training.patience",
            "at least 1, or no such key to train all epochs",
            training.patience,
        )
    for step, rate in training.learning_rate_changes.items():
        if not step.isdecimal() or int(step) < 1:
            yield "training.learning_rate_changes", "optimizer steps from 1 on", step
        if not 0 < rate < math.inf:
            yield (
                f"training.learning_rate_changes.{step}",
                "a positive, finite number",
                rate,
            )
    if training.learning_rate_changes and training.cosine_decay:
        yield (
            "training.cosine_decay",
            "learning_rate_changes or cosine_decay, not both",
            True,
        )
    for key in ("stop_monitor", "checkpoint_monitor"):
        if not getattr(training, key):
            yield f"training.{key}", "the name of a logged metric", ""
    for name, monitor in training.extra_checkpoints.items():
        if name in ("best", "last"):
            yield "training.extra_checkpoints", "other names than best and last", name
        if not name.replace("_", "").isalnum() or not is_file_name(name):
            yield (
                "training.extra_checkpoints",
                "names of at most 100 letters, digits and '_'",
                name,
            )
        if not monitor:
            yield (
                f"training.extra_checkpoints.{name}",
                "the name of a logged metric",
                "",
            )


def _weights(recipe: Recipe) -> Iterator[Finding]:
    for name, weight in recipe.loss_weights.items():
        if not 0 <= weight < math.inf:
            yield (
                f"loss_weights.{name}",
                "a finite number that is not negative",
                weight,
            )
    if recipe.training.normalize_loss and recipe.loss_weight_changes:
        yield (
            "training.normalize_loss",
            "normalize_loss or loss_weight_changes, not both: what a change would be "
            "divided by is not said",
            True,
        )
    if recipe.training.normalize_loss and recipe.loss_weight_balancing is not None:
        yield (
            "training.normalize_loss",
            "normalize_loss or loss_weight_balancing, not both: balanced weights "
            "have a scale already",
            True,
        )
    for number, change in enumerate(recipe.loss_weight_changes):
        key = f"loss_weight_changes[{number}]"
        given = (change.epoch, change.step, change.monitor)
        if sum(value is not None for value in given) != 1:
            yield key, "exactly one of epoch, step and monitor", change
        if min(change.epoch or 0, change.step or 0) < 0:
            yield key, "an epoch or step from 0 on", change
        limits = [v for v in (change.above, change.below) if v is not None]
        if len(limits) != (change.monitor is not None):
            yield key, "one of above and below with a monitor, none without", change
        if not change.set or not all(0 <= w < math.inf for w in change.set.values()):
            yield f"{key}.set", "output names and weights, not negative", change.set


def _balancing(recipe: Recipe) -> Iterator[Finding]:
    balancing = recipe.loss_weight_balancing or LossWeightBalancing()
    outputs, by_uncertainty = balancing.outputs, balancing.method == "uncertainty"
    if outputs is not None and not 2 <= len(outputs) == len(set(outputs)):
        yield (
            "loss_weight_balancing.outputs",
            "two or more different names, or no such key for all outputs",
            list(outputs),
        )
    if balancing.temperature is not None and not 0 < balancing.temperature < math.inf:
        yield (
            "loss_weight_balancing.temperature",
            "a positive, finite number",
            balancing.temperature,
        )
    if balancing.by == "step" and not by_uncertainty:
        yield (
            "loss_weight_balancing.by",
            "'epoch', or 'step' with method 'uncertainty'",
            balancing.by,
        )
    momentum = balancing.momentum
    if momentum is not None and not (by_uncertainty and 0 <= momentum < 1):
        yield (
            "loss_weight_balancing.momentum",
            "a number in [0, 1), with method 'uncertainty'",
            momentum,
        )


def _distillation(recipe: Recipe) -> Iterator[Finding]:
    distillation = recipe.distillation
    if distillation is None:
        return
    if not distillation.teacher:
        yield "distillation.teacher", "a run or a .keras file", distillation.teacher
    if not 0 < distillation.weight <= 1:
        yield "distillation.weight", "a number in (0, 1]", distillation.weight


def _published(recipe: Recipe) -> Iterator[Finding]:
    for number, row in enumerate(recipe.published):
        for name, value in vars(row).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                yield f"published[{number}].{name}", "a share in [0, 1]", value

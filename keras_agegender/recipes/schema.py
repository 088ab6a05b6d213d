"""The schema of a recipe: a dataclass for each section, validated on creation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from keras_agegender.encodings import registry
from keras_agegender.errors import did_you_mean
from keras_agegender.files import FILE_NAME_RULE, is_file_name
from keras_agegender.models.augmentation import Augmentation
from keras_agegender.models.registry import (
    INPUT_SCALINGS,
    PREFIX,
    backbone_names,
    is_backbone_name,
    list_models,
)

if TYPE_CHECKING:
    from keras_agegender.encodings.encoding import Encoding
    from keras_agegender.encodings.head import Head
    from keras_agegender.labels import AgeGroups

# Strict: `false` is no number and 1 no boolean; an unknown key is an error.
SECTION = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

AtLeastOne = Annotated[int, Field(ge=1)]
FromZero = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
MetricName = Annotated[str, Field(min_length=1)]


def _require(
    valid: bool, key: str, expected: str, received: Any, known: Collection[str] = ()
) -> None:
    """Raises an error that pydantic reports together with the section of the key."""
    if not valid:
        raise PydanticCustomError(
            "setting",
            "Invalid `{key}`. Expected {expected}. Received: {received}.{hint}",
            {
                "key": key,
                "expected": expected,
                "received": repr(received),
                "hint": did_you_mean(received, known),
            },
        )


@dataclass(frozen=True, config=SECTION)
class ModelSettings:
    """Section `[model]`: arguments of `build_model`.

    Attributes:
        backbone: One of `list_models()`; a network of Keras, such as
            `"keras.applications:EfficientNetV2B0"`, which may be cut after a layer, as
            in `"keras.applications:MobileNet/conv_pw_11_relu"`; or
            `"module:function"`.
        encoding: One of `list_encodings()`.
        question: What each rank of an ordinal head predicts; `None` for the encoding's
            default.
        image_size: (height, width) of the input in pixels.
        augment: Whether images are augmented, by random flip and contrast layers in
            ResNets, or as specified by the section `[augmentation]`.
        dropout_rate: Dropout of the Caffe networks' hidden layers, in [0, 1).
        width: Multiplies the channels of `resnet34` and `resnet_se`; above 0.
        input_scaling: Pixel range of the backbone's input, such as `"-1..1"`.
            `None` for the backbone's default.
        backbone_weights: `"imagenet"`, or a file of pretrained weights. `None` for
            random weights.
        attribute_features: Whether a layer for each of CelebA's 40 attributes stands
            between the backbone and the heads.
        trainable_layers: How many layers before the outputs train; all others keep
            their pretrained weights. `None` trains all.
        frozen_outputs: Outputs whose own layers keep their pretrained weights too.
    """

    backbone: str = "resnet34"
    encoding: str = "categorical"
    question: Literal["older", "younger"] | None = None
    image_size: tuple[AtLeastOne, AtLeastOne] = (224, 224)
    augment: bool = True
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.5
    width: Positive = 1.0
    input_scaling: str | None = None
    backbone_weights: str | None = None
    attribute_features: bool = False
    trainable_layers: FromZero | None = None
    frozen_outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(
            is_backbone_name(self.backbone),
            "backbone",
            f"one of {list_models()}, a network of Keras such as '{PREFIX}ResNet50', "
            "or 'module:function'",
            self.backbone,
            backbone_names(),
        )
        _require(
            self.encoding in registry.ENCODINGS,
            "encoding",
            f"one of {list(registry.ENCODINGS)}",
            self.encoding,
            registry.ENCODINGS,
        )
        _require(
            self.question is None or registry.has_rank_direction(self.encoding),
            "question",
            f"no such key with the encoding {self.encoding!r}",
            self.question,
        )
        _require(
            self.input_scaling in (None, *INPUT_SCALINGS),
            "input_scaling",
            f"one of {list(INPUT_SCALINGS)}, or no such key for the backbone's default",
            self.input_scaling,
            INPUT_SCALINGS,
        )


@dataclass(frozen=True, config=SECTION)
class DataSettings:
    """Section `[data]`: which dataset, and arguments of `make_train_dataset`.

    Attributes:
        role: Which dataset the recipe trains and is evaluated on: the one for
            pretraining (`"pretrain"`), or the target dataset (`"target"`).
        pipeline: `"resnet"` or `"caffe"`: how stored images become the input.
        faces: What the prepared dataset must contain: `"cropped"` faces, `"whole"`
            images, or `"any"`.
        batch_size: Faces per step, over all devices.
        shuffle_buffer: Faces shuffled together.
        cache: Whether compressed images stay in memory after the first epoch.
        in_memory: Whether all images are decoded once and stay in memory. The batches
            are the same.
        balanced_sampling: Whether every age group is drawn equally often.
        validation_split: Split expression that selects the model; `None` for the
            dataset's own validation split. An explicit split may overlap the test
            split; the scores then report it.
        allow_overlap: Whether splits may share faces, people or images, which is
            otherwise an error. Scores report how many faces were seen in training.
    """

    role: Literal["pretrain", "target"] = "target"
    pipeline: Literal["resnet", "caffe"] = "resnet"
    faces: Literal["cropped", "whole", "any"] = "any"
    batch_size: AtLeastOne = 64
    shuffle_buffer: AtLeastOne = 20_000
    cache: bool = False
    in_memory: bool = False
    balanced_sampling: bool = False
    validation_split: Annotated[str, Field(min_length=1)] | None = None
    allow_overlap: bool = False


@dataclass(frozen=True, config=SECTION)
class AugmentationSettings(Augmentation):
    """Section `[augmentation]`: the fields of `Augmentation`, and where it runs.

    Without the section, ResNets have `Augmentation()` in the model.

    Attributes:
        where: `"model"`, as layers, or `"data"`, in tf.data.
    """

    where: Literal["model", "data"] = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where == "model":
            self.check_layers()


@dataclass(frozen=True, config=SECTION)
class TrainingSettings:
    """Section `[training]`: how `fit` runs.

    Attributes:
        epochs: Maximum number of epochs.
        optimizer: Name of a Keras optimizer: `"adam"`, `"adamw"`, `"sgd"`, ….
        learning_rate: Initial learning rate; above 0.
        learning_rate_changes: Optimizer step (from 1) -> learning rate from that step
            on.
        weight_decay: Added to the gradient times the weight, for every trained weight
            and outside the losses (`add_coupled_weight_decay`); with `"adamw"` its
            own, decoupled decay. 0 for none.
        patience: Epochs without a better `stop_monitor` before training stops, at
            least 1. `None` trains all epochs.
        stop_monitor: Metric that early stopping monitors.
        checkpoint_monitor: Metric that selects the epoch saved as `best.keras`.
        extra_checkpoints: Name -> metric that selects the epoch saved as
            `best_<name>.keras`: the lowest loss, the highest of other metrics.
        normalize_loss: Whether loss weights are divided by their sum.
        class_weights: `"balanced"` gives faces of rare age groups more weight in every
            age head. `None` gives all the same.
        ema_momentum: Momentum, in (0, 1), of an exponential moving average of the
            weights, which is then evaluated and saved in every checkpoint. `None` for
            none.
        mixup: Parameter alpha of the beta distribution that pairs of images and their
            targets are mixed by. 0 for none.
        dtype_policy: Keras dtype policy of the layers: `"mixed_float16"` and
            `"mixed_bfloat16"` compute in 16 bits. Weights and outputs stay float32.
        jit_compile: Whether XLA compiles the training step; `None` lets Keras decide.
        cosine_decay: Whether the learning rate falls to 0 along a cosine over all
            epochs.
        initial_checkpoint: Whether the initial weights are the first checkpoint, as
            epoch 0: only a better epoch replaces them. `None` is no.
    """

    epochs: AtLeastOne = 20
    optimizer: str = "adam"
    learning_rate: Positive = 1e-4
    learning_rate_changes: dict[str, Positive] = field(default_factory=dict)
    weight_decay: NotNegative = 0.0
    patience: AtLeastOne | None = None
    stop_monitor: MetricName = "val_loss"
    checkpoint_monitor: MetricName = "val_mean_accuracy"
    extra_checkpoints: dict[str, MetricName] = field(default_factory=dict)
    normalize_loss: bool = False
    class_weights: Literal["balanced"] | None = None
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    mixup: NotNegative = 0.0
    dtype_policy: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    jit_compile: bool | None = None
    cosine_decay: bool = False
    initial_checkpoint: bool | None = None

    def __post_init__(self) -> None:
        for step in self.learning_rate_changes:
            _require(
                step.isdecimal() and int(step) >= 1,
                "learning_rate_changes",
                "optimizer steps from 1",
                step,
            )
        _require(
            not (self.learning_rate_changes and self.cosine_decay),
            "cosine_decay",
            "either learning_rate_changes or cosine_decay",
            True,
        )
        for name in self.extra_checkpoints:
            key = "extra_checkpoints"
            _require(
                name not in ("best", "last"), key, "names other than best, last", name
            )
            _require(
                name.replace("_", "").isalnum() and is_file_name(name),
                key,
                "names of at most 100 letters, digits and '_'",
                name,
            )


@dataclass(frozen=True, config=SECTION)
class EvaluationSettings:
    """Section `[evaluation]`: how the test split is scored. Training ignores it.

    Attributes:
        positive_gender: Positive class of F1, precision and recall.
    """

    positive_gender: Literal["male", "female"] = "male"


@dataclass(frozen=True, config=SECTION)
class LossWeightChange:
    """One `[[loss_weight_changes]]`: new loss weights from a point of training on.

    Exactly one of epoch, step and monitor is required.

    Attributes:
        set: Output name -> new weight, non-negative.
        epoch: From this epoch on, counted from 0.
        step: From this optimizer step on, counted from 0.
        monitor: Once this metric …
        above: … is at least this …
        below: … or at most this.
    """

    set: Annotated[dict[str, NotNegative], Field(min_length=1)]
    epoch: FromZero | None = None
    step: FromZero | None = None
    monitor: str | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        given = [
            name
            for name in ("epoch", "step", "monitor")
            if getattr(self, name) is not None
        ]
        _require(len(given) == 1, "", "exactly one of epoch, step and monitor", given)
        limits = [v for v in (self.above, self.below) if v is not None]
        _require(
            len(limits) == (self.monitor is not None),
            "monitor",
            "one of above and below with a monitor, and neither without",
            self.monitor,
        )


@dataclass(frozen=True, config=SECTION)
class LossWeightBalancing:
    """Section `[loss_weight_balancing]`: arguments of `LossWeightBalancer`.

    The balanced weights multiply `[loss_weights]`. `val_loss` changes with them, so
    select the model and stop by a metric of an output.

    Attributes:
        method: `"dwa"` or `"uncertainty"`.
        outputs: The outputs to balance, two or more; `None` for all.
        temperature: Above 0; the higher, the more equal the weights.
        by: `"epoch"`, or `"step"` with `"uncertainty"`.
        momentum: Share of the running average that stays at an update, in [0, 1); with
            `"uncertainty"`.
    """

    method: Literal["dwa", "uncertainty"] = "dwa"
    outputs: tuple[str, ...] | None = None
    temperature: Positive | None = None
    by: Literal["epoch", "step"] = "epoch"
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None

    def __post_init__(self) -> None:
        outputs = self.outputs
        _require(
            outputs is None or 2 <= len(outputs) == len(set(outputs)),
            "outputs",
            "two or more different names, or no such key for all outputs",
            outputs and list(outputs),
        )
        by_uncertainty = self.method == "uncertainty"
        _require(
            self.by == "epoch" or by_uncertainty,
            "by",
            "'epoch', or 'step' with method 'uncertainty'",
            self.by,
        )
        _require(
            self.momentum is None or by_uncertainty,
            "momentum",
            "no such key, or a number in [0, 1) with method 'uncertainty'",
            self.momentum,
        )


@dataclass(frozen=True, config=SECTION)
class Distillation:
    """Section `[distillation]`: arguments of `distill`, for training batches only.

    Attributes:
        teachers: Finished runs or `.keras` files; the student learns the mean of their
            predictions.
        weight: Share of the teachers' prediction in a target, in (0, 1].
        flip: Whether the teachers' predictions are averaged over each image and its
            mirror image.
        outputs: Outputs whose targets are mixed; `None` for all that can be.
    """

    teachers: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)
    ]
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    flip: bool = False
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, config=SECTION)
class Published:
    """One `[[published]]`: a row of the report's results that the recipe reproduces.

    Attributes:
        checkpoint: Name in `training.extra_checkpoints`; `None` for `best.keras`.
        data: Dataset it was measured on, by the name that its reader writes into the
            `source` of every face. The score is shown for this dataset only.
        split: Split of that dataset that it was measured on.
        positive: Positive class of its F1, precision and recall.
        gender_accuracy: Share of correct genders.
        gender_f1: F1 of gender.
        gender_precision: Precision of gender.
        gender_recall: Recall of gender.
        age_accuracy: Share of correct age groups; for ordinal heads, all ranks correct.
    """

    checkpoint: str | None = None
    data: str = "adience"
    split: str = "fold_4"
    positive: Literal["male", "female"] = "male"
    gender_accuracy: Share | None = None
    gender_f1: Share | None = None
    gender_precision: Share | None = None
    gender_recall: Share | None = None
    age_accuracy: Share | None = None


@dataclass(frozen=True, config=SECTION)
class Cost:
    """Section `[cost]`: how long the training of the report's data takes.

    Attributes:
        two_cores: Time on two CPU cores; empty if not measured.
        gpu: Time on a GPU, with its name; empty if not measured.
    """

    two_cores: str = ""
    gpu: str = ""


@dataclass(frozen=True, config=SECTION)
class Recipe:
    """One experiment, with all settings.

    Attributes:
        name: Its file's name without the suffix.
        title: What it is, in one line.
        pretraining: Recipe that is trained first and whose best model initializes this
            one; `None` for none.
        pretraining_overrides: Settings that replace those of that recipe, as
            `"section.key=value"`.
        model: Section `[model]`.
        data: Section `[data]`.
        training: Section `[training]`.
        evaluation: Section `[evaluation]`.
        augmentation: Section `[augmentation]`; `None` without it.
        loss_weights: Output name -> initial weight, non-negative; others have their
            encoding's.
        loss_weight_changes: Changes of those during training.
        loss_weight_balancing: Section `[loss_weight_balancing]`; `None` leaves the
            weights as they are.
        distillation: Section `[distillation]`; `None` trains on the labels as they are.
        published: The scores that the report published for it.
        cost: Section `[cost]`.

    Raises:
        ValueError: If a setting has the wrong type or is out of range.
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
    loss_weights: dict[str, NotNegative] = field(default_factory=dict)
    loss_weight_changes: tuple[LossWeightChange, ...] = ()
    loss_weight_balancing: LossWeightBalancing | None = None
    distillation: Distillation | None = None
    published: tuple[Published, ...] = ()
    cost: Cost = Cost()

    def __post_init__(self) -> None:
        # `reproduce` names a folder after it.
        _require(
            not self.name or is_file_name(self.name), "name", FILE_NAME_RULE, self.name
        )
        if self.training.normalize_loss:
            key = "training.normalize_loss"
            _require(
                not self.loss_weight_changes,
                key,
                "either normalize_loss or loss_weight_changes: the divisor of a change "
                "is undefined",
                True,
            )
            _require(
                self.loss_weight_balancing is None,
                key,
                "either normalize_loss or loss_weight_balancing: balanced weights are "
                "already scaled",
                True,
            )

    @functools.cached_property
    def pretraining_recipe(self) -> Recipe | None:
        """The recipe trained first, at this one's image size; `None` for none."""
        from keras_agegender.recipes.loading import load_pretraining

        return load_pretraining(self)

    def make_encoding(
        self, heads: Sequence[Head] = (), age_groups: AgeGroups | None = None
    ) -> Encoding:
        """Returns its encoding, with its loss weights, extra heads and age groups."""
        encoding = registry.get_encoding(
            self.model.encoding,
            question=self.model.question,
            heads=heads,
            age_groups=age_groups,
        )
        return encoding.with_loss_weights(self.loss_weights)

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
        """Returns the recipe as plain dicts and lists, without unset values."""
        return _without_unset(dataclasses.asdict(self))

    def to_toml(self) -> str:
        """Returns the recipe as the text of a TOML file that `load_recipe` reads."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def _without_unset(value: Any) -> Any:
    """Drops `None` and empty values, which are the default everywhere."""
    if isinstance(value, dict):
        plain = {k: _without_unset(v) for k, v in value.items()}
        return {k: v for k, v in plain.items() if v not in (None, {}, [], "")}
    if isinstance(value, (list, tuple)):
        return [_without_unset(v) for v in value]
    return value

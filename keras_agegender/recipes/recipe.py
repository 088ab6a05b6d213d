"""Recipes: one experiment as a TOML file, loaded strictly into frozen dataclasses.

In: the name of a recipe in this folder, or the path of one's own, and overrides as
`"section.key=value"`. Out: a `Recipe` in which every setting is spelled out; `to_toml`
writes it beside the checkpoints it led to.

A file may name another as its `base` and then holds just what differs; `unset =
["training.patience"]` takes a setting of the base away. A setting that is not there is
`None`: TOML has no word for nothing, and a file just leaves the key out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_agegender.models.augmentation_options import Augmentation


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
        keep_monitor: Metric whose best epoch is kept as `best.keras`.
        keep: Further models to keep: name -> metric whose best epoch is kept as
            `best_<name>.keras`, the lowest for losses.
        normalize_loss: Whether loss weights are divided by their sum.
        class_weights: `"balanced"` weighs faces of rare age groups more in every age
            head; `None` weighs all alike.
        mixed_precision: Whether layers compute in 16 bits.
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
    keep_monitor: str = "val_mean_accuracy"
    keep: dict[str, str] = field(default_factory=dict)
    normalize_loss: bool = False
    class_weights: Literal["balanced"] | None = None
    mixed_precision: bool = False
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

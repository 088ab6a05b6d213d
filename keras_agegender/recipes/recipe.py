"""Recipes: one experiment as a TOML file, loaded strictly into frozen dataclasses.

In: the name of a recipe in this folder, or the path of one's own, and overrides as
`"section.key=value"`. Out: a `Recipe` in which every setting is spelled out; `to_toml`
writes it beside the checkpoints it led to.

A file may name another as its `base` and then holds just what differs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from keras_agegender.models.augmentation_options import Augmentation


@dataclass(frozen=True)
class ModelSettings:
    """Section `[model]`: arguments of `build_model`.

    Attributes:
        name: One of `list_models()`.
        encoding: One of `list_encodings()`.
        question: `"older"` or `"younger"` for ordinal heads; empty for the default.
        image_size: (height, width) of the input in pixels.
        augment: Whether pictures are augmented, by the ResNets' random flip and
            contrast layers, or as the section `[augmentation]` says.
        dropout_rate: Dropout of the Caffe networks' hidden layers, in [0, 1).
        attribute_features: Whether CelebA's 40 attributes, as outputs of a layer each,
            stand between the network and the heads.
        trainable_layers: How many layers before the outputs train; all others keep
            their pretrained weights. -1 trains all.
    """

    name: str = "resnet34"
    encoding: str = "categorical"
    question: str = ""
    image_size: tuple[int, int] = (224, 224)
    augment: bool = True
    dropout_rate: float = 0.5
    attribute_features: bool = False
    trainable_layers: int = -1


@dataclass(frozen=True)
class DataSettings:
    """Section `[data]`: arguments of `make_train_dataset`.

    Attributes:
        pipeline: `"resnet"` or `"caffe"`: how stored pictures become the input.
        faces: What the prepared dataset must hold: `"cropped"` faces, `"whole"`
            pictures, or `"any"`.
        batch_size: Faces per step, over all devices.
        shuffle_buffer: Faces shuffled together.
        cache: Whether compressed pictures stay in memory after the first epoch.
        balanced_sampling: Whether every age group is drawn equally often.
        validation_split: Split expression that selects the model; empty for the
            dataset's own validation split.
    """

    pipeline: str = "resnet"
    faces: str = "any"
    batch_size: int = 64
    shuffle_buffer: int = 20_000
    cache: bool = False
    balanced_sampling: bool = False
    validation_split: str = ""


@dataclass(frozen=True)
class AugmentationSettings(Augmentation):
    """Section `[augmentation]`: the fields of `Augmentation`, and its place.

    Without the section, ResNets have `Augmentation()` in the model.

    Attributes:
        where: `"model"`, as layers, or `"data"`, in tf.data.
    """

    where: str = "model"

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
        weight_decay: Its decoupled weight decay; 0 for none.
        patience: Epochs without a better `stop_monitor` before training stops; 0 trains
            all epochs.
        stop_monitor: Metric that early stopping watches.
        keep_monitor: Metric whose best epoch is kept as `best.keras`.
        keep: Further models to keep: name -> metric whose best epoch is kept as
            `best_<name>.keras`, the lowest for losses.
        normalize_loss: Whether loss weights are divided by their sum.
        class_weights: `"balanced"` weighs faces of rare age groups more in every age
            head; empty weighs all alike.
        mixed_precision: Whether layers compute in 16 bits.
        jit_compile: Whether the step is compiled by XLA.
        cosine_decay: Whether the learning rate falls to 0 along a cosine over all
            epochs.
    """

    epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    learning_rate_changes: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    patience: int = 0
    stop_monitor: str = "val_loss"
    keep_monitor: str = "val_mean_accuracy"
    keep: dict[str, str] = field(default_factory=dict)
    normalize_loss: bool = False
    class_weights: str = ""
    mixed_precision: bool = False
    jit_compile: bool = False
    cosine_decay: bool = False


@dataclass(frozen=True)
class LossWeightChange:
    """One `[[loss_weight_changes]]`: other loss weights from some moment on.

    Attributes:
        set: Output name -> weight from then on.
        epoch: From this epoch on, counted from 0; -1 when not by epoch.
        step: From this optimizer step on, counted from 0; -1 when not by step.
        monitor: Once this metric …
        above: … is at least this …
        below: … or at most this.
    """

    set: dict[str, float] = field(default_factory=dict)
    epoch: int = -1
    step: int = -1
    monitor: str = ""
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Published:
    """One `[[published]]`: a row of the report's results that the recipe reproduces.

    Attributes:
        checkpoint: Which of the models kept; empty for `best.keras`.
        data: What it was measured on.
        positive: Positive class of f1, precision and recall.
        gender_accuracy: Share of genders right.
        gender_f1: F1 of gender.
        gender_precision: Precision of gender.
        gender_recall: Recall of gender.
        age_accuracy: Share of age groups right; for ordinal heads, all heads right.
    """

    checkpoint: str = ""
    data: str = "Adience fold 4"
    positive: str = "male"
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
        pretraining: Recipe whose best model gives its weights first; empty for none.
        model: Section `[model]`.
        data: Section `[data]`.
        training: Section `[training]`.
        augmentation: Section `[augmentation]`; `None` where there is none.
        loss_weights: Output name -> weight at the start; others keep their encoding's.
        loss_weight_changes: Changes of those while training.
        published: What the report says came of it.
    """

    name: str = ""
    title: str = ""
    pretraining: str = ""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings | None = None
    loss_weights: dict[str, float] = field(default_factory=dict)
    loss_weight_changes: tuple[LossWeightChange, ...] = ()
    published: tuple[Published, ...] = ()

    def model_augmentation(self) -> Augmentation | bool:
        """Returns what `augment` of `build_model` is."""
        if self.augmentation is None:
            return self.model.augment
        return self._augmentation_in("model") or False

    def data_augmentation(self) -> Augmentation | None:
        """Returns what `augment` of `make_train_dataset` is."""
        return self._augmentation_in("data")

    def _augmentation_in(self, where: str) -> Augmentation | None:
        found = self.augmentation
        if not self.model.augment or found is None or found.where != where:
            return None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain dicts and lists, `None` left out."""
        return _without_none(dataclasses.asdict(self))

    def to_toml(self) -> str:
        """Returns the recipe as the text of a TOML file that `load_recipe` reads."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return value

"""Head types: the table of layers, targets, losses, metrics and decoding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender.labels import MAX_AGE, OLDEST_YEAR

if TYPE_CHECKING:
    from keras_agegender.encodings.head import Head

Outputs = Mapping[str, Any]

# Between the name of a head and the names of the layers that it consists of.
LAYER_PART = "_rank_"


def read_output(outputs: Outputs, name: str) -> Any:
    """Returns an output as float32, also for integer input."""
    from keras import ops

    return ops.cast(ops.convert_to_tensor(outputs[name]), "float32")


class HeadType:
    """A row of `HEAD_TYPES`: the layers, targets, loss, metric and decoding of heads.

    A new type is a subclass with what differs, and a row of the table. The defaults are
    those of a single output with one unit per class.

    Attributes:
        activation: Keras activation of the output layer.
        loss: Name of a class in `keras.losses`.
        metric: Name of a class in `keras.metrics`, and the name it is logged under.
        default_num_classes: `num_classes` of a head that gives none.
        has_classes: Whether a head needs `num_classes` of at least 2; else it has 1.
        binary: Whether the output is the probability of the second of two classes.
        ordered: Whether the classes have an order, so that errors have a size.
        ranks: Whether unit k is the probability that the class is above rank k.
        several_outputs: Whether every unit is a named output.
        has_direction: Whether `Head.question` applies.
        is_number: Whether predictions are numbers instead of class ids.
        in_years: Whether the classes are years of age, read from an age.
        continuous: Whether the column holds any numbers, NaN where unknown, and the
            output is one: there are no classes and no probabilities.
        standardized: Whether `Head.mean` and `Head.scale` come from training data.
        reads_pairs: Whether a head may read two columns, one class for each pair.
        unit_axis: Whether targets have a last axis of 1.
        unit_weights: Whether each unit has a sample weight of its own.
        column_values: Content of a CSV column: `"classes"`, `"yes or no"`, `"numbers"`
            or `"years"`.
        values: What the units are, for charts: the `"probability"` of the second class,
            `"probabilities"`, `"ranks"`, `"conditional_ranks"` (given that the class is
            above the rank before), `"years"` or a `"number"`.

    Example:
    >>> class Poisson(Regression):
    ...     activation, loss, standardized = "exponential", "Poisson", False
    >>> HEAD_TYPES["poisson"] = Poisson()  # doctest: +SKIP
    >>> Head("visits", "poisson")  # doctest: +SKIP
    """

    activation = "softmax"
    loss = "SparseCategoricalCrossentropy"
    metric = ("SparseCategoricalAccuracy", "accuracy")
    default_num_classes = 1
    has_classes = True
    binary = False
    ordered = False
    ranks = False
    several_outputs = False
    has_direction = False
    is_number = False
    in_years = False
    continuous = False
    standardized = False
    reads_pairs = False
    unit_axis = False
    unit_weights = False
    column_values = "classes"
    values = "probabilities"

    @property
    def sparse_targets(self) -> bool:
        """Whether targets are class ids, int32."""
        return self.loss.startswith("Sparse")

    @property
    def soft_targets(self) -> bool:
        """Whether targets may be any probabilities, those of a teacher for example."""
        return self.loss in ("BinaryCrossentropy", "CategoricalCrossentropy")

    def num_values(self, head: Head) -> int:
        """Returns the number of different class ids, or years, of the column."""
        return max(head.num_classes, 2)

    def targets(self, head: Head) -> np.ndarray | None:
        """Returns the target of each value, or `None`; NaN marks masked units."""
        return np.arange(self.num_values(head), dtype="float32")

    def true_values(self, head: Head, targets: Outputs) -> Any:
        """Returns the class ids, or years, that targets represent, int32."""
        from keras import ops

        target = ops.convert_to_tensor(targets[head.name])
        return ops.cast(ops.reshape(target, (-1,)), "int32")

    def build(self, head: Head, features: Any) -> dict[str, Any]:
        """Adds the output layers; returns output name -> tensor."""
        from keras import layers

        # Probabilities near 0 and 1 need float32 under every dtype policy.
        units = 1 if self.several_outputs else head.num_classes
        return {
            name: layers.Dense(
                units, activation=self.activation, dtype="float32", name=name
            )(features)
            for name in head.output_names
        }

    def probabilities(self, head: Head, outputs: Outputs) -> Any:
        """Returns the probability of each class. Shape (batch, num_values)."""
        return read_output(outputs, head.name)


class Binary(HeadType):
    """One sigmoid unit."""

    activation = "sigmoid"
    loss = "BinaryCrossentropy"
    metric = ("BinaryAccuracy", "accuracy")
    has_classes = False
    binary = True
    unit_axis = True
    column_values = "yes or no"
    values = "probability"

    def probabilities(self, head: Head, outputs: Outputs) -> Any:
        """Returns the probabilities of both classes."""
        from keras import ops

        values = read_output(outputs, head.name)
        return ops.concatenate([1.0 - values, values], axis=-1)


class Categorical(HeadType):
    """A softmax over unordered classes."""

    reads_pairs = True


class Regression(HeadType):
    """One linear unit, trained on the standardized number."""

    activation = "linear"
    loss = "MeanSquaredError"
    metric = ("MeanAbsoluteError", "mae")
    has_classes = False
    ordered = True
    is_number = True
    continuous = True
    standardized = True
    unit_axis = True
    column_values = "numbers"
    values = "number"

    def targets(self, head: Head) -> None:
        """Returns `None`: the target is the number itself."""
        return None


class Ranks(HeadType):
    """Sigmoid units, one for each rank, that predict whether the class is above it.

    An output of shape (n, 1) has a loss and a weight for each of its n units.
    """

    activation = "sigmoid"
    loss = "BinaryCrossentropy"
    metric = ("BinaryAccuracy", "accuracy")
    ordered = True
    ranks = True
    unit_axis = True
    unit_weights = True
    values = "ranks"

    def targets(self, head: Head) -> np.ndarray:
        """Returns whether each class is above each rank."""
        classes, ranks = np.ogrid[: head.num_classes, : head.num_classes - 1]
        return (classes > ranks).astype("float32")

    def true_values(self, head: Head, targets: Outputs) -> Any:
        """Returns the number of ranks that the class is above."""
        from keras import ops

        given = [ops.convert_to_tensor(targets[name]) for name in head.output_names]
        columns = [t[:, :, 0] if len(t.shape) > 2 else t for t in given]
        bits = ops.cast(ops.concatenate(columns, axis=-1) > 0.5, "int32")
        return ops.cast(ops.sum(bits, axis=-1), "int32")

    def build(self, head: Head, features: Any) -> dict[str, Any]:
        """Adds one unit for each rank. Shape (batch, num_classes - 1, 1)."""
        from keras import layers

        logits = self.logits(head, features)
        column = layers.Reshape(
            (head.num_classes - 1, 1), **self.layer_options(head, "column")
        )(logits)
        output = layers.Activation("sigmoid", dtype="float32", name=head.name)
        return {head.name: output(column)}

    def layer_options(self, head: Head, part: str) -> dict[str, str]:
        """Returns dtype and name of a layer that the head consists of."""
        return {"dtype": "float32", "name": f"{head.name}{LAYER_PART}{part}"}

    def logits(self, head: Head, features: Any) -> Any:
        """Returns one logit for each rank. Shape (batch, num_classes - 1)."""
        from keras import layers

        options = self.layer_options(head, "logits")
        return layers.Dense(head.num_classes - 1, **options)(features)

    def at_least(self, head: Head, outputs: Outputs) -> Any:
        """Returns P(class >= k) for k from 1, which may not decrease in k."""
        return read_output(outputs, head.name)[:, :, 0]

    def is_above(self, head: Head, outputs: Outputs) -> Any:
        """Returns which ranks the class is above, at a threshold of a half."""
        return self.at_least(head, outputs) > 0.5

    def count_ranks(self, head: Head, outputs: Outputs) -> tuple[Any, Any]:
        """Counts the ranks that the class is above, as Niu et al. 2016 do."""
        from keras import ops

        bits = ops.cast(self.is_above(head, outputs), "int32")
        count = ops.cast(ops.sum(bits, axis=-1), "int32")
        position = ops.arange(head.num_classes - 1, dtype="int32")[None, :]
        expected = ops.cast(count[:, None] > position, "int32")
        return count, ops.all(ops.equal(bits, expected), axis=-1)

    def probabilities(self, head: Head, outputs: Outputs) -> Any:
        """Returns P(class >= k) - P(class >= k + 1)."""
        from keras import ops

        # Independent units may increase in k, so they are sorted first (Chernozhukov et
        # al., "Quantile and Probability Curves Without Crossing", 2010).
        at_least = self.at_least(head, outputs)
        falling = ops.flip(ops.sort(at_least, axis=-1), axis=-1)
        one = ops.ones_like(falling[:, :1])
        steps = ops.concatenate([one, falling, ops.zeros_like(one)], axis=-1)
        return steps[:, :-1] - steps[:, 1:]


class Coral(Ranks):
    """Units that share one weight per feature and have a bias each."""

    def logits(self, head: Head, features: Any) -> Any:
        """Returns the shared score plus a bias for each rank."""
        from keras import initializers, layers

        ranks, options = head.num_classes - 1, partial(self.layer_options, head)
        score = layers.Dense(1, use_bias=False, **options("score"))(features)
        score = layers.Concatenate(**options("scores"))([score] * ranks)
        # The biases are the beta of a normalization of zeros: Keras has no layer of
        # biases only, and files of Keras layers load without this package.
        zeros = layers.Rescaling(0.0, **options("zeros"))(score)
        thresholds = layers.LayerNormalization(
            scale=False,
            # Descending from 1, as in coral-pytorch: the ranks start in order.
            beta_initializer=initializers.Constant(
                [(ranks - k) / ranks for k in range(ranks)]
            ),
            **options("thresholds"),
        )(zeros)
        return layers.Add(**options("logits"))([score, thresholds])


class Corn(Ranks):
    """Units that predict P(class > k | class > k - 1)."""

    values = "conditional_ranks"

    def targets(self, head: Head) -> np.ndarray:
        """Returns CORAL's targets, NaN where the condition is not met."""
        classes, ranks = np.ogrid[: head.num_classes, : head.num_classes - 1]
        return np.where(classes >= ranks, classes > ranks, np.nan).astype("float32")

    def at_least(self, head: Head, outputs: Outputs) -> Any:
        """Returns the products of the conditional probabilities."""
        from keras import ops

        return ops.cumprod(super().at_least(head, outputs), axis=-1)


class Ordinal(Ranks):
    """One named output for each class, as in the report; one of them is constant."""

    several_outputs = True
    has_direction = True
    unit_weights = False
    build = HeadType.build

    def targets(self, head: Head) -> np.ndarray:
        """Returns whether each class is above, or below, every class."""
        classes, ranks = np.ogrid[: head.num_classes, : head.num_classes]
        younger = head.question == "younger"
        return (classes < ranks if younger else classes > ranks).astype("float32")

    def true_values(self, head: Head, targets: Outputs) -> Any:
        """Returns the number of classes that the class is above."""
        count = super().true_values(head, targets)
        return head.num_classes - 1 - count if head.question == "younger" else count

    def at_least(self, head: Head, outputs: Outputs) -> Any:
        """Returns P(class >= k) without the constant output."""
        from keras import ops

        columns = [read_output(outputs, name) for name in head.output_names]
        units = ops.concatenate(columns, axis=-1)
        return 1.0 - units[:, 1:] if head.question == "younger" else units[:, :-1]

    def is_above(self, head: Head, outputs: Outputs) -> Any:
        """Returns which outputs are above a half; at exactly a half they are not."""
        at_least = self.at_least(head, outputs)
        return at_least >= 0.5 if head.question == "younger" else at_least > 0.5

    def count_ranks(self, head: Head, outputs: Outputs) -> tuple[Any, Any]:
        """Counts ranks; a constant output above 0.5 is inconsistent."""
        from keras import ops

        count, consistent = super().count_ranks(head, outputs)
        constant = head.output_names[0 if head.question == "younger" else -1]
        never = read_output(outputs, constant)[:, 0] <= 0.5
        return count, ops.logical_and(consistent, never)


class Years(HeadType):
    """A softmax over years of age, trained on soft labels, decoded by expectation."""

    loss = "CategoricalCrossentropy"
    metric = ("CategoricalAccuracy", "accuracy")
    default_num_classes = OLDEST_YEAR + 1
    ordered = True
    is_number = True
    in_years = True
    column_values = "years"
    values = "years"

    def num_values(self, head: Head) -> int:
        """Returns the number of possible ages."""
        return MAX_AGE + 1

    def targets(self, head: Head) -> np.ndarray:
        """Returns a normal distribution about each year, as Gao et al. 2018 do."""
        truth, years = np.ogrid[: MAX_AGE + 1, : head.num_classes]
        truth = np.minimum(truth, head.num_classes - 1)  # older than the oldest year
        density = np.exp(-((years - truth) ** 2) / (2.0 * head.sigma**2))
        return (density / density.sum(axis=1, keepdims=True)).astype("float32")

    def true_values(self, head: Head, targets: Outputs) -> Any:
        """Returns the years at which the distributions have their maximum."""
        from keras import ops

        target = ops.convert_to_tensor(targets[head.name])
        return ops.cast(ops.argmax(target, axis=-1), "int32")


HEAD_TYPES: dict[str, HeadType] = {
    "binary": Binary(),
    "categorical": Categorical(),
    "regression": Regression(),
    "coral": Coral(),
    "corn": Corn(),
    "ordinal": Ordinal(),
    "years": Years(),
}

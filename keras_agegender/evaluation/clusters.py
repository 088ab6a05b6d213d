"""Clusters: which faces are of one person or album, and figures over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Clusters:
    """Which faces belong together.

    Attributes:
        ids: Cluster of each face, 0 … `num_clusters` - 1. Shape (num_faces,).
        sizes: Faces of each cluster. Shape (num_clusters,).
    """

    ids: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, names: Any) -> Clusters:
        """Returns the clusters of faces of that name; one without is its own.

        Args:
            names: Subject or album of each face, `""` where unknown. Shape
                (num_faces,).

        Example:
        >>> Clusters.of(["ann", "", "ann", ""]).sizes.tolist()
        [1, 1, 2]
        """
        names = np.asarray(names, dtype="U")
        unknown = names == ""
        found, ids = np.unique(names[~unknown], return_inverse=True)
        alone = int(unknown.sum())
        all_ids = np.empty(len(names), "int64")
        all_ids[unknown] = np.arange(alone)
        all_ids[~unknown] = alone + ids.reshape(-1)
        return cls(all_ids, np.bincount(all_ids, minlength=alone + len(found)))

    @property
    def num_clusters(self) -> int:
        """How many there are."""
        return len(self.sizes)

    @property
    def largest_share(self) -> float:
        """Share of the faces that the largest cluster holds, in [0, 1]."""
        return float(self.sizes.max() / self.sizes.sum()) if len(self.sizes) else 0.0

    def select(self, chosen: np.ndarray) -> Clusters:
        """Returns the clusters of some of the faces.

        Args:
            chosen: Which faces. Boolean of shape (num_faces,).
        """
        _, ids = np.unique(self.ids[chosen], return_inverse=True)
        ids = ids.reshape(-1)
        return Clusters(ids, np.bincount(ids))

    def sums(self, values: Any) -> np.ndarray:
        """Returns each cluster's sum of a value per face. Shape (num_clusters,)."""
        values = np.asarray(values, "float64")
        if values.shape != self.ids.shape:
            raise ValueError(
                f"Invalid values. Expected shape {self.ids.shape}, one for each face. "
                f"Received: shape {values.shape}."
            )
        return np.bincount(self.ids, weights=values, minlength=self.num_clusters)


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: The figure; `None` of no face.
        low: Lower end of its interval; `None` of fewer than two clusters.
        high: Upper end.
        num_faces: Faces behind it.
        num_clusters: Clusters that they come in.
        largest_share: Share of the faces in the largest cluster.
    """

    value: float | None
    low: float | None
    high: float | None
    num_faces: int
    num_clusters: int
    largest_share: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends; `None` of fewer than two clusters."""
        if self.low is None or self.high is None:
            return None
        return self.low, self.high

    @classmethod
    def of(cls, value: float, low: float, high: float, clusters: Clusters) -> Estimate:
        """Returns a figure with its interval."""
        return cls(float(value), float(low), float(high), *_counts(clusters))

    @classmethod
    def bare(cls, value: float | None, clusters: Clusters) -> Estimate:
        """Returns a figure of too few clusters for an interval."""
        return cls(value, None, None, *_counts(clusters))


def _counts(clusters: Clusters) -> tuple[int, int, float]:
    return len(clusters.ids), clusters.num_clusters, clusters.largest_share

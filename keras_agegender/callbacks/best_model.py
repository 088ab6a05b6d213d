"""Callbacks of `train` beside the LossWeightScheduler."""

from __future__ import annotations

import keras

from keras_agegender.distribution import undistributed


class BestModel(keras.callbacks.ModelCheckpoint):
    """Keras' ModelCheckpoint, for one of several processes that train together."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the model if it is better than before."""
        with undistributed():
            super().on_epoch_end(epoch, logs)

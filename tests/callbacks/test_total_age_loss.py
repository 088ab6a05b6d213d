"""AgeLossLogger: the weighted mean of the age heads' losses."""

from __future__ import annotations

import pytest

from keras_agegender.callbacks.decoded_metrics import AgeLossLogger


def test_weighted_mean_by_hand():
    # (2 * 0.1 + 6 * 0.5) / 8 = 0.4; unweighted it would be 0.3, a sum 3.2.
    logs = {"val_age1_loss": 0.1, "val_age2_loss": 0.5, "val_gender_loss": 9.0}
    AgeLossLogger({"age1": 2.0, "age2": 6.0}).on_epoch_end(0, logs)
    assert logs["val_age_loss"] == pytest.approx(0.4)


def test_a_weight_of_zero_leaves_a_head_out():
    logs = {"val_age1_loss": 0.1, "val_age2_loss": 0.5}
    AgeLossLogger({"age1": 1.0, "age2": 0.0}).on_epoch_end(0, logs)
    assert logs["val_age_loss"] == pytest.approx(0.1)


def test_weights_of_zero_alone_are_an_error():
    with pytest.raises(ValueError, match="sum above 0"):
        AgeLossLogger({"age1": 0.0})

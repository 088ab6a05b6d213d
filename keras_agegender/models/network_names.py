"""Names of the networks, for recipes: those are checked before Keras loads.

`networks.py` has the networks themselves; a test keeps both the same.
"""

NETWORK_NAMES = (
    "caffe",
    "caffe_2conv",
    "caffe_2conv_1fc",
    "caffe_1conv",
    "resnet34",
    "resnet_se",
    "efficientnet_lite0",
)

"""Networks: backbones, output layers, and `build_model`, which joins them."""

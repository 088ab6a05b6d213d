"""From prepared datasets and manifests to batches that `model.fit` takes."""

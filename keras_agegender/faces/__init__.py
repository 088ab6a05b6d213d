"""From pictures to faces: decoding, detection, box geometry, crops."""

"""Public names of `kag.synthetic`, typed."""

from .faces import (
    read_synthetic as read_synthetic,
    write_synthetic_faces as write_synthetic_faces,
    write_synthetic_photo as write_synthetic_photo,
)

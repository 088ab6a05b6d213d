"""Pillow opens the declared formats and nothing that another program would read."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from sample_data import picture

from keras_agegender.datasets.duplicates import perceptual_hash
from keras_agegender.faces.decoding import FORMATS
from keras_agegender.faces.images import (
    PILLOW_FORMATS,
    UnreadableImageError,
    open_image,
    read_image,
)

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """The file that a Ghostscript on the path leaves when it is started."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "started"


# A DOS EPS file has a header of its own; spaces in front are no EPS.
@pytest.mark.parametrize("data", [EPS, b"\xc5\xd0\xd3\xc6" + EPS, b" \n" + EPS])
@pytest.mark.parametrize("read", [read_image, perceptual_hash, open_image])
def test_eps_files_start_no_program(read, data, ghostscript):
    with pytest.raises((UnreadableImageError, UnidentifiedImageError)):
        read(data)
    assert not ghostscript.exists()


def test_the_lists_of_formats_agree():
    read = {f.name.upper() for f in FORMATS if f.decode is not None}
    assert read == set(PILLOW_FORMATS)
    for name in PILLOW_FORMATS:
        stream = io.BytesIO()
        Image.fromarray(picture()).save(stream, name)
        with open_image(stream.getvalue()) as image:
            assert image.size == (32, 40)
        assert read_image(stream.getvalue()).shape == (40, 32, 3)


@pytest.mark.parametrize(
    "name", ["TIFF", "PPM", "TGA", "PCX", "SGI", "ICO", "JPEG2000"]
)
def test_other_formats_are_refused_in_both_ways(name):
    stream = io.BytesIO()
    image = Image.fromarray(np.zeros((32, 32, 3), "uint8"))
    image.save(stream, name)
    with pytest.raises(UnidentifiedImageError):
        open_image(stream.getvalue())
    with pytest.raises(UnreadableImageError, match="Expected one of JPEG, PNG, GIF"):
        read_image(stream.getvalue())

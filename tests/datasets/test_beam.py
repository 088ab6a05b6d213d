"""Preparation on Beam's own runner: the same dataset as `prepare` makes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sample_data import EXTRA_HEADS, MiddleDetector, make_rows, write_picture

from keras_agegender.datasets.beam import prepare_with_beam
from keras_agegender.datasets.manifest import make_manifest
from keras_agegender.datasets.prepare import prepare
from keras_agegender.datasets.prepared import load_prepared
from keras_agegender.faces.preprocessing import CropOptions

pytest.importorskip("apache_beam")
WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture
def manifest(tmp_path):
    rows = make_rows(tmp_path / "pictures", 12)
    (tmp_path / "pictures" / "001.jpg").write_bytes(b"")
    write_picture(tmp_path / "pictures" / "002.jpg", value=-60)  # dark: no face
    made = make_manifest(rows)
    made.extra_heads = EXTRA_HEADS
    return made


def rows_of(directory, split):
    dataset = load_prepared(directory).as_dataset(split)
    return list(dataset.as_numpy_iterator())


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(WORKERS, id="processes", marks=pytest.mark.slow),
        pytest.param([], id="in_process"),
    ],
)
def test_same_dataset_as_prepare(manifest, tmp_path, options, monkeypatch):
    # Worker processes look for MiddleDetector too.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    shared = {
        "detector": MiddleDetector(),
        "crop_options": CropOptions(),
        "block_size": 5,
        "output_size": (32, 32),
    }
    local = prepare(manifest, tmp_path / "local", progress=False, **shared)
    made = prepare_with_beam(
        manifest, tmp_path / "beam", beam_options=options, **shared
    )
    assert made.counts == local.counts
    assert made.counts["unreadable"] == 1 and made.counts["no_face"] == 1
    assert made.status.equals(local.status)
    assert not (tmp_path / "beam.partial").exists()
    for split in sorted(manifest["split"].unique()):
        for a, b in zip(
            rows_of(made.directory, split), rows_of(local.directory, split), strict=True
        ):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    beam, own = load_prepared(made.directory), load_prepared(local.directory)
    assert beam.info == own.info
    assert beam.data_sha256 == own.data_sha256


@pytest.mark.slow
def test_it_goes_on_where_prepare_stopped(manifest, tmp_path):
    class Interrupted(MiddleDetector):
        calls = 0

        def detect(self, images):
            type(self).calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().detect(images)

    shared = {"crop_options": CropOptions(), "block_size": 5}
    with pytest.raises(KeyboardInterrupt):
        prepare(
            manifest, tmp_path / "a", detector=Interrupted(), progress=False, **shared
        )
    first = tmp_path / "a.partial" / "block-000000.block"
    assert first.is_file()
    before = first.stat().st_mtime_ns
    seen = []

    class Watching(MiddleDetector):
        def detect(self, images):
            seen.append(len(images))
            assert first.stat().st_mtime_ns == before
            return super().detect(images)

    report = prepare_with_beam(manifest, tmp_path / "a", detector=Watching(), **shared)
    assert sum(report.counts.values()) == len(manifest)


def test_without_beam(manifest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-agegender\[beam\]'"):
        prepare_with_beam(manifest, tmp_path / "out")

"""Apache Beam: `prepare` on as many machines as a runner has.

One pipeline crops faces, block by block, and a second writes the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.datasets import prepare
from keras_agegender.datasets.manifest import Manifest
from keras_agegender.datasets.prepared import write_tfds
from keras_agegender.faces.detector import FaceDetector
from keras_agegender.faces.preprocessing import CropOptions


def prepare_with_beam(
    manifest: Manifest,
    directory: str | Path,
    *,
    beam_options: Sequence[str] = (),
    detector: FaceDetector | None = None,
    crop_options: CropOptions | None = None,
    output_size: tuple[int, int] = (256, 256),
    jpeg_quality: int = prepare.JPEG_QUALITY,
    splits: Mapping[str, str] | None = None,
    name: str = "faces",
    description: str = "",
    block_size: int = prepare.BLOCK_SIZE,
    overwrite: bool = False,
) -> prepare.PreparationReport:
    """Prepares the same dataset as `prepare`, on an Apache Beam runner.

    Resumes an interrupted preparation, also one of `prepare`. Needs the extra `beam`.

    Args:
        manifest: The manifest of a reader.
        directory: Folder to make; it, the folder `<directory>.partial` beside it and
            the images must be visible to every worker under these paths.
        beam_options: Options of the pipeline as Beam's command line takes them,
            `["--runner=FlinkRunner", "--flink_master=…"]` for instance. The default
            runs in this process.
        detector: As in `prepare`.
        crop_options: As in `prepare`.
        output_size: As in `prepare`.
        jpeg_quality: As in `prepare`.
        splits: As in `prepare`.
        name: As in `prepare`.
        description: As in `prepare`.
        block_size: Images that a worker processes at a time. Defaults to 128.
        overwrite: As in `prepare`.

    Returns:
        Counts by status.

    Raises:
        ImportError: If Apache Beam is not installed.
        ValueError: As `prepare` does.

    Example:
    >>> prepare_with_beam(  # doctest: +SKIP
    ...     manifest, "data/mine", crop_options=CropOptions(),
    ...     beam_options=["--direct_num_workers=4",
    ...                   "--direct_running_mode=multi_processing"])
    """
    beam = _import_beam()
    job = prepare.open_job(
        manifest,
        directory,
        detector=detector,
        crop_options=crop_options,
        output_size=output_size,
        jpeg_quality=jpeg_quality,
        splits=splits,
        name=name,
        description=description,
        block_size=block_size,
        overwrite=overwrite,
    )
    if isinstance(job, prepare.PreparationReport):
        return job
    options = beam.options.pipeline_options.PipelineOptions(list(beam_options))
    blocks = job.blocks()
    with job.lock():
        missing = [(k, blocks[k]) for k in job.missing_blocks()]
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | _over_blocks(beam, missing, _CropBlock(job))
        return job.finish(partial(_write_splits, beam=beam, options=options))


def _import_beam() -> Any:
    try:
        import apache_beam
        import apache_beam.options.pipeline_options
    except ImportError as error:
        raise ImportError(
            "prepare_with_beam needs Apache Beam: pip install 'keras-agegender[beam]'."
        ) from error
    return apache_beam


def _over_blocks(beam: Any, blocks: Sequence[Any], work: Callable) -> Any:
    """Returns the transform that runs `work` on (number, rows) of each block."""
    return (
        "Blocks" >> beam.Create(blocks)
        | "Spread" >> beam.Reshuffle()
        | type(work).__name__.strip("_") >> beam.FlatMap(work)
    )


def _seen_by_workers(job: prepare.PreparationJob) -> prepare.BlockFiles:
    """Returns a job's blocks under an absolute path."""
    return replace(job.block_files, folder=job.partial.absolute())


class _CropBlock:
    """Crops the images of a block and writes its records."""

    def __init__(self, job: prepare.PreparationJob) -> None:
        self.cropper = job.cropper
        self.files = _seen_by_workers(job)

    def __call__(self, element: tuple[int, pd.DataFrame]) -> tuple[()]:
        """Skips a finished block: Beam may run an element twice."""
        number, block = element
        if not self.files.is_finished(number, block):
            images = [prepare.read_or_reason(path) for path in block["path"]]
            found = self.cropper.detect(block, images)
            records = self.cropper.records(block, images, found)
            self.files.write(number, records)
        return ()


class _ReadExamples:
    """Yields the examples of a split that are in a block.

    Keys are positions in the manifest: TensorFlow Datasets sorts by key, so that the
    order is that of `prepare`.
    """

    def __init__(self, job: prepare.PreparationJob, split: str) -> None:
        self.block_size = job.request["block_size"]
        self.files = _seen_by_workers(job)
        self.extra = job.extra_columns()
        self.split = split

    def __call__(
        self, element: tuple[int, pd.DataFrame]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        number, block = element
        rows = block.set_index("key")
        for place, record in enumerate(self.files.read(number)):
            if record["split"] == self.split and record["jpeg"] is not None:
                example = prepare.make_example(
                    record, rows.loc[record["key"]], self.extra
                )
                yield number * self.block_size + place, example


def _write_splits(
    job: prepare.PreparationJob, built: Path, beam: Any, options: Any
) -> None:
    blocks = list(enumerate(job.blocks()))
    write_tfds(
        built.absolute(),
        job.request["name"],
        job.description,
        {
            split: _over_blocks(beam, blocks, _ReadExamples(job, split))
            for split in job.splits()
        },
        job.extra_columns(),
        job.manifest.age_groups,
        beam_options=options,
    )

"""Preparation on Apache Beam: `prepare` on as many machines as a runner has.

Two pipelines, one after the other: the first crops faces, block by block, the second
writes the shards. Blocks and dataset lie in a folder that all workers see under the
same path, and so do the pictures: a network file system or a mounted bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from keras_agegender.datasets.manifest import Manifest
from keras_agegender.datasets.prepare import (
    BLOCK_SIZE,
    BlockCropper,
    BlockFiles,
    Preparation,
    PreparationReport,
    begin,
    make_cropper,
    make_example,
    read_picture,
)
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
    jpeg_quality: int = 95,
    splits: Mapping[str, str] | None = None,
    name: str = "faces",
    description: str = "",
    block_size: int = BLOCK_SIZE,
    overwrite: bool = False,
) -> PreparationReport:
    """Does what `prepare` does, on a Beam runner; the dataset is the same.

    An interrupted preparation is resumed, one that `prepare` began too: blocks that are
    finished are not done again. Needs the extra `beam`.

    Args:
        manifest: What a reader returned.
        directory: Folder to make; it, the folder `<directory>.partial` beside it and
            the pictures must be visible to every worker under these paths.
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
        block_size: Pictures a worker takes at a time. Defaults to 128.
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
    cropper = make_cropper(detector, crop_options, output_size, jpeg_quality)
    task = begin(
        manifest,
        directory,
        cropper,
        splits=splits,
        name=name,
        description=description,
        block_size=block_size,
        overwrite=overwrite,
    )
    if isinstance(task, PreparationReport):
        return task
    options = beam.options.pipeline_options.PipelineOptions(list(beam_options))
    blocks = task.blocks()
    with task.writing():
        missing = [(k, blocks[k]) for k in task.missing_blocks()]
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | _over_blocks(beam, missing, _CropBlock(cropper, task))
        return task.finish(partial(_write_splits, beam=beam, options=options))


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
    """Returns the transform that hands (number, rows) to workers, one block each."""
    return (
        "Blocks" >> beam.Create(blocks)
        | "Spread" >> beam.Reshuffle()
        | type(work).__name__.strip("_") >> beam.FlatMap(work)
    )


def _seen_by_workers(task: Preparation) -> BlockFiles:
    """Returns a task's blocks under a path that does not depend on where one is."""
    return replace(task.block_files, folder=task.partial.absolute())


class _CropBlock:
    """Crops the pictures of a block and writes its records."""

    def __init__(self, cropper: BlockCropper, task: Preparation) -> None:
        self.cropper = cropper
        self.files = _seen_by_workers(task)

    def __call__(self, element: tuple[int, pd.DataFrame]) -> tuple[()]:
        """Does nothing where the block is there: Beam may give it out twice."""
        number, block = element
        if not self.files.is_finished(number, block):
            pictures = [read_picture(path) for path in block["path"]]
            found = self.cropper.detect(pictures)
            records = self.cropper.records(block, pictures, found)
            self.files.write(number, records)
        return ()


class _ReadExamples:
    """Yields the examples of a split that are in a block.

    Their keys are their places in the manifest: TensorFlow Datasets sorts by
    key, so their order is that of `prepare`.
    """

    def __init__(self, task: Preparation, split: str) -> None:
        self.block_size = task.request["block_size"]
        self.files = _seen_by_workers(task)
        self.extra = task.extra_columns()
        self.split = split

    def __call__(
        self, element: tuple[int, pd.DataFrame]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        number, block = element
        rows = block.set_index("key")
        for place, record in enumerate(self.files.read(number)):
            if record["split"] == self.split and record["jpeg"] is not None:
                example = make_example(record, rows.loc[record["key"]], self.extra)
                yield number * self.block_size + place, example


def _write_splits(task: Preparation, built: Path, beam: Any, options: Any) -> None:
    blocks = list(enumerate(task.blocks()))
    write_tfds(
        built.absolute(),
        task.request["name"],
        task.description,
        {
            split: _over_blocks(beam, blocks, _ReadExamples(task, split))
            for split in task.splits()
        },
        task.extra_columns(),
        task.manifest.age_groups,
        beam_options=options,
    )

"""
Title: Crop faces with Apache Beam
Description: Prepares the dataset of `agegender prepare csv` on a cluster.

    python pipelines/crop_faces_beam.py labels.csv --out data/mine \\
        [--runner=FlinkRunner --flink_master=host:8081 …]

Requires `pip install 'keras-agegender[beam]'`. Unknown options are passed to Beam:
runner, workers, cluster. Without any, Beam runs in this process. With several machines,
images and output folder must have the same paths on every worker.

To use all cores of one machine:

    … --direct_num_workers=0 --direct_running_mode=multi_processing

Dataflow, Spark and Flink: https://beam.apache.org/documentation/runners/
"""

import argparse
from pathlib import Path

import keras_agegender as kag


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[2].partition(": ")[2]
    )
    parser.add_argument("labels", type=Path, help="CSV with a column of images")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--margin", type=float, default=0.25)
    parser.add_argument("--size", type=int, default=256, help="side of a crop in px")
    args, beam_options = parser.parse_known_args()

    manifest, report = kag.read_csv(args.labels)
    print(report)
    prepared = kag.datasets.prepare_with_beam(
        manifest,
        args.out,
        beam_options=beam_options,
        crop_options=kag.faces.CropOptions(margin=args.margin),
        output_size=(args.size, args.size),
        name="csv",
    )
    print(prepared)


# Workers that are processes import this file again; they must not start it again.
if __name__ == "__main__":
    main()

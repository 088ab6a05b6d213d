"""
Title: Pretrain on CelebA
Description: Pretrains a network on 40 attributes, or on gender only.

    python pipelines/pretrain_celeba.py data/celeba [--encoding gender --model caffe]

With --download, the folder is first filled from TensorFlow Datasets. The report
pretrains its Caffe network on gender and its ResNet34 on all 40 attributes. Pass the
saved model to `agegender train … --pretrained`.
"""

import argparse
from pathlib import Path

import keras

import keras_agegender as kag

parser = argparse.ArgumentParser(description=__doc__.splitlines()[2].partition(": ")[2])
parser.add_argument("celeba", type=Path, help="folder of lists and images")
parser.add_argument("--download", action="store_true")
parser.add_argument("--model", default="resnet34", help="as `build_model` takes it")
parser.add_argument(
    "--encoding", default="attributes", choices=("attributes", "gender")
)
parser.add_argument("--directory", type=Path, default=Path("runs/celeba"))
parser.add_argument("--size", type=int, help="side of the input [the network's own]")
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

"""
## Data

CelebA's aligned images show a face each, so MTCNN is not needed for them.
"""

if args.download:
    kag.datasets.write_celeba_from_tfds(args.celeba)
manifest, report = kag.read_celeba(args.celeba)
print(report)
prepared = kag.prepare(manifest, args.directory / "prepared", name="celeba")
print(prepared)

pipeline = "caffe" if args.model.startswith("caffe") else "resnet"
encoding = kag.get_encoding(args.encoding)
size = (args.size, args.size) if args.size else None
model = kag.build_model(args.model, encoding, image_size=size)
options = {"pipeline": pipeline, "image_size": model.input_shape[1:3]}
train_ds = kag.make_train_dataset(prepared.directory, encoding, **options)
val_ds = kag.make_eval_dataset(prepared.directory, encoding, **options)

"""
## Training
"""

model.compile(keras.optimizers.Adam(1e-4), **encoding.compile_arguments())
model.fit(
    train_ds,
    validation_data=val_ds,
    epochs=args.epochs,
    verbose=2,
    callbacks=[
        keras.callbacks.BackupAndRestore(args.directory / "backup"),
        keras.callbacks.ModelCheckpoint(
            args.directory / "best.keras", save_best_only=True
        ),
    ],
)
print("Trunk for fine-tuning:", args.directory / "best.keras")

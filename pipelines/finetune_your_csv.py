"""
Title: Your own CSV, your own outputs, on top of a trained model
Description: Two stages: new heads on a frozen backbone, then everything, slowly.

    python pipelines/finetune_your_csv.py labels.csv [--pretrained run/best.keras]

The CSV has a column of picture files and any of: age, gender, subject, split. Every
further column whose kind is evident becomes an output.
"""

import argparse
from pathlib import Path

import keras

import keras_agegender as kag

parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
parser.add_argument("csv", type=Path)
parser.add_argument("--pretrained", type=Path, help="a .keras file with the same trunk")
parser.add_argument("--model", default="resnet_se", help="as `build_model` takes it")
parser.add_argument("--encoding", default="categorical")
parser.add_argument("--directory", type=Path, default=Path("runs/finetuned"))
parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
parser.add_argument("--epochs", type=int, nargs=2, default=(3, 10), metavar="N")
args = parser.parse_args()

"""
## Data
"""

manifest, report = kag.read_csv(args.csv)
print(report)
prepared = kag.prepare(
    manifest, args.directory / "prepared", crop_options=kag.CropOptions()
)
print(prepared)
data = kag.load_prepared(prepared.directory)

pipeline = "resnet" if args.model.startswith("resnet") else "caffe"
size = (args.size, args.size)
encoding = kag.get_encoding(args.encoding, heads=data.extra_heads())
options = {"pipeline": pipeline, "image_size": size, "batch_size": 32}
train_ds = kag.make_train_dataset(data, encoding, **options)
val_ds = kag.make_eval_dataset(data, encoding, **options)
test_ds = kag.make_eval_dataset(data, encoding, split="test", **options)

"""
## Stage one: the heads alone
"""

model = kag.build_model(args.model, encoding, image_size=size)
trunk = [layer for layer in model.layers if layer.name not in encoding.output_names]
if args.pretrained:
    print(kag.transfer_weights(keras.saving.load_model(args.pretrained), model))
    for layer in trunk:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(1e-3), **encoding.compile_arguments())
    model.fit(train_ds, validation_data=val_ds, epochs=args.epochs[0], verbose=2)

"""
## Stage two: everything, with a small learning rate
"""

for layer in trunk:
    layer.trainable = True
model.compile(keras.optimizers.Adam(1e-4), **encoding.compile_arguments())
model.fit(
    train_ds,
    validation_data=val_ds,
    epochs=args.epochs[1],
    verbose=2,
    callbacks=[keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)],
)

"""
## Scores and SavedModel
"""

labels = kag.read_labels(data, "test", columns=encoding.columns)
outputs = model.predict(test_ds, verbose=0)
scores = kag.evaluate_predictions(
    labels["age_group"],
    labels["gender"],
    encoding.decode(outputs),
    extra={
        head.name: (
            head.kind,
            labels[head.columns[0]],
            encoding.answer(head.name, outputs).values,
        )
        for head in encoding.extra_heads
    },
)
print(kag.format_metrics(scores))
model.save(args.directory / "model.keras")
saved_model = kag.export(
    model,
    args.directory / "saved_model",
    encoding=encoding,
    pipeline=pipeline,
    pixels=data.pixels,
    overwrite=True,
)
print("SavedModel:", saved_model)

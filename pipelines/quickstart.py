"""
Title: From label files to a prediction for a photo, on synthetic faces
Description: Every step of the library in plain Keras, in a few minutes on two cores.

    python pipelines/quickstart.py [--directory quickstart_pipeline]

Synthetic faces, in the layout of Adience, replace a dataset that cannot be distributed.
Their scores measure how well drawings can be told apart and say nothing about people.
"""

import argparse
from pathlib import Path

import keras
from PIL import Image

import keras_agegender as kag

parser = argparse.ArgumentParser(description=__doc__.splitlines()[2].partition(": ")[2])
parser.add_argument("--directory", type=Path, default=Path("quickstart_pipeline"))
parser.add_argument("--faces", type=int, default=2400)
parser.add_argument("--epochs", type=int, default=12)
args = parser.parse_args()

"""
## Data: label files, face crops, batches
"""

kag.synthetic.write_synthetic_faces(args.directory / "faces", args.faces, progress=True)
manifest, cleaning = kag.synthetic.read_synthetic(args.directory / "faces")
print(cleaning)

prepared = kag.prepare(
    manifest,
    args.directory / "prepared",
    crop_options=kag.faces.CropOptions(margin=0.25),
    output_size=(128, 128),
    splits=kag.datasets.report_splits(),
)
print(prepared)

encoding = kag.get_encoding("ordinal", question="older")
options = {"pipeline": "caffe", "image_size": (96, 96), "batch_size": 32}
data = prepared.directory
train_ds = kag.make_train_dataset(data, encoding, cache=True, **options)
val_ds = kag.make_eval_dataset(data, encoding, cache=True, **options)
test_ds = kag.make_eval_dataset(data, encoding, split="test", **options)

"""
## Model: nine named outputs

`gender` is learned first, with four times the weight, until it is good.
"""

keras.utils.set_random_seed(0)
model = kag.build_model("caffe", encoding, image_size=(96, 96), dropout_rate=0.3)
steps = args.epochs * len(train_ds)
encoding = encoding.with_loss_weights({"gender": 4.0})
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps)),
    **encoding.compile_arguments(),
)
model.fit(
    train_ds,
    validation_data=val_ds,
    epochs=args.epochs,
    verbose=2,
    callbacks=[
        kag.LossWeightScheduler.when(
            "val_gender_accuracy", above=0.95, set={"gender": 2.0}
        )
    ],
)

"""
## Evaluation: decoded answers, not single outputs
"""

labels = kag.datasets.read_labels(data, "test")
answers = encoding.decode(model.predict(test_ds, verbose=0))
scores = kag.evaluation.evaluate_predictions(
    labels["age_group"], labels["gender"], answers
)
print(kag.evaluation.format_metrics(scores))

"""
## Export and prediction: one SavedModel that takes a photo's bytes
"""

saved_model = kag.export(
    model,
    args.directory / "saved_model",
    encoding=encoding,
    pipeline="caffe",
    crop_options=kag.faces.CropOptions(margin=0.25),
    crop_size=(128, 128),
    overwrite=True,
)
photo = kag.synthetic.write_synthetic_photo(args.directory / "photo.jpg")
prediction = kag.Predictor(saved_model).predict(photo)
print(prediction)
annotated = kag.serving.annotate_photo(kag.faces.read_image(photo), prediction)
Image.fromarray(annotated).save(args.directory / "annotated.png")

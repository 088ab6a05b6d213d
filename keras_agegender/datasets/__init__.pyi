"""Public names of `kag.datasets`, typed."""

from .beam import (
    prepare_with_beam as prepare_with_beam,
)
from .distillation import (
    distill as distill,
)
from .duplicates import (
    drop_duplicates as drop_duplicates,
)
from .manifest import (
    CleaningReport as CleaningReport,
    Manifest as Manifest,
    read_manifest as read_manifest,
    write_manifest as write_manifest,
)
from .pipeline import (
    make_eval_dataset as make_eval_dataset,
    make_train_dataset as make_train_dataset,
    read_labels as read_labels,
)
from .prepare import (
    PreparationReport as PreparationReport,
)
from .prepared import (
    PreparedDataset as PreparedDataset,
    load_prepared as load_prepared,
)
from .readers import (
    read_dataset as read_dataset,
)
from .readers.adience import (
    read_adience as read_adience,
)
from .readers.celeba import (
    read_celeba as read_celeba,
    write_celeba_from_tfds as write_celeba_from_tfds,
)
from .readers.csv import (
    read_csv as read_csv,
)
from .readers.file_names import (
    read_utkface as read_utkface,
)
from .readers.labeled_faces import (
    LabeledFace as LabeledFace,
    read_labeled_faces as read_labeled_faces,
)
from .splits import (
    cross_validation_splits as cross_validation_splits,
    report_splits as report_splits,
)

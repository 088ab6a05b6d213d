"""The public API, typed; `__init__.py` imports each name when it is first used."""

from . import (
    callbacks as callbacks,
    datasets as datasets,
    encodings as encodings,
    evaluation as evaluation,
    faces as faces,
    labels as labels,
    metrics as metrics,
    models as models,
    plots as plots,
    recipes as recipes,
    serving as serving,
    studies as studies,
    synthetic as synthetic,
    training as training,
)
from .callbacks.balancer import (
    LossWeightBalancer as LossWeightBalancer,
)
from .callbacks.loss_weights import (
    LossWeightScheduler as LossWeightScheduler,
)
from .datasets.pipeline import (
    make_eval_dataset as make_eval_dataset,
    make_train_dataset as make_train_dataset,
)
from .datasets.prepare import (
    prepare as prepare,
)
from .datasets.prepared import (
    load_prepared as load_prepared,
)
from .datasets.readers.adience import (
    read_adience as read_adience,
)
from .datasets.readers.celeba import (
    read_celeba as read_celeba,
)
from .datasets.readers.csv import (
    read_csv as read_csv,
)
from .datasets.readers.file_names import (
    read_utkface as read_utkface,
)
from .encodings.encoding import (
    Encoding as Encoding,
)
from .encodings.head import (
    Head as Head,
)
from .encodings.registry import (
    get_encoding as get_encoding,
    list_encodings as list_encodings,
)
from .evaluation.audit import (
    audit as audit,
)
from .evaluation.evaluate import (
    calibrate as calibrate,
    evaluate as evaluate,
)
from .evaluation.report import (
    write_report as write_report,
)
from .files import (
    Verification as Verification,
    verify as verify,
)
from .labels import (
    AgeGroups as AgeGroups,
)
from .models.builder import (
    build_model as build_model,
)
from .models.registry import (
    list_models as list_models,
)
from .recipes.loading import (
    list_recipes as list_recipes,
    load_recipe as load_recipe,
)
from .recipes.schema import (
    Recipe as Recipe,
)
from .run_directory import (
    RunDirectory as RunDirectory,
)
from .serving.export import (
    export as export,
)
from .serving.predictor import (
    Predictor as Predictor,
)
from .studies.compare import (
    compare as compare,
)
from .studies.finetune import (
    finetune as finetune,
)
from .studies.quickstart import (
    quickstart as quickstart,
)
from .studies.reproduce import (
    reproduce as reproduce,
)
from .training.experiment import (
    Experiment as Experiment,
)
from .training.train import (
    train as train,
)

__version__: str

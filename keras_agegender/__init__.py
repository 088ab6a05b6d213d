"""Multi-output modelling of faces with Keras: apparent age group and gender first.

    import keras_agegender as kag

    model = kag.build_model("resnet_se", encoding="ordinal")

Public names are listed, with their types, in `__init__.pyi`. Each is imported when it
is first used, so that `import keras_agegender` takes no time (Scientific Python's SPEC
1). `quiet.py` says how TensorFlow's start-up lines are kept off the screen, and how to
see them.
"""

from typing import Any

import lazy_loader

from keras_agegender.console import quiet_start as _quiet_start

__version__ = "0.1.0"

_import, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    with _quiet_start():
        return _import(name)

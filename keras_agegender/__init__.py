"""Multi-output modelling of faces with Keras: apparent age group and gender first.

    import keras_agegender as kag

    model = kag.build_model("resnet_se", encoding="ordinal")

`__init__.pyi` lists the public names with their types. Each is imported when it is
first used, so that `import keras_agegender` takes no time (Scientific Python's SPEC 1).
"""

import lazy_loader

from keras_agegender.console import quiet_tensorflow as _quiet_tensorflow
from keras_agegender.registration import register_classes as _register_classes

__version__ = "0.1.0"

_quiet_tensorflow()
_register_classes()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

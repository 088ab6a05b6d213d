"""Multi-output modelling of faces with Keras: apparent age group and gender first.

    import keras_agegender as kag

    model = kag.build_model("resnet_se", encoding="ordinal")

Public names are listed, with their types, in `__init__.pyi`. Each is imported when it
is first used, so that `import keras_agegender` takes no time (Scientific Python's SPEC
1).
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

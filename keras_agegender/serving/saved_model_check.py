"""What a SavedModel would do beyond arithmetic, known before it is loaded.

A SavedModel is a program: TensorFlow carries out whatever operations are in it. One
with an operation that is not known to calculate, and nothing else, is refused. That is
no proof that a stranger's model is harmless: operations may have flaws, and take time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from keras_agegender.serving.saved_model_operations import ALLOWED, SAVING

# Lets TensorFlow call a function in place of another one.
REPLACES = "api_implements"


def check_operations(directory: Path) -> None:
    """Makes sure that a SavedModel holds operations of `ALLOWED` alone.

    Args:
        directory: Folder of the SavedModel.

    Raises:
        ValueError: If it holds another one, or cannot be read.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = directory / "saved_model.pb"
    try:
        model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError:
        raise ValueError(
            f"{file} is damaged: it is no SavedModel. Export the run again."
        ) from None
    graphs = model.meta_graphs
    # Of others TensorFlow carries out the graph itself while it loads them.
    if len(graphs) != 1 or not graphs[0].object_graph_def.nodes:
        received = f"{len(graphs)} graphs" if len(graphs) != 1 else "one without any"
        raise ValueError(
            f"The SavedModel in {directory} is not loaded. Expected one graph with "
            f"objects, as TensorFlow 2 writes it. Received: {received}."
        )
    found = sorted(set(_refused(graphs[0])))
    if found:
        more = f", and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"The SavedModel in {directory} is not loaded: it holds "
            f"{', '.join(found[:5])}{more}. Expected operations that calculate, as "
            "`agegender export` writes them; others may touch files or call programs."
        )


def _refused(graph: Any) -> Iterator[str]:
    top, library = graph.graph_def.node, graph.graph_def.library
    # Two nodes of the graph, which loading does not carry out, call TensorFlow's own
    # functions that save and restore, one each: nothing else may.
    names = (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    saving = {name.partition(":")[0] for name in names}
    called = [_called(node) for node in top if node.name in saving]
    for several in called:
        if len(several) > 1:
            yield f"functions {sorted(several)} in one saver"
    savers = {name for one in called for name in one}
    yield from _in_nodes(top, "the graph", ALLOWED, savers, besides=saving)
    # Loading takes counters off names: no function may become a saver by that.
    defined = [function.signature.name for function in library.function]
    bare = {_without_counter(name) for name in savers}
    for name, count in Counter(defined).items():
        if count > 1:
            yield f"function {name!r} more than once"
        if name not in savers and {name, _without_counter(name)} & bare:
            yield f"function {name!r}, whose name may become that of a saver"
    for function in library.function:
        name = function.signature.name
        where = f"function {name!r}"
        allowed = SAVING if name in savers else ALLOWED
        yield from _in_nodes(function.node_def, where, allowed, savers)
        if name in SAVING:  # nodes of that operation would call it
            yield f"{where}, which is the name of an operation"
        if name in savers and REPLACES in function.attr:
            yield f"{REPLACES} of {where}"
    gradients = (*library.gradient, *library.registered_gradients)
    for name in savers & {field for g in gradients for field in _texts(g)}:
        yield f"a gradient {name!r}"
    objects = graph.object_graph_def
    for name in sorted(savers & {*objects.concrete_functions, *_of_objects(objects)}):
        yield f"a call of {name!r} by an object"


def _without_counter(name: str) -> str:
    """Returns a function's name as TensorFlow has it after loading, or before that."""
    return re.sub(r"^__inference_|_\d+$", "", name)


def _texts(message: Any) -> list[str]:
    """Returns the values of a message of texts."""
    return [value for _, value in message.ListFields()]


def _of_objects(objects: Any) -> Iterator[str]:
    """Yields the names of all functions that objects say they have."""
    for node in objects.nodes:
        yield from node.function.concrete_functions
        yield node.bare_concrete_function.concrete_function_name


def _in_nodes(
    nodes: Any,
    where: str,
    allowed: Collection[str],
    savers: set[str],
    besides: Collection[str] = (),
) -> Iterator[str]:
    for node in nodes:
        if node.op not in allowed:
            yield f"operation {node.op!r} in {where}"
        if node.name not in besides:
            for name in sorted(_called(node) & savers):
                yield f"a call of {name!r} in {where}"


def _called(node: Any) -> set[str]:
    """Returns the names of all functions that a node could call."""
    return set(_functions_of(node.attr)) - {""}


def _functions_of(attributes: Any) -> Iterator[str]:
    for value in attributes.values():
        for function in (value.func, *value.list.func):
            yield function.name
            yield from _functions_of(function.attr)

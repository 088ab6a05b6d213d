"""SavedModels that would touch files are refused before they are loaded."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_agegender.serving.saved_model import ALLOWED, SAVING, check_operations


def saved(directory, function):
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    signature = [tf.TensorSpec((), tf.float32)]
    module.f = tf.function(
        lambda x: function(x) * module.weight, input_signature=signature
    )
    tf.saved_model.save(module, str(directory), signatures={"faces": module.f})
    return directory


def writing(x):
    with tf.control_dependencies([tf.io.write_file("/tmp/never", "text")]):
        return tf.identity(x)


def reading(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def calling(x):
    return tf.numpy_function(lambda value: value, [x], tf.float32)


def nested(x):
    return tf.cond(x > 0, lambda: reading(x), lambda: x)


def storing(x):
    tf.raw_ops.SaveV2(
        prefix="/tmp/never", tensor_names=["x"], shape_and_slices=[""], tensors=[x]
    )
    return x


def printing(x):
    tf.print(x, output_stream="file:///tmp/never")
    return x


def debugging(x):
    return tf.raw_ops.DebugIdentity(input=x, debug_urls=["file:///tmp/never"])


def mapping(x):
    size = {"dtype": tf.uint8, "shape": [1]}
    read = tf.raw_ops.ImmutableConst(memory_region_name="/etc/hostname", **size)
    return x + tf.cast(read[0], tf.float32)


def querying(x):
    options = {"output_types": [tf.int32], "output_shapes": [[]]}
    rows = tf.raw_ops.SqlDataset(
        driver_name="sqlite", data_source_name="/tmp/never", query="", **options
    )
    return x + tf.cast(tf.raw_ops.DatasetCardinality(input_dataset=rows), tf.float32)


def ending(x):
    tf.raw_ops.Abort()
    return x


def timing(x):
    return x + tf.cast(tf.timestamp(), tf.float32)


def changed(directory, change):
    """Saves a model, then changes its message."""
    file = saved(directory, tf.square) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())
    return directory


def saver_of(graph):
    (node,) = (n for n in graph.graph_def.node if "traced_save" in str(n.attr["f"]))
    return node.attr["f"].func.name


def test_arithmetic_is_let_pass(tmp_path):
    check_operations(saved(tmp_path, tf.square))


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (writing, "WriteFile"),
        (reading, "ReadFile"),
        (calling, "PyFunc"),
        (nested, "ReadFile"),
        (storing, "SaveV2"),
        (printing, "PrintV2"),
        (debugging, "DebugIdentity"),
        (mapping, "ImmutableConst"),
        (querying, "SqlDataset"),
        (ending, "Abort"),
        (timing, "Timestamp"),
    ],
)
def test_what_exports_never_need(tmp_path, function, operation):
    with pytest.raises(
        ValueError, match=rf"is not safe to load.*'{operation}' in function '"
    ):
        check_operations(saved(tmp_path, function))


def by_an_operation(graph):
    graph.graph_def.library.function[0].node_def.add(name="x", op=saver_of(graph))


def by_a_function(graph):
    node = graph.graph_def.library.function[0].node_def.add(
        name="x", op="PartitionedCall"
    )
    node.attr["f"].func.name = saver_of(graph)


def by_a_branch(graph):
    node = graph.graph_def.library.function[0].node_def.add(name="x", op="Case")
    node.attr["branches"].list.func.add(name=saver_of(graph))


def by_the_graph(graph):
    node = graph.graph_def.node.add(name="x", op="StatefulPartitionedCall")
    node.attr["f"].func.name = saver_of(graph)


def by_an_object(graph):
    graph.object_graph_def.concrete_functions[saver_of(graph)].bound_inputs[:] = []


def by_an_object_alone(graph):
    node = graph.object_graph_def.nodes.add()
    node.bare_concrete_function.concrete_function_name = saver_of(graph)


def by_a_gradient(graph):
    graph.graph_def.library.gradient.add(
        function_name="f", gradient_func=saver_of(graph)
    )


def by_a_function_s_function(graph):
    node = graph.graph_def.library.function[0].node_def.add(
        name="x", op="PartitionedCall"
    )
    node.attr["f"].func.name = "f"
    node.attr["f"].func.attr["g"].func.name = saver_of(graph)


def with_a_second(graph):
    (node,) = (n for n in graph.graph_def.node if "traced_save" in str(n.attr["f"]))
    node.attr["zz"].func.name = "another"


def by_its_name(graph):
    """A node `Square` would call the function."""
    graph.graph_def.library.function[0].signature.name = "Square"


def twice(graph):
    library = graph.graph_def.library
    library.function.add().CopyFrom(library.function[0])


def by_a_name_without_counter(graph):
    name = "_".join(saver_of(graph).split("_")[3:-1])  # of __inference__traced_save_9
    graph.graph_def.library.function.add().signature.name = name


def by_replacing(graph):
    name = saver_of(graph)
    (saver,) = (f for f in graph.graph_def.library.function if f.signature.name == name)
    saver.attr["api_implements"].s = b"f"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (by_an_operation, "operation '__inference__traced_save"),
        (by_a_function, "a call of '__inference__traced_save_.*' in function"),
        (by_a_branch, "a call of '__inference__traced_save_.*' in function"),
        (by_the_graph, "a call of '__inference__traced_save_.*' in the graph"),
        (by_an_object, "a call of '__inference__traced_save_.*' by an object"),
        (by_an_object_alone, "a call of '__inference__traced_save_.*' by an object"),
        (by_a_gradient, "a gradient '__inference__traced_save"),
        (by_a_function_s_function, "a call of '__inference__traced_save_.*' in funct"),
        (with_a_second, "functions .'__inference__traced_save_.*', 'another'. in one"),
        (by_its_name, "function 'Square', which is the name of an operation"),
        (twice, "function '.*' more than once"),
        (by_a_name_without_counter, "whose name may become that of a saver"),
        (by_replacing, "api_implements of function '__inference__traced_save"),
    ],
)
def test_the_savers_own_function_is_not_called_otherwise(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        check_operations(changed(tmp_path, change))


def test_a_function_called_as_the_savers_is_none(tmp_path):
    """Whatever its name: the graph's own record of its saver does not name it."""

    def change(graph):
        function = graph.graph_def.library.function.add()
        function.signature.name = "__inference__traced_save_9999"
        function.node_def.add(name="x", op="SaveV2")

    with pytest.raises(
        ValueError,
        match="operation 'SaveV2' in function '__inference__traced_save_9999'. Only",
    ):
        check_operations(changed(tmp_path, change))


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph.ClearField("object_graph_def"),
        lambda graph: graph.object_graph_def.ClearField("nodes"),
    ],
)
def test_graphs_without_objects(tmp_path, change):
    """TensorFlow would carry out the graph itself while it loads them."""
    with pytest.raises(
        ValueError, match="is not safe to load. Expected one .* without any"
    ):
        check_operations(changed(tmp_path, change))


def test_several_graphs(tmp_path):
    file = saved(tmp_path, tf.square) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    model.meta_graphs.add().CopyFrom(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="Received: 2 graphs"):
        check_operations(tmp_path)


def test_many_are_counted(tmp_path):
    def change(graph):
        for number in range(7):
            graph.graph_def.node.add(name=f"x{number}", op=f"Own{number}")

    with pytest.raises(ValueError, match="'Own4' in the graph, and 2 more. Only"):
        check_operations(changed(tmp_path, change))


def attention(image):
    x = keras.layers.Resizing(16, 16)(keras.layers.RandomFlip()(image))
    x = keras.layers.Reshape((-1, 8))(keras.layers.Conv2D(8, 4, 4)(x))
    x = x + keras.layers.Embedding(16, 8)(keras.ops.arange(16))
    y = keras.layers.LayerNormalization()(x)
    x = x + keras.layers.MultiHeadAttention(2, 4, dropout=0.1)(y, y)
    x = keras.layers.Dense(8, "gelu")(keras.layers.Dropout(0.1)(x))
    return keras.layers.GlobalAveragePooling1D()(x)


def recurrent(image):
    x = keras.layers.LSTM(4, return_sequences=True)(
        keras.layers.Reshape((-1, 12))(image)
    )
    return keras.layers.Bidirectional(keras.layers.GRU(4))(x)


def application(name):
    network = getattr(keras.applications, name)
    return lambda image: (
        network(
            weights=None, include_top=False, input_tensor=image, pooling="avg"
        ).output
    )


@pytest.mark.parametrize(
    "features",
    [
        attention,
        recurrent,
        pytest.param(application("MobileNetV2"), marks=pytest.mark.slow),
        application("MobileNetV3Small"),
        pytest.param(application("EfficientNetB0"), marks=pytest.mark.slow),
        pytest.param(application("ConvNeXtTiny"), marks=pytest.mark.slow),
    ],
)
def test_what_keras_exports_is_let_pass(tmp_path, features):
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, keras.layers.Dense(2, "softmax")(features(image)))
    model.export(str(tmp_path), verbose=False)
    check_operations(tmp_path)


def test_none_is_allowed_that_touches_files():
    """Those that TensorFlow's command `saved_model_cli scan` warns of, and more."""
    touching = {
        *("ReadFile", "WriteFile", "PrintV2", "Print", "MatchingFiles", "PyFunc"),
        *("ImmutableConst", "InitializeTableFromTextFileV2", "XlaCallModule"),
        *("FixedUnigramCandidateSampler", "RemoteCall", "DebugIdentity"),
    }
    assert not touching & SAVING
    assert SAVING - ALLOWED == {
        "MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename",
    }  # fmt: skip
    assert all(hasattr(tf.raw_ops, name) for name in SAVING - {"FakeParam"})


def test_damaged_files(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="is damaged: it is not a SavedModel"):
        check_operations(tmp_path)

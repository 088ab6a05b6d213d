"""SavedModels that would touch files are refused before they are loaded."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_agegender.serving.saved_model_check import REFUSED, check_operations


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
    ],
)
def test_what_exports_never_need(tmp_path, function, operation):
    with pytest.raises(ValueError, match=rf"is not loaded.*{operation}"):
        check_operations(saved(tmp_path, function))


@pytest.mark.parametrize("how", ["operation", "branch"])
def test_the_savers_own_function_is_not_called_otherwise(tmp_path, how):
    file = saved(tmp_path, tf.square) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    saver = next(f for f in functions if "traced_save" in f.signature.name)
    other = next(f for f in functions if "traced" not in f.signature.name)
    if how == "operation":
        other.node_def.add(name="sly", op=saver.signature.name)
    else:
        branches = other.node_def.add(name="sly", op="Case").attr["branches"]
        branches.list.func.add(name=saver.signature.name)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="a call of __inference__traced_save"):
        check_operations(tmp_path)


def test_the_savers_own_function_is_for_the_loader_alone(tmp_path):
    file = saved(tmp_path, tf.square) / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    saver = next(f for f in functions if "traced_save" in f.signature.name)
    other = next(f for f in functions if "traced" not in f.signature.name)
    node = other.node_def.add(name="sly", op="StatefulPartitionedCall")
    node.attr["f"].func.name = saver.signature.name
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="a call of __inference__traced_save"):
        check_operations(tmp_path)


def test_damaged_files(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="is damaged: it is no SavedModel"):
        check_operations(tmp_path)


@pytest.mark.parametrize(
    ("operation", "is_refused"),
    [
        ("Conv2D", False), ("DecodeJpeg", False), ("DecodeImage", False),
        ("Assert", False), ("StatefulPartitionedCall", False), ("While", False),
        ("TensorListReserve", False), ("VarHandleOp", False),
        ("TextLineDataset", True), ("TFRecordDatasetV2", True), ("MatchingFiles", True),
        ("WholeFileReaderV2", True), ("InitializeTableFromTextFileV2", True),
        ("EagerPyFunc", True), ("LoadTPUEmbeddingAdamParameters", True),
    ],
)  # fmt: skip
def test_names_of_operations(operation, is_refused):
    assert bool(REFUSED.fullmatch(operation)) == is_refused

"""SavedModels: writing, checking and loading."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_agegender import files
from keras_agegender.errors import one_line
from keras_agegender.serving import model_format

if TYPE_CHECKING:
    from keras_agegender.serving.bundle import ExportBundle

# Files that TensorFlow writes at the top of a SavedModel.
SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables", "assets")
# Temporary files of a process that was killed, or found no space left: JSON files of
# this library, or files that TensorFlow renames when they are complete.
TEMPORARY_FILE = re.compile(
    r"\.(agegender|checksums)\.\d+\.partial\.json"
    r"|(saved_model|fingerprint)\.pb\.tmp[0-9a-f]+"
)


def check_new_folder(directory: Path, overwrite: bool) -> None:
    """Checks that a SavedModel can be written to a folder."""
    if (
        files.check_output_dir(directory, model_format.METADATA_FILE, "export")
        and not overwrite
    ):
        raise ValueError(
            f"{directory} already exists. Choose another directory, or overwrite it "
            "(--overwrite)."
        )
    partial = files.partial_directory(directory)  # its content will be replaced
    known = {model_format.METADATA_FILE, files.CHECKSUMS_FILE, *SAVED_MODEL_FILES}
    names = {entry.name for entry in partial.glob("*")} - known
    foreign = sorted(name for name in names if not TEMPORARY_FILE.fullmatch(name))
    if foreign:
        raise ValueError(
            f"{partial} contains other files than an unfinished export: "
            f"{foreign[0]!r}. Move them, or choose another directory."
        )


def write_saved_model(
    bundle: ExportBundle, directory: Path, metadata: Mapping[str, Any]
) -> None:
    """Writes a SavedModel with all signatures, and agegender.json."""
    import keras
    import tensorflow as tf

    if "photo" not in bundle.functions:
        warnings.warn(
            "The export has no signature `photo`: faces were found by "
            f"{bundle.graph.spec.detector}, which a SavedModel cannot contain. Pass "
            "another `detector` to `export`.",
            stacklevel=3,  # the caller of `export`
        )
    shape = (None, *bundle.graph.image_size, 3)
    inputs = {
        "serving_default": tf.TensorSpec((None,), tf.string, name="image_bytes"),
        "faces": tf.TensorSpec((None, None, None, 3), tf.uint8, name="faces"),
        "inputs": tf.TensorSpec(shape, tf.float32, name="inputs"),
        "photo": tf.TensorSpec((), tf.string, name="photo_bytes"),
        "photos": tf.TensorSpec((None,), tf.string, name="photo_bytes"),
    }
    archive = keras.export.ExportArchive()
    archive.track(bundle.network)
    archive.pixels = bundle.graph  # the detector's weights are saved too
    for name, function in bundle.functions.items():
        archive.add_endpoint(name, function, input_signature=[inputs[name]])
    with files.disk_errors(directory):
        archive.write_out(str(directory), verbose=False)
    files.write_json(directory / model_format.METADATA_FILE, dict(metadata))


def is_saved_model(path: Path) -> bool:
    """Returns whether a folder contains a SavedModel, complete or not."""
    return any(
        (path / name).is_file()
        for name in ("saved_model.pb", model_format.METADATA_FILE)
    )


def check_saved_model(directory: Path) -> None:
    """Checks that a folder contains a complete SavedModel."""
    if not (directory / "saved_model.pb").is_file():
        raise ValueError(
            f"{directory} contains neither an exported model nor a run. Expected an "
            "export (`agegender export RUN --out MODEL`) or a run."
        )
    files.check_sizes(directory, "Export the run again (--overwrite).")


def open_saved_model(
    directory: Path, num_threads: int | None = None
) -> model_format.InferenceModel:
    """Loads an exported SavedModel after checking its operations."""
    file = directory / model_format.METADATA_FILE
    if not file.is_file():
        raise ValueError(
            f"The SavedModel in {directory} has no {model_format.METADATA_FILE}. "
            "Expected one written by `agegender export`."
        )
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    check_operations(directory)
    try:
        metadata = json.loads(file.read_text("utf-8"))
        loaded = tf.saved_model.load(str(directory))  # keeps the variables alive
        network = loaded.signatures["inputs"]
        # TensorFlow is faster with weights that are constants.
        frozen = convert_variables_to_constants_v2(network)
    except (ValueError, KeyError, OSError, tf.errors.OpError) as error:
        reason = one_line(error)
        raise ValueError(f"The export in {directory} is damaged: {reason}") from None
    # The converted function returns a list, in the order in which `tf.nest` flattens.
    names = sorted(network.structured_outputs)
    return model_format.InferenceModel(
        metadata,
        on_arrays(lambda pixels: dict(zip(names, frozen(pixels), strict=True))),
    )


def on_arrays(
    network: Callable[[Any], dict[str, Any]],
) -> Callable[..., model_format.Outputs]:
    """Turns a function of tensors into one of arrays."""
    import tensorflow as tf

    def predict(pixels: np.ndarray) -> model_format.Outputs:
        outputs = network(tf.constant(pixels))
        return {name: value.numpy() for name, value in outputs.items()}

    return predict


# -- operations ------------------------------------------------------------------------

ALLOWED = frozenset(
    # The graph: inputs, constants, branches, loops, variables.
    "Assert Case Const EnsureShape FakeParam Identity IdentityN If NoOp "
    "PartitionedCall Placeholder PlaceholderWithDefault PreventGradient "
    "StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile StopGradient "
    "ToBool While AssignAddVariableOp AssignSubVariableOp AssignVariableOp "
    "DisableCopyOnRead ReadVariableOp ResourceGather ResourceGatherNd VarHandleOp "
    "VarIsInitializedOp VariableShape "
    # Numbers.
    "Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh "
    "Atan Atan2 Atanh BatchMatMul BatchMatMulV2 BatchMatMulV3 Bincount BitwiseAnd "
    "BitwiseOr BitwiseXor Bucketize Cast Ceil ClipByValue Cos Cosh Cross Cumprod "
    "Cumsum CumulativeLogsumexp DenseBincount Digamma Div DivNoNan Einsum Equal Erf "
    "Erfc Erfinv EuclideanNorm Exp Expm1 Floor FloorDiv FloorMod Greater "
    "GreaterEqual Inv Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma "
    "LinSpace Log Log1p LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min "
    "Minimum Mod Mul MulNoNan Ndtri Neg NotEqual Pow Prod Range RealDiv Reciprocal "
    "RightShift Rint Round Rsqrt SegmentMaxV2 SegmentMean SegmentMinV2 SegmentProdV2 "
    "SegmentSumV2 Select SelectV2 Sigmoid Sign Sin Sinh Sqrt Square "
    "SquaredDifference Sub Sum Tan Tanh TruncateDiv TruncateMod UnsortedSegmentMax "
    "UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy "
    # Arrays.
    "BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastTo Concat "
    "ConcatOffset ConcatV2 DepthToSpace DynamicPartition DynamicStitch "
    "EmptyTensorList ExpandDims ExtractImagePatches Fill Gather GatherNd GatherV2 "
    "InvertPermutation ListDiff LowerBound MatrixBandPart MatrixDiagPartV3 "
    "MatrixDiagV3 MatrixInverse MatrixSetDiagV3 MatrixSolve MirrorPad OneHot "
    "OnesLike Pack Pad PadV2 "
    "ParallelDynamicStitch RaggedGather RaggedRange RaggedTensorFromVariant "
    "RaggedTensorToTensor RaggedTensorToVariant Rank Reshape ReverseSequence "
    "ReverseV2 Roll ScatterNd Shape ShapeN Size Slice SpaceToBatch SpaceToBatchND "
    "SpaceToDepth Split SplitV Squeeze StridedSlice TensorListConcatV2 "
    "TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem "
    "TensorListLength TensorListPopBack TensorListPushBack TensorListReserve "
    "TensorListResize TensorListScatterV2 TensorListSetItem TensorListSplit "
    "TensorListStack TensorScatterAdd TensorScatterMax TensorScatterMin "
    "TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile Transpose "
    "Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex "
    "UpperBound Where ZerosLike "
    # Networks.
    "AvgPool AvgPool3D BiasAdd Conv2D Conv2DBackpropInput Conv3D "
    "Conv3DBackpropInputV2 DataFormatDimMap DataFormatVecPermute "
    "DepthwiseConv2dNative Dilation2D Elu FakeQuantWithMinMaxArgs "
    "FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel FusedBatchNorm "
    "FusedBatchNormV2 FusedBatchNormV3 InTopKV2 L2Loss LRN LeakyRelu LogSoftmax "
    "MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax NthElement "
    "QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 Relu "
    "Relu6 Selu Softmax Softplus Softsign TopK TopKV2 "
    # Images.
    "AdjustContrastv2 AdjustHue AdjustSaturation CombinedNonMaxSuppression "
    "CropAndResize DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg "
    "DecodePng DecodeWebP DrawBoundingBoxesV2 EncodeJpeg EncodeJpegVariableQuality "
    "EncodePng ExtractJpegShape HSVToRGB ImageProjectiveTransformV2 "
    "ImageProjectiveTransformV3 NonMaxSuppression NonMaxSuppressionV2 "
    "NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 RGBToHSV ResizeArea "
    "ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate "
    # Strings and bytes.
    "AsString DecodeBase64 DecodeRaw EncodeBase64 ReduceJoin RegexFullMatch "
    "RegexReplace StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin "
    "StringLength StringLower StringSplitV2 StringStrip StringToNumber StringUpper "
    "Substr UnsortedSegmentJoin "
    # Random numbers.
    "Multinomial RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt "
    "StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter "
    "StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomUniform "
    "StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 "
    "StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2 "
    "StatelessShuffle StatelessTruncatedNormal StatelessTruncatedNormalV2 "
    "TruncatedNormal".split()
)
# TensorFlow's own functions that save and restore variables need these as well.
SAVING = ALLOWED | {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}

# An attribute by which TensorFlow calls a function in place of another one.
REPLACES = "api_implements"


def check_operations(directory: Path) -> None:
    """Checks that a SavedModel consists of operations in `ALLOWED`."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = directory / "saved_model.pb"
    try:
        model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except DecodeError:
        raise ValueError(
            f"{file} is damaged: it is not a SavedModel. Export the run again."
        ) from None
    graphs = model.meta_graphs
    # TensorFlow runs the graph itself while it loads a model of any other kind.
    if len(graphs) != 1 or not graphs[0].object_graph_def.nodes:
        received = f"{len(graphs)} graphs" if len(graphs) != 1 else "one without any"
        raise ValueError(
            f"The SavedModel in {directory} is not safe to load. Expected one graph "
            f"with objects, as TensorFlow 2 writes it. Received: {received}."
        )
    found = sorted(set(_refused(graphs[0])))
    if found:
        more = f", and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"The SavedModel in {directory} is not safe to load: it contains "
            f"{', '.join(found[:5])}{more}. Only operations of `agegender export` are "
            "allowed; others may access files or run programs."
        )


def _refused(graph: Any) -> Iterator[str]:
    """Yields what a graph contains that could access files or run programs."""
    top, library = graph.graph_def.node, graph.graph_def.library
    # Two nodes of the graph, which loading does not run, call TensorFlow's own
    # functions that save and restore, one each. Nothing else may call these.
    names = (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    saver_nodes = {name.partition(":")[0] for name in names}
    called = [_called(node) for node in top if node.name in saver_nodes]
    for several in called:
        if len(several) > 1:
            yield f"functions {sorted(several)} in one saver"
    savers = {name for one in called for name in one}
    yield from _in_nodes(top, "the graph", ALLOWED, savers, besides=saver_nodes)
    # Loading strips counters from names, which must not turn a function into a saver.
    defined = Counter(function.signature.name for function in library.function)
    bare = {_without_counter(name) for name in savers}
    for name, count in defined.items():
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
    for gradient in (*library.gradient, *library.registered_gradients):
        for name in savers & {value for _, value in gradient.ListFields()}:
            yield f"a gradient {name!r}"
    objects = graph.object_graph_def
    of_objects = {*objects.concrete_functions}
    for node in objects.nodes:
        of_objects |= {*node.function.concrete_functions}
        of_objects.add(node.bare_concrete_function.concrete_function_name)
    for name in sorted(savers & of_objects):
        yield f"a call of {name!r} by an object"


def _without_counter(name: str) -> str:
    """Removes the counter that TensorFlow appends on loading."""
    return re.sub(r"^__inference_|_\d+$", "", name)


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

"""Checks a SavedModel before it runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

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
    # Pictures.
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
# What TensorFlow's own functions need that save and restore a model's variables.
SAVING = ALLOWED | {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}


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

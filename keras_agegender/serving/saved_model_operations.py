"""The operations that a SavedModel may hold: they calculate, and touch nothing else.

Exports of this library and image models of Keras are made of them, or could be. No
name tells whether an operation opens files (`ImmutableConst` does): another one is
added here by hand, when a model needs it.
"""

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

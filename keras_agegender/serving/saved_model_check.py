"""What a SavedModel would do beyond arithmetic, known before it is loaded.

A SavedModel is a program: TensorFlow carries out whatever operations are in it. Exports
need none that reads or writes files, or that calls Python. This finds those that do, by
name; it is no proof that a stranger's model is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Operations that touch files, the network, other programs or Python.
REFUSED = re.compile(
    r"(Read|Write|Matching|Delete)File\w*|\w*PyFunc\w*|PrintV2|.*(File|Record|Line)"
    r"(Reader|Dataset|Writer)\w*|(Whole|Fixed)\w*Reader\w*|\w*SummaryWriter\w*"
    r"|WriteSummary|.*(Cache|Snapshot|Save|Load)Dataset\w*|.*From(Text)?File\w*|SaveSlices"
    r"|Rpc\w*|.*DataService\w*|Send|Recv|HostSend|HostRecv|Load\w*|\w*Checkpoint\w*"
    r"|(Save|Restore)(V2|Slice)?|Print|Abort|Debug(Identity|N)\w*|Copy(Host)?"
    r"|ImmutableConst|DumpTensor|CalibrationStatisticsSaver|(En|De)codeProto\w*"
    r"|.*(CSV|LMDB|Sql)(Dataset|Reader)\w*|.*DatasetToTFRecord|.*MatchingFiles\w*"
    r"|LMDBReader|TextLineReader\w*|TFRecordReader\w*|Skipgram|GenerateVocabRemapping"
    r"|FixedUnigramCandidateSampler|DistributedSave|.*SnapshotChunk\w*"
    r"|CreateSummary\w*|Write\w+Summary|ImportEvent|RegisterDataset\w*|RemoteCall"
    r"|_(Host)?(Send|Recv)"
)
# What every SavedModel has, to save and restore its own variables.
SAVING = {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}
SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")


def check_operations(directory: Path) -> None:
    """Makes sure that a SavedModel holds no operation that an export never needs.

    Args:
        directory: Folder of the SavedModel.

    Raises:
        ValueError: If it holds one, or cannot be read.
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
    found = sorted({name for graph in model.meta_graphs for name in _refused(graph)})
    if found:
        raise ValueError(
            f"The SavedModel in {directory} is not loaded: it holds the operations "
            f"{found}, which touch files or call programs. Expected arithmetic only, "
            "as `agegender export` writes it."
        )


def _refused(graph: Any) -> Iterator[str]:
    yield from _named(graph.graph_def.node, set())
    for function in graph.graph_def.library.function:
        is_saver = SAVER.fullmatch(function.signature.name)
        yield from _named(function.node_def, SAVING if is_saver else set())
        yield from _saver_calls(function.node_def)


def _saver_calls(nodes: Any) -> Iterator[str]:
    """Yields calls of what just TensorFlow's loader may call."""
    for node in nodes:
        attributes = node.attr.values()
        names = [node.op, *(value.func.name for value in attributes)]
        names += [func.name for value in attributes for func in value.list.func]
        yield from (f"a call of {name}" for name in names if SAVER.fullmatch(name))


def _named(nodes: Any, allowed: set[str]) -> Iterator[str]:
    for node in nodes:
        if REFUSED.fullmatch(node.op) and node.op not in allowed:
            yield node.op

"""
Title: Predict with TensorFlow Serving
Description: Sends photos to an export behind TensorFlow Serving, by REST or gRPC.

    agegender export runs/mine --out saved_models/mine
    docker run --rm -e MODEL_NAME=mine \\
        -p 127.0.0.1:8501:8501 -p 127.0.0.1:8500:8500 \\
        -v "$PWD/saved_models/mine:/models/mine/1:ro" tensorflow/serving
    python pipelines/tf_serving_client.py saved_models/mine photo.jpg other.jpg

    pip install tensorflow-serving-api    # gRPC sends 25% fewer bytes
    python pipelines/tf_serving_client.py saved_models/mine photo.jpg --grpc

Without Python, bytes are base64:

    curl -d "{\\"signature_name\\": \\"photo\\", \\"inputs\\":
        {\\"photo_bytes\\": {\\"b64\\": \\"$(base64 -w0 photo.jpg)\\"}}}" \\
        http://127.0.0.1:8501/v1/models/mine:predict

TensorFlow Serving requires neither Python nor this package: decoding, detection,
network and prediction are in the graph. It returns numbers, whose meaning the client
reads from the export's agegender.json. The client prints one line of JSON per photo,
with the fields of `Predictor` except for `crop_box` and `image_size`, which the graph
does not return. A single photo is sent to the signature `photo`, several to `photos`.
If one of several photos is unreadable, the graph rejects all of them, and the client
sends them one by one. TensorFlow Serving limits neither the size of photos nor access:
put a proxy in front of it that does, or use `agegender serve`.
"""

import argparse
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Outputs = Mapping[str, np.ndarray]
SIGNATURES = {"photo", "photos"}


class RefusedError(ValueError):
    """The graph rejected a batch of photos because it cannot read one of them."""


def signature_of(photos: Sequence[bytes]) -> str:
    return "photo" if len(photos) == 1 else "photos"


class RestClient:
    """Sends photos by REST.

    Args:
        address: Host and port, such as `"localhost:8501"`.
        model: The name under which TensorFlow Serving knows the model.
        timeout: Seconds to wait for a response.
    """

    def __init__(self, address: str, model: str, timeout: float = 60.0) -> None:
        self.url = f"http://{address}/v1/models/{model}:predict"
        self.timeout = timeout

    def outputs(self, photos: Sequence[bytes]) -> Outputs:
        request = urllib.request.Request(
            self.url, rest_request(photos), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return rest_outputs(response.read())
        except urllib.error.HTTPError as error:
            reason = rest_error(error.read())
            if error.code == 400:
                raise RefusedError(reason) from None
            raise ValueError(f"{self.url} answered {error.code}: {reason}") from None
        except OSError as error:
            raise ValueError(f"No response from {self.url}: {error}.") from None


def rest_request(photos: Sequence[bytes]) -> bytes:
    """Returns the body of a request, in TensorFlow Serving's column format."""
    files = [{"b64": base64.b64encode(photo).decode()} for photo in photos]
    signature = signature_of(photos)
    photo_bytes = files[0] if signature == "photo" else files
    request = {"signature_name": signature, "inputs": {"photo_bytes": photo_bytes}}
    return json.dumps(request).encode()


def rest_outputs(body: bytes) -> Outputs:
    """Returns the arrays of a response, floats in the precision of the graph."""
    arrays = {n: np.asarray(v) for n, v in json.loads(body)["outputs"].items()}
    return {
        name: array.astype("float32") if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def rest_error(body: bytes) -> str:
    """Returns the message of an error response, which may not be JSON."""
    text = body.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text


class GrpcClient:
    """Sends photos by gRPC; requires tensorflow-serving-api.

    Args:
        address: Host and port, such as `"localhost:8500"`.
        model: The name under which TensorFlow Serving knows the model.
        timeout: Seconds to wait for a response.
    """

    def __init__(self, address: str, model: str, timeout: float = 60.0) -> None:
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self.address, self.model, self.timeout = address, model, timeout
        # Responses for many photos are larger than gRPC's 4 MB.
        options = [("grpc.max_receive_message_length", -1)]
        channel = grpc.insecure_channel(address, options=options)
        self.service = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def outputs(self, photos: Sequence[bytes]) -> Outputs:
        import grpc
        import tensorflow as tf

        try:
            response = self.service.Predict(
                grpc_request(self.model, photos), timeout=self.timeout
            )
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                raise RefusedError(error.details()) from None
            raise ValueError(
                f"{self.address} answered {error.code().name}: {error.details()}"
            ) from None
        return {
            name: tf.make_ndarray(value) for name, value in response.outputs.items()
        }


def grpc_request(model: str, photos: Sequence[bytes]) -> Any:
    """Returns the `PredictRequest` for photos."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature = signature_of(photos)
    value = photos[0] if signature == "photo" else list(photos)
    request.inputs["photo_bytes"].CopyFrom(tf.make_tensor_proto(value, tf.string))
    return request


def ask(
    client: RestClient | GrpcClient,
    names: Sequence[str],
    photos: Sequence[bytes],
    metadata: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Yields the predictions of photos, in order, in the format of `PhotoPrediction`.

    Args:
        client: Client of the server.
        names: Names of the photos.
        photos: Bytes of their files; at least one.
        metadata: Content of the export's agegender.json.
    """
    try:
        outputs = client.outputs(photos)
    except RefusedError as error:
        if len(photos) > 1:
            for name, photo in zip(names, photos, strict=True):
                yield from ask(client, [name], [photo], metadata)
            return
        reason = " ".join(str(error).split())
        source = {"source": names[0], "status": "unreadable"}
        yield {**source, "faces": [], "reason": reason}
        return
    for name, faces in zip(names, faces_of(outputs, metadata), strict=True):
        status = "ok" if faces else "no_face"
        if metadata["pixels"]["crop"] is None:
            status = "not_cropped"
        yield {"source": name, "status": status, "faces": faces, "reason": ""}


def faces_of(
    outputs: Outputs, metadata: Mapping[str, Any]
) -> list[list[dict[str, Any]]]:
    """Returns the predictions of every face of every photo."""
    from keras_agegender.serving.predictions import face_fields, place_fields

    counts = outputs.get("counts")
    if counts is None:  # of `photo`: a row is a face, not a photo
        outputs = {name: value[np.newaxis] for name, value in outputs.items()}
        counts = [len(outputs["scores"][0])]
    photos = []
    for row, count in enumerate(counts):
        faces = []
        for number in range(count):
            # Rows are padded to equal length.
            face = {n: v[row, number] for n, v in outputs.items() if n != "counts"}
            place = place_fields(face["boxes"], face["boxes"], face["scores"])
            del place["crop_box"]  # the graph does not return it
            faces.append({**place, **face_fields(metadata, face)})
        photos.append(faces)
    return photos


def read_metadata(export: Path) -> dict[str, Any]:
    """Returns an export's agegender.json, if the export detects faces."""
    file = export / "agegender.json"
    if not file.is_file():
        raise ValueError(
            f"File not found: {file}. Expected a folder written by `agegender export`."
        )
    metadata = json.loads(file.read_text("utf-8"))
    if not SIGNATURES <= set(metadata["signatures"]):
        raise ValueError(
            f"The export in {export} does not take photos. Expected the "
            f"signatures {sorted(SIGNATURES)}. Received: {metadata['signatures']}."
        )
    return metadata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2][13:])
    parser.add_argument("model", type=Path, help="the export that is served")
    parser.add_argument("photos", type=Path, nargs="+", help="files of photos")
    parser.add_argument("--name", help="MODEL_NAME of the server [the folder's name]")
    parser.add_argument("--grpc", action="store_true", help="gRPC instead of REST")
    parser.add_argument(
        "--address", help="address of the server [localhost:8501; gRPC: localhost:8500]"
    )
    parser.add_argument("--batch", type=int, default=8, help="photos per request [8]")
    arguments = parser.parse_args()
    if arguments.batch < 1:
        parser.error(f"--batch: expected at least 1. Received: {arguments.batch}.")
    try:
        metadata = read_metadata(arguments.model)
        name = arguments.name or arguments.model.resolve().name
        kind, port = (GrpcClient, 8500) if arguments.grpc else (RestClient, 8501)
        client = kind(arguments.address or f"localhost:{port}", name)
        for first in range(0, len(arguments.photos), arguments.batch):
            files = arguments.photos[first : first + arguments.batch]
            photos = [file.read_bytes() for file in files]
            for prediction in ask(
                client, [str(file) for file in files], photos, metadata
            ):
                print(json.dumps(prediction, ensure_ascii=False), flush=True)
    except (OSError, ValueError, ImportError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()

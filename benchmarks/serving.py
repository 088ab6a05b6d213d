"""How much of a model's rate in batches is left behind HTTP.

    python benchmarks/serving.py [MODEL FOLDER_OF_PHOTOS]

Alternating, on the same photos: `Predictor.predict_many`, and `agegender serve` in a
process of its own, asked by many clients at once in this one. Prints the medians and
their ratio. Needs the extra `serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras_agegender as kag
from keras_agegender.faces.images import encode_jpeg
from keras_agegender.synthetic.drawing import draw_face


async def ask_all(address: str, photos: list[bytes], num_clients: int) -> None:
    """Sends all photos over as many connections; each asks one after the other.

    Clients are bare sockets: they share the machine with the server, and what a whole
    HTTP client takes would be counted against it.
    """
    host, port = address.removeprefix("http://").split(":")
    waiting = iter(photos)

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for photo in waiting:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}"
            writer.write(head.encode() + b"\r\n\r\n" + photo)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not answer.startswith(b"http/1.1 200"):
                raise RuntimeError(answer.decode())
            length = re.search(rb"content-length: (\d+)", answer)
            await reader.readexactly(int(length[1]))
        writer.close()

    await asyncio.gather(*(ask() for _ in range(num_clients)))


def rate(work: Callable[[], object], count: int) -> float:
    """Returns how many of `count` are done in a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def drawn_faces(count: int) -> list[bytes]:
    """Returns JPEG files of drawn faces."""
    return [
        encode_jpeg(draw_face(seed, seed % 8, seed % 2).image) for seed in range(count)
    ]


def main() -> None:
    """Prints both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="default: the released model")
    parser.add_argument("photos", type=Path, nargs="?", help="default: drawn faces")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    model = arguments.model or str(kag.serving.default_model())
    photos = drawn_faces(arguments.count)
    if arguments.photos:
        files = sorted(f for f in arguments.photos.iterdir() if f.is_file())
        photos = [file.read_bytes() for file in files[: arguments.count]]
    command = [sys.executable, "-m", "keras_agegender.cli.main", "serve"]
    server = subprocess.Popen(
        [*command, model, "--port", "0", "--timeout", "600"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        predictor = kag.Predictor(model)
        ways = {
            "predict_many": lambda: predictor.predict_many(photos),
            "server": lambda: asyncio.run(ask_all(address, photos, arguments.clients)),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(arguments.repeats + 1):
            for name, work in ways.items():
                found = rate(work, len(photos))
                if repeat:  # before, all is warmed up
                    rates[name].append(found)
        for name, values in rates.items():
            print(f"{name}: {statistics.median(values):.1f} photos/s of {values}")
        ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
        print(f"ratio: {statistics.median(ratios):.2f} of {ratios}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()

"""How much of a model's rate in batches is left behind HTTP.

    python benchmarks/serving.py MODEL FOLDER_OF_PHOTOS

Alternating, on the same photos: `Predictor.predict_many`, and `agegender serve` in a
process of its own, asked by many clients at once in this one. Prints the medians and
their ratio. Needs the extra `serve` and httpx.
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

import httpx

import keras_agegender as kag


async def ask_all(address: str, photos: list[bytes], num_clients: int) -> None:
    """Sends all photos, every client one after the other."""
    waiting = iter(photos)
    limits = httpx.Limits(
        max_connections=num_clients, max_keepalive_connections=num_clients
    )
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:

        async def ask() -> None:
            for photo in waiting:
                answer = await client.post(f"{address}/predict", content=photo)
                answer.raise_for_status()

        await asyncio.gather(*(ask() for _ in range(num_clients)))


def rate(work: Callable[[], object], count: int) -> float:
    """Returns how many of `count` are done in a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def main() -> None:
    """Prints both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    files = sorted(f for f in arguments.photos.iterdir() if f.is_file())
    photos = [file.read_bytes() for file in files[: arguments.count]]
    command = [sys.executable, "-m", "keras_agegender.cli.main", "serve"]
    server = subprocess.Popen(
        [*command, arguments.model, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        predictor = kag.Predictor(arguments.model)
        ways = {
            "predict_many": lambda: predictor.predict_many(photos),
            "server": lambda: asyncio.run(ask_all(address, photos, arguments.clients)),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(arguments.repeats + 1):
            for name, work in ways.items():
                found = rate(work, len(photos))
                if repeat:  # the first warms up
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

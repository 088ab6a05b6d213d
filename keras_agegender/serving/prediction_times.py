"""How long the steps of a prediction took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PredictionTimes:
    """How long the steps of a prediction took.

    Steps overlap: their seconds may sum up to more than those that passed.

    Attributes:
        num_pictures: Photos, and frames of videos.
        num_faces: Faces answered about.
        seconds: From the first picture to the last answer.
        reading: Seconds of reading and decoding, over all threads.
        detection: Seconds of finding faces.
        cropping: Seconds of cutting faces out.
        network: Seconds of asking the model.
    """

    num_pictures: int = 0
    num_faces: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    detection: float = 0.0
    cropping: float = 0.0
    network: float = 0.0

    def __str__(self) -> str:
        if not self.num_pictures or not self.seconds:
            return "no pictures"
        speeds = [
            f"{name} alone {count / seconds:.1f} {unit}/s"
            for name, count, unit, seconds in (
                ("reading", self.num_pictures, "images", self.reading),
                ("detection", self.num_pictures, "images", self.detection),
                ("cropping", self.num_faces, "faces", self.cropping),
                ("network", self.num_faces, "faces", self.network),
            )
            if count and seconds
        ]
        return f"{self.num_pictures / self.seconds:.1f} images/s ({', '.join(speeds)})"

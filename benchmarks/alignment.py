"""How far the picture at a labeling frame is from the one that is truly on the screen, for each kind of video file.

    python -m benchmarks.alignment [--json FILE]

Every picture shows the moment from which it is on the screen. For each labeling frame f the picture that
`labeling_frames` chooses is read and compared with the one on the screen at (f - 1/2) / frameRate, known from how the
file was made. The table gives the worst difference in labeling frames; 1 is the limit.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.videos import FILE_KINDS, FileKind, read_clock
from video.labeling_frames import labeling_frames
from video.reader import decode

LIMIT = 1.0  # labeling frames


@dataclass(frozen=True)
class Alignment:
    """What was found in one file."""

    file_rate: float
    labeling_rate: float
    num_frames: int
    num_labeling_frames: int
    worst: float  # labeling frames
    broken_frames: int
    truncated: bool


def measure(kind: FileKind, path: Path) -> Alignment:
    """Compare the picture chosen for every labeling frame of a file with the one truly shown."""
    reader = decode(path)
    times, clocks = [], []
    for frame in reader:
        times.append(frame.time)
        clocks.append(read_clock(frame.picture, frame.rotation))
    chosen = labeling_frames(times, reader.duration, kind.labeling_rate)
    errors = [
        abs(clocks[index] - kind.shown((position + 0.5) / kind.labeling_rate)) * kind.labeling_rate
        for position, index in enumerate(chosen)
    ]
    return Alignment(
        file_rate=reader.average_rate,
        labeling_rate=kind.labeling_rate,
        num_frames=len(times),
        num_labeling_frames=len(chosen),
        worst=max(errors),
        broken_frames=reader.broken_frames,
        truncated=reader.truncated,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    arguments = parser.parse_args()
    results = {}
    print("| file | its rate | frameRate | frames | labeling frames | broken | cut off | worst misalignment |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for name, kind in FILE_KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            result = measure(kind, kind.make(Path(folder)))
        results[name] = asdict(result)
        print(
            f"| {name} | {result.file_rate:.4g} | {result.labeling_rate:g} | {result.num_frames} "
            f"| {result.num_labeling_frames} | {result.broken_frames} | {'yes' if result.truncated else 'no'} "
            f"| {result.worst:.2f} |"
        )
    worst = max(result["worst"] for result in results.values())
    print(f"\nWorst of {len(results)} files: {worst:.2f} labeling frames (limit {LIMIT:g}).")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

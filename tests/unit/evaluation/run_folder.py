"""A finished run of two systems whose videos lie in folders: one moves the photo, one shows it and does nothing."""

from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image
from skimage.data import astronaut

from fantasyid.core.video import write_video
from tests.commands import run as run_command

FACE = cv2.resize(astronaut()[20:220, 130:330], (128, 128), interpolation=cv2.INTER_AREA)
NAMES = ("a", "<b>&$1$_")
PROMPTS = ("smile", "left")


def make_run(folder: Path, missing: bool = False) -> Path:
    """Write photos, videos and a config, and run it.

    Args:
        folder: An empty one.
        missing: Whether the last video is not there.

    Returns:
        The folder of the run.
    """
    for name in ("photos", "moving", "frozen"):
        (folder / name).mkdir()
    for index, name in enumerate(NAMES):
        photo = np.ascontiguousarray(FACE[:, :: -1 if index else 1])
        Image.fromarray(photo).save(folder / "photos" / f"{name}.png")
        moved = np.stack([np.roll(photo, shift, axis=1) for shift in (0, 2, 4, 2)])
        for step, prompt in enumerate(PROMPTS):
            # Blurred ones are less alike, so that there is a best and a worst video.
            blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.5 + 2 * step + index) for frame in moved])
            write_video(folder / "moving" / f"{name}_{prompt}_1.mp4", blurred, 8)
            write_video(folder / "frozen" / f"{name}_{prompt}_1.mp4", np.stack([photo] * 4), 8)
    if missing:
        (folder / "frozen" / f"{NAMES[-1]}_{PROMPTS[-1]}_1.mp4").unlink()
    config = {
        "people": {"photos": "photos"},
        "prompts": [{"key": key, "text": f"{{person}} <i>{key}</i>.", "asks": ["expression"]} for key in PROMPTS],
        "seeds": [1],
        "systems": [
            {"name": "moving", "videos": {"folder": "moving"}},
            {"name": "frozen", "videos": {"folder": "frozen"}},
        ],
        "compared_with": "moving",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    result = run_command("evaluate", "run", folder / "run.yaml", "--out", folder / "out")
    assert ("1 of 8 videos failed" in result.stderr) == missing, result.output
    assert result.exit_code == int(missing), result.output
    return folder / "out"

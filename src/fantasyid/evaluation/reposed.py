"""The evaluation's prompts acted out by re-posing the held-out people's photos: ceiling of identity, unit of motion."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fantasyid.core.code_fingerprint import code_fingerprint
from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.old_commands import tell_new_command
from fantasyid.data.precompute import FRAMES
from fantasyid.data.repose.backdrops import COLOURS
from fantasyid.data.repose.programs import PROGRAMS
from fantasyid.data.repose.render import Scene, render
from fantasyid.data.repose.rig import HeadLayers, RigSet
from fantasyid.evaluation.archives import read_arrays
from fantasyid.evaluation.protocol import REPOSED, EvaluationRow, Person, evaluation_rows, frames_made_of, save_frames
from fantasyid.geometry.head_model import HeadModel

_PROGRAM = {"mouth_open": "open_mouth", "mouth_closed": "closed_mouth"}


def scene_of(layers: HeadLayers, rigs: RigSet, rig: int, row: EvaluationRow) -> Scene:
    """What a row asks for, acted out with the photo `rig`; the row's seed draws its strength and timing."""
    rng = np.random.default_rng(row.seed)
    motion = PROGRAMS[_PROGRAM.get(row.prompt_key, row.prompt_key)][1](rng, FRAMES)
    own = np.full(FRAMES, 0.5) if motion.own is None else motion.own
    expression = rigs.expression[rig] * torch.from_numpy(own).float()[:, None]
    for name, curve in motion.expression.items():
        column = layers.head.expression_names.index(name)
        expression[:, column] = torch.maximum(expression[:, column], torch.from_numpy(curve).float())
    colour = next(rgb for name, rgb in COLOURS.items() if f"plain {name} background" in row.prompt)
    index = torch.tensor([rig])
    return Scene(
        rig=index,
        texture=rigs.image[index].float() / 255,
        identity=rigs.identity[index],
        expression=expression[None],
        angles_deg=torch.from_numpy(motion.angles_deg).float()[None],
        zoom=torch.ones(1, FRAMES),
        shift=torch.zeros(1, FRAMES, 2),
        light=torch.zeros(1, 3),
        gain=torch.ones(1, 3),
        background=torch.tensor(colour).float().div(255).view(1, 3, 1, 1),
    )


def repose(people: Sequence[Person], rigs_file: Path, out: Path) -> None:
    """Write the frames of all rows of `REPOSED`; those are kept that the same code made of the same rigs.

    Args:
        people: From `read_people`.
        rigs_file: File of `fantasyid data rigs` for the split val.
        out: Folder of frames.

    Raises:
        InvalidRequestError: A person's photo is not in the rigs.
    """
    head = HeadModel.load()
    layers = HeadLayers.build(head)
    rigs = RigSet.load(rigs_file, layers)
    ids = read_arrays(rigs_file, ("ids",), "rigs", "make it again with `fantasyid data rigs`")["ids"]
    place = {photo: index for index, photo in enumerate(ids.tolist())}
    digest = hashlib.sha256(rigs_file.read_bytes() + head.coefficients_hash.encode())
    digest.update(code_fingerprint(__name__).encode())
    for row in tqdm(list(evaluation_rows(tuple(people), (REPOSED,)))):
        photo = Path(row.person.photo).stem
        if photo not in place:
            raise InvalidRequestError(f"The photo {photo} is not in {rigs_file}; leave its person out or prepare it.")
        made_of = hashlib.sha256(f"{digest.hexdigest()} {row}".encode()).hexdigest()
        if frames_made_of(out / row.file) != made_of:
            with torch.no_grad():
                frames = render(layers, rigs, scene_of(layers, rigs, place[photo], row), supersample=1).frames[0]
            pixels = (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
            save_frames(out / row.file, pixels, fps=8, made_of=made_of)


if __name__ == "__main__":
    tell_new_command("fantasyid.evaluation.reposed", "fantasyid evaluate reposed")

"""Every edit of a head at -1, 0 and +1 on one sheet: of the average head, or of the person in a photo.

python examples/sheet_of_edits.py edits.png
python examples/sheet_of_edits.py edits.png --photo photo.jpg
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.output_files import check_outputs, write_together
from fantasyid.face.reader import FaceReader
from fantasyid.geometry.edit_table import EDIT_NAMES
from fantasyid.geometry.edits import HeadEditor
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.pictures import part_colours, turntable


def main() -> None:
    """Parse the command line, edit the head, draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write, .png")
    parser.add_argument("--photo", type=Path, help="whose head; the average head by default")
    parser.add_argument("--height", type=int, default=200, help="pixels of a head from crown to collar")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options = parser.parse_args()
    check_outputs([options.out], overwrite=options.overwrite)

    model = HeadModel.load()
    vertices, topology_hash = model.mean, model.topology.hash
    if options.photo is not None:
        head = FaceReader(load_component(MINI_FOLDER, "face_reader_model")).read(options.photo).head
        vertices, topology_hash = head.vertices, head.topology_hash
    editor, colours = HeadEditor(model), part_colours(model)

    size = options.height
    rows = slice(round(0.2 * size), round(0.86 * size))
    sides = {0.0: slice(round(0.15 * size), round(0.75 * size)), 45.0: slice(round(0.2 * size), round(0.8 * size))}
    tiles = []
    for name in EDIT_NAMES:
        heads = [editor.edit(vertices, topology_hash, {name: strength}) for strength in (-1.0, 0.0, 1.0)]
        faces = np.concatenate(
            [
                turntable(head, model.triangles, colours, [yaw], size)[rows, columns]
                for yaw, columns in sides.items()
                for head in heads
            ],
            axis=1,
        )
        tile = Image.new("RGB", (faces.shape[1], faces.shape[0] + 24), "white")
        tile.paste(Image.fromarray(faces), (0, 24))
        words = f"{name}: -1, 0, +1"
        ImageDraw.Draw(tile).text((6, 3), words, fill="black", font=ImageFont.load_default(15))
        tiles.append(np.asarray(tile))
    half = len(tiles) // 2
    sheet = np.concatenate([np.concatenate(tiles[:half]), np.concatenate(tiles[half:])], axis=1)
    with write_together([options.out], overwrite=options.overwrite) as (made,):
        Image.fromarray(sheet).convert("L").save(made, optimize=True)


if __name__ == "__main__":
    main()

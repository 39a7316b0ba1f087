"""People who do not exist: heads whose coefficients are drawn from a unit Gaussian, the average head first.

python examples/sheet_of_heads.py heads.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fantasyid.core.output_files import check_outputs, write_together
from fantasyid.geometry.head_model import HeadModel
from fantasyid.geometry.pictures import part_colours, turntable

COLUMNS, ROWS = 16, 4


def main() -> None:
    """Parse the command line, draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write, .png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options = parser.parse_args()
    check_outputs([options.out], overwrite=options.overwrite)

    model = HeadModel.load()
    identity = torch.randn(
        COLUMNS * ROWS, len(model.identity_basis), generator=torch.Generator().manual_seed(options.seed)
    )
    identity[0] = 0
    heads = model.shape(identity, torch.zeros(len(identity), len(model.expression_names)))
    tiles = [turntable(head, model.triangles, part_colours(model), [0.0], 128)[8:116, 16:112] for head in heads]
    rows = [np.concatenate(tiles[start : start + COLUMNS], 1) for start in range(0, len(tiles), COLUMNS)]
    with write_together([options.out], overwrite=options.overwrite) as (made,):
        Image.fromarray(np.concatenate(rows)).convert("L").save(made, optimize=True)


if __name__ == "__main__":
    main()

"""The neutral 3D head of the person in a photo, as an .obj file in centimetres.

python examples/shape_of_a_face.py photo.jpg head.obj
"""

import argparse
from pathlib import Path

from fantasyid.checkpoints.builtin import MINI_FOLDER, load_component
from fantasyid.core.output_files import check_outputs, write_together
from fantasyid.face.reader import FaceReader
from fantasyid.geometry.head_model import HeadModel


def main() -> None:
    """Parse the command line, read the photo, write the head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("out", type=Path, help="head to write, .obj")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options = parser.parse_args()
    check_outputs([options.out], overwrite=options.overwrite)

    head = FaceReader(load_component(MINI_FOLDER, "face_reader_model")).read(options.photo).head
    vertices = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in head.vertices.tolist()]
    faces = [f"f {a} {b} {c}" for a, b, c in (HeadModel.load().triangles + 1).tolist()]
    with write_together([options.out], overwrite=options.overwrite) as (made,):
        made.write_text("\n".join([*vertices, *faces]) + "\n", encoding="utf-8")
    pose = head.pose
    print(f"In the photo: yaw {pose.yaw_deg:.0f}, pitch {pose.pitch_deg:.0f}, roll {pose.roll_deg:.0f} degrees.")  # noqa: T201


if __name__ == "__main__":
    main()

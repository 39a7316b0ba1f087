"""Formats that strangers' files come in: whole files to begin with, and how the product reads one."""

import io
import json
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import safetensors.torch
import torch
from PIL import Image
from scipy.sparse import csc_matrix

from fantasyid.core.checkpoint import load_packed, save_packed
from fantasyid.core.errors import CorruptWeightsError
from fantasyid.core.imaging import read_photo
from fantasyid.core.mesh_files import write_mesh
from fantasyid.core.torch_files import load_torch_file
from fantasyid.core.video import read_video, write_video
from fantasyid.geometry.array_pickle import load_array_pickle
from fantasyid.geometry.flame import FlameModel
from fantasyid.geometry.head_files import read_head
from fantasyid.geometry.spirals import released_spiral_indices
from fantasyid.geometry.topology import MeshTopology
from fantasyid.geometry.transform_pickle import load_transform_pickle
from tests.flame_files import flame_arrays

_GOLDEN_PICKLES = Path(__file__).parents[1] / "golden" / "pickles"


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: What the command line calls it.
        suffix: How its files' names end.
        seeds: Makes whole files, some kB each; the same in every run.
        read: Reads a file as the product does; raises FantasyIDError where it refuses.
        text: Whether its files are lines of text.
    """

    name: str
    suffix: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    text: bool = False


def _array_pickles() -> list[bytes]:
    return [path.read_bytes() for path in sorted(_GOLDEN_PICKLES.glob("*.pkl"))]


def _flame_content() -> dict[str, object]:
    """FLAME with few vertices and in half precision, so that it is small."""
    arrays, kept = flame_arrays(), 14
    arrays = {name: arrays[name][:kept] if name in _PER_VERTEX else arrays[name] for name in arrays}
    arrays["J_regressor"] = csc_matrix(arrays["J_regressor"][:, :kept])
    arrays["f"] = np.array([[0, 1, 12], [1, 13, 12]], np.uint32)
    halves = {name: arrays[name].astype(np.float16) for name in ("shapedirs", "posedirs")}
    return {**arrays, **halves}


_PER_VERTEX = ("v_template", "shapedirs", "posedirs", "weights")


def _flame_pickles() -> list[bytes]:
    return [pickle.dumps(_flame_content(), protocol) for protocol in (2, 4)]


def _flame_archives() -> list[bytes]:
    arrays = _flame_content()
    stored, compressed = io.BytesIO(), io.BytesIO()
    dense = {**arrays, "J_regressor": arrays["J_regressor"].toarray()}
    np.savez(stored, **dense)
    np.savez_compressed(compressed, **dense)
    return [stored.getvalue(), compressed.getvalue()]


def _read_flame(path: Path) -> object:
    flame = FlameModel.load(path)
    return flame.topology.hash, flame.shaped(torch.zeros(1, 300))


def _hierarchy_pickles() -> list[bytes]:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0.2]])
    fine, coarse = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]), np.array([[0, 1, 2], [0, 2, 3]])
    levels = {
        "vertices": [square, square[:4], square[:3]],
        "face": [triangles.astype(np.uint32) for triangles in (fine, coarse, coarse[:1])],
        "down_transform": [csc_matrix(np.eye(4, 5, dtype=np.float32)), csc_matrix(np.eye(3, 4, dtype=np.float32))],
        "up_transform": [
            csc_matrix(np.eye(5, 4, dtype=np.float32) + np.eye(5, 4, -4, dtype=np.float32) / 2),
            csc_matrix(np.eye(4, 3, dtype=np.float32)),
        ],
    }
    return [pickle.dumps(levels, protocol) for protocol in (0, 2, 4, 5)]


def _read_hierarchy(path: Path) -> object:
    """As `released.convert.released_hierarchy`, whose imports would take most of the time and memory measured."""
    transform = load_transform_pickle(path)
    try:
        return [
            released_spiral_indices(MeshTopology(triangles, len(vertices)), vertices, 9)
            for triangles, vertices in zip(transform.triangles, transform.vertices, strict=True)
        ]
    except ValueError as error:
        raise CorruptWeightsError(f"The mesh hierarchy cannot be used ({error}).") from error


def _torch_files() -> list[bytes]:
    layer = torch.nn.Linear(3, 2)
    shared = torch.arange(6.0)
    content = {
        "E_flame": layer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "shared": [shared, shared[2:], shared.view(2, 3).t()],
        "types": [torch.zeros(2, dtype=dtype) for dtype in (torch.bool, torch.int8, torch.bfloat16, torch.int64)],
        "opt": {"state": {0: {"step": 7}}, "lr": 1e-4},
        "epoch": 3,
    }
    files = []
    for archive in (True, False):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=archive)
        files.append(file.getvalue())
    return files


def _meshes(suffix: str) -> list[bytes]:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0.5], [0, 1, -1e-3]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mesh{suffix}"
        write_mesh(path, vertices, triangles)
        whole = path.read_bytes()
    if suffix == ".obj":
        return [whole, b"o A\nv 0 0 0\nv 1 0 0\nv 1 1 0\nusemtl a\nf 1/1/1 2/1/1 3/1/1\nusemtl b\nf -1 -2 -3\n"]
    text = (
        b"ply\nformat ascii 1.0\ncomment TextureFile a.png\nelement vertex 4\nproperty float x\nproperty float y\n"
        b"property float z\nproperty uchar red\nelement face 2\nproperty list uchar int vertex_indices\nend_header\n"
        b"0 0 0 1\n1 0 0 2\n1 1 0.5 3\n0 1 0 4\n3 0 1 2\n4 0 1 2 3\n"
    )
    return [whole, text]


@cache
def _packed() -> tuple[bytes, bytes]:
    """A manifest and its shard."""
    generator = torch.Generator().manual_seed(0)
    state = {"linear.weight": torch.randn(64, 64, generator=generator), "linear.bias": torch.zeros(64)}
    state |= {"halves": torch.randn(4, generator=generator).half(), "spiral": torch.arange(6).view(2, 3)}
    with tempfile.TemporaryDirectory() as folder:
        manifest = save_packed(state, folder, "net", model_class="Net", config={"dim": 64, "levels": [1, 2]})
        net = Path(folder) / "net"
        return (net / "manifest.json").read_bytes(), (net / manifest.shards[0].file).read_bytes()


def _read_manifest(path: Path) -> object:
    """The file as the manifest beside a whole shard."""
    folder = path.parent / "net"
    folder.mkdir(exist_ok=True)
    manifest, shard = _packed()
    (folder / "manifest.json").write_bytes(path.read_bytes())
    (folder / json.loads(manifest)["shards"][0]["file"]).write_bytes(shard)
    return load_packed(path.parent, "net")


def _read_shard(path: Path) -> object:
    """The file as a shard, with a manifest whose hash and size are right."""
    folder = path.parent / "net"
    folder.mkdir(exist_ok=True)
    content, manifest = path.read_bytes(), json.loads(_packed()[0])
    manifest["shards"][0] |= {"sha256": sha256(content).hexdigest(), "size_bytes": len(content)}
    (folder / manifest["shards"][0]["file"]).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return load_packed(path.parent, "net")


def _photos() -> list[bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))
    tagged = Image.Exif()
    tagged[274] = 6
    kinds = {"JPEG": picture, "PNG": picture.convert("RGBA"), "WEBP": picture, "TIFF": picture, "GIF": picture}
    kinds |= {"BMP": picture.convert("P"), "PPM": picture.convert("L")}
    files = []
    for kind, image in kinds.items():
        file = io.BytesIO()
        image.save(file, kind, **({"exif": tagged} if kind in ("JPEG", "PNG", "TIFF") else {}))
        files.append(file.getvalue())
    return files


def _videos() -> list[bytes]:
    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 48, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, 8, {"title": "four frames"})
        files = [path.read_bytes()]
    for container, codec in (("matroska", "mpeg4"), ("avi", "mpeg4")):
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(codec, rate=8)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for frame in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            output.mux(stream.encode(None))
        files.append(file.getvalue())
    return files


FORMATS = {
    made.name: made
    for made in (
        Format("pickle", ".pkl", _array_pickles, lambda path: load_array_pickle(path, "get another")),
        Format("flame", ".pkl", _flame_pickles, _read_flame),
        Format("flame-npz", ".npz", _flame_archives, _read_flame),
        Format("hierarchy", ".pkl", _hierarchy_pickles, _read_hierarchy),
        Format("torch", ".pt", _torch_files, load_torch_file),
        Format("ply", ".ply", lambda: _meshes(".ply"), read_head),
        Format("obj", ".obj", lambda: _meshes(".obj"), read_head, text=True),
        Format("manifest", ".json", lambda: [_packed()[0]], _read_manifest, text=True),
        Format("safetensors", ".safetensors", lambda: [_packed()[1], safetensors.torch.save({})], _read_shard),
        Format("photo", ".jpg", _photos, read_photo),
        Format("video", ".mp4", _videos, read_video),
    )
}

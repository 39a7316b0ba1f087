"""The authors' released checkpoint, converted from the folder they publish to one that `from_pretrained` reads.

Layout of theirs, as their README downloads it: `transformer_ema` or `transformer`, `vae`, `text_encoder`, `tokenizer`,
`scheduler`, `face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt`. The mesh, `assets/transform.pkl`, lies beside their code.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from huggingface_hub import constants
from scipy.sparse import csr_matrix
from torch import Tensor
from tqdm import tqdm

from fantasyid.checkpoints.folders import CLASSES, check_vocabulary, load_component_folder
from fantasyid.checkpoints.full_size import load_eva_clip, missing_weights
from fantasyid.checkpoints.released.manifest import MANIFEST, ConversionManifest, check_conversion, write_manifest
from fantasyid.checkpoints.released.weights import build_released
from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingWeightsError
from fantasyid.core.json_files import read_json, refuse_lfs_pointer
from fantasyid.core.network_folder import check_finite
from fantasyid.core.output_files import check_outputs, check_room, link_or_copy, write_together
from fantasyid.core.safetensors_files import load_safetensors
from fantasyid.core.torch_files import load_torch_file
from fantasyid.geometry.spirals import released_spiral_indices
from fantasyid.geometry.topology import MeshTopology
from fantasyid.geometry.transform_pickle import TransformPickle, load_transform_pickle

RELEASE_NAME = "acvlab/FantasyID"
RELEASE_REMEDY = (
    f"the whole release has about 25 GB; get it with: hf download {RELEASE_NAME} --local-dir RELEASED_DIR, "
    "then: fantasyid convert RELEASED_DIR OUT_DIR"
)
MESH_FILE = Path("assets/transform.pkl")
MESH_URL = (
    "https://raw.githubusercontent.com/Fantasy-AMAP/fantasy-id/"
    "c4290929b77ae2fd838440e1a4004331abfd8705/assets/transform.pkl"
)
MESH_SIZE_MB = 0.9
MESH_SHA256 = "e8dcbc25e8c22fd35b9465c5bdee4c474d08c69047b17ee22dbd01c4858a212e"
NUM_LEVELS = 3
"""Levels of the mesh that the checkpoint uses; the file has five."""
SPIRAL_LENGTH = 9
PIPELINE_CONFIG = {
    "guidance_drops_identity": False,
    "default_num_inference_steps": 50,
    "default_guidance_scale": 6.0,
    "fps": 8,
    "keep_expression_and_pose": True,
}
"""What the authors' scripts ask of their pipeline; its heads keep the photo's expression and pose."""

_TAKEN_OVER = ("tokenizer", "text_encoder", "vae", "scheduler")
_EVA = "face_encoder/EVA02_CLIP_L_336_psz14_s6B.pt"
_PARTS = {
    "vae/config.json": "the video VAE, 0.4 GB",
    "text_encoder/config.json": "the T5 text encoder, 9.5 GB",
    "tokenizer/tokenizer_config.json": "the tokenizer of T5, 1 MB",
    "scheduler/scheduler_config.json": "the noise schedule, 1 KB",
    _EVA: "the face vision net EVA02-CLIP-L/14-336, 0.9 GB",
}
_COMPONENTS = {
    "tokenizer": ("transformers", "T5Tokenizer"),
    "text_encoder": ("transformers", "T5EncoderModel"),
    "vae": ("diffusers", "AutoencoderKLCogVideoX"),
    "transformer": ("fantasyid.models.transformer", "FantasyIDTransformer3DModel"),
    "scheduler": ("diffusers", "CogVideoXDPMScheduler"),  # infer.py takes it, whatever scheduler_config.json names
    "identity_encoder": ("fantasyid.models.released", "ReleasedIdentityEncoder"),
    "face_vision": ("fantasyid.models.eva_vision", "EvaVisionModel"),
}


def convert_release(source: Path, target: Path, mesh: Path | None = None) -> ConversionManifest:
    """Convert the authors' release, or check a conversion that is there already.

    What stays as it is (T5 and its tokenizer, VAE, schedule) is read whole before anything is written. The target
    appears only when it is whole, and what a killed conversion left beside it is removed. Files that stay as they are,
    are hard links where the file system allows, else copies. Where two conversions make one target at once, the first
    to finish makes it and the other checks it.

    Args:
        source: The release.
        target: Folder to make; one that holds a conversion is checked file by file.
        mesh: The authors' transform.pkl; `assets/transform.pkl` of the release when None.

    Returns:
        What is in the target.

    Raises:
        MissingWeightsError: A file of the release is not there, or a Git LFS pointer is in its place; the message names
            it, its size and how to get it.
        CorruptWeightsError: A file is damaged or a link out of the release, or has weights that are not finite or that
            this version does not know.
        InvalidRequestError: The target is something else, or the disk is too small.
    """
    if target.exists():
        if not (target / MANIFEST).is_file():
            raise InvalidRequestError(f"{target} exists and is no conversion; choose another folder, or remove it.")
        return check_conversion(target)
    mesh = source / MESH_FILE if mesh is None else mesh
    transformer = _check_release(source, mesh)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        check_outputs([target], overwrite=False)
        _check_space(source, transformer, target.parent)
        with write_together([target], overwrite=False) as (folder,):
            return _convert(source, transformer, mesh, folder)
    except (InvalidRequestError, OSError):
        if not (target / MANIFEST).is_file():
            raise
        return check_conversion(target)  # another process put it there meanwhile


def converted_from_hub(snapshot: Path, local_files_only: bool = False) -> Path:
    """The conversion of a downloaded release; made beside it in the Hub's cache the first time.

    Args:
        snapshot: The release as `huggingface_hub.snapshot_download` gives it.
        local_files_only: Whether the mesh may not be downloaded.

    Returns:
        Folder of the conversion.

    Raises:
        FantasyIDError: It cannot be converted, or the conversion lost files since; see `convert_release`.
    """
    target = snapshot.parents[1] / "fantasyid" / snapshot.name
    if target.exists():
        return target
    mesh = snapshot / MESH_FILE
    if not mesh.is_file():
        mesh = _fetch_mesh(target.parent, local_files_only)
    convert_release(snapshot, target, mesh)
    return target


def released_hierarchy(heads: TransformPickle) -> dict[str, Any]:
    """Turn the authors' mesh hierarchy into what their identity encoder was trained with.

    Args:
        heads: Their transform.pkl; its finest `NUM_LEVELS` levels are used.

    Returns:
        Arguments of `ReleasedIdentityEncoder.set_hierarchy`.

    Raises:
        CorruptWeightsError: A mesh is not manifold, or a vertex is mixed from more than three.
    """
    if len(heads.vertices) < NUM_LEVELS:
        raise CorruptWeightsError(
            f"The mesh hierarchy has {len(heads.vertices)} levels and needs {NUM_LEVELS}; take the one at {MESH_URL}."
        )
    steps = NUM_LEVELS - 1
    meshes = [
        MeshTopology(triangles, len(vertices))
        for triangles, vertices in zip(heads.triangles[:steps], heads.vertices[:steps], strict=True)
    ]
    try:
        spirals = [
            released_spiral_indices(mesh, vertices, SPIRAL_LENGTH)
            for mesh, vertices in zip(meshes, heads.vertices[:steps], strict=True)
        ]
    except ValueError as error:
        raise CorruptWeightsError(
            f"The mesh hierarchy cannot be used ({error}); take the one at {MESH_URL}."
        ) from error
    return {
        "spirals": [torch.from_numpy(spiral) for spiral in spirals],
        "down": [_pooling(matrix) for matrix in heads.down[:steps]],
        "up": [_pooling(matrix) for matrix in heads.up[:steps]],
        "topology_hash": meshes[0].hash,
    }


def is_release(folder: Path) -> bool:
    """Whether a folder is laid out as the authors publish theirs."""
    config = _transformer_folder(folder) / "config.json"
    return config.is_file() and "is_train_face" in read_json(config)


def _convert(source: Path, transformer: Path, mesh: Path, folder: Path) -> ConversionManifest:
    """Make a conversion in a new folder."""
    with tqdm(total=5, desc="Converting", unit="part", disable=None) as progress:
        heads = load_transform_pickle(mesh)
        hierarchy = released_hierarchy(heads)
        levels = tuple(len(level) for level in heads.vertices[:NUM_LEVELS])
        config = read_json(transformer / "config.json", RELEASE_REMEDY)
        networks = build_released(_read_weights(transformer), config, levels, SPIRAL_LENGTH)
        check_finite(networks.transformer, str(transformer), RELEASE_REMEDY)
        networks.transformer.save_pretrained(folder / "transformer", max_shard_size="5GB")
        progress.update()
        networks.identity_encoder.set_hierarchy(**hierarchy)
        check_finite(networks.identity_encoder, str(transformer), RELEASE_REMEDY)
        networks.identity_encoder.save_pretrained(folder / "identity_encoder")
        progress.update()
        face_vision = load_eva_clip(source / _EVA)
        check_finite(face_vision, str(source / _EVA), RELEASE_REMEDY)
        face_vision.save_pretrained(folder / "face_vision")
        progress.update()
        for name in _TAKEN_OVER:
            shutil.copytree(source / name, folder / name, copy_function=link_or_copy)
        progress.update()
        _write_configs(source, folder)
        manifest = write_manifest(folder, networks.ignored_config)
        progress.update()
    return manifest


def _transformer_folder(source: Path) -> Path:
    """The authors' code takes the averaged weights where there are both."""
    averaged = source / "transformer_ema"
    return averaged if averaged.is_dir() else source / "transformer"


def _check_release(source: Path, mesh: Path) -> Path:
    """Refuse a release that lacks files, all named at once, or has unusable ones; returns the transformer's folder."""
    transformer = _transformer_folder(source)
    missing = [f"{path} ({what})" for path, what in _PARTS.items() if not (source / path).is_file()]
    if not (transformer / "config.json").is_file() or missing_weights(transformer):
        missing.append(f"{transformer.name} (the video transformer, 13 GB)")
    for name in ("vae", "text_encoder"):
        if (source / name / "config.json").is_file():
            missing += [f"{name}/{file.name}" for file in missing_weights(source / name)]
    if missing:
        raise MissingWeightsError(f"{source} is not the whole release; it lacks {', '.join(missing)}. {RELEASE_REMEDY}")
    if not mesh.is_file():
        raise MissingWeightsError(
            f"There is no mesh hierarchy {mesh} (0.9 MB); get {MESH_URL}, and pass it with --mesh or put it there."
        )
    for folder in (transformer, source / _EVA, *(source / name for name in _TAKEN_OVER)):
        for path in _walk(source, folder):
            refuse_lfs_pointer(path)
    refuse_lfs_pointer(mesh)
    parts = {name: load_component_folder(source / name, CLASSES[name][_COMPONENTS[name]]) for name in _TAKEN_OVER}
    check_vocabulary(source, parts["tokenizer"], parts["text_encoder"])
    return transformer


def _walk(source: Path, path: Path) -> Iterator[Path]:
    """All files of a part of the release; links out of the release are refused, the Hub's own cache excepted."""
    real = source.resolve()
    inside = [real]
    if real.parent.name == "snapshots":
        inside.append(real.parents[1] / "blobs")
    found = path.resolve()
    if not any(found.is_relative_to(folder) for folder in inside):
        raise CorruptWeightsError(
            f"{path} is a link to {found}, out of the release, and is not followed; copy the file there instead."
        )
    if path.is_file():
        yield path
    elif path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(source, child)
    else:
        raise CorruptWeightsError(f"{path} is neither a file nor a plain folder; copy there what it stands for.")


def _check_space(source: Path, transformer: Path, parent: Path) -> None:
    """Refuse a disk without room for what will be written; unchanged files are links on the same disk."""
    written = [transformer, source / "face_encoder"]
    if source.stat().st_dev != parent.stat().st_dev:
        written += [source / "text_encoder", source / "vae"]
    needed = sum(file.stat().st_size for folder in written for file in folder.iterdir() if file.is_file())
    check_room(parent, needed, "The conversion")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of the transformer's folder; files take precedence as in the authors' code."""
    pickled, single = folder / "diffusion_pytorch_model.bin", folder / "diffusion_pytorch_model.safetensors"
    if pickled.is_file():
        return load_torch_file(pickled)
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_safetensors(file, "Download it again.").items()}


def _pooling(matrix: csr_matrix) -> tuple[Tensor, Tensor]:
    """Rows of a sparse matrix as three indices and three weights each, filled up with zeros."""
    counts = np.diff(matrix.indptr)
    if counts.max() > 3:
        raise CorruptWeightsError(
            f"The mesh hierarchy mixes a vertex from {counts.max()} others and at most 3 can be; "
            f"take the one at {MESH_URL}."
        )
    rows = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(len(rows)) - matrix.indptr[rows]
    indices, weights = np.zeros((len(counts), 3), np.int64), np.zeros((len(counts), 3), np.float32)
    indices[rows, columns], weights[rows, columns] = matrix.indices, matrix.data
    return torch.from_numpy(indices), torch.from_numpy(weights)


def _write_configs(source: Path, folder: Path) -> None:
    """The small files that differ from the release's."""
    # Their pipeline multiplies the reference latent by the scaling factor, whatever the VAE's config says.
    vae = read_json(source / "vae" / "config.json", RELEASE_REMEDY)
    (folder / "vae" / "config.json").unlink()
    _write_json(folder / "vae" / "config.json", {**vae, "invert_scale_latents": False})
    index = {"_class_name": "FantasyIDPipeline", "_diffusers_version": diffusers.__version__, **PIPELINE_CONFIG}
    _write_json(folder / "model_index.json", {**index, **_COMPONENTS})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def find_released_mesh(cache: Path | None = None) -> Path:
    """Look for the released checkpoint's mesh in the Hub's cache; nothing is downloaded.

    Args:
        cache: The cache's folder; None takes the usual one.

    Returns:
        The file, in the release or where `converted_from_hub` puts it.

    Raises:
        MissingWeightsError: It is not there.
    """
    folder = Path(constants.HF_HUB_CACHE if cache is None else cache) / f"models--{RELEASE_NAME.replace('/', '--')}"
    places = [*folder.glob(f"snapshots/*/{MESH_FILE}"), folder / "fantasyid" / MESH_FILE.name]
    for path in places:
        if path.is_file():
            return path
    raise MissingWeightsError(
        f"The released checkpoint's mesh is not in the Hugging Face cache; `--model {RELEASE_NAME}` downloads it, or "
        f"download {MESH_URL} ({MESH_SIZE_MB} MB) and put it at {places[-1]}."
    )


def _fetch_mesh(folder: Path, local_files_only: bool) -> Path:
    """Download the mesh from the authors' code repository, which the release on the Hub lacks, and check its hash."""
    path = folder / MESH_FILE.name
    if path.is_file():
        return path
    remedy = f"download {MESH_URL} (0.9 MB) and put it at {path}"
    if local_files_only:
        raise MissingWeightsError(f"The released checkpoint's mesh is not here, and local_files_only is set; {remedy}.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with write_together([path], overwrite=True) as (made,):
            torch.hub.download_url_to_file(MESH_URL, str(made), hash_prefix=MESH_SHA256, progress=False)
    except (OSError, RuntimeError) as error:
        raise MissingWeightsError(f"The released checkpoint's mesh cannot be had ({error}); {remedy}.") from error
    return path

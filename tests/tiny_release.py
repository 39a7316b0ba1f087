"""The authors' release at a tiny size: the folder layout of the real one, weights drawn from their names.

`tests/golden/released.json` and `released.npz` hold what the authors' own code made of these weights and inputs; see
docs/released-checkpoint.md.
"""

import json
import pickle
import string
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from scipy.sparse import csc_matrix
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from fantasyid.models.eva_vision import EvaVisionModel
from tests.eva_clip import visual_shapes
from tests.tiny_pipeline import SCHEDULER_CONFIG, tiny_vae

GOLDEN = Path(__file__).parent / "golden"
TRANSFORMER_CONFIG: dict[str, Any] = {
    "_class_name": "IDTransformer3DModel",
    "_diffusers_version": "0.31.0",
    "num_attention_heads": 6,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 12,
    "text_embed_dim": 20,
    "num_layers": 3,
    "sample_width": 90,
    "sample_height": 60,
    "sample_frames": 9,
    "patch_size": 10,
    "max_text_seq_length": 16,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
    "is_train_face": True,
    "is_kps": False,
    "cross_attn_interval": 1,
    "LFE_num_tokens": 32,
    "LFE_output_dim": 768,
    "LFE_heads": 12,
    "local_face_scale": 1.0,
}
EVA_WIDTH, EVA_GRID, EVA_PATCH, EVA_BLOCKS = 64, 8, 2, 21
LEVELS = (106, 31, 12)
PROMPT = "a man smiles"


def named_noise(name: str, *shape: int) -> Tensor:
    """Gaussian numbers drawn from a name, the same on every machine."""
    numbers = np.random.default_rng(crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(numbers, dtype=np.float32))


def released_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight drawn from its name: gains about one, biases about zero, matrices that keep variance."""
    noise = named_noise(name, *shape)
    if len(shape) == 1:
        return 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
    if shape[0] == 1:
        return 0.5 * noise
    return noise / np.sqrt(np.prod(shape[1:]))


def released_weights() -> dict[str, Tensor]:
    """All weights of the authors' transformer at the tiny size."""
    shapes = json.loads((GOLDEN / "released.json").read_text())["weights"]
    return {name: released_weight(name, tuple(shape)) for name, shape in shapes.items()}


def draw_weights(model: Any) -> Any:
    """Give a model weights drawn from their names."""
    for name, tensor in model.state_dict().items():
        tensor.copy_(released_weight(name, tuple(tensor.shape)))
    return model


def grid_triangles(rows: int, columns: int) -> NDArray[np.int64]:
    """A sheet of rows x columns vertices, counter-clockwise."""
    corner = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (x.reshape(-1) for x in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    return np.stack([np.stack([a, b, c], 1), np.stack([a, c, d], 1)], 1).reshape(-1, 3)


def tiny_transform() -> dict[str, Any]:
    """A mesh hierarchy as COMA's code pickles it: sheets, and on the two finer levels an octahedron beside them."""
    octahedron = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    faces = [
        np.concatenate([grid_triangles(10, 10), octahedron + 100]),
        np.concatenate([grid_triangles(5, 5), octahedron + 25]),
        grid_triangles(3, 4),
    ]
    vertices = [0.1 * named_noise(f"vertices {level}", count, 3).numpy() for level, count in enumerate(LEVELS)]
    down, up = [], []
    for level, (fine, coarse) in enumerate(pairwise(LEVELS)):
        rng = np.random.default_rng(level)
        kept = np.sort(rng.choice(fine, coarse, replace=False))
        down.append(csc_matrix((np.ones(coarse, np.float32), (np.arange(coarse), kept)), (coarse, fine)))
        corners = np.stack([rng.choice(coarse, 3, replace=False) for _ in range(fine)])
        weights = rng.dirichlet([1, 1, 1], fine) * 1.5 - 1 / 6
        rows = np.repeat(np.arange(fine), 3)
        up.append(csc_matrix((weights.reshape(-1).astype(np.float32), (rows, corners.reshape(-1))), (fine, coarse)))
    return {
        "vertices": [level.astype(np.float64) for level in vertices],
        "face": [level.astype(np.uint32) for level in faces],
        "down_transform": down,
        "up_transform": up,
    }


def eva_weights() -> dict[str, Tensor]:
    """EVA02-CLIP's checkpoint, tiny, with a block and a text tower that nothing reads."""
    shapes = visual_shapes(EVA_WIDTH, 32, EVA_BLOCKS, EVA_GRID, EVA_PATCH, out=8)
    weights = {f"visual.{name}": released_weight(name, shape) for name, shape in shapes.items()}
    return {**weights, "logit_scale": torch.tensor(4.6), "text.token_embedding.weight": torch.zeros(4, 4)}


def write_base(folder: Path) -> None:
    """What the release takes over from CogVideoX-5B-I2V: scheduler, VAE, T5 and its tokenizer, tiny."""
    CogVideoXDDIMScheduler(**SCHEDULER_CONFIG).save_pretrained(folder / "scheduler")
    draw_weights(tiny_vae()).save_pretrained(folder / "vae")
    config = T5Config(vocab_size=32, d_model=20, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    draw_weights(T5EncoderModel(config)).save_pretrained(folder / "text_encoder")
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(letter, -3.0) for letter in string.ascii_lowercase]
    T5Tokenizer(vocab=specials + letters, extra_ids=0).save_pretrained(folder / "tokenizer")


def write_release(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the whole release as its README has one download it, with the mesh that lies beside the authors' code.

    The real one's transformer is stored in bfloat16.
    """
    write_base(folder)
    transformer = folder / "transformer"
    transformer.mkdir()
    (transformer / "config.json").write_text(json.dumps(TRANSFORMER_CONFIG))
    weights = [(name, weight.to(dtype)) for name, weight in released_weights().items()]
    for number, part in enumerate((weights[::2], weights[1::2])):
        save_file(dict(part), transformer / f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors")
    (folder / "face_encoder").mkdir()
    torch.save(eva_weights(), folder / "face_encoder" / "EVA02_CLIP_L_336_psz14_s6B.pt")
    (folder / "assets").mkdir()
    (folder / "assets" / "transform.pkl").write_bytes(pickle.dumps(tiny_transform()))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "IDPipeline"}))
    return folder


def reference_picture() -> Image.Image:
    """The square face crop that becomes the reference."""
    return Image.fromarray((named_noise("picture", 16, 16, 3) * 50 + 128).clamp(0, 255).byte().numpy())


def tiny_eva() -> EvaVisionModel:
    """The face vision net of the tiny release."""
    return EvaVisionModel.from_eva_clip(
        eva_weights(), image_size=EVA_GRID * EVA_PATCH, patch_size=EVA_PATCH, width=EVA_WIDTH, num_heads=1,
        feed_forward_width=32,
    )  # fmt: skip


def golden_inputs() -> dict[str, Any]:
    """What the golden values were computed from, beside `PROMPT` and `reference_picture`."""
    crop = named_noise("crop", 1, 3, EVA_GRID * EVA_PATCH, EVA_GRID * EVA_PATCH).clamp(-1, 1)
    with torch.no_grad():
        crop_tokens = tiny_eva()(crop).tokens
    return {
        "face_tokens": named_noise("face", 1, EVA_GRID, EVA_GRID, EVA_WIDTH),
        "vertices_cm": 10 * named_noise("head", 1, LEVELS[0], 3),
        "hidden_states": named_noise("noisy", 2, 3, 8, 60, 90),
        "encoder_hidden_states": named_noise("text", 2, 16, 20),
        "timestep": torch.tensor([700, 300]),
        "image_rotary_emb": get_3d_rotary_pos_embed(16, ((0, 0), (6, 9)), (6, 9), 3),
        "face_crop": crop,
        "crop_tokens": crop_tokens,
        "latents": named_noise("latents", 1, 3, 4, 60, 90),
    }

"""What the weights of the authors' released checkpoint are called there and here, and which of them do nothing.

Every weight must stand in one of the tables below or be the base transformer's own; docs/released-checkpoint.md shows
the tables in words.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, TypeVar

from accelerate import init_empty_weights
from einops import rearrange
from torch import Tensor, nn

from fantasyid.core.building import BUILDING
from fantasyid.core.errors import CorruptWeightsError
from fantasyid.models.released import ReleasedIdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel

Network = TypeVar("Network", bound=nn.Module)

POOL_FACTOR = 4
"""Face tokens averaged into one, per side; the authors' code has it, and no weight tells it."""
INJECTION_HEADS = 16
"""Heads of the injection; the authors' code has it, and no weight tells it."""

# Names of layers, ours to theirs, inside the unit that the function below names.
_CONV_BLOCK = {
    "conv1": "conv1.conv",
    "norm1": "conv1.bn",
    "conv2": "conv2.conv",
    "norm2": "conv2.bn",
    "excitation.gate.0": "se.fc1",
    "excitation.gate.2": "se.fc2",
    "conv3": "conv3.conv",
    "norm3": "conv3.bn",
    "skip.0": "downsample.conv",
    "skip.1": "downsample.bn",
}
_TRANSFORMER_BLOCK = {
    "norm1": "0.norm",
    "to_qkv": "0.fn.to_qkv",
    "to_out": "0.fn.to_out.0",
    "norm2": "1.norm",
    "feed_forward.0": "1.fn.net.0",
    "feed_forward.2": "1.fn.net.3",
}
_REDUCER_BLOCK = {
    "conv1": "conv_in.conv1d",
    "norm1": "conv_in.group_norm",
    "conv2": "conv_out.conv1d",
    "norm2": "conv_out.group_norm",
    "skip": "residual_conv",
}
_INJECTION = {
    "norm_identity": "norm1",
    "norm_hidden": "norm2",
    "to_q": "to_q",
    "to_k": "to_kv",  # its first half
    "to_v": "to_kv",  # its second half
    "to_out": "to_out",
}
_FACE_ABSTRACTOR = {
    **{f"mapping.{layer}": f"mapping_4.{layer}" for layer in (0, 1, 3, 4, 6)},
    **{f"mlp.{layer}": f"layers.9.0.readout.{layer}" for layer in (0, 2)},
    **{f"feed_forward.{layer}": f"layers.9.1.{layer}" for layer in (0, 1, 3)},
}

INERT_WEIGHTS = (
    r"face_abstractor\.latents",
    r"face_abstractor\.id_embedding_mapping\.\d\.(weight|bias)",
    r"face_abstractor\.mapping_[0-3]\.\d\.(weight|bias)",
    r"face_abstractor\.layers\.[0-7]\.0\.pos_emb",
    r"face_abstractor\.layers\.[0-8]\.0\.(net|readout)\.[\w.]+\.(weight|bias)",
    r"face_abstractor\.layers\.[0-8]\.1\.\d\.(weight|bias)",
)
"""Weights that do not reach the output of the authors' own code, as regular expressions over whole names."""
INERT_CONFIG = ("LFE_num_tokens", "LFE_output_dim", "LFE_heads", "local_face_scale")
"""Config fields that the authors' code reads, and whose value changes nothing."""


@dataclass(frozen=True)
class ReleasedNetworks:
    """The two networks that the released transformer's files hold.

    Attributes:
        transformer: The video transformer with its injection, in the dtype of the files.
        identity_encoder: The identity encoder in float32, still without its mesh.
        ignored_config: Config fields that neither their class nor ours knows; their code passes over them, too.
    """

    transformer: FantasyIDTransformer3DModel
    identity_encoder: ReleasedIdentityEncoder
    ignored_config: tuple[str, ...]


class _Weights:
    """The authors' weights, each crossed off when it is taken."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self.unused = set(weights)

    def take(self, name: str) -> Tensor:
        if name not in self._weights:
            raise CorruptWeightsError(f"The released weights lack {name}; download them again.")
        self.unused.discard(name)
        return self._weights[name]

    def count(self, pattern: str) -> int:
        """How many numbers follow a pattern."""
        return len({match[1] for name in self._weights if (match := re.match(pattern + r"\.(\d+)\.", name))})


def build_released(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], levels: tuple[int, ...], spiral_length: int
) -> ReleasedNetworks:
    """Build the networks from the authors' weights.

    Args:
        weights: All weights of their transformer's folder.
        config: Its config.json.
        levels: Vertex counts of the mesh's levels that are used, finest first.
        spiral_length: Vertices in a spiral.

    Returns:
        The networks, in evaluation mode and without gradients.

    Raises:
        CorruptWeightsError: A weight is missing, unknown or of another shape, or the config is of another model; the
            message names it.
    """
    source = _Weights(weights)
    transformer_config, ignored = _transformer_config(source, config)
    with BUILDING, init_empty_weights(include_buffers=False):
        transformer = FantasyIDTransformer3DModel(**transformer_config)
        encoder = ReleasedIdentityEncoder(**_encoder_config(source), levels=levels, spiral_length=spiral_length)
    interval = transformer_config["injection_interval"]
    transformer_state = {name: _transformer_weight(source, name, interval) for name in transformer.state_dict()}
    encoder_state = _encoder_state(source, encoder)
    unknown = sorted(n for n in source.unused if not any(re.fullmatch(pattern, n) for pattern in INERT_WEIGHTS))
    if unknown:
        raise CorruptWeightsError(
            f"The released weights have {len(unknown)} that this version of fantasyid does not know, the first being "
            f"{unknown[0]}; they are of another model or of a newer release."
        )
    return ReleasedNetworks(_fill(transformer, transformer_state), _fill(encoder, encoder_state), ignored)


def released_layers(encoder: ReleasedIdentityEncoder) -> dict[str, str]:
    """What the layers of our identity encoder are called in the release.

    Args:
        encoder: Of any size.

    Returns:
        Names without `.weight` and `.bias`, ours to theirs.
    """
    face, vertex = encoder.face_abstractor, encoder.vertex_encoder
    names = {f"face_abstractor.{ours}": f"face_abstractor.{theirs}" for ours, theirs in _FACE_ABSTRACTOR.items()}
    for stage, number, blocks in (("before", 0, face.before), ("after", 2, face.after)):
        for block in range(len(blocks)):
            unit = f"face_abstractor.{stage}.{block}", f"face_abstractor.layers.9.0.net.{number}.b{block + 1}"
            names |= _inside(unit, _CONV_BLOCK)
    for layer in range(len(vertex.narrow)):
        unit = f"vertex_encoder.narrow.{layer}", f"vertex_spiral_net.hw_down.{layer}"
        names |= _inside(unit, {"0": "fc1", "2": "fc2"})
    for block in range(len(vertex.blocks)):
        unit = f"vertex_encoder.blocks.{block}", f"vertex_spiral_net.transformer.layers.{block}"
        names |= _inside(unit, _TRANSFORMER_BLOCK)
    for conv in range(len(vertex.convs)):
        inner = "layer" if conv == len(vertex.convs) - 1 else "conv.layer"
        unit = f"vertex_encoder.convs.{conv}", f"vertex_spiral_net.vtx_upsampler.de_layers.{conv}"
        names |= _inside(unit, {"linear": inner})
    names["vertex_encoder.head"] = "vertex_spiral_net.vtx_descriptor_head.0"
    for block in range(len(encoder.reducer)):
        names |= _inside((f"reducer.{block}", f"vertex_reducer.conv_block{block + 1}"), _REDUCER_BLOCK)
    return names


def _inside(unit: tuple[str, str], layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{unit[0]}.{ours}": f"{unit[1]}.{theirs}" for ours, theirs in layers.items()}


def _transformer_config(source: _Weights, config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments of our transformer, and the fields that nobody knows."""
    fields = {name: value for name, value in config.items() if not name.startswith("_")}
    for name, needed in (("is_train_face", True), ("is_kps", False)):
        if fields.pop(name, False) is not needed:
            raise CorruptWeightsError(
                f"The released transformer's config says {name}: {not needed}; only checkpoints with {name}: {needed} "
                "can be converted."
            )
    interval = fields.pop("cross_attn_interval", 1)
    known = inspect.signature(FantasyIDTransformer3DModel.__init__).parameters
    base = {name: value for name, value in fields.items() if name in known}
    injection = {
        "identity_token_dim": source.take("layer_attention.0.to_kv.weight").shape[1],
        "injection_dim": source.take("layer_attention.0.to_q.weight").shape[0],
        "injection_heads": INJECTION_HEADS,
        "injection_interval": interval,
        "injection_kind": "released",
    }
    return {**base, **injection}, tuple(sorted(set(fields) - set(base) - set(INERT_CONFIG)))


def _encoder_config(source: _Weights) -> dict[str, Any]:
    face_dim, conv_dim = source.take("face_abstractor.layers.9.0.readout.0.weight").shape
    grid_size = isqrt(source.take("face_abstractor.layers.9.0.pos_emb").shape[1])
    reducer = [f"vertex_reducer.conv_block{block}.residual_conv.weight" for block in (1, 2, 3, 4)]
    return {
        "face_dim": face_dim,
        "grid_size": grid_size,
        "pooled_size": grid_size // POOL_FACTOR,
        "conv_dim": conv_dim,
        "widths": (source.take(reducer[0]).shape[1], *[source.take(name).shape[0] for name in reducer]),
        "num_layers": source.count(r"vertex_spiral_net\.transformer\.layers"),
    }


def _transformer_weight(source: _Weights, name: str, interval: int) -> Tensor:
    """One weight of our transformer; what is not of the injection has the same name there."""
    match = re.fullmatch(r"transformer_blocks\.(\d+)\.injection\.attention\.(\w+)\.(\w+)", name)
    if match is None:
        return source.take(name)
    block, layer, kind = match.groups()
    weight = source.take(f"layer_attention.{int(block) // interval}.{_INJECTION[layer]}.{kind}")
    if layer in ("to_k", "to_v"):
        key, value = weight.chunk(2)
        return (key if layer == "to_k" else value).clone()  # safetensors stores no views
    return weight


def _encoder_state(source: _Weights, encoder: ReleasedIdentityEncoder) -> dict[str, Tensor]:
    layers = released_layers(encoder)
    state = {}
    for name, parameter in encoder.named_parameters():
        layer, _, kind = name.rpartition(".")
        if layer in layers:
            weight = source.take(f"{layers[layer]}.{kind}").float()
            # Their squeeze-excitation has 1x1 convolutions where ours has linear layers.
            state[name] = weight.flatten(1) if parameter.ndim == 2 else weight
    state["vertex_encoder.queries"] = source.take("vertex_spiral_net.vtx_query").float()
    state["face_abstractor.to_out.weight"] = source.take("face_abstractor.proj_out").float().T.contiguous()
    # The eighth layer adds its positions in place, to what the ninth starts from and adds its own to.
    positions = [source.take(f"face_abstractor.layers.{layer}.0.pos_emb").float() for layer in (8, 9)]
    state["face_abstractor.positions"] = rearrange(
        positions, "layer 1 (h w) c -> layer h w c", h=encoder.config.grid_size
    )
    return {**state, **dict(encoder.named_buffers())}


def _fill(network: Network, state: Mapping[str, Tensor]) -> Network:
    try:
        with BUILDING:
            network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CorruptWeightsError(f"The released weights do not fit a {type(network).__name__}: {error}") from error
    return network.eval().requires_grad_(requires_grad=False)

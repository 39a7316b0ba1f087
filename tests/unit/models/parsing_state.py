"""A checkpoint with the names and shapes of facexlib's `parsing_bisenet.pth`, its numbers by formula."""

import torch
from torch import Tensor


def _conv(name: str, inp: int, out: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inp, kernel, kernel)}


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    ends = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{end}": (channels,) for end in ends}, f"{name}.num_batches_tracked": ()}


def _conv_norm(name: str, inp: int, out: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {**_conv(f"{name}.conv", inp, out, kernel), **_norm(f"{name}.bn", out)}


def published_shapes(width: int = 64) -> dict[str, tuple[int, ...]]:
    """Names and shapes."""
    resnet = "cp.resnet."
    shapes = {**_conv(f"{resnet}conv1", 3, width, 7), **_norm(f"{resnet}bn1", width)}
    for level, (inp, out) in enumerate(((1, 1), (1, 2), (2, 4), (4, 8)), start=1):
        for block in (0, 1):
            name, first = f"{resnet}layer{level}.{block}", width * (inp if block == 0 else out)
            shapes |= {**_conv(f"{name}.conv1", first, width * out, 3), **_norm(f"{name}.bn1", width * out)}
            shapes |= {**_conv(f"{name}.conv2", width * out, width * out, 3), **_norm(f"{name}.bn2", width * out)}
        if inp != out:
            name = f"{resnet}layer{level}.0.downsample"
            shapes |= {**_conv(f"{name}.0", width * inp, width * out, 1), **_norm(f"{name}.1", width * out)}
    for name, inp in (("cp.arm16", 4), ("cp.arm32", 8)):
        shapes |= _conv_norm(f"{name}.conv", inp * width, 2 * width, 3)
        shapes |= {**_conv(f"{name}.conv_atten", 2 * width, 2 * width, 1), **_norm(f"{name}.bn_atten", 2 * width)}
    for name in ("cp.conv_head32", "cp.conv_head16"):
        shapes |= _conv_norm(name, 2 * width, 2 * width, 3)
    shapes |= {
        **_conv_norm("cp.conv_avg", 8 * width, 2 * width, 1),
        **_conv_norm("ffm.convblk", 4 * width, 4 * width, 1),
    }
    shapes |= {**_conv("ffm.conv1", 4 * width, width, 1), **_conv("ffm.conv2", width, 4 * width, 1)}
    for name, inp, middle in (("conv_out", 4, 4), ("conv_out16", 2, 1), ("conv_out32", 2, 1)):
        shapes |= {
            **_conv_norm(f"{name}.conv", inp * width, middle * width, 3),
            **_conv(f"{name}.conv_out", middle * width, 19, 1),
        }
    return shapes


def published_state(width: int = 64) -> dict[str, Tensor]:
    """Names and numbers."""
    state = {}
    for index, (key, shape) in enumerate(sorted(published_shapes(width).items())):
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(1)
            continue
        count = torch.Size(shape).numel()
        values = torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + index)
        if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
            values = 1 + 0.3 * values
        elif len(shape) == 1:
            values = 0.3 * values
        else:
            values = values / (count / shape[0]) ** 0.5
        state[key] = values.float().reshape(shape)
    return state

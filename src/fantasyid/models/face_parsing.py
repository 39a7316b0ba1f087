"""Which part of a face each pixel shows: the BiSeNet (arXiv 1808.00897) that face tools share, on a ResNet-18."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from fantasyid.core.building import BUILDING
from fantasyid.core.checkpoint import fill_network

PART_NAMES = (
    *("background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear"),
    *("earring", "nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat"),
)
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

# Names in the published checkpoint to names here.
_RENAMED = {
    "cp.resnet.": "backbone.",
    "cp.arm": "refine",
    "cp.conv_head": "smooth",
    "cp.conv_avg.": "context.",
    "ffm.": "fuse.",
    "conv_out.conv_out.": "to_parts.",
    "conv_out.conv.": "out.",
    ".convblk.": ".conv.",
    ".conv_atten.": ".gate.",
    ".bn_atten.": ".gate_norm.",
    ".downsample.0.": ".shortcut.conv.",
    ".downsample.1.": ".shortcut.bn.",
}
# Outputs at two coarser levels, which helped its training.
_UNUSED = ("conv_out16.", "conv_out32.")


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm.

    Args:
        inp: Channels in.
        out: Channels out.
        kernel: Side of the kernel, odd.
        stride: Step.
    """

    def __init__(self, inp: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, out, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / stride, W / stride)."""
        normed: Tensor = self.bn(self.conv(x))
        return normed


class ResidualBlock(nn.Module):
    """ResNet's basic block.

    Args:
        inp: Channels in.
        out: Channels out.
        stride: Step.
    """

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inp, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        if stride != 1 or inp != out:
            self.shortcut: nn.Module = ConvNorm(inp, out, 1, stride)
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + residual)


class Backbone(nn.Module):
    """ResNet-18 without its classifier.

    Args:
        width: Channels of the first level; each of the three others has twice as many as the one before.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(ResidualBlock(width, width, 1), ResidualBlock(width, width, 1))
        self.layer2 = nn.Sequential(ResidualBlock(width, 2 * width, 2), ResidualBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(ResidualBlock(2 * width, 4 * width, 2), ResidualBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(ResidualBlock(4 * width, 8 * width, 2), ResidualBlock(8 * width, 8 * width, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to the levels of 1/8, 1/16 and 1/32 of its side."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        level8 = self.layer2(self.layer1(x))
        level16 = self.layer3(level8)
        return level8, level16, self.layer4(level16)


class AttentionRefinement(nn.Module):
    """Convolution whose channels are weighed by the mean of the picture.

    Args:
        inp: Channels in.
        out: Channels out.
    """

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.conv = ConvNorm(inp, out)
        self.gate = nn.Conv2d(out, out, 1, bias=False)
        self.gate_norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H, W)."""
        features = F.relu(self.conv(x))
        gate: Tensor = self.gate_norm(self.gate(features.mean(dim=(2, 3), keepdim=True))).sigmoid()
        return features * gate


class FeatureFusion(nn.Module):
    """Join detail and context, and amplify channels by the mean of the picture.

    Args:
        channels: Of the two together, and of the result.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Map two (B, channels / 2, H, W) to (B, channels, H, W)."""
        features = F.relu(self.conv(torch.cat([detail, context], dim=1)))
        gate: Tensor = self.conv2(F.relu(self.conv1(features.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return features + features * gate


class FaceParsingModel(ModelMixin, ConfigMixin):
    """Tell the parts of a face apart, pixel by pixel.

    Args:
        width: Channels of the backbone's first level.
    """

    _no_split_modules: ClassVar[list[str]] = ["ResidualBlock"]

    @register_to_config
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.backbone = Backbone(width)
        self.refine16 = AttentionRefinement(4 * width, 2 * width)
        self.refine32 = AttentionRefinement(8 * width, 2 * width)
        self.smooth32 = ConvNorm(2 * width, 2 * width)
        self.smooth16 = ConvNorm(2 * width, 2 * width)
        self.context = ConvNorm(8 * width, 2 * width, 1)
        self.fuse = FeatureFusion(4 * width)
        self.out = ConvNorm(4 * width, 4 * width)
        self.to_parts = nn.Conv2d(4 * width, len(PART_NAMES), 1, bias=False)

    @classmethod
    def from_published(cls, state: dict[str, Tensor], **config: int) -> "FaceParsingModel":
        """Take over the weights of face-parsing.PyTorch, as facexlib publishes them.

        Args:
            state: Of `parsing_bisenet.pth`.
            **config: The arguments of this class.

        Returns:
            The network in evaluation mode, without gradients.

        Raises:
            CorruptWeightsError: A tensor is missing, unknown, or of another shape.
        """
        with BUILDING, init_empty_weights(include_buffers=False):
            model: FaceParsingModel = cls(**config)
        kept = {}
        for key, tensor in state.items():
            if key.startswith(_UNUSED):
                continue
            name = key
            for old, new in _RENAMED.items():
                name = name.replace(old, new)
            kept[name] = tensor
        fill_network(model, kept, "The checkpoint is not this BiSeNet")
        return model

    def forward(self, images: Tensor) -> Tensor:
        """Parse faces.

        Args:
            images: Upright faces (B, 3, H, W), RGB, -1 black and 1 white; it was trained on 512 x 512.

        Returns:
            Logits (B, 19, H, W) of `PART_NAMES`.
        """
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        level8, level16, level32 = self.backbone(((images + 1) / 2 - mean) / std)
        everywhere = F.relu(self.context(level32.mean(dim=(2, 3), keepdim=True)))
        up16 = F.interpolate(self.refine32(level32) + everywhere, level16.shape[2:], mode="nearest")
        up8 = self.refine16(level16) + F.relu(self.smooth32(up16))
        context = F.relu(self.smooth16(F.interpolate(up8, level8.shape[2:], mode="nearest")))
        parts = self.to_parts(F.relu(self.out(self.fuse(level8, context))))
        return F.interpolate(parts, images.shape[2:], mode="bilinear", align_corners=True)

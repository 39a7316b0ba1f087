"""What EVA02-CLIP's published checkpoints hold."""


def visual_shapes(
    width: int, feed_forward_width: int, num_layers: int, grid: int, patch_size: int, out: int
) -> dict[str, tuple[int, ...]]:
    """Names, each to be preceded by `visual.`, and shapes of the weights of the visual tower."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid**2, width),
        "patch_embed.proj.weight": (width, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (out, width),
        "head.bias": (out,),
    }
    for layer in range(num_layers):
        block = f"blocks.{layer}."
        for name in ("norm1", "norm2", "attn.inner_attn_ln"):
            shapes |= {f"{block}{name}.weight": (width,), f"{block}{name}.bias": (width,)}
        shapes |= {f"{block}attn.{name}_proj.weight": (width, width) for name in "qkv"}
        shapes |= {f"{block}attn.{name}_bias": (width,) for name in "qv"}
        shapes |= {f"{block}attn.proj.weight": (width, width), f"{block}attn.proj.bias": (width,)}
        for name in ("w1", "w2"):
            shapes |= {f"{block}mlp.{name}.weight": (feed_forward_width, width)}
            shapes |= {f"{block}mlp.{name}.bias": (feed_forward_width,)}
        shapes |= {f"{block}mlp.ffn_ln.{kind}": (feed_forward_width,) for kind in ("weight", "bias")}
        shapes |= {f"{block}mlp.w3.weight": (width, feed_forward_width), f"{block}mlp.w3.bias": (width,)}
    return shapes

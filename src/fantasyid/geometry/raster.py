"""Z-buffer rasterisation of triangle meshes: plain PyTorch on a CPU, one CuPy kernel on a CUDA device.

Conventions: vertices are (x, y, depth) with x right and y down in pixels, pixel centres at integer coordinates, and a
smaller depth nearer to the viewer. Not differentiable: textures are looked up afterwards, which is.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fantasyid.core.optional import require

_EMPTY = 2**62
_DEPTH_STEPS = 2**22  # depth resolution inside the packed 64-bit key
_INDEX_BITS = 24  # up to 16.7 million triangles

_KERNEL = r"""
extern "C" __global__
void zbuffer(const float* vertices, const int* triangles, unsigned long long* keys,
             int batch, int num_vertices, int num_triangles, int height, int width) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)batch * num_triangles) return;
    int b = (int)(i / num_triangles), f = (int)(i % num_triangles);
    const float* base = vertices + 3ll * b * num_vertices;
    const float *p = base + 3ll * triangles[3 * f], *q = base + 3ll * triangles[3 * f + 1],
                *r = base + 3ll * triangles[3 * f + 2];
    float area = (q[0] - p[0]) * (r[1] - p[1]) - (r[0] - p[0]) * (q[1] - p[1]);
    if (fabsf(area) < 1e-8f) return;
    int x0 = max(0, (int)floorf(fminf(p[0], fminf(q[0], r[0]))));
    int x1 = min(width - 1, (int)ceilf(fmaxf(p[0], fmaxf(q[0], r[0]))));
    int y0 = max(0, (int)floorf(fminf(p[1], fminf(q[1], r[1]))));
    int y1 = min(height - 1, (int)ceilf(fmaxf(p[1], fmaxf(q[1], r[1]))));
    for (int y = y0; y <= y1; y++) for (int x = x0; x <= x1; x++) {
        float a = ((q[0] - x) * (r[1] - y) - (r[0] - x) * (q[1] - y)) / area;
        float c = ((r[0] - x) * (p[1] - y) - (p[0] - x) * (r[1] - y)) / area;
        float d = 1.f - a - c;
        if (a < -1e-5f || c < -1e-5f || d < -1e-5f) continue;
        float depth = fminf(fmaxf(a * p[2] + c * q[2] + d * r[2], 0.f), 1.f);
        unsigned long long key = ((unsigned long long)(depth * 4194304.f) << 24) | (unsigned)f;
        atomicMin(keys + ((long long)b * height + y) * width + x, key);
    }
}
"""


def rasterise(vertices: Tensor, triangles: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find the nearest triangle at every pixel.

    Args:
        vertices: (B, N, 3) x, y in pixels and depth in any unit.
        triangles: (F, 3) int64 vertex indices shared by the batch; either winding.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        (B, H, W) int64 triangle index, -1 where there is none, and (B, H, W, 3) float32 barycentric coordinates.
    """
    vertices = vertices.float()
    depth = vertices[..., 2]
    nearest, farthest = depth.amin(), depth.amax()
    unit = torch.cat([vertices[..., :2], ((depth - nearest) / (farthest - nearest + 1e-9))[..., None]], -1)
    keys = (_keys_cuda if vertices.is_cuda else _keys_cpu)(unit.contiguous(), triangles, height, width)
    index = torch.where(keys < _EMPTY, keys % 2**_INDEX_BITS, -1)
    return index, barycentric(vertices, triangles, index)


def barycentric(vertices: Tensor, triangles: Tensor, triangle_index: Tensor) -> Tensor:
    """Barycentric coordinates of every pixel centre in the triangle seen there.

    Args:
        vertices: (B, N, 3) as in `rasterise`.
        triangles: (F, 3) int64.
        triangle_index: (B, H, W) int64, -1 where there is none.

    Returns:
        (B, H, W, 3) float32; meaningless where there is no triangle.
    """
    batch, height, width = triangle_index.shape
    corners = triangles[triangle_index.clamp(min=0)].reshape(batch, -1, 1).expand(-1, -1, 2)
    corner_xy = torch.gather(vertices[..., :2], 1, corners).view(batch, height, width, 3, 2)
    rows = torch.arange(height, device=vertices.device, dtype=vertices.dtype)
    columns = torch.arange(width, device=vertices.device, dtype=vertices.dtype)
    pixel = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
    to_corner = corner_xy - pixel[:, :, None]
    x, y = to_corner.unbind(-1)
    areas = x.roll(-1, -1) * y.roll(-2, -1) - x.roll(-2, -1) * y.roll(-1, -1)
    total = areas.sum(-1, keepdim=True)
    return areas / torch.where(total.abs() < 1e-9, torch.ones_like(total), total)


def interpolate(attributes: Tensor, triangles: Tensor, triangle_index: Tensor, weights: Tensor) -> Tensor:
    """Carry vertex attributes to pixels.

    Args:
        attributes: (B, N, C), or (N, C) shared by the batch.
        triangles: (F, 3) int64.
        triangle_index: (B, H, W) from `rasterise`.
        weights: (B, H, W, 3) from `rasterise`.

    Returns:
        (B, H, W, C), zero where there is no triangle.
    """
    batch, height, width = triangle_index.shape
    corners = triangles[triangle_index.clamp(min=0)]
    if attributes.ndim == 2:
        values = attributes[corners]
    else:
        channels = attributes.shape[-1]
        flat = corners.reshape(batch, -1, 1).expand(-1, -1, channels)
        values = torch.gather(attributes, 1, flat).view(batch, height, width, 3, channels)
    return (values * weights[..., None]).sum(-2) * (triangle_index >= 0)[..., None]


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Area-weighted unit normals, (B, N, 3) -> (B, N, 3); outward for counter-clockwise triangles, y up."""
    corners = vertices[:, triangles]
    normal = torch.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0], dim=-1)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(1, triangles[:, corner], normal)
    return F.normalize(total, dim=-1)


def _keys_cpu(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Packed depth and triangle index per pixel, (B, H, W) int64, through a ragged list of candidate pixels."""
    batch, num_triangles = vertices.shape[0], triangles.shape[0]
    corners = vertices[:, triangles].reshape(-1, 3, 3)
    x, y, depth = corners.unbind(-1)
    left, right = x.amin(-1).floor().clamp(0, width - 1), x.amax(-1).ceil().clamp(0, width - 1)
    top, bottom = y.amin(-1).floor().clamp(0, height - 1), y.amax(-1).ceil().clamp(0, height - 1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    inside = (x.amax(-1) >= 0) & (x.amin(-1) <= width - 1) & (y.amax(-1) >= 0) & (y.amin(-1) <= height - 1)
    columns = (right - left + 1).long()
    count = torch.where((area.abs() > 1e-8) & inside, columns * (bottom - top + 1).long(), 0)
    owner = torch.repeat_interleave(count)
    step = torch.arange(owner.numel()) - (torch.cumsum(count, 0) - count)[owner]
    px = left.long()[owner] + step % columns[owner]
    py = top.long()[owner] + torch.div(step, columns[owner], rounding_mode="floor")
    x, y, depth, area, fx, fy = x[owner], y[owner], depth[owner], area[owner], px.float(), py.float()
    a = ((x[:, 1] - fx) * (y[:, 2] - fy) - (x[:, 2] - fx) * (y[:, 1] - fy)) / area
    c = ((x[:, 2] - fx) * (y[:, 0] - fy) - (x[:, 0] - fx) * (y[:, 2] - fy)) / area
    d = 1 - a - c
    hit = ((a >= -1e-5) & (c >= -1e-5) & (d >= -1e-5)).nonzero().squeeze(1)
    pixel_depth = (a * depth[:, 0] + c * depth[:, 1] + d * depth[:, 2])[hit].clamp(0, 1)
    frame = torch.div(owner[hit], num_triangles, rounding_mode="floor")
    key = (pixel_depth * _DEPTH_STEPS).long() * 2**_INDEX_BITS + owner[hit] % num_triangles
    keys = torch.full((batch * height * width,), _EMPTY, dtype=torch.int64)
    keys.scatter_reduce_(0, (frame * height + py[hit]) * width + px[hit], key, "amin")
    return keys.view(batch, height, width)


@cache
def _kernel() -> Any:
    return require("cupy", "gpu-data", "render on a CUDA device").RawKernel(_KERNEL, "zbuffer")


def _keys_cuda(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Packed depth and triangle index per pixel, (B, H, W) int64, one thread a triangle."""
    batch, num_vertices, _ = vertices.shape
    index = triangles.int().contiguous()
    keys = torch.full((batch, height, width), _EMPTY, dtype=torch.int64, device=vertices.device)
    blocks = (batch * len(index) + 255) // 256
    cupy = require("cupy", "gpu-data", "render on a CUDA device")
    stream = cupy.cuda.ExternalStream(torch.cuda.current_stream(vertices.device).cuda_stream)
    sizes = tuple(np.int32(size) for size in (batch, num_vertices, len(index), height, width))
    with cupy.cuda.Device(vertices.device.index or 0), stream:
        _kernel()((blocks,), (256,), (vertices.data_ptr(), index.data_ptr(), keys.data_ptr(), *sizes))
    return keys

"""Re-pose photos: two layers, a soft-edged face mesh over a depth grid, before a background."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from fantasyid.data.repose.rig import CANVAS, CANVAS_MARGIN, GRID, HeadLayers, RigSet, blur
from fantasyid.face.align import PORTRAIT_SIZE
from fantasyid.geometry.projection import project_camera, rotation_matrix
from fantasyid.geometry.raster import interpolate, rasterise, vertex_normals

_PIVOT = (0.0, -10.0, -8.0)  # cm from the eyes: the top of the neck
_CHIN, _COLLAR = -11.0, -18.0  # cm below the eyes: rotates fully, does not rotate
_BEHIND = 0.45  # cm by which the grid lies behind the mesh
_BURIED = 60.0  # cm by which the background part of the grid is pushed back


@dataclass(frozen=True)
class Scene:
    """What B clips of T frames show; angles are added to the photo's own pose.

    Attributes:
        rig: (B,) index into the `RigSet`.
        texture: (B, 3, CANVAS, CANVAS) in [0, 1], the photo or a mixed person.
        identity: (B, K) head model coefficients.
        expression: (B, T, E) head model coefficients.
        angles_deg: (B, T, 3) yaw, pitch, roll.
        zoom: (B, T) 1 shows the portrait frame; at least 0.85.
        shift: (B, T, 2) of the picture, in fractions of the frame.
        light: (B, 3) direction the extra light comes from, its length the strength, 0 to 0.5.
        gain: (B, 3) colour gain.
        background: (B, 3, h, w) in [0, 1].
    """

    rig: Tensor
    texture: Tensor
    identity: Tensor
    expression: Tensor
    angles_deg: Tensor
    zoom: Tensor
    shift: Tensor
    light: Tensor
    gain: Tensor
    background: Tensor


@dataclass(frozen=True)
class Rendering:
    """Frames and what is known about them.

    Attributes:
        frames: (B, T, 3, size, size) in [0, 1].
        landmarks: (B, T, 478, 3) output pixels, continuous as in `face.align`, depth scaled like x.
    """

    frames: Tensor
    landmarks: Tensor


def look_up(texture: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear look-up of (B, C, CANVAS, CANVAS) at (B, ..., 2) canvas pixels -> (B, ..., C)."""
    shape = pixels.shape[1:-1]
    grid = pixels.reshape(len(pixels), 1, -1, 2) / (CANVAS - 1) * 2 - 1
    found = F.grid_sample(texture, grid, align_corners=True, padding_mode="border")
    return rearrange(found, "b c 1 n -> b n c").reshape(len(pixels), *shape, -1)


def fitted_vertices(layers: HeadLayers, rigs: RigSet, rig: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices of the photos as they are: (B, N, 3) camera cm and (B, N, 3) canvas pixels and depth.

    The pixels are those where the photo shows the vertices, so what the fit missed is added to them. Without it a
    re-posed face is not of the shape that it is said to be.
    """
    camera = layers.head.shape(rigs.identity[rig], rigs.expression[rig]) @ rigs.rotation[rig].mT
    pixels = project_camera(camera, rigs.scale[rig], rigs.translation[rig])
    return camera, pixels + layers.registered(rigs.residual[rig])


def render(
    layers: HeadLayers, rigs: RigSet, scene: Scene, size: int = PORTRAIT_SIZE, supersample: int = 2
) -> Rendering:
    """Draw the clips of a scene.

    Args:
        layers: Head model and its drawing order.
        rigs: The photos.
        scene: What to show.
        size: Height and width of the frames in pixels.
        supersample: Rendering resolution over `size`, averaged down.

    Returns:
        The frames and the landmarks in them.
    """
    time, resolution = scene.zoom.shape[1], size * supersample
    rig = _per_frame(scene.rig, time)
    rotation, scale, translation = rigs.rotation[rig], rigs.scale[rig], rigs.translation[rig]
    turn = rotation_matrix(*scene.angles_deg.flatten(0, 1).unbind(-1))
    to_output = _camera(scene.zoom.flatten(0, 1), scene.shift.flatten(0, 1), resolution)

    # 1. Head vertices in camera space, before and after the turn.
    photo_camera, photo_pixels = fitted_vertices(layers, rigs, scene.rig)
    shaped = layers.head.shape(_per_frame(scene.identity, time), scene.expression.flatten(0, 1)) @ rotation.mT
    pivot = _per_frame((rigs.rotation[scene.rig] @ shaped.new_tensor(_PIVOT))[:, None], time)
    mesh = _turn(shaped, turn, pivot, _looseness(layers.head.mean[:, 1])[None])

    # 2. Grid vertices: photo positions at the diffused depth, following the mesh softly, then turned.
    grid_pixels, grid_camera = _grid_vertices(rigs, scene.rig)
    follow = _follow(layers, rigs, rig, shaped - _per_frame(photo_camera, time))
    height = (grid_camera @ rigs.rotation[scene.rig])[..., 1]
    grid = _turn(_per_frame(grid_camera, time) + follow, turn, pivot, _per_frame(_looseness(height), time))

    # 3. Rasterise each layer; the grid's background part is buried so that it hides nothing.
    mesh_xyz = _to_output(project_camera(mesh, scale, translation), to_output)
    grid_xyz = _to_output(project_camera(grid, scale, translation), to_output)
    empty = look_up(rigs.alpha[scene.rig].float() / 255, grid_pixels)[..., 0] < 0.1
    burial = _per_frame(empty * _BURIED, time)[..., None] * scale[:, None, None]
    buried = torch.cat([grid_xyz[..., :2], grid_xyz[..., 2:] + burial], -1)
    triangles = _grid_triangles(grid_xyz.device)
    grid_index, grid_weights = rasterise(buried, triangles, resolution, resolution)
    mesh_index, mesh_weights = rasterise(mesh_xyz, layers.drawn, resolution, resolution)

    # 4. Colours of each layer, from the photo.
    attributes = _skin_attributes(layers, rigs, scene, photo_camera, photo_pixels)
    mesh_map = interpolate(attributes, layers.drawn, mesh_index, mesh_weights)
    grid_map = interpolate(_per_frame(grid_pixels, time), triangles, grid_index, grid_weights)
    face, behind = _colour_layers(rigs, scene, mesh_map, mesh_index >= 0, grid_map, grid_index >= 0)

    # 5. Light, blend, put before the background.
    frames = F.avg_pool2d(_blend(face, behind, scene, turn), supersample)

    # 6. Landmarks: the mesh's, and what of the photo's deviation from them is still in the picture, in averaged pixels.
    factor = to_output[0][:, None, None]
    landmark_camera = layers.head.landmarks(mesh, turn @ rotation)
    points = _to_output(project_camera(landmark_camera, scale, translation), to_output)
    points = points * torch.cat([torch.ones_like(factor).expand(-1, -1, 2), factor], -1)
    residual = rigs.residual[scene.rig]
    left = _per_frame(residual - layers.registered(residual)[:, layers.head.landmarks478], time)
    points = points + left * factor + points.new_tensor([0.5, 0.5, 0.0])
    landmarks = points / supersample
    return Rendering(
        rearrange(frames, "(b t) c h w -> b t c h w", t=time), rearrange(landmarks, "(b t) p c -> b t p c", t=time)
    )


def _per_frame(value: Tensor, time: int) -> Tensor:
    """(B, ...) -> (B*T, ...), the same for every frame of a clip."""
    return repeat(value, "b ... -> (b t) ...", t=time)


@dataclass(frozen=True)
class _Layer:
    """What one of the two layers shows: (B*T, h, w, 3) colour and normal, (B*T, h, w, 1) alpha."""

    colour: Tensor
    normal: Tensor
    alpha: Tensor


def _skin_attributes(
    layers: HeadLayers, rigs: RigSet, scene: Scene, photo_camera: Tensor, photo_pixels: Tensor
) -> Tensor:
    """What is interpolated over the mesh, (B*T, N, 10).

    Where the photo shows the vertex (2) and its mirror image (2), the share of the first (1), alpha (1), the colour of
    inner parts (3), and how much of the photo is shown instead of it (1): the mirrored side stands in where the photo
    did not see the skin, flat colour for inner parts that it did not see.
    """
    time = scene.zoom.shape[1]
    normal = vertex_normals(photo_camera, layers.skin)
    seen = ((normal[..., 2] - 0.12) / 0.2).clamp(0, 1)
    mirrored = seen[:, layers.head.mirror]
    own = torch.where((seen < 0.999) & (mirrored > seen), seen / (seen + mirrored + 1e-6), 1.0)
    own = torch.where(layers.inner > 0, 1.0, own)
    soft = layers.softness * torch.where(layers.inner > 0, 1.0, torch.maximum(seen, mirrored).clamp(0, 1))
    source = photo_pixels[..., :2]
    inner_colour = layers.inner_colour.expand(len(source), -1, -1)
    still = torch.cat([source, source[:, layers.head.mirror], own[..., None], soft[..., None], inner_colour], -1)
    opening = _opening(layers, rigs, _per_frame(scene.rig, time), scene.expression.flatten(0, 1))
    textured = _per_frame(torch.where(layers.inner > 0, _visible(layers, photo_pixels), 1.0), time)
    textured = textured * (1 - layers.mouth * opening[:, None])
    return torch.cat([_per_frame(still, time), textured[..., None]], -1)


def _colour_layers(
    rigs: RigSet, scene: Scene, mesh_map: Tensor, on_mesh: Tensor, grid_map: Tensor, on_grid: Tensor
) -> tuple[_Layer, _Layer]:
    """Face and grid, from what was interpolated over them, (B*T, h, w, 10) and (B*T, h, w, 2), and where they are."""
    time = scene.zoom.shape[1]
    normals = F.interpolate(rigs.grid_normal[scene.rig], (CANVAS, CANVAS), mode="bilinear", align_corners=True)
    lit = torch.cat([scene.texture, rigs.alpha[scene.rig].float() / 255, normals], 1)

    def sample(pixels: Tensor) -> Tensor:
        return look_up(lit, rearrange(pixels, "(b t) h w c -> b t h w c", t=time)).flatten(0, 1)

    direct, reflected, below = sample(mesh_map[..., :2]), sample(mesh_map[..., 2:4]), sample(grid_map)
    keep = mesh_map[..., 4:5]
    face = direct * keep + reflected * (1 - keep)
    shown = mesh_map[..., 9:10]
    brightness = _per_frame(scene.texture.mean((1, 2, 3)) * 1.4, time)[:, None, None, None]
    colour = face[..., :3] * shown + mesh_map[..., 6:9] * brightness * (1 - shown)
    alpha = torch.where(shown > 0.5, face[..., 3:4], 1.0) * mesh_map[..., 5:6] * on_mesh[..., None]
    grid = _Layer(below[..., :3], below[..., 4:], below[..., 3:4] * on_grid[..., None])
    return _Layer(colour, face[..., 4:], alpha), grid


def _blend(face: _Layer, grid: _Layer, scene: Scene, turn: Tensor) -> Tensor:
    """(B*T, 3, h, w) in [0, 1]: both layers lit, the face over the grid, both before the background."""
    time = scene.zoom.shape[1]
    light, gain = _per_frame(scene.light, time), _per_frame(scene.gain, time)[:, None, None]

    def shade(layer: _Layer) -> Tensor:
        toward = torch.einsum("bhwc,bdc,bd->bhw", layer.normal, turn, light)
        return layer.colour * gain * (1 + toward).clamp(0.4, 1.6)[..., None]

    person = shade(grid) * (1 - face.alpha) + shade(face) * face.alpha
    person = torch.where(grid.alpha > 1e-3, person, shade(face))
    cover = grid.alpha + face.alpha - grid.alpha * face.alpha
    background = F.interpolate(scene.background, cover.shape[1:3], mode="bilinear", align_corners=False)
    background = _per_frame(rearrange(background, "b c h w -> b h w c"), time)
    return rearrange(person * cover + background * (1 - cover), "n h w c -> n c h w").clamp(0, 1)


def _camera(zoom: Tensor, shift: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Scale (B*T,) and offset (B*T, 2) from canvas pixels to output pixels."""
    scale = zoom * resolution * CANVAS_MARGIN / CANVAS
    centre = (resolution - 1) / 2
    offset = centre + shift * resolution - scale[:, None] * (CANVAS - 1) / 2
    return scale, offset


def _to_output(pixels: Tensor, camera: tuple[Tensor, Tensor]) -> Tensor:
    scale, offset = camera
    return torch.cat([pixels[..., :2] * scale[:, None, None] + offset[:, None], pixels[..., 2:]], -1)


def _looseness(height_cm: Tensor) -> Tensor:
    """1 where the head turns fully, 0 at the collar."""
    return ((height_cm - _COLLAR) / (_CHIN - _COLLAR)).clamp(0, 1)


def _turn(points: Tensor, turn: Tensor, pivot: Tensor, amount: Tensor) -> Tensor:
    turned = (points - pivot) @ turn.mT + pivot
    return points + amount[..., None] * (turned - points)


def _grid_vertices(rigs: RigSet, rig: Tensor) -> tuple[Tensor, Tensor]:
    """(B, GRID*GRID, 2) canvas pixels and (B, GRID*GRID, 3) camera cm."""
    line = torch.linspace(0, CANVAS - 1, GRID, device=rig.device)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(1, -1, 2).expand(len(rig), -1, -1)
    flat = (pixels - rigs.translation[rig][:, None]) / rigs.scale[rig][:, None, None] * pixels.new_tensor([1.0, -1.0])
    depth = rigs.grid_depth[rig].reshape(len(rig), -1, 1) - _BEHIND
    return pixels, torch.cat([flat, depth], -1)


def _grid_triangles(device: torch.device) -> Tensor:
    index = torch.arange(GRID * GRID, device=device).view(GRID, GRID)
    corner, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    first, second = torch.stack([corner, below, right], -1), torch.stack([right, below, across], -1)
    return torch.cat([first.reshape(-1, 3), second.reshape(-1, 3)])


def _follow(layers: HeadLayers, rigs: RigSet, rig: Tensor, change: Tensor) -> Tensor:
    """How the grid follows the skin's own change, (B*T, N, 3) -> (B*T, GRID*GRID, 3), blurred."""
    moved = interpolate(change, layers.skin, rigs.grid_triangle[rig], rigs.grid_weights[rig])
    soft = blur(rearrange(moved, "b h w c -> b c h w"), 1.75)
    return rearrange(soft, "b c h w -> b (h w) c")


def _opening(layers: HeadLayers, rigs: RigSet, rig: Tensor, expression: Tensor) -> Tensor:
    """(B*T,) 1 where the mouth is far wider open than in the photo: its inside is then the model's, not the photo's."""
    jaw = layers.head.expression_names.index("jawOpen")
    return ((expression[:, jaw] - rigs.expression[rig, jaw] - 0.08) / 0.15).clamp(0, 1)


def _visible(layers: HeadLayers, photo_pixels: Tensor) -> Tensor:
    """(B, N) 1 for vertices of triangles that the photo shows."""
    index, _ = rasterise(photo_pixels, layers.drawn, CANVAS, CANVAS)
    batch, num_vertices = photo_pixels.shape[:2]
    flag = torch.zeros(batch, num_vertices + 1, device=photo_pixels.device)
    corners = torch.where((index >= 0)[..., None], layers.drawn[index.clamp(min=0)], num_vertices)
    flag.scatter_(1, corners.reshape(batch, -1), 1.0)
    return flag[:, :-1]

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
    batch, time = scene.zoom.shape
    resolution = size * supersample

    def per_frame(value: Tensor) -> Tensor:
        return repeat(value, "b ... -> (b t) ...", t=time)

    def flat(value: Tensor) -> Tensor:
        return value.reshape(batch * time, *value.shape[2:])

    rig = per_frame(scene.rig)
    turn = rotation_matrix(*flat(scene.angles_deg).unbind(-1))
    to_output = _camera(flat(scene.zoom), flat(scene.shift), resolution)

    # 1. Head vertices in camera space, before and after the turn.
    photo_camera, photo_pixels = fitted_vertices(layers, rigs, scene.rig)
    rotation = per_frame(rigs.rotation[scene.rig])
    shaped = layers.head.shape(per_frame(scene.identity), flat(scene.expression)) @ rotation.mT
    pivot = (rigs.rotation[scene.rig] @ shaped.new_tensor(_PIVOT))[:, None]
    pivot = per_frame(pivot)
    mesh = _turn(shaped, turn, pivot, _looseness(layers.head.mean[:, 1])[None])

    # 2. Grid vertices: photo positions at the diffused depth, following the mesh softly, then turned.
    grid_pixels, grid_camera = _grid_vertices(rigs, scene.rig)
    follow = _follow(layers, rigs, rig, shaped - per_frame(photo_camera))
    height = (grid_camera @ rigs.rotation[scene.rig])[..., 1]
    grid = _turn(per_frame(grid_camera) + follow, turn, pivot, per_frame(_looseness(height)))

    # 3. Rasterise each layer; the grid's background part is buried so that it hides nothing.
    scale, translation = rigs.scale[rig], rigs.translation[rig]
    mesh_xyz = _to_output(project_camera(mesh, scale, translation), to_output)
    grid_xyz = _to_output(project_camera(grid, scale, translation), to_output)
    alpha = rigs.alpha[scene.rig].float() / 255
    empty = look_up(alpha, grid_pixels)[..., 0] < 0.1
    burial = per_frame(empty * _BURIED)[..., None] * scale[:, None, None]
    buried = torch.cat([grid_xyz[..., :2], grid_xyz[..., 2:] + burial], -1)
    triangles = _grid_triangles(grid_xyz.device)
    grid_index, grid_weights = rasterise(buried, triangles, resolution, resolution)
    mesh_index, mesh_weights = rasterise(mesh_xyz, layers.drawn, resolution, resolution)

    # 4. Colours: the photo, its mirrored side where the photo did not see the skin, flat colour for unseen inner parts.
    normal = vertex_normals(photo_camera, layers.skin)
    seen = ((normal[..., 2] - 0.12) / 0.2).clamp(0, 1)
    mirrored = seen[:, layers.head.mirror]
    own = torch.where((seen < 0.999) & (mirrored > seen), seen / (seen + mirrored + 1e-6), 1.0)
    visible = _visible(layers, photo_pixels)
    own, textured = torch.where(layers.inner > 0, 1.0, own), torch.where(layers.inner > 0, visible, 1.0)
    textured = per_frame(textured) * (1 - layers.mouth * _opening(layers, rigs, rig, flat(scene.expression))[:, None])
    soft = layers.softness * torch.where(layers.inner > 0, 1.0, torch.maximum(seen, mirrored).clamp(0, 1))
    source = photo_pixels[..., :2]
    attributes = torch.cat(
        [
            source,
            source[:, layers.head.mirror],
            own[..., None],
            soft[..., None],
            layers.inner_colour.expand(batch, -1, -1),
        ],
        -1,
    )
    attributes = torch.cat([per_frame(attributes), textured[..., None]], -1)
    mesh_map = interpolate(attributes, layers.drawn, mesh_index, mesh_weights)
    grid_map = interpolate(per_frame(grid_pixels), triangles, grid_index, grid_weights)
    normals = F.interpolate(rigs.grid_normal[scene.rig], (CANVAS, CANVAS), mode="bilinear", align_corners=True)
    lit = torch.cat([scene.texture, alpha, normals], 1)

    def sample(pixels: Tensor) -> Tensor:
        return flat(look_up(lit, pixels.reshape(batch, time, resolution, resolution, 2)))

    direct, reflected, below = sample(mesh_map[..., :2]), sample(mesh_map[..., 2:4]), sample(grid_map)
    keep = mesh_map[..., 4:5]
    face = direct * keep + reflected * (1 - keep)
    shown = mesh_map[..., 9:10]
    brightness = per_frame(scene.texture.mean((1, 2, 3)) * 1.4)[:, None, None, None]
    colour = face[..., :3] * shown + mesh_map[..., 6:9] * brightness * (1 - shown)
    mesh_alpha = torch.where(shown > 0.5, face[..., 3:4], 1.0) * mesh_map[..., 5:6] * (mesh_index >= 0)[..., None]
    grid_alpha = below[..., 3:4] * (grid_index >= 0)[..., None]

    # 5. Light both layers with one diffused normal map, blend, put before the background.
    light, gain = per_frame(scene.light), per_frame(scene.gain)[:, None, None]

    def shade(pixel: Tensor, normal_map: Tensor) -> Tensor:
        toward = torch.einsum("bhwc,bdc,bd->bhw", normal_map, turn, light)
        return pixel * gain * (1 + toward).clamp(0.4, 1.6)[..., None]

    person = shade(below[..., :3], below[..., 4:]) * (1 - mesh_alpha) + shade(colour, face[..., 4:]) * mesh_alpha
    cover = grid_alpha + mesh_alpha - grid_alpha * mesh_alpha
    person = torch.where(grid_alpha > 1e-3, person, shade(colour, face[..., 4:]))
    behind = F.interpolate(scene.background, (resolution, resolution), mode="bilinear", align_corners=False)
    frames = person * cover + per_frame(rearrange(behind, "b c h w -> b h w c")) * (1 - cover)
    frames = F.avg_pool2d(rearrange(frames, "n h w c -> n c h w").clamp(0, 1), supersample)

    # 6. Landmarks: the mesh's, and what of the photo's deviation from them is still in the picture, in averaged pixels.
    factor = to_output[0][:, None, None]
    landmark_camera = layers.head.landmarks(mesh, turn @ rotation)
    points = _to_output(project_camera(landmark_camera, scale, translation), to_output)
    points = points * torch.cat([torch.ones_like(factor).expand(-1, -1, 2), factor], -1)
    residual = rigs.residual[scene.rig]
    left = per_frame(residual - layers.registered(residual)[:, layers.head.landmarks478])
    points = points + left * factor + points.new_tensor([0.5, 0.5, 0.0])
    landmarks = points / supersample
    return Rendering(
        rearrange(frames, "(b t) c h w -> b t c h w", t=time), rearrange(landmarks, "(b t) p c -> b t p c", t=time)
    )


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

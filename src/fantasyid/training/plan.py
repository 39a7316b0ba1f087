"""What a preset of the video model costs on some GPUs: memory and time, before anything is rented.

The true network is run at its true size on tensors without content, forwards and backwards: what autograd keeps and how
many operations are done is counted and not guessed. Autocast is the CPU's, which keeps some norms narrower than CUDA's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from fantasyid.conditioning.latents import offset, padding_frames, rotary_embedding
from fantasyid.core.upstream import CPU_ATTENTION, FakeTensorMode
from fantasyid.models.identity_encoder import IdentityEncoder
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.training.config import VideoStage
from fantasyid.training.groups import TrainedGroup, choose_groups
from fantasyid.training.lora import add_lora
from fantasyid.training.objectives.video import VideoModel
from fantasyid.training.optimisers import is_by_muon
from fantasyid.training.parallel import check_grouping, own_share

GIB = 2**30
_TRAINED_BYTES = 4 + 4 + 4 + 4  # of a weight: itself, its gradient, an optimiser's average, the running average
_BY_ADAMW_BYTES = 4  # AdamW's other average; Muon has one
_BESIDE_GIB = 2.0  # CUDA's context and the kernels' workspaces
_IDENTITY_TOKENS = 314


@dataclass(frozen=True)
class Cost:
    """What one sample costs.

    Attributes:
        kept_bytes: Of activations outside of the blocks.
        block_bytes: Of a block's activations.
        input_bytes: Of a block's inputs alone.
        attention_bytes: Of what its attention gave, and its injection's.
        forward_flop: Of all.
        backward_flop: Of all.
        attention_flop: Of all that attention, forwards.
        num_layers: How many blocks.
    """

    kept_bytes: int
    block_bytes: int
    input_bytes: int
    attention_bytes: int
    forward_flop: int
    backward_flop: int
    attention_flop: int
    num_layers: int

    def activation_bytes(self, recompute: str) -> int:
        """At the moment when most are kept."""
        if recompute == "nothing":
            return self.kept_bytes + self.num_layers * self.block_bytes
        kept = self.input_bytes + (self.attention_bytes if recompute == "all_but_attention" else 0)
        return self.kept_bytes + self.num_layers * kept + self.block_bytes

    def flop(self, recompute: str) -> int:
        """Of a step, what is computed again counted twice."""
        again = {"nothing": 0, "blocks": self.forward_flop}.get(recompute, self.forward_flop - self.attention_flop)
        return self.forward_flop + self.backward_flop + again


@dataclass(frozen=True)
class Gpus:
    """What is there to train on.

    Attributes:
        number: Of GPUs, one process each.
        memory_gib: Of one.
        teraflops: What one sustains in bfloat16, 10**12 operations a second.
    """

    number: int
    memory_gib: float
    teraflops: float


@dataclass(frozen=True)
class Plan:
    """What a preset costs.

    Attributes:
        groups: What is trained.
        frozen_weights: How many are not.
        memory_gib: Of one GPU, by what takes it.
        samples: Computed at once on one GPU.
        teraflop: Of one sample.
        step_seconds: Of a step.
    """

    groups: tuple[TrainedGroup, ...]
    frozen_weights: int
    memory_gib: dict[str, float]
    samples: int
    teraflop: float
    step_seconds: float

    @property
    def total_gib(self) -> float:
        """Of one GPU."""
        return sum(self.memory_gib.values())


def make_plan(config: VideoStage, gpus: Gpus, cost: Cost | None = None) -> Plan:
    """Work out what a preset costs.

    Args:
        config: The preset.
        gpus: What it would run on.
        cost: Of a sample, where it was measured before.

    Raises:
        InvalidRequestError: A group has no weights, or neither GPUs nor batch can be shared out as the preset says.
    """
    check_grouping(gpus.number, config.shard_among)
    samples = own_share(config.optimiser.batch_size, config.optimiser.accumulation, gpus.number)
    cost = measure_cost(config) if cost is None else cost
    with torch.device("meta"):
        model = _model(config, config.model.num_layers)
    groups = choose_groups(model, config.groups, config.optimiser)
    narrow = 2 if config.frozen_dtype == "bfloat16" else 4
    parts = {"transformer": config.shard_among, "identity_encoder": 1}
    trained, frozen = 0.0, 0.0
    for name, weight in model.named_parameters():
        share = weight.numel() / parts[name.partition(".")[0]]
        if weight.requires_grad:
            by_muon = config.optimiser.method == "muon" and is_by_muon(name, weight)
            trained += share * (_TRAINED_BYTES + (0 if by_muon else _BY_ADAMW_BYTES))
        else:
            frozen += share * (narrow if weight.ndim > 1 else 4)
    memory = {
        "frozen weights": frozen,
        "trained weights, gradients, optimiser, average": trained,
        "blocks put together": _whole_blocks(model, config),
        "activations": float(samples * cost.activation_bytes(config.recompute)),
    }
    teraflop = cost.flop(config.recompute) / 1e12
    seconds = teraflop * config.optimiser.batch_size / (gpus.number * gpus.teraflops)
    frozen_weights = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    in_gib = {name: size / GIB for name, size in memory.items()} | {"beside": _BESIDE_GIB}
    return Plan(tuple(groups), frozen_weights, in_gib, samples, teraflop, seconds)


def plan_lines(plan: Plan, config: VideoStage) -> Iterator[str]:
    """A plan as lines to read."""
    yield "trained                      weights      rate"
    for group in plan.groups:
        count = sum(weight.numel() for weight in group.weights.values())
        yield f"  {group.name:<22} {count / 1e6:9.1f} M   {group.learning_rate:.1e}"
    yield f"  {'frozen':<22} {plan.frozen_weights / 1e6:9.1f} M"
    yield "memory of one GPU                              GiB"
    for name, size in plan.memory_gib.items():
        yield f"  {name:<43} {size:6.1f}"
    yield f"  {'in all':<43} {plan.total_gib:6.1f}"
    steps = config.optimiser.steps
    yield f"samples at once {plan.samples}, {plan.teraflop:,.0f} x 10^12 operations each"
    yield f"a step of {config.optimiser.batch_size} takes {plan.step_seconds:.1f} s"
    yield f"{steps:,} steps take {steps * plan.step_seconds / 86400:.1f} days"


def smallest_change(config: VideoStage, gpus: Gpus, cost: Cost) -> str | None:
    """What to change in a preset so that it fits: as few fields as possible, those first that cost no time.

    None where nothing helps.
    """
    own = config.optimiser.batch_size // gpus.number
    parts = [count for count in range(config.optimiser.accumulation, own + 1) if own % count == 0]
    again = list(dict.fromkeys([config.recompute, "all_but_attention", "blocks"]))
    among = list(dict.fromkeys([config.shard_among, gpus.number]))
    found: list[tuple[int, str]] = []
    for recompute, shard_among, accumulation in product(again, among, parts):
        optimiser = config.optimiser.model_copy(update={"accumulation": accumulation})
        fields = {"recompute": recompute, "shard_among": shard_among}
        changed = config.model_copy(update={**fields, "optimiser": optimiser})
        said = [f"{name}: {value}" for name, value in fields.items() if value != getattr(config, name)]
        if accumulation != config.optimiser.accumulation:
            said.append(f"optimiser.accumulation: {accumulation}")
        if said and make_plan(changed, gpus, cost).total_gib <= gpus.memory_gib:
            found.append((len(said), ", ".join(said)))
    return min(found, key=lambda one: one[0])[1] if found else None


def measure_cost(config: VideoStage) -> Cost:
    """Count what a sample of a preset's clips costs, by networks of one and of two blocks: all others are alike."""
    one, two = (_count(config, layers) for layers in (1, 2))
    layers = config.model.num_layers

    def of_all(name: str) -> int:
        return one[name] + (layers - 1) * (two[name] - one[name])

    block = two["saved"] - one["saved"]
    return Cost(
        kept_bytes=max(0, one["saved"] - block),
        block_bytes=block,
        input_bytes=two["input"],
        attention_bytes=2 * two["attended"],
        forward_flop=of_all("forward"),
        backward_flop=of_all("backward"),
        attention_flop=of_all("attention"),
        num_layers=layers,
    )


def _count(config: VideoStage, layers: int) -> dict[str, int]:
    with torch.device("meta"):
        model = _model(config, layers)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        choose_groups(model, config.groups, config.optimiser)
        for weight in model.parameters():
            if not weight.requires_grad and weight.ndim > 1:
                weight.data = weight.data.bfloat16()
        inputs = _inputs(config)
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                saved.setdefault(id(tensor.untyped_storage()), tensor)
            return tensor

        last, given = model.transformer.transformer_blocks[-1], dict[str, int]()

        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            video, text = inputs[:2]
            attended = video.numel() + text.numel()
            if (shape := config.model).identity_token_dim is not None:
                attended += video.shape[1] * (shape.injection_dim or video.shape[2])
            given.update(input=video.nbytes + text.nbytes, attended=attended)

        hook = last.register_forward_pre_hook(see)
        counted = dict(zip(CPU_ATTENTION, (_attention_flop, _attention_gradient_flop), strict=True))
        kept_for_gradient = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        bfloat16 = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
        with FlopCounterMode(display=False, custom_mapping=counted) as counter:
            with kept_for_gradient, bfloat16:
                out = model.transformer(**inputs)[0]
            forward = counter.get_total_flops()
            attention = counter.get_flop_counts()["Global"].get(CPU_ATTENTION[0], 0)
            out.float().square().mean().backward()
            backward = counter.get_total_flops() - forward
        hook.remove()
        size = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    return {**given, "saved": size, "forward": forward, "backward": backward, "attention": attention}


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_gradient_flop(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]


def _model(config: VideoStage, layers: int) -> VideoModel:
    """The networks with some of the blocks, without content."""
    transformer = FantasyIDTransformer3DModel(**{**config.model.model_dump(), "num_layers": layers})
    if config.lora is not None:
        add_lora(transformer, config.lora)
    token_dim = config.model.identity_token_dim
    if token_dim is None:
        return VideoModel(transformer, None)
    fields = config.objective.identity_encoder.model_dump()
    return VideoModel(transformer, IdentityEncoder(token_dim=token_dim, **fields))


def _inputs(config: VideoStage) -> dict[str, Any]:
    """One sample of the preset's size."""
    shape = config.model
    frames = (shape.sample_frames - 1) // shape.temporal_compression_ratio + 1
    frames += padding_frames(shape.model_dump(), frames)
    latents = torch.empty(1, frames, shape.in_channels, shape.sample_height, shape.sample_width)
    inputs = {
        "hidden_states": latents,
        "encoder_hidden_states": torch.empty(1, shape.max_text_seq_length, shape.text_embed_dim),
        "timestep": torch.zeros(1),
        "ofs": offset(shape.model_dump(), latents),
        "image_rotary_emb": rotary_embedding(shape.model_dump(), frames, shape.sample_height, shape.sample_width),
        "return_dict": False,
    }
    if shape.identity_token_dim is not None:
        inputs["identity_tokens"] = torch.empty(1, _IDENTITY_TOKENS, shape.identity_token_dim, requires_grad=True)
    return inputs


def _whole_blocks(model: VideoModel, config: VideoStage) -> float:
    """Bytes of the block that computes and of the next one, which is fetched meanwhile; nothing where all are whole."""
    if config.shard_among == 1:
        return 0.0
    return 2.0 * max(sum(_sizes(block)) for block in model.transformer.transformer_blocks)


def _sizes(block: nn.Module) -> Iterator[int]:
    for weight in block.parameters():
        yield weight.numel() * (4 if weight.requires_grad or weight.ndim == 1 else 2)

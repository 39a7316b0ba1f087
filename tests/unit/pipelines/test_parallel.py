"""One video on several devices, as processes of this machine."""

import time
from pathlib import Path
from threading import Event, Thread, main_thread
from typing import Any

import pytest
import torch
import torch.distributed as dist
from diffusers import CogVideoXDPMScheduler

from fantasyid.core.errors import InvalidRequestError, NotFiniteError
from fantasyid.models.transformer import FantasyIDTransformer3DModel
from fantasyid.pipelines.acceleration import accelerate
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.options import Acceleration
from fantasyid.pipelines.parallel import (
    DeviceGroup,
    ParallelLayout,
    _first_error,
    _run_and_tell,
    connect,
    launch,
    process_rank,
)
from tests.tiny import noise, open_injection, tiny_transformer, tiny_transformer_inputs
from tests.tiny_pipeline import SCHEDULER_CONFIG, tiny_person, tiny_pipeline, tiny_pipeline_transformer

# 48 video tokens in 3 frames, 12 of text, 2 heads.
CASES: dict[str, tuple[ParallelLayout, dict[str, Any]]] = {
    "guidance": (ParallelLayout(guidance=2), {}),
    "tokens": (ParallelLayout(ulysses=2), {}),
    "other tokens": (ParallelLayout(ulysses=2), {"height": 16, "use_reference": False}),
    "no guidance to share": (ParallelLayout(guidance=2), {"guidance_scale": 1.0}),
    "guided at first": (ParallelLayout(guidance=2), {"guidance_interval": (0.0, 0.5)}),
    "tokens, cached": (ParallelLayout(ulysses=2), {"num_inference_steps": 7}),
}


# 72 video tokens in 3 frames: each device holds one and a half.
NETWORKS: list[dict[str, Any]] = [
    {},
    {"injection_kind": "paper_without_layers"},
    {"injection_interval": 2},
    {"injection_kind": "released"},
]


def network(variant: dict[str, Any]) -> FantasyIDTransformer3DModel:
    transformer: FantasyIDTransformer3DModel = tiny_transformer(**variant).eval()
    open_injection(transformer)
    return transformer


def step(transformer: FantasyIDTransformer3DModel) -> torch.Tensor:
    with torch.no_grad():
        sample = transformer(**tiny_transformer_inputs(), identity_tokens=noise(2, 7, 24, seed=4)).sample
    assert isinstance(sample, torch.Tensor)
    return sample


def make_video(pipeline: FantasyIDPipeline, call: dict[str, Any], seed: int = 0) -> torch.Tensor:
    frames = pipeline(
        "a person smiles",
        identity_inputs=tiny_person(),
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **call,
    ).frames
    assert isinstance(frames, torch.Tensor)
    return frames


def noisy_pipeline(case: str) -> FantasyIDPipeline:
    """With the scheduler that draws noise at every step, and a step cache where the case says so."""
    pipeline = tiny_pipeline(scheduler=CogVideoXDPMScheduler(**SCHEDULER_CONFIG))
    if "cached" in case:
        accelerate(pipeline.transformer, Acceleration(cache="taylor", cache_interval=2))
    return pipeline


def run_cases(folder: Path) -> None:
    """Make every case's video, each process with its own noise, and a step of every network.

    Then one of the processes fails, and the other, which misses it, ends before it does.
    """
    torch.set_num_threads(1)
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it; this process stands for one
    connect("cpu")
    videos: dict[str, torch.Tensor] = {}
    pipeline = noisy_pipeline("")
    for name, (layout, call) in CASES.items():
        if name != "other tokens":  # which are given to the pipeline of the case before
            pipeline = noisy_pipeline(name)
            pipeline.enable_parallelism(DeviceGroup(layout, torch.device("cpu")))
        videos[name] = make_video(pipeline, call, seed=process_rank())
    torch.save(videos, folder / f"{process_rank()}.pt")
    two = DeviceGroup(ParallelLayout(ulysses=2), torch.device("cpu"))
    steps = []
    for variant in NETWORKS:
        transformer = network(variant)
        two.split_tokens(transformer, (72, 6))
        steps.append(step(transformer))
    torch.save(steps, folder / f"steps_{process_rank()}.pt")
    cached = tiny_pipeline_transformer()
    accelerate(cached, Acceleration(cache="first-block"))
    with pytest.raises(InvalidRequestError, match="First-block caching decides from a device's own tokens"):
        two.split_tokens(cached, (48, 12))
    compiled = tiny_pipeline_transformer()
    accelerate(compiled, Acceleration(compile=True))
    with pytest.raises(InvalidRequestError, match="Compiled blocks cannot gather whole frames"):
        two.split_tokens(compiled, (48, 12))
    pipeline.memory_plan = "low"
    with pytest.raises(InvalidRequestError, match="need the memory plan 'fast', not 'low'"):
        pipeline.enable_parallelism(two)
    ring = DeviceGroup(ParallelLayout(ring=2), torch.device("cpu"))
    if process_rank() == 1:
        Thread(target=stay_after_failing, args=(folder,)).start()
        ring.split_tokens(tiny_pipeline_transformer(), (48, 12))
    while not (folder / "failed").exists():
        time.sleep(0.05)
    raise ConnectionError("the other process is gone")


def stay_after_failing(folder: Path) -> None:
    """Keep a process whose function has failed; the launcher ends it."""
    main_thread().join()
    (folder / "failed").touch()
    Event().wait()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_devices_make_the_video_of_one_and_the_first_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"^This attention kernel .* 2 \(ring\) devices; choose flash3, cudnn or flash2\.$"
    ):
        launch(2, run_cases, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, (_, call) in CASES.items():
        alone = make_video(noisy_pipeline(name), call)
        torch.testing.assert_close(first[name], alone, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)
        assert torch.equal(first[name], second[name]), name
    for variant, parallel in zip(NETWORKS, torch.load(tmp_path / "steps_0.pt"), strict=True):
        torch.testing.assert_close(parallel, step(network(variant)))


def fail(error: Exception) -> None:
    raise error


def test_what_failed_first_is_kept_whatever_it_is(tmp_path: Path) -> None:
    for kind, error in enumerate((ValueError("first"), NotFiniteError("first of another kind"))):
        for each in (error, ConnectionError("the other process is gone")):
            with pytest.raises(type(each)):
                _run_and_tell(tmp_path / f"{kind}.json", fail, each)
    fault, refusal = (_first_error(tmp_path / f"{kind}.json") for kind in range(2))
    assert (type(fault), str(fault)) == (RuntimeError, "ValueError: first")
    assert "in fail" in fault.__notes__[0]
    assert (type(refusal), str(refusal)) == (NotFiniteError, "first of another kind")


@pytest.mark.parametrize(
    ("devices", "has_guidance", "expected"),
    [
        (1, True, ParallelLayout()),
        (2, True, ParallelLayout(guidance=2)),
        (2, False, ParallelLayout(ulysses=2)),
        (3, True, ParallelLayout(ulysses=3)),
        (8, True, ParallelLayout(guidance=2, ulysses=4)),
    ],
)
def test_guidance_is_shared_before_tokens(devices: int, has_guidance: bool, expected: ParallelLayout) -> None:
    layout = ParallelLayout.for_devices(devices, has_guidance)
    assert layout == expected
    assert layout.devices == devices


@pytest.mark.parametrize("degrees", [{"guidance": 3}, {"ulysses": 0}, {"ring": -1}])
def test_layouts_that_cannot_be_are_refused(degrees: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError, match="guidance must be 1 or 2"):
        ParallelLayout(**degrees)


@pytest.mark.parametrize(
    ("layout", "lengths", "even"),
    [
        (ParallelLayout(ulysses=2), (17550, 226), True),
        (ParallelLayout(ulysses=2, ring=1, guidance=2), (17550, 225), False),
        (ParallelLayout(ulysses=4), (17552, 228), True),
        (ParallelLayout(ulysses=5), (17550, 225), False),  # 48 heads
        (ParallelLayout(ring=4), (17550, 226), False),
        (ParallelLayout(ulysses=2, ring=2), (17552, 228), True),
    ],
)
def test_lengths_and_heads_are_shared_evenly_or_not(
    layout: ParallelLayout, lengths: tuple[int, int], even: bool
) -> None:
    assert layout.shares_evenly(48, lengths) is even


def test_what_cannot_be_shared_is_refused_with_what_can() -> None:
    with pytest.raises(InvalidRequestError, match=r"17550 and 226 tokens cannot be shared by 2 .* x 2"):
        ParallelLayout(ulysses=2, ring=2).shares_evenly(48, (17550, 226))
    with pytest.raises(InvalidRequestError, match=r"6 heads cannot be shared by 4 devices; allowed are 1, 2, 3, 6\."):
        ParallelLayout(ulysses=4).shares_evenly(6, (12, 12))

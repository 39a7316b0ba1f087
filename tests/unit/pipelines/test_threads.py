"""Several threads call one pipeline and each gets its own video."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from threading import Barrier
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDPMScheduler

from fantasyid.core.errors import InvalidRequestError
from fantasyid.pipelines.acceleration import accelerate
from fantasyid.pipelines.fantasyid import FantasyIDPipeline
from fantasyid.pipelines.memory import stream_weights
from fantasyid.pipelines.options import Acceleration
from tests.tiny_pipeline import SCHEDULER_CONFIG, tiny_person, tiny_pipeline

CALLS: tuple[dict[str, Any], ...] = (
    {"num_inference_steps": 3, "guidance_scale": 1.0, "prompt": "smile"},
    {"num_inference_steps": 8, "guidance_scale": 4.0, "prompt": "a person turns the head to the left"},
    {"num_inference_steps": 5, "guidance_scale": 2.0, "guidance_interval": (0.0, 0.5), "prompt": ""},
)


def video(pipeline: FantasyIDPipeline, call: dict[str, Any], callback: Callable[..., Any] | None = None) -> Any:
    return pipeline(
        identity_inputs=tiny_person(),
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=callback,
        **call,
    ).frames


def all_at_once(pipeline: FantasyIDPipeline) -> list[torch.Tensor]:
    """The calls' videos, all of them started before the first ends where calls run side by side."""
    start = Barrier(len(CALLS))

    def make(call: dict[str, Any]) -> torch.Tensor:
        start.wait()
        return video(pipeline, call)

    with ThreadPoolExecutor(len(CALLS)) as threads:
        return list(threads.map(make, CALLS))


def streamed(pipeline: FantasyIDPipeline) -> None:
    stream_weights(pipeline, torch.device("cpu"))


def cached(pipeline: FantasyIDPipeline) -> None:
    accelerate(pipeline.transformer, Acceleration(cache="taylor", cache_interval=2))


@pytest.mark.parametrize("prepare", [lambda _: None, cached, streamed], ids=["plain", "cached", "streamed"])
@pytest.mark.parametrize("noisy", [False, True])
def test_threads_make_the_videos_of_calls_made_one_by_one(prepare: Any, noisy: bool) -> None:
    scheduler = {"scheduler": CogVideoXDPMScheduler(**SCHEDULER_CONFIG)} if noisy else {}
    pipeline = tiny_pipeline(**scheduler)
    prepare(pipeline)
    expected = [video(pipeline, call) for call in CALLS]
    for _ in range(3):
        for latents, alone in zip(all_at_once(pipeline), expected, strict=True):
            torch.testing.assert_close(latents, alone, atol=1e-5, rtol=1e-5)


def test_a_call_inside_another_changes_nothing_of_it() -> None:
    """The same as threads, in one certain order: another call begins and ends between two steps."""
    pipeline = tiny_pipeline()
    expected = video(pipeline, CALLS[1])

    def another(running: FantasyIDPipeline, step: int, *_: Any) -> None:
        if step in (0, 3):
            assert torch.equal(video(pipeline, CALLS[0], stop_after_first), first_alone)
        assert (running.guidance_scale, running.num_timesteps, running.interrupt) == (4.0, 8, False)

    def stop_after_first(running: FantasyIDPipeline, *_: Any) -> None:
        running._guidance_scale, running._interrupt = 7.0, True

    first_alone = video(pipeline, CALLS[0], stop_after_first)
    assert torch.equal(video(pipeline, CALLS[1], another), expected)


def test_a_call_leaves_the_components_as_they_were() -> None:
    pipeline = tiny_pipeline()
    before = deepcopy(pipeline.scheduler.__dict__)
    video(pipeline, CALLS[1])
    for name, value in before.items():
        now = getattr(pipeline.scheduler, name)
        assert torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value, name
    assert pipeline.tokenizer.backend_tokenizer.padding is None
    assert pipeline.tokenizer.backend_tokenizer.truncation is None


def test_a_cached_pipeline_refuses_a_call_inside_its_own() -> None:
    pipeline = tiny_pipeline()
    cached(pipeline)

    def nested(*_: Any) -> None:
        video(pipeline, CALLS[0])

    with pytest.raises(InvalidRequestError, match="called by a callback of its own call"):
        video(pipeline, CALLS[0], nested)
    assert torch.isfinite(video(pipeline, CALLS[0])).all()  # the turn was given back


def test_a_pipeline_can_still_be_copied() -> None:
    pipeline = tiny_pipeline()
    assert torch.equal(video(deepcopy(pipeline), CALLS[0]), video(pipeline, CALLS[0]))

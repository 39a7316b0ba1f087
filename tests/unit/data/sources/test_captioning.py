"""Captions of videos by a vision-language model, a real one of transformers with a few random weights."""

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from fantasyid.core.errors import InvalidRequestError
from fantasyid.core.video import write_video
from fantasyid.data.sources.caption_model import PROMPT, CaptionModel, whole_sentences
from fantasyid.data.sources.captioning import caption, spread_frames
from fantasyid.data.sources.folder import read_folder, videos_in
from tests.commands import refusal, run
from tests.kills import contents, count_steps, kill_at

WORDS = (
    "[PAD]",
    "[UNK]",
    "<s>",
    "</s>",
    "<image>",
    "person",
    "smiles",
    "turns",
    "light",
    "wall",
    "coat",
    "the",
    "a",
    ".",
)
PICTURES = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
"""The one that needs no torchvision; transformers 5.0 has it by the second name."""
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


def write_model(folder: Path) -> None:
    """LLaVA with one layer, whose words depend on the pictures."""
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", WORDS.index("<s>"))])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=["<image>"], **special)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, num_hidden_layers=2, image_size=28, patch_size=14, projection_dim=16)
    text = LlamaConfig(
        **sizes, vocab_size=len(WORDS), num_hidden_layers=1, num_key_value_heads=2, bos_token_id=2, eos_token_id=3
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=4))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    LlavaProcessor(
        PICTURES(size={"shortest_edge": 28}, crop_size=size),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films of noise of six frames, one of them in a folder, and one that is damaged."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "more").mkdir()
    draw = np.random.default_rng(0)
    for name in ("a", "b", "more/c", "d"):
        write_video(folder / f"{name}.mp4", draw.integers(0, 256, (6, 32, 48, 3), np.uint8), 8.0)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def told(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_videos_are_described_in_a_file_that_prepare_reads(model: Path, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "captions.jsonl"
    given = ("data", "caption", videos, "--model", model, "--device", "cpu", "--frames", "3")
    result = run(*given, "--out", out, "--batch", "2")
    assert result.exit_code == 0, result.output
    assert "4 of 5 videos are described" in result.output
    assert "broken.mp4" in result.output
    rows = told(out)
    assert [row["path"] for row in rows] == ["a.mp4", "b.mp4", "d.mp4", "more/c.mp4"]
    assert all(set(row["caption"].split()) <= set(WORDS) for row in rows)
    assert len({row["caption"] for row in rows}) > 1  # the pictures are looked at
    sources = {source.path: source.captions for source in read_folder(videos, "CC0", out).sources}
    assert sources == {"broken.mp4": (), **{row["path"]: (row["caption"],) for row in rows}}
    assert [path.name for path in tmp_path.iterdir()] == ["captions.jsonl"]
    assert "captions.jsonl is there already; choose another name" in refusal(*given, "--out", out)
    assert run(*given, "--out", tmp_path / "again.jsonl").exit_code == 0
    assert told(tmp_path / "again.jsonl") == rows  # one at a time


def test_words_are_the_models_most_probable_ones(model: Path, videos: Path) -> None:
    """Each is what the network says after all before it, without a cache and without a batch."""
    reader = CaptionModel.load(model, "cpu", torch.float32)
    frames = list(spread_frames(videos / "a.mp4", 2))
    (said,) = reader.describe([frames])
    inputs = reader.processor(text=f"<image> <image> {PROMPT}", images=frames, return_tensors="pt")
    asked = inputs["input_ids"].shape[1]
    for _ in range(200):
        with torch.no_grad():
            best = reader.model(**inputs).logits[:, -1:].argmax(-1)
        if best.item() == WORDS.index("</s>"):
            break
        inputs["input_ids"] = torch.cat([inputs["input_ids"], best], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert said == whole_sentences(reader.processor.decode(inputs["input_ids"][0, asked:], skip_special_tokens=True))
    assert len(said.split()) > 5


@pytest.mark.parametrize("start", ["", "<s> "])
def test_a_request_has_one_start(model: Path, videos: Path, start: str) -> None:
    """Some templates write it, and for others the tokenizer adds it."""
    reader = CaptionModel.load(model, "cpu", torch.float32)
    reader.processor.chat_template = start + TEMPLATE
    numbers = reader.inputs([list(spread_frames(videos / "a.mp4", 2))])["input_ids"]
    assert (numbers == WORDS.index("<s>")).sum() == 1


def test_frames_are_spread_evenly(videos: Path) -> None:
    every = list(spread_frames(videos / "a.mp4", 6))
    three = list(spread_frames(videos / "a.mp4", 3))
    assert [next(k for k, frame in enumerate(every) if np.array_equal(frame, one)) for one in three] == [1, 3, 5]
    assert len(list(spread_frames(videos / "a.mp4", 64))) == 6


def test_a_killed_run_goes_on_and_ends_with_the_same_file(model: Path, videos: Path, tmp_path: Path) -> None:
    found = videos_in(videos)

    def describe(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        made_with = {"model": "tiny"}
        load = CaptionModel.load
        caption(found, folder / "c.jsonl", lambda: load(model, "cpu", torch.float32), made_with, 2, 2, lambda _: None)

    describe(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    steps = count_steps(partial(describe, tmp_path / "counted"))
    for number in range(4):
        folder = tmp_path / f"killed{number}"
        kill_at((2 * number + 1) * steps // 8, signal.SIGKILL, partial(describe, folder))
        describe(folder)
        assert contents(folder) == whole


def test_what_was_described_is_not_described_again(model: Path, videos: Path, tmp_path: Path) -> None:
    """Lines of whole batches stay, and those of the batch that a kill cut are made anew; other options are refused."""
    found, asked = videos_in(videos), []

    class Counting:
        def describe(self, clips: list[object]) -> list[str]:
            asked.append(len(clips))
            if len(asked) == 2:
                raise KeyboardInterrupt
            return ["Somebody."] * len(clips)

    given = (found, tmp_path / "c.jsonl", Counting, {}, 1)
    with pytest.raises(KeyboardInterrupt):
        caption(*given, 2, lambda _: None)
    with (tmp_path / "c.jsonl.part").open("a") as part:
        part.write('{"path": "broken.mp4", "caption": "Cut')
    with pytest.raises(InvalidRequestError, match="other videos, options or another model; give those to go on"):
        caption(*given, 3, lambda _: None)
    counts: list[int] = []
    assert set(caption(*given, 2, counts.append)) == {"broken.mp4"}
    assert (asked, counts) == ([2, 1, 1, 1], [4, 5])
    assert {row["caption"] for row in told(tmp_path / "c.jsonl")} == {"Somebody."}


def test_texts_end_with_a_sentence() -> None:
    assert whole_sentences(" A person\n smiles.  The wall is") == "A person smiles."
    assert whole_sentences("A person") == "A person"


def _another_kind(folder: Path) -> None:
    BertConfig().save_pretrained(folder)


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _no_processor(folder: Path) -> None:
    for name in ("processor_config.json", "chat_template.jinja"):
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_another_kind, "holds a bert, which takes no pictures with a text"),
        (_no_template, "does not say how pictures and requests are put"),
        (_no_processor, "processor"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights in *.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    ],
)
def test_another_folder_than_a_models_is_refused(
    model: Path, videos: Path, tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    write_model(tmp_path / "model")
    harm(tmp_path / "model")
    given = ("data", "caption", videos, "--device", "cpu", "--out", tmp_path / "c.jsonl", "--model")
    assert said in refusal(*given, tmp_path / "model")
    assert "There is no folder" in refusal(*given, tmp_path / "none")

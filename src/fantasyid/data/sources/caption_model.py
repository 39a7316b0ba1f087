"""A vision-language model of the user's that says what a video shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText, AutoProcessor

from fantasyid.core.component_files import check_files, weights_files
from fantasyid.core.errors import InvalidRequestError, MissingBackendError, MissingWeightsError
from fantasyid.core.network_folder import read_component

PROMPT = (
    "These pictures are frames of one video, in order. Describe the video in three or four plain sentences, 100 words "
    "at most: what the person does and how they move, their pose, their expression, their hair and clothes, the place, "
    "and the light. Say what is seen and nothing else. Never say or guess who the person is, and never give a name."
)
_MOST_TOKENS = 200
_MOST_PIXELS = 448
_REMEDY = "give the folder of a vision-language model as transformers saves it"


@dataclass(frozen=True)
class CaptionModel:
    """Describes videos by some of their frames; the same frames give the same words.

    Attributes:
        model: Of transformers, for pictures and text to text.
        processor: Its own, which has the model's form of a conversation.
    """

    model: Any
    processor: Any

    @classmethod
    def load(cls, folder: Path, device: str, dtype: torch.dtype) -> "CaptionModel":
        """Read a model.

        Args:
            folder: As transformers saves it, weights in safetensors; nothing is downloaded and none of its code is run.
            device: Such as `"cuda"`.
            dtype: What it computes in.

        Raises:
            FantasyIDError: It is not there, damaged, or another kind of model; or a package that it needs is missing.
        """
        check_files(folder, _REMEDY)
        if not weights_files(folder):
            raise MissingWeightsError(
                f"{folder} has no weights in *.safetensors, the only kind that is read; {_REMEDY}."
            )
        config = read_component(folder, AutoConfig, _REMEDY, trust_remote_code=False)
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise InvalidRequestError(
                f"{folder} holds a {config.model_type}, which takes no pictures with a text; {_REMEDY}."
            )
        processor = _read_processor(folder)
        arguments = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
        model, info = read_component(folder, AutoModelForImageTextToText, _REMEDY, **arguments)
        if info["missing_keys"]:
            name = sorted(map(str, info["missing_keys"]))[0]
            raise MissingWeightsError(f"{folder} has no weight {name}; {_REMEDY}.")
        return cls(model.to(device).eval(), processor)

    @torch.no_grad()
    def describe(self, videos: Sequence[Sequence[NDArray[np.uint8]]]) -> list[str]:
        """One description for each video, its most probable words one after the other.

        Args:
            videos: Frames of each, RGB (H,W,3) uint8, at least one.

        Returns:
            Texts in one line, to the end of their last full sentence; empty where the model said nothing.
        """
        inputs = self.inputs(videos).to(self.model.device, self.model.dtype)
        written = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=_MOST_TOKENS,
            temperature=None,
            top_p=None,
            top_k=None,
        )
        answers = self.processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [whole_sentences(answer) for answer in answers]

    def inputs(self, videos: Sequence[Sequence[NDArray[np.uint8]]]) -> Any:
        """Pictures and requests as the processor makes them for the model; see `describe`."""
        pictures = [[_shrunk(frame) for frame in frames] for frames in videos]
        texts = [self._asked(len(frames)) for frames in pictures]
        start = self.processor.tokenizer.bos_token
        # Where the template has it, the tokenizer must not add it.
        has_start = bool(start) and texts[0].startswith(start)
        return self.processor(
            text=texts, images=pictures, padding=True, return_tensors="pt", add_special_tokens=not has_start
        )

    def _asked(self, frames: int) -> str:
        """The request for so many pictures, in the model's form of a conversation."""
        content = [*({"type": "image"} for _ in range(frames)), {"type": "text", "text": PROMPT}]
        conversation = [{"role": "user", "content": content}]
        asked: str = self.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        return asked


def whole_sentences(text: str) -> str:
    """A text in one line, without a last sentence that was cut off; a text of one stays."""
    text = " ".join(text.split())
    end = max(text.rfind(mark) for mark in ".!?。！？")
    return text[: end + 1] if end >= 0 else text


def _read_processor(folder: Path) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise MissingBackendError(
            f"The processor of {folder} needs a package that is not installed: {' '.join(str(error).split())}"
        ) from error
    # A damaged file can make the library's readers raise anything.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InvalidRequestError(f"The processor of {folder} cannot be read ({reason}); {_REMEDY}.") from error
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise InvalidRequestError(
            f"{folder} does not say how pictures and requests are put to its model (no image processor, or no chat "
            f"template); {_REMEDY}."
        )
    processor.tokenizer.padding_side = "left"  # so that all answers begin at one place
    return processor


def _shrunk(frame: NDArray[np.uint8]) -> Image.Image:
    """A frame whose longer side has as many pixels as such models look at, or fewer."""
    picture = Image.fromarray(frame)
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.BICUBIC)
    return picture

"""CLIP, from a folder of transformers'."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from fantasyid.core.errors import CorruptWeightsError, InvalidRequestError, MissingWeightsError
from fantasyid.core.input_files import file_sha256

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Clip:
    """Tells how alike pictures and a text are.

    Attributes:
        model: transformers' CLIPModel, which sees and reads.
        processor: Its CLIPImageProcessor, which brings pictures to the model's size and colours.
        tokenizer: Its CLIPTokenizer, which splits texts.
        fingerprint: Hash of all.
    """

    model: Any
    processor: Any
    tokenizer: Any
    fingerprint: str

    @classmethod
    def load(cls, folder: Path) -> "Clip":
        """Read a model; nothing is downloaded.

        Args:
            folder: As `CLIPModel.save_pretrained` and the tokenizer's and the image processor's write it.

        Raises:
            MissingWeightsError: The folder or its weights are not there.
            CorruptWeightsError: It holds something else.
        """
        if not (folder / _WEIGHTS).is_file():
            raise MissingWeightsError(
                f"There is no {folder / _WEIGHTS}; download all of a CLIP model, such as openai/clip-vit-base-patch16, "
                f"to {folder}."
            )
        # Here, because without torchvision transformers says at this import that pictures are scaled by Pillow.
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        try:
            model, unlike = CLIPModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
            processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            raise CorruptWeightsError(f"{folder} holds no CLIP model ({error}); download it again.") from error
        if unlike["missing_keys"]:
            raise CorruptWeightsError(f"{folder} lacks weights of its CLIP model; download it again.")
        digest = hashlib.sha256()
        for file in sorted(file for file in folder.iterdir() if file.suffix in (".json", ".txt", ".safetensors")):
            digest.update(f"{file.name} {file_sha256(file)} ".encode())
        return cls(model.eval(), processor, tokenizer, digest.hexdigest())

    @torch.no_grad()
    def cosines(self, images: Sequence[NDArray[np.uint8]], text: str) -> NDArray[np.float64]:
        """Compare pictures with a text.

        Args:
            images: N of RGB (H,W,3).
            text: At most as long as the model reads.

        Returns:
            (N,) -1 to 1.

        Raises:
            InvalidRequestError: The text is longer.
        """
        tokens, most = self.tokenizer(text, return_tensors="pt"), self.model.config.text_config.max_position_embeddings
        if (count := tokens["input_ids"].shape[1]) > most:
            raise InvalidRequestError(
                f"The prompt {text!r} has {count} tokens and this CLIP model reads {most}; shorten it, or leave out "
                "clip_folder."
            )
        seen = self.model.vision_model(**self.processor(images=list(images), return_tensors="pt")).pooler_output
        read = self.model.text_model(**tokens).pooler_output
        pictures, words = self.model.visual_projection(seen), self.model.text_projection(read)
        return np.asarray(torch.nn.functional.cosine_similarity(pictures, words).double().numpy())

"""Where the files of an encoding lie, and what its manifest says.

```
DATASET/encodings/NAME/
  plan.json                          which networks, sizes and clips; written first
  shard-00000.parquet                rows of 64 clips, in the dataset's order
  shard-00000.latents.safetensors    CLIP -> (T,C,h,w)
  shard-00000.text.safetensors       CLIP -> (L,D), and `null`, the empty caption's
  shard-00000.references.safetensors CLIP -> (V,C,h,w)
  shard-00000.noised.safetensors     CLIP -> (V,K,C,h,w), of the same pictures with noise
  shard-00000.faces.safetensors      CLIP -> (V,g,g,D)
  shard-00000.heads.safetensors      CLIP -> (N,3)
  shard-00000.files.json             hashes of the seven
  index.parquet                      the rows of all shards
  encoding.json                      manifest with the hash of every file; written last
```
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fantasyid.core.errors import InvalidRequestError
from fantasyid.data.dataset.layout import read_document

SHARD_SIZE = 64
COLUMNS = ("latents", "text", "references", "noised", "faces", "heads")
NULL_TEXT = "null"
"""Name of the empty caption in the shards of text."""
REMEDY = "run `fantasyid data encode` again, which makes what is missing"
AGAIN = "encode the dataset again with `fantasyid data encode --name`, under another name"


class EncodingPlan(BaseModel):
    """What decides every number of an encoding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    """Changes when what is encoded changes meaning."""
    clips: str
    """SHA-256 of the dataset's table of clips."""
    networks: dict[str, str]
    """Hash of each network, by what it does."""
    topology_hash: str
    """Of the mesh of the heads."""
    num_frames: int
    fps: float
    height: int
    width: int
    text_length: int
    noised: int
    """References of each view that are noised before they are encoded."""
    dtype: str


class EncodingManifest(BaseModel):
    """What a finished encoding holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: EncodingPlan
    clips: int
    captions_cut: int
    """Captions that were longer than the model takes."""
    licences: dict[str, int]
    """Clips by the terms of their videos."""
    files: dict[str, str]
    """SHA-256 of every file."""


class EncodingFolder:
    """The paths of an encoding.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "plan.json"
        self.index = path / "index.parquet"
        self.manifest = path / "encoding.json"

    def shard(self, number: int) -> dict[str, Path]:
        """The files of a shard: one for each of `COLUMNS`, `rows`, its part of the index, and `files`, their hashes."""
        stem = f"shard-{number:05d}"
        columns = {name: self.path / f"{stem}.{name}.safetensors" for name in COLUMNS}
        return {**columns, "rows": self.path / f"{stem}.parquet", "files": self.path / f"{stem}.files.json"}

    def read_manifest(self) -> EncodingManifest:
        """The manifest.

        Raises:
            InvalidRequestError: There is none: it is no encoding, or not finished.
            CorruptDatasetError: It cannot be read.
        """
        if not self.manifest.is_file():
            raise InvalidRequestError(
                f"{self.path} is no finished encoding: there is no {self.manifest.name}; run `fantasyid data encode`."
            )
        return read_document(self.manifest, EncodingManifest, AGAIN)

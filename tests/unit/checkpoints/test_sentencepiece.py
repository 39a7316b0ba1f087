"""T5's tokenizer as CogVideoX publishes it: a SentencePiece model and no tokenizer.json."""

import io
import json
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import T5Tokenizer

from fantasyid.checkpoints.folders import load_component_folder


def test_a_tokenizer_of_sentencepiece_alone_is_read(tmp_path: Path) -> None:
    text = io.StringIO("a person smiles\na woman nods in front of a plain blue background\n" * 20)
    SentencePieceTrainer.train(
        sentence_iterator=text,
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 0}))
    tokenizer = load_component_folder(tmp_path, T5Tokenizer)
    expected = SentencePieceProcessor(model_file=str(tmp_path / "spiece.model")).encode("a woman smiles")
    assert tokenizer("a woman smiles").input_ids == [*expected, 1]

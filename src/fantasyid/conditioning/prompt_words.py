"""Words of a prompt that a text encoder cannot have learned: told to the user, who may have meant others."""

import re
import unicodedata
from collections.abc import Sequence
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

# Small words that tell a language: articles, conjunctions, prepositions; those that English has, too, are left out.
_ENGLISH = "a an and are as at by down from her his in into is of off on out over the their to towards up while with"
_OTHER_LANGUAGES = MappingProxyType(
    {
        "German": "ein eine einen einem einer der das dem und mit nach zu auf",
        "French": "un une la le les des et avec vers sur est",
        "Spanish": "un una el la los las y con hacia su en",
        "Italian": "un una il la lo gli che di della verso con",
        "Portuguese": "o um uma os com para ao da seu sua",
        "Dutch": "een het van met naar en",
        "Swedish, Danish or Norwegian": "en ett et och og mot med till",
        "Polish": "się na jest oraz w z",
        "Turkish": "bir ve ile",
    }
)


def doubt_about(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str | None:
    """Say in one sentence what of a prompt a text encoder cannot have learned.

    The encoders in use learned English. Another language in Latin letters is told by its small words, so a prompt
    without any of them passes.

    Args:
        tokenizer: The encoder's tokenizer.
        prompt: The text.

    Returns:
        The sentence, or None where nothing is in doubt.
    """
    words = re.findall(r"\w+|[^\w\s]", prompt)
    unknown = [word for word in words if tokenizer.unk_token in tokenizer.tokenize(word)]
    if unknown:
        return f"The text encoder has no token for {_listed(unknown)} and sees nothing there; use other words."
    foreign = [word for word in words if any(c.isalpha() and not _is_latin(c) for c in word)]
    if foreign:
        return f"The text encoder learned English, and {_listed(foreign)} is in another script; write in English."
    lower = {word.lower() for word in words}
    counts = {name: len(lower.intersection(small.split())) for name, small in _OTHER_LANGUAGES.items()}
    most = max(counts.values())
    if most > len(lower.intersection(_ENGLISH.split())):
        language = " or ".join(name for name, count in counts.items() if count == most)
        return f"The text encoder learned English, and the prompt {prompt!r} looks like {language}; write in English."
    return None


def _listed(words: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(words))
    return ", ".join(map(repr, distinct[:5])) + (" and more" if len(distinct) > 5 else "")


def _is_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(("LATIN", "FULLWIDTH LATIN", "FEMININE", "MASCULINE"))

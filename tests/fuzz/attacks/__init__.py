"""Files made by hand to do harm, by the name of what they try. Each must be refused, soon and in little memory."""

from functools import cache

from tests.fuzz.attacks.archives import NPZ_ATTACKS, TORCH_ATTACKS
from tests.fuzz.attacks.meshes import OBJ_ATTACKS, PLY_ATTACKS
from tests.fuzz.attacks.packed import MANIFEST_ATTACKS, SAFETENSORS_ATTACKS
from tests.fuzz.attacks.pickles import PICKLE_ATTACKS

_ATTACKS = {
    "pickle": PICKLE_ATTACKS,
    "flame-npz": NPZ_ATTACKS,
    "torch": TORCH_ATTACKS,
    "ply": PLY_ATTACKS,
    "obj": OBJ_ATTACKS,
    "manifest": MANIFEST_ATTACKS,
    "safetensors": SAFETENSORS_ATTACKS,
}


@cache
def attacks(name: str) -> dict[str, bytes]:
    """The attacks of a format; none for a format without."""
    return {attack: make() for attack, make in _ATTACKS.get(name, {}).items()}

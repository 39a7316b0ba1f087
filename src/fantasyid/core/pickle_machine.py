"""Pickles interpreted opcode by opcode, without Python's unpickler: nothing in a file is imported, called or set.

A pickle is a program for a stack machine. This machine knows its containers, strings and numbers. Names of functions
and classes stay names; what a name may make is a function of the caller's, given in a table, and every other name is
refused. What a file can take is bounded by its own size: no number in it is believed before it is compared with that.
"""

import codecs
import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

MAX_OPCODES = 500_000
"""A FLAME file has some hundreds, a checkpoint of 1,000 tensors some 40,000."""
MAX_DEPTH = 64
"""Containers inside of containers, for those who walk through what was read."""
_INTEGER_BITS = 128
_KEY_BITS = 63
_HIGHEST_PROTOCOL = 5


class PickleError(ValueError):
    """Why a file is refused, as a clause; whoever knows the file's name and the remedy makes a sentence of it."""


@dataclass(frozen=True)
class Name:
    """What a file calls by its module and name; there is nothing behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StandIn:
    """Base of what stands for an object of a file: it takes the object's state when the file gives it one."""

    def take(self, state: Any) -> None:
        """Keep what the caller needs of a state.

        Raises:
            PickleError: The state has another form.
        """
        raise PickleError(f"it changes a {type(self).__name__}")


class Budget:
    """Bytes that may still be made out of a file's content, so that few of them never become many."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit

    def spend(self, num_bytes: int) -> None:
        """Take some.

        Raises:
            PickleError: So many are not left.
        """
        self.left -= num_bytes
        if self.left < 0:
            raise PickleError(f"its content would unfold to more than {self.limit} bytes")


Makers = Mapping[str, Callable[..., Any] | None]
"""By full name, what a file may ask for: a function of ours that makes it, or None for a name that is passed on."""


def read_pickle(file: BinaryIO, num_bytes: int, makers: Makers, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Interpret one pickle, of any protocol, written by Python 2 or 3.

    Args:
        file: Read from where it stands to just behind the pickle; never past `num_bytes`.
        num_bytes: How many bytes the file has left; a bound for every index in it.
        makers: What it may ask for.
        persistent: Gives what the file refers to as outside of itself; None refuses it.

    Returns:
        Dicts, lists, tuples, sets, strings, bytes and numbers as they were (strings of Python 2 as Latin-1, keys and
        members of sets strings, bytes or integers), `Name`s, and what the makers made. Containers may hold themselves,
        and each other at any depth.

    Raises:
        PickleError: It is no pickle, is cut off, asks for a name that is not in the table, or goes beyond a bound.
    """
    return _Machine(_Bounded(file, num_bytes), num_bytes, makers, persistent).run()


class _Bounded(io.RawIOBase):
    """A file that is never asked for more bytes than it has: Python sets the memory aside before it reads."""

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file, self._left = file, num_bytes

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(content)
        return content

    def readline(self, size: int | None = -1) -> bytes:
        content = self._file.readline(self._left)
        self._left -= len(content)
        return content


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MARK = object()


class _Machine:
    def __init__(self, file: _Bounded, num_bytes: int, makers: Makers, persistent: Callable[[Any], Any] | None) -> None:
        self._file, self._num_bytes, self._makers, self._persistent = file, num_bytes, makers, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPCODES):
            opcode = _OPCODES.get(self._file.read(1).decode("latin-1"))
            if opcode is None:
                raise PickleError("it is cut off or no pickle")
            if opcode.name == "STOP":
                return self._pop()
            argument = self._argument(opcode)
            if opcode.name in _PUSHES_ITS_ARGUMENT:
                self._stack.append(argument)
            elif opcode.name in _PUSHES:
                self._stack.append(_PUSHES[opcode.name]())
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            else:
                raise PickleError(f"it has the opcode {opcode.name}, which is refused")
        raise PickleError(f"it has more than {MAX_OPCODES} opcodes")

    def _argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        if opcode.arg is None:
            return None
        try:
            # The standard library's reader of this one takes ASCII alone, and arrays of Python 2 are not.
            value = (
                self._python_2_string() if opcode.name == "STRING" else opcode.arg.reader(cast(BinaryIO, self._file))
            )
        except (ValueError, IndexError, OverflowError) as error:
            raise PickleError(f"its {opcode.name} cannot be read: {error}") from error
        if type(value) is int and value.bit_length() > _INTEGER_BITS:
            raise PickleError(f"it has an integer of {value.bit_length()} bits")
        return bytes(value) if isinstance(value, bytearray) else value

    def _python_2_string(self) -> str:
        line = self._file.readline()
        if len(line) < 3 or line[:1] not in (b"'", b'"') or line[-2:] != line[:1] + b"\n":
            raise ValueError("it has no quotes")
        return codecs.escape_decode(line[1:-2])[0].decode("latin-1")

    # The stack.

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("it takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(value := self._pop())
        return value

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while self._stack and self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        if not self._stack:
            raise PickleError("it lacks a mark")
        self._stack.pop()
        return items[::-1]

    def _discard(self, _: None) -> None:
        if not self._stack:
            raise PickleError("it takes from an empty stack")
        self._stack.pop()

    def _discard_to_mark(self, _: None) -> None:
        self._pop_to_mark()

    def _remember(self, index: int | None) -> None:
        index = len(self._memo) if index is None else index
        if not 0 <= index < self._num_bytes:
            raise PickleError(f"it numbers an object {index} and has {self._num_bytes} bytes")
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError(f"it recalls the object {index}, which it has not stored")
        self._stack.append(self._memo[index])

    # Containers.

    def _tuple(self, length: int) -> None:
        self._stack.append(tuple([self._pop() for _ in range(length)][::-1]))

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise PickleError(f"it appends to a {_kind(target)}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict):
            raise PickleError(f"it sets entries of a {_kind(target)}")
        target.update(self._pairs(items))

    def _pairs(self, items: list[Any]) -> dict[Any, Any]:
        if len(items) % 2:
            raise PickleError("it has a key without a value")
        return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}

    def _add(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not set:
            raise PickleError(f"it adds members to a {_kind(target)}")
        target.update(map(_key, items))

    # Names and what is made of them.

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError("it asks for something without a name")
        asked = Name(module, name)
        if str(asked) not in self._makers:
            # As ASCII, because it goes into a message and the file may have chosen control characters.
            raise PickleError(f"it asks for {ascii(str(asked)[:100])[1:-1]}, which is refused")
        self._stack.append(asked)

    def _make(self, _: None) -> None:
        arguments, asked = self._pop(), self._pop()
        maker = self._makers[str(asked)] if isinstance(asked, Name) else None
        if maker is None or type(arguments) is not tuple:
            raise PickleError(f"it calls {asked if isinstance(asked, Name) else 'a ' + _kind(asked)}")
        try:
            self._stack.append(maker(*arguments))
        except TypeError as error:
            raise PickleError(f"it calls {asked} with other arguments than it takes") from error

    def _build(self, _: None) -> None:
        state, target = self._pop(), self._top()
        if not isinstance(target, StandIn):
            raise PickleError(f"it gives a state to a {_kind(target)}")
        target.take(state)

    def _refer(self, _: None) -> None:
        if self._persistent is None:
            raise PickleError("it refers to something outside of itself")
        self._stack.append(self._persistent(self._pop()))

    def _protocol(self, number: int) -> None:
        if number > _HIGHEST_PROTOCOL:
            raise PickleError(f"it has the protocol {number}")


class Unfolding:
    """Walks through what was read and makes every stand-in what it stands for, each once.

    Args:
        make: From a stand-in or a `Name`, and from a function that does the same for a part of it, what it stands for.
    """

    def __init__(self, make: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
        self._make = make
        # By identity, with the value beside what was made, so that its number is not given to another.
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any, depth: int = MAX_DEPTH) -> Any:
        """What a value stands for; what stands twice in the file is made once.

        Raises:
            PickleError: It holds itself or is nested too deep.
        """
        if value is None or isinstance(value, (str, bytes, bool, int, float, set, frozenset)):
            return value
        if id(value) not in self._made:
            if depth == 0:
                raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
            self._made[id(value)] = value, self._unfold(value, depth - 1)
        return self._made[id(value)][1]

    def _unfold(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {key: self.of(entry, depth) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([self.of(entry, depth) for entry in value])
        return self._make(value, lambda part: self.of(part, depth))


def read_set(members: Any = ()) -> set[Any]:
    """Maker of sets, which the protocols below 4 write as calls.

    Raises:
        PickleError: The members are no list, or cannot be members.
    """
    if not isinstance(members, (list, tuple)):
        raise PickleError(f"it makes a set of a {_kind(members)}")
    return set(map(_key, members))


def _key(value: Any) -> Any:
    # Hashing nested tuples overflows the C stack, and integers beyond 64 bits can be chosen to have one hash.
    if type(value) not in (str, bytes, int) or (type(value) is int and value.bit_length() > _KEY_BITS):
        raise PickleError(f"it has a {_kind(value)} as a key")
    return value


def _kind(value: Any) -> str:
    return str(value) if isinstance(value, Name) else type(value).__name__


_PUSHES_ITS_ARGUMENT = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_PUSHES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine._protocol,
    "FRAME": lambda machine, _: None,
    "POP": _Machine._discard,
    "POP_MARK": _Machine._discard_to_mark,
    "DUP": lambda machine, _: machine._stack.append(machine._top()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._recall),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._pop_to_mark())),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": lambda machine, _: machine._stack.append(machine._pop_to_mark()),
    "APPEND": lambda machine, _: machine._extend([machine._pop()]),
    "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "DICT": lambda machine, _: machine._stack.append(machine._pairs(machine._pop_to_mark())),
    "SETITEM": lambda machine, _: machine._set_items([machine._pop() for _ in range(2)][::-1]),
    "SETITEMS": lambda machine, _: machine._set_items(machine._pop_to_mark()),
    "FROZENSET": lambda machine, _: machine._stack.append(frozenset(map(_key, machine._pop_to_mark()))),
    "ADDITEMS": lambda machine, _: machine._add(machine._pop_to_mark()),
    "GLOBAL": lambda machine, pair: machine._global(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine._global(*[machine._pop() for _ in range(2)][::-1]),
    "REDUCE": _Machine._make,
    "NEWOBJ": _Machine._make,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._refer,
}

"""Kinds of values, schemas and nodes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar


class NumberDisplay(StrEnum):
    """How a number is edited."""

    number = "number"
    slider = "slider"


@dataclass
class Input:
    """One input of a node."""

    io_type: ClassVar[str]
    has_widget: ClassVar[bool] = False
    id: str
    display_name: str | None = None
    optional: bool = False
    tooltip: str | None = None

    def get_io_type(self) -> str:
        """The kind of value."""
        return self.io_type


@dataclass
class Output:
    """One output of a node."""

    io_type: ClassVar[str]
    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None


@dataclass
class _Widget(Input):
    has_widget: ClassVar[bool] = True
    default: Any = None


@dataclass
class _Combo(_Widget):
    options: list[str] = field(default_factory=list)


@dataclass
class _Number(_Widget):
    min: float | None = None
    max: float | None = None
    step: float | None = None
    display_mode: NumberDisplay | None = None


@dataclass
class _Int(_Number):
    control_after_generate: bool | None = None


@dataclass
class _Float(_Number):
    round: float | None = None


@dataclass
class _String(_Widget):
    multiline: bool = False


def _kind(io_type: str, base: type[Input] = Input) -> Any:
    of_kind = {"io_type": io_type}
    return type(io_type, (), {"Input": type("Input", (base,), of_kind), "Output": type("Output", (Output,), of_kind)})


Boolean, Int, Float = _kind("BOOLEAN", _Widget), _kind("INT", _Int), _kind("FLOAT", _Float)
String, Combo = _kind("STRING", _String), _kind("COMBO", _Combo)
Image, Video = _kind("IMAGE"), _kind("VIDEO")
Custom = _kind


@dataclass
class Schema:
    """What a node is."""

    node_id: str
    display_name: str
    category: str
    inputs: list[Input]
    outputs: list[Output]
    description: str = ""
    is_output_node: bool = False


class NodeOutput:
    """What a node gives."""

    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args, self.ui = args, ui

    @property
    def result(self) -> tuple[Any, ...]:
        """The values of its outputs."""
        return self.args


class ComfyNode(ABC):
    """A node; it is never made an instance of."""

    @classmethod
    @abstractmethod
    def define_schema(cls) -> Schema:
        """Its inputs and outputs."""

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802 - ComfyUI's name
        """The same, checked."""
        schema = cls.define_schema()
        names = [asked.id for asked in schema.inputs]
        assert len(names) == len(set(names)), names
        return schema

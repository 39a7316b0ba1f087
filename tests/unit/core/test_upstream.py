"""The private API of other packages that we use is there, does what we take it for, and is used in one file."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate import cpu_offload
from diffusers import AutoencoderKLCogVideoX, DiffusionPipeline, FirstBlockCacheConfig
from diffusers.hooks import group_offloading
from diffusers.models import modeling_utils
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.pipelines import pipeline_utils
from torch import nn

from fantasyid.core import upstream
from fantasyid.models.transformer import FantasyIDBlock
from tests.tiny import noise, tiny_transformer, tiny_transformer_inputs
from tests.tiny_pipeline import tiny_pipeline

SOURCE = Path(upstream.__file__).parents[1]
DECLARED: dict[str, ModuleType] = {
    "_no_split_modules": modeling_utils,
    "_repeated_blocks": modeling_utils,
    "_keep_in_fp32_modules": modeling_utils,
    "_cp_plan": modeling_utils,
    "_parallel_config": modeling_utils,
    "_attention_backend": modeling_utils,
    "_optional_components": pipeline_utils,
    "_exclude_from_cpu_offload": pipeline_utils,
}
"""What our classes declare for diffusers to read, and where it does."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of_ours(trees: list[ast.Module]) -> set[str]:
    """Private names that our own files define: functions, classes, and attributes of classes and of `self`."""
    ours: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            ours.add(node.name)
        if isinstance(node, ast.ClassDef):
            targets = [target for part in node.body if isinstance(part, ast.Assign) for target in part.targets]
            targets += [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
            ours |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            ours.add(node.attr)
    return ours


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_uses(tree: ast.Module, ours: set[str]) -> Iterator[str]:
    """The private names of other packages that a file imports, reads, sets, or asks for by a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("fantasyid"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and node.attr not in (
            ours if not is_self(node.value) else ours | {*DECLARED}
        ):
            names = [node.attr]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            name = node.args[1]
            names = [name.value] if isinstance(name, ast.Constant) and name.value not in ours else []
        else:
            continue
        yield from (f"line {node.lineno}: {name}" for name in names if is_private(name))


def test_no_other_file_uses_private_names_of_other_packages() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}
    ours = names_of_ours(list(trees.values())) - set(DECLARED)
    found = {
        str(path.relative_to(SOURCE)): list(private_uses(tree, ours))
        for path, tree in trees.items()
        if path != Path(upstream.__file__)
    }
    assert len(found) > 100
    assert not {path: uses for path, uses in found.items() if uses}
    assert list(private_uses(trees[Path(upstream.__file__)], ours))


@pytest.mark.parametrize(
    "text",
    [
        "import torch._dynamo",
        "from diffusers.hooks._helpers import TransformerBlockRegistry",
        "from diffusers.models.attention_dispatch import _AttentionBackendRegistry",
        "torch._scaled_mm(a, b)",
        "model._cache_config",
        "vae._group_offload_block_modules = []",
        "getattr(module, '_diffusers_hook', None)",
        "hasattr(module, '_hf_hook')",
        "processor._attention_backend",
        "self._execution_device",
    ],
)
def test_every_form_of_private_use_is_seen(text: str) -> None:
    assert len(list(private_uses(ast.parse(text), {"_ours"}))) == 1
    assert not list(private_uses(ast.parse("self._ours, other._ours, self._attention_backend, x.__class__"), {"_ours"}))


@pytest.mark.parametrize("name", DECLARED)
def test_diffusers_reads_what_our_classes_declare(name: str) -> None:
    assert name in inspect.getsource(DECLARED[name])


def test_attention_kernels_are_known_by_their_names() -> None:
    assert len(set(upstream.ATTENTION_BACKENDS.values())) == 6
    query, key, value = (noise(1, 5, 2, 8, seed=seed) for seed in range(3))
    default = dispatch_attention_fn(query, key, value)
    for name in ("native", "math"):
        attended = dispatch_attention_fn(query, key, value, backend=upstream.ATTENTION_BACKENDS[name])
        torch.testing.assert_close(attended, default)


def test_a_registered_attention_is_dispatched_to(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, name = upstream._AttentionBackendRegistry, AttentionBackendName._FLASH_3
    for table in ("_backends", "_constraints", "_supported_arg_names", "_supports_context_parallel"):
        kept = getattr(registry, table)
        monkeypatch.setattr(registry, table, kept.copy())

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return query + key + value

    upstream.register_attention(name, attention)
    query, key, value = (noise(1, 5, 2, 8, seed=seed) for seed in range(3))
    assert torch.equal(dispatch_attention_fn(query, key, value, backend=name), query + key + value)
    upstream.register_attention(name, attention)


def test_products_and_lists_of_tensors_compute_what_they_say() -> None:
    averaged, current = [noise(3, seed=1), noise(2, seed=2)], [noise(3, seed=3), noise(2, seed=4)]
    expected = [a.lerp(c, 0.25) for a, c in zip(averaged, current, strict=True)]
    upstream.move_all_towards(averaged, current, 0.25)
    torch.testing.assert_close(averaged, expected)
    upstream.copy_all(averaged, current)
    assert all(map(torch.equal, averaged, current))
    x, weight, bias = noise(4, 8), noise(6, 8, seed=1), noise(6, seed=2)
    activated = upstream.add_product_and_activate(bias, x, weight.t(), use_gelu=True)
    torch.testing.assert_close(activated, nn.functional.gelu(x @ weight.t() + bias))
    assert callable(upstream.scaled_product)
    assert isinstance(upstream.computes_bfloat16_fast(), bool)


def test_a_step_cache_is_seen_and_forgotten() -> None:
    model, inputs = tiny_transformer(), tiny_transformer_inputs()
    assert upstream.cache_config(model) is None
    assert upstream.parallel_config(model) is None
    config = FirstBlockCacheConfig(threshold=1e6)
    model.enable_cache(config)  # by `register_block`
    assert upstream.cache_config(model) is config
    calls: list[int] = []
    model.transformer_blocks[-1].attn1.register_forward_hook(lambda *_: calls.append(1))
    for expected in (1, 1, 2):
        if expected == 2:
            upstream.reset_step_cache(model)
        with torch.no_grad(), model.cache_context("test"):
            model(**inputs)
        assert len(calls) == expected


def test_a_checkpointed_block_gives_the_same() -> None:
    model = tiny_transformer()
    model.enable_gradient_checkpointing()
    block = nn.Linear(4, 4)
    x = noise(2, 4).requires_grad_()
    assert torch.equal(upstream.run_checkpointed(model, block, x), block(x))


def test_hooks_groups_and_parts_are_found() -> None:
    plain, offloaded = nn.Linear(2, 2), nn.Linear(2, 2)
    assert not upstream.has_hooks(plain)
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    assert upstream.has_hooks(offloaded)

    model = tiny_transformer()
    model.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    block = model.transformer_blocks[0]
    assert isinstance(block, FantasyIDBlock)
    assert upstream.has_hooks(block)
    group = upstream.offloading_group(block)
    assert block in group.modules
    assert {"onload_", "offload_", "stream"} <= set(dir(group))


def test_parts_of_a_network_are_offloaded_apart() -> None:
    vae = tiny_pipeline().vae
    assert isinstance(vae, AutoencoderKLCogVideoX)
    upstream.offload_parts(vae, ("encoder", "decoder"))
    assert vae._group_offload_block_modules == ["encoder", "decoder"]
    assert "_group_offload_block_modules" in inspect.getsource(group_offloading)


def test_a_pipeline_says_where_it_computes() -> None:
    pipeline: DiffusionPipeline = tiny_pipeline()
    assert upstream.execution_device(pipeline) == torch.device("cpu")

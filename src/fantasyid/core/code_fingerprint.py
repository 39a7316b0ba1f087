"""The code that a result was made with, as a hash: what is kept knows by itself when it is out of date."""

import ast
import hashlib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

_PACKAGE = __name__.partition(".")[0]
_FOLDER = Path(__file__).parents[1]


@cache
def code_fingerprint(module: str) -> str:
    """Hash what a module's results can depend on: its code, all of ours that it imports, and other packages' versions.

    Imports inside functions and by `core.optional.require` count like others. Comments, docstrings and layout do not
    count. Data files are not looked at: who reads one adds its hash.

    Args:
        module: One of this package, such as `"fantasyid.core.imaging"`.

    Returns:
        SHA-256, in hexadecimal.
    """
    ours, others, waiting = {module}, set[str](), [module]
    while waiting:
        for name in _parsed(waiting.pop())[1] - ours:
            if name.partition(".")[0] != _PACKAGE:
                others.add(name.partition(".")[0])
            elif _file(name) is not None:
                ours.add(name)
                waiting.append(name)
    parts = [f"{name} {_parsed(name)[0]}" for name in sorted(ours)]
    return hashlib.sha256("\n".join(parts + _versions(others)).encode()).hexdigest()


def _file(module: str) -> Path | None:
    """Where a module of this package lies; None if there is none of that name."""
    place = _FOLDER.joinpath(*module.split(".")[1:])
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """Hash of a module's code, and every name that it may import as a module."""
    file = _file(module)
    assert file is not None, f"there is no module {module}"
    tree = ast.parse(file.read_bytes())
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file} imports relatively"
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            imports |= {str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant)}
    return hashlib.sha256(ast.dump(_WithoutText().visit(tree)).encode()).hexdigest(), frozenset(imports)


class _WithoutText(ast.NodeTransformer):
    """Leaves out docstrings, of fields too."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Drop a string that stands alone."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def _versions(modules: set[str]) -> list[str]:
    """Name and version of what is installed of other packages."""
    owners = {owner for module in modules for owner in _distributions().get(module, ())}
    return [f"{owner} {version(owner)}" for owner in sorted(owners)]


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())

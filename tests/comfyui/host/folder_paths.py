"""Where models lie."""

from pathlib import Path

models_dir = str(Path.cwd() / "models")
_folders: dict[str, list[str]] = {}


def add_model_folder_path(folder_name: str, full_folder_path: str, is_default: bool = False) -> None:
    """Look for models of a kind in one more place."""
    places = _folders.setdefault(folder_name, [])
    if full_folder_path not in places:
        places.insert(0 if is_default else len(places), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """Places of a kind of models; KeyError for one that is not known."""
    return list(_folders[folder_name])

"""What the site has beside the files of this folder: the pages of the repository's root, and every command's options.

mkdocs calls these functions, as mkdocs.yml says.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "report.md",
}
"""Where pages of the repository's root stand in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for name, place in ROOT_PAGES.items():
        files.append(File.generated(config, place, content=_moved((ROOT / name).read_text())))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links of a page that leave this folder lead to where the site has the file."""
    for name, place in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({place}")
    return markdown


def _moved(text: str) -> str:
    """A page of the root as it must be in this folder; what the site does not have is named only."""
    text = text.replace("](docs/experiments)", "](experiments/README.md)").replace("](docs/", "](")
    for name, place in ROOT_PAGES.items():
        text = text.replace(f"]({name}", f"]({place}")
    return re.sub(r"\[([^\]]+)\]\((?!https:|#)(?![\w/.-]+\.(?:md|png|jpg)\b)[^)]+\)", r"`\1`", text)


def commands_page() -> str:
    """Every command with its options, as typer documents its parser."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from fantasyid.cli.main import app

    command = get_command(app)
    context = Context(command, obj={"TYPER_RICH_MARKUP_MODE": "rich"})
    page: str = get_docs_for_click(obj=command, ctx=context, name="fantasyid", title="Commands")
    page = page.replace("&#x27;", "'").replace("&quot;", '"')
    page = re.sub(r'<span style="font-weight: bold">(.*?)</span>', r"**\1**", page)
    return re.sub(r"^ +(fantasyid (?:.+\n)+)", lambda found: _as_code(found[1]), page, flags=re.MULTILINE)


def _as_code(command: str) -> str:
    return f"```bash\n{' '.join(command.split())}\n```\n"

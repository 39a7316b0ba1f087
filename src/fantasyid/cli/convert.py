"""`fantasyid convert`: the authors' release becomes a folder that `--model` takes."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    released_dir: Annotated[Path, typer.Argument(help="The authors' release, as the Hugging Face Hub has it.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder to make; one made before is checked instead.")],
    mesh: Annotated[
        Path | None, typer.Option(help="The authors' transform.pkl. Default: assets/transform.pkl in the release.")
    ] = None,
) -> None:
    """Convert the authors' released checkpoint (acvlab/FantasyID) to this package's layout.

    [bold]Examples[/bold]

      fantasyid convert Fantasy-ID fantasyid-5b --mesh transform.pkl

      fantasyid generate photo.jpg --prompt "a person smiles" --out smile.mp4 --model fantasyid-5b
    """
    from fantasyid.checkpoints.released.convert import convert_release
    from fantasyid.cli.progress import quieten_libraries

    quieten_libraries()
    existed = out_dir.exists()
    manifest = convert_release(released_dir, out_dir, mesh)
    size = sum(file.size_bytes for file in manifest.files.values()) / 1e9
    done = "was converted before and is unchanged" if existed else "converted"
    typer.echo(f"{out_dir}: {done}, {len(manifest.files)} files, {size:.1f} GB. Use it with --model {out_dir}")
    if manifest.ignored_config:
        typer.echo(f"Fields of the release's config that nobody reads: {', '.join(manifest.ignored_config)}", err=True)

"""``udabench predict``."""

from __future__ import annotations

from pathlib import Path

import click

from udabench.cli.options import device_option, plugin_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format", "style", type=click.Choice(["color", "trainids", "cityscapes-server", "overlay"]), default="color",
    show_default=True, help="What is written for each image.",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="[<run>/predictions/<folder>-<format>]")
@click.option("--predictor", metavar="NAME", help="student or teacher; none: the paper's choice.")
@plugin_option
@device_option
def predict(
    run: Path,
    folder: Path,
    style: str,
    output: Path | None,
    predictor: str | None,
    plugins: tuple[Path, ...],
    device: str | None,
) -> None:
    """Segment the images of FOLDER (and its subfolders) with RUN, a run folder or a checkpoint."""
    from rich.console import Console
    from rich.progress import track

    from udabench.errors import DataError
    from udabench.run.predict import Predictor, find_images
    from udabench.run.trained import load_trained

    console = Console(highlight=False, soft_wrap=True)
    images = find_images(folder)
    trained = load_trained(run, device or "auto", plugins)
    into = output or trained.folder / "predictions" / f"{folder.resolve().name}-{style}"
    segmenter = Predictor(trained, style, predictor)
    failures = []
    for path in track(images, "Segmenting", console=Console(stderr=True)):
        try:
            segmenter.write(path, into / path.relative_to(folder).with_suffix(".png"))
        except DataError as error:
            failures.append(str(error))
    console.print(f"{len(images) - len(failures)} of {len(images)} images segmented: {into}", markup=False)
    if failures:
        raise DataError("Some images could not be segmented:\n" + "\n".join(failures))

"""``udabench translate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udabench.cli.options import device_option, load, plugin_option
from udabench.errors import UsageError

if TYPE_CHECKING:
    from udabench.size import Size
    from udabench.translate.pictures import Pictures


@click.command()
@click.argument("source", metavar="PICTURE|FOLDER|DATASET")
@click.option("--with", "engine", required=True, metavar="NAME", help="The engine: see 'udabench translators'.")
@click.option("--to", "target", metavar="PICTURE|FOLDER|DATASET", help="Whose look is taken on.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="An option of the engine, or the folder of a data set (data.NAME=FOLDER); may be repeated.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="[translated/<engine>]")
@click.option("--count", default=8, show_default=True, type=click.IntRange(1), help="Pictures, evenly spread.")
@click.option("--size", metavar="WxH", help="Size at which they are translated. [their own]")
@click.option("--split", default="train", show_default=True, help="Split of data sets.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@plugin_option
@device_option
def translate(
    source: str,
    engine: str,
    target: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    count: int,
    size: str | None,
    split: str,
    seed: int,
    plugins: tuple[Path, ...],
    device: str | None,
) -> None:
    """Translate pictures and write each beside its original, to be looked at.

    \b
    udabench translate toycity --with fda --to toycity-real
    udabench translate photo.jpg --with weather --set kinds=[fog]
    """
    import torch

    from udabench.data.resize import resize_image
    from udabench.device import choose_device
    from udabench.translate.build import build_translator, check_names
    from udabench.translate.pictures import open_pictures, save_page, translate_picture

    registry = load(plugins)
    options, roots = _read_options(overrides, registry.datasets.names())
    translator = build_translator(registry.translators, engine, options)
    _check_pairing(engine, translator.paired, target)
    wanted, place = _parse_size(size), choose_device(device or "auto")
    pictures = open_pictures(source, split, registry, roots)
    partners = None if target is None else open_pictures(target, split, registry, roots)
    names = pictures.evenly(count)
    check_names(translator, names)
    folder = out or Path("translated") / engine
    files = [folder / f"{name}.png" for name in names]
    _check_free(files, pictures, partners)
    styles = [None] * len(names) if partners is None else _in_turn(partners, len(names))
    rng = torch.Generator().manual_seed(seed)
    translator.to(place)
    for name, style, file in zip(names, styles, files, strict=True):
        image = pictures.read(name)
        image = image if wanted is None else resize_image(image, wanted)
        look = None if partners is None or style is None else partners.read(style)
        translated = translate_picture(translator, name, image, look, rng, place)
        save_page(file, [(name, image), (f"look of {style}", look), (engine, translated)])
        click.echo(file)


def _check_pairing(engine: str, paired: bool, target: str | None) -> None:
    if paired and target is None:
        raise UsageError(f"Translator '{engine}' takes on the look of other pictures: name them with --to.")
    if target is not None and not paired:
        raise UsageError(f"Translator '{engine}' looks at no other pictures: leave out --to {target}.")


def _read_options(overrides: tuple[str, ...], datasets: list[str]) -> tuple[dict[str, Any], Mapping[str, Path]]:
    """The engine's options, and the folders of data sets."""
    from udabench.config import MethodConfig
    from udabench.resolve import Layer, parse_overrides, resolve, user_layer

    values = parse_overrides(overrides)
    data = {key: value for key, value in values.items() if key.startswith("data.")}
    config = resolve(MethodConfig, [user_layer(), Layer("command line", data)], datasets).config
    return {key: value for key, value in values.items() if key not in data}, config.data.roots


def _parse_size(text: str | None) -> Size | None:
    from udabench.size import Size

    try:
        return None if text is None else Size.parse(text)
    except ValueError as error:
        raise UsageError(f"--size: {error}") from None


def _in_turn(partners: Pictures, count: int) -> list[str]:
    """Evenly spread over all partners; from the first again where they are too few."""
    names = partners.evenly(count)
    return [names[i % len(names)] for i in range(count)]


def _check_free(files: list[Path], *read: Pictures | None) -> None:
    """Raises UsageError where a picture that is read would be written over."""
    inputs = {file.resolve() for pictures in read if pictures is not None for file in pictures.files}
    for file in files:
        if file.resolve() in inputs:
            raise UsageError(f"{file} is one of the pictures: it would be written over. Choose another --out.")

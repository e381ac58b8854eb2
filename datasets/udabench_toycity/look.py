"""The two looks. All that separates source and target stands here: colours, light, texture, noise, blur and haze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from udabench_toycity.camera import Color, mix
from udabench_toycity.dice import Dice
from udabench_toycity.palette import PALETTE, SKIES

Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """Ranges from which each picture draws its values.

    Attributes:
        key: part of every picture's random key, so that the looks share no scene.
        strength: how far a picture goes from the game's values (0) to these (1); above 1 is beyond.
        photo_colors: share of the photo palette in the colours.
        overcast: share of pictures with a grey sky.
        saturation, contrast: factors.
        gain: factor of red, green and blue.
        gamma: 0.5 is neutral, below it darkens the middle tones.
        noise: standard deviation in grey values.
        texture: relative amplitude of surfaces' texture.
        blur: variance of the blur in pixels squared.
        vignette: darkening in the corners.
        mottle: amplitude of broad light and dark patches.
        sun: depth of cast shadows.
        haze: distance in metres at which 40 % of the colour is left.
        camera: height in metres.
        trees, people: factors on their numbers.
    """

    key: int
    strength: Range
    photo_colors: Range
    overcast: float
    saturation: Range
    contrast: Range
    gain: tuple[Range, Range, Range]
    gamma: Range
    noise: Range
    texture: Range
    blur: Range
    vignette: Range
    mottle: Range
    sun: Range
    haze: Range
    camera: Range
    trees: float
    people: float


GAME = Look(
    key=1,
    strength=(1.0, 1.0),
    photo_colors=(0.0, 0.0),
    overcast=0.25,
    saturation=(1.15, 1.3),
    contrast=(1.0, 1.08),
    gain=((0.98, 1.02), (0.98, 1.02), (0.98, 1.02)),
    gamma=(0.49, 0.52),
    noise=(1.0, 2.0),
    texture=(0.2, 0.3),
    blur=(0.12, 0.25),
    vignette=(0.0, 0.0),
    mottle=(0.0, 0.05),
    sun=(0.25, 0.4),
    haze=(300.0, 500.0),
    camera=(1.5, 1.7),
    trees=1.0,
    people=1.0,
)
PHOTO = Look(
    key=2,
    strength=(0.7, 1.2),
    photo_colors=(0.5, 1.0),
    overcast=0.6,
    saturation=(0.54, 0.76),
    contrast=(0.82, 1.0),
    gain=((1.04, 1.15), (0.97, 1.03), (0.84, 0.95)),
    gamma=(0.42, 0.58),
    noise=(1.7, 2.4),
    texture=(0.3, 0.42),
    blur=(0.45, 1.15),
    vignette=(0.12, 0.32),
    mottle=(0.12, 0.28),
    sun=(0.0, 0.55),
    haze=(100.0, 230.0),
    camera=(1.3, 1.55),
    trees=1.25,
    people=1.3,
)


@dataclass(frozen=True)
class Style:
    """The values of one picture; the fields of :class:`Look`, drawn."""

    photo_colors: float
    sky: tuple[Color, Color]
    clouds: float
    saturation: float
    contrast: float
    gain: tuple[float, float, float]
    gamma: float
    noise: float
    texture: float
    blur: float
    vignette: float
    mottle: float
    sun: float
    sun_side: int
    haze: float
    camera: float
    trees: float
    people: float

    def color(self, dice: Dice, name: str) -> Color:
        """A colour of this material, between the two palettes."""
        game, photo = PALETTE[name]
        base = dice.pick(game) if self.photo_colors <= 0 else mix(dice.pick(game), dice.pick(photo), self.photo_colors)
        change = dice.between(0.9, 1.1)
        return min(255, int(base[0] * change)), min(255, int(base[1] * change)), min(255, int(base[2] * change))


def draw_style(look: Look, dice: Dice) -> Style:
    """One picture's values; a strength other than 1 moves each from the game's middle towards or past the look's."""
    strength = dice.between(*look.strength)

    def value(own: Range, game: Range) -> float:
        middle = (game[0] + game[1]) / 2
        return middle + strength * (dice.between(*own) - middle)

    overcast = dice.chance(look.overcast)
    colors = min(1.0, strength * dice.between(*look.photo_colors))
    gain = [value(own, game) for own, game in zip(look.gain, GAME.gain, strict=True)]
    return Style(
        photo_colors=colors,
        sky=_sky(dice, overcast, colors),
        clouds=dice.between(0.0, 0.25) if overcast else dice.between(0.0, 1.0),
        saturation=value(look.saturation, GAME.saturation),
        contrast=value(look.contrast, GAME.contrast),
        gain=(gain[0], gain[1], gain[2]),
        gamma=value(look.gamma, GAME.gamma),
        noise=value(look.noise, GAME.noise),
        texture=value(look.texture, GAME.texture),
        blur=max(0.1, value(look.blur, GAME.blur)),
        vignette=value(look.vignette, GAME.vignette),
        mottle=max(0.0, value(look.mottle, GAME.mottle)),
        sun=dice.between(*look.sun) * (0.5 if overcast else 1.0),
        sun_side=dice.sign(),
        haze=dice.between(*look.haze),
        camera=dice.between(*look.camera),
        trees=look.trees,
        people=look.people,
    )


def _sky(dice: Dice, overcast: bool, photo: float) -> tuple[Color, Color]:
    options: Sequence[tuple[Color, Color]] = SKIES["grey" if overcast else "blue"]
    top, low = dice.pick(options)
    dull = 0.45 * photo if not overcast else 0.0
    return mix(top, (168, 170, 172), dull), mix(low, (205, 203, 198), dull)

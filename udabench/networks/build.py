"""From a name to a network: ``resnet101-deeplabv2``, ``timm:convnext_tiny-light``, ``lite0``, ``<wrapper>:<name>``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from udabench.errors import UsageError, unknown
from udabench.network import Backbone, DecodeHead, Network, Options, WeightsReport
from udabench.networks.segmentation import SegmentationNetwork
from udabench.networks.weights import NONE, random_report
from udabench.registry import Registry


@dataclass(frozen=True)
class Recipe:
    """A network's name, taken apart.

    Attributes:
        wrappers: registered networks around it, outermost first.
        whole: a registered network, else None.
        backbone, argument, head: ``<backbone>[:<argument>]-<head>``, where ``whole`` is None.
    """

    wrappers: tuple[str, ...] = ()
    whole: str | None = None
    backbone: str = ""
    argument: str = ""
    head: str = ""


def build_network(
    registry: Registry, name: str, classes: int, weights: str = "imagenet", options: Mapping[str, Any] | None = None
) -> Network:
    """A network with its initial weights.

    Constructors that are called: ``Backbone(argument, **options)``, ``Head(channels, strides, classes, **options)``,
    a registered network ``Whole(classes, weights, **options)``, and one with ``wraps = True``
    ``Wrapper(build_inner, classes, **options)``, where ``build_inner()`` gives a new inner network.

    Args:
        registry: where names are looked up.
        name: ``<backbone>-<head>`` (split at the last dash), a backbone with a head of its own (``lite0``), a
            registered network, or ``<wrapper>:<inner name>``.
        classes: number of outputs.
        weights: ``imagenet``, a published name, a file, or ``none``.
        options: by name; where two parts know the same name, as ``head.<name>`` or ``{"head": {<name>: ...}}``.

    Raises:
        UsageError: an unknown name or option.
        CheckpointError: the weights cannot be had or do not cover the backbone.
    """
    recipe = parse(registry, name)
    routed = _route(registry, recipe, name, options or {})
    return _build(registry, recipe, classes, weights, routed)


def parse(registry: Registry, name: str) -> Recipe:
    """Take a network's name apart. Raises UsageError for unknown parts."""
    if name in registry.networks:
        if registry.networks.get(name).wraps:
            raise UsageError(f"Network '{name}' wraps another: write {name}:<network>, as in {name}:mit_b5-daformer.")
        return Recipe(whole=name)
    outer, colon, rest = name.partition(":")
    if colon and outer in registry.networks:
        if not registry.networks.get(outer).wraps:
            raise UsageError(f"Network '{outer}' wraps no other: write {outer} without ':{rest}'.")
        inner = parse(registry, rest)
        return replace(inner, wrappers=(outer, *inner.wrappers))
    return _parse_pair(registry, name)


def _parse_pair(registry: Registry, name: str) -> Recipe:
    encoder, dash, head = name.rpartition("-")
    if not dash:
        encoder, head = name, _default_head(registry, name)
    backbone, _, argument = encoder.partition(":")
    registry.backbones.describe(backbone)
    registry.heads.describe(head)
    return Recipe(backbone=backbone, argument=argument, head=head)


def _default_head(registry: Registry, name: str) -> str:
    backbone = name.partition(":")[0]
    head: str | None = registry.backbones.get(backbone).default_head if backbone in registry.backbones else None
    if not head:
        known = [*registry.networks.names(), *(f"{b.name}-<head>" for b in registry.backbones)]
        raise unknown("network", name, known)
    return head


def known_options(registry: Registry, name: str) -> dict[str, tuple[str, ...]]:
    """The options of each part of a network, by role: ``backbone``, ``head``, ``network``, a wrapper's name."""
    return {role: names for role, (names, _) in _parts(registry, parse(registry, name)).items()}


def _parts(registry: Registry, recipe: Recipe) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Role -> names of its options, and whether it takes any others too."""
    parts = {wrapper: _options_of(registry.networks.get(wrapper), 2) for wrapper in recipe.wrappers}
    if recipe.whole:
        return {**parts, "network": _options_of(registry.networks.get(recipe.whole), 2)}
    return {
        **parts,
        "backbone": _options_of(registry.backbones.get(recipe.backbone), 1),
        "head": _options_of(registry.heads.get(recipe.head), 3),
        "network": _options_of(SegmentationNetwork, 3),
    }


def _options_of(target: Any, fixed: int) -> tuple[tuple[str, ...], bool]:
    """What a constructor takes beyond its first ``fixed`` arguments, which :func:`build_network` gives."""
    parameters = list(inspect.signature(target).parameters.values())[fixed:]
    names = tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _route(registry: Registry, recipe: Recipe, name: str, options: Options) -> dict[str, dict[str, Any]]:
    parts = _parts(registry, recipe)
    routed: dict[str, dict[str, Any]] = {role: {} for role in parts}
    for key, value in _dotted(options, parts):
        role, dot, option = key.partition(".")
        takers = [role] if dot else [r for r, (names, _) in parts.items() if key in names]
        takers = takers or [r for r, (_, anything) in parts.items() if anything]
        option = option if dot else key
        if len(takers) > 1:
            raise UsageError(
                f"Option '{key}' of {name} is ambiguous: write {' or '.join(f'{r}.{key}' for r in takers)}."
            )
        if not takers or not (option in parts[takers[0]][0] or parts[takers[0]][1]):
            raise unknown(f"option of network {name}", key, _listing(parts))
        routed[takers[0]][option] = value
    return routed


def _dotted(options: Options, roles: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """``{"head": {"dropout": 0}}`` as ``head.dropout``; a dotted key of an unknown role stays an unknown option."""
    for key, value in options.items():
        if key in roles and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", deeper) for inner, deeper in value.items())
        elif "." in key and key.partition(".")[0] not in roles:
            raise UsageError(
                f"Option '{key}': no part of this network is called '{key.partition('.')[0]}'; "
                f"parts: {', '.join(roles)}."
            )
        else:
            yield key, value


def _listing(parts: Mapping[str, tuple[tuple[str, ...], bool]]) -> list[str]:
    names = [option for options, _ in parts.values() for option in options]
    return [f"{r}.{o}" if names.count(o) > 1 else o for r, (options, _) in parts.items() for o in options]


def _build(registry: Registry, recipe: Recipe, classes: int, weights: str, routed: Mapping[str, Options]) -> Network:
    if recipe.wrappers:
        outer, inner = recipe.wrappers[0], replace(recipe, wrappers=recipe.wrappers[1:])
        wrapper = registry.networks.get(outer)
        reports: list[WeightsReport] = []

        def build_inner() -> Network:
            built = _build(registry, inner, classes, weights, routed)
            reports.extend(built.reports)
            return built

        wrapped: Network = wrapper(build_inner, classes, **routed[outer])
        # A wrapper says nothing of the weights inside unless it has loaded some of its own.
        wrapped.reports = wrapped.reports or tuple(dict.fromkeys(reports))
        return wrapped
    if recipe.whole:
        whole: Network = registry.networks.get(recipe.whole)(classes, weights, **routed["network"])
        return whole
    return _build_pair(registry, recipe, classes, weights, routed)


def _build_pair(
    registry: Registry, recipe: Recipe, classes: int, weights: str, routed: Mapping[str, Options]
) -> SegmentationNetwork:
    backbone: Backbone = registry.backbones.get(recipe.backbone)(recipe.argument, **routed["backbone"])
    report = random_report(backbone) if weights == NONE else backbone.load_weights(weights)
    head: type[DecodeHead] = registry.heads.get(recipe.head)

    def make_head(channels: Sequence[int], strides: Sequence[int]) -> DecodeHead:
        return head(channels, strides, classes, **routed["head"])

    network = SegmentationNetwork(backbone, make_head, classes, **routed["network"])
    network.reports = (report,)
    return network

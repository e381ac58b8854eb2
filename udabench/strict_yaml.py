"""YAML in which a mapping says each key once: a plain reader keeps the last of two values and drops the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from yaml import SafeLoader
else:
    # The same reader in C, where PyYAML was built with it, is several times as fast: a method may have fifty presets.
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        said: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in said:
                    raise yaml.constructor.ConstructorError(
                        problem=f"'{key.value}' stands twice", problem_mark=key.start_mark
                    )
                said.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """As ``yaml.safe_load``. Raises yaml.YAMLError, also for a key that stands twice."""
    return yaml.load(text, Loader=_Loader)

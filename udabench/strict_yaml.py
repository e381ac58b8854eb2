"""YAML in which a mapping says each key once: a plain reader keeps the last of two values and drops the other."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
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

"""Values for fields of a config, from text."""

import ml_collections

from kipjax import checks

__all__ = ["parse"]


def parse(where: str, text: str, config: ml_collections.ConfigDict) -> list[tuple[str, object]]:
    """``[(field, value), ...]`` from ``FIELD=VALUE,VALUE``; values get the type that the field has.

    Args:
      where: the flag, for errors.
      text: what it says; ``FIELD`` has dots, as ``method.learning_rate``.
      config: the experiment.

    Raises:
      InputError: there is no such field, it holds more than one value, or a value is of another type.
    """
    field, _, values = text.partition("=")
    checks.require(bool(field and values), where, f"{text!r} is not FIELD=VALUE,VALUE,...")
    node = config
    for part in field.split("."):
        checks.one_of(where, f"field of {field}", part, node.keys() if hasattr(node, "keys") else ())
        node = node[part]
    plain = isinstance(node, (bool, int, float, str))
    inside = f"one of its fields ({', '.join(node.keys())})" if hasattr(node, "keys") else "another field"
    checks.require(plain, where, f"{field} is {node!r}; only single values can be given: take {inside}")
    return [(field, _typed(where, field, value, node)) for value in values.split(",")]


def _typed(where, field, text, like):
    try:
        return {"true": True, "false": False}[text.lower()] if isinstance(like, bool) else type(like)(text)
    except (KeyError, TypeError, ValueError):
        kind = type(like).__name__
        raise checks.InputError(f"{where}: {field} is {text!r}; expected {kind}, as in {like!r}") from None

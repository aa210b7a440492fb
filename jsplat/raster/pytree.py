"""Frozen dataclasses that are JAX pytrees and may hold anything while JAX looks through them."""

import dataclasses
import typing

import jax

T = typing.TypeVar("T")


def static(default: typing.Any = dataclasses.MISSING) -> typing.Any:
    """A field that is part of the tree's structure (hashable, never traced), such as an image's width."""
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={"static": True})
    return dataclasses.field(default=default, metadata={"static": True})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass registered with JAX.

    Unflattening bypasses `__init__`, because JAX rebuilds trees of non-arrays (axes, shardings, optimizer labels) that
    no runtime shape check could accept.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(self):
        children = tuple((jax.tree_util.GetAttrKey(k), getattr(self, k)) for k in data)
        return children, tuple(getattr(self, k) for k in meta)

    def unflatten(aux, children):
        self = object.__new__(cls)
        for key, value in (*zip(data, children), *zip(meta, aux)):
            object.__setattr__(self, key, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def replace(tree: T, **changes: typing.Any) -> T:
    """`dataclasses.replace`, typed for the classes made by `pytree`."""
    return dataclasses.replace(tree, **changes)  # type: ignore[type-var]
